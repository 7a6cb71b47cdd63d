package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

func TestLoadRefuses(t *testing.T) {
	good := guestOf(invokeWith(return0...))
	with := func(change func(*asm)) []byte {
		m := good
		m.funcs = append([]asmFunc(nil), good.funcs...)
		change(&m)
		return m.bytes()
	}
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b} // loop; br 0; end
	for _, tt := range []struct {
		name   string
		module []byte
		text   string
	}{
		{"empty", nil, "not a WebAssembly module"},
		{"text", []byte("package main\n"), "not a WebAssembly module"},
		{"cut off", good.bytes()[:40], "refused at byte"},
		{"wrong code", with(func(m *asm) { m.funcs[1].code = nil }), "invalid function"},
		{"no memory export", with(func(m *asm) { m.memory = "-" }), `no export "memory"`},
		{"other memory export", with(func(m *asm) { m.memory = "mem" }), `no export "memory"`},
		{"no tenure_handlers", with(func(m *asm) { m.funcs[0].export = "x" }), `no export "tenure_handlers"`},
		{"no tenure_invoke", with(func(m *asm) { m.funcs[1].export = "" }), `no export "tenure_invoke"`},
		{"wrong signature", with(func(m *asm) { m.funcs[1].params = "i" }), `"tenure_invoke" is (i32) -> (i32), it must be (i32, i32) -> (i32)`},
		{"no handler", with(func(m *asm) { m.funcs[0] = handlersAt0("") }), "registers no handler"},
		{"bad handler name", with(func(m *asm) { m.data = "a b"; m.funcs[0] = handlersAt0("a b") }), `handler name "a b"`},
		{"duplicate handler", with(func(m *asm) { m.data = "a\na"; m.funcs[0] = handlersAt0("a\na") }), `"a" twice`},
		{"too many handlers", with(func(m *asm) {
			m.data = strings.Repeat("a\n", maxHandlers) + "a"
			m.funcs[0] = handlersAt0(m.data)
		}), "1001 handlers"},
		{"handlers outside the memory", with(func(m *asm) {
			m.funcs[0].code = append([]byte{0x42}, sleb(65530<<32|10)...)
		}), "10 bytes at 65530, which is outside"},
		{"handlers absurdly long", with(func(m *asm) { m.funcs[0].code = append([]byte{0x42}, sleb(-1)...) }), "the limit is"},
		{"handlers trap", with(func(m *asm) { m.funcs[0].code = []byte{0} }), "unreachable"},
		{"handlers never end", with(func(m *asm) { m.funcs[0].code = append(loop, 0) }), "longer than"},
		{"foreign imports", with(func(m *asm) {
			m.imports = []asmImport{{"env", "now", "", "I"}, {"tenure", "gett", "", ""}}
		}), "not provided: env.now, tenure.gett"},
		{"many foreign imports", with(func(m *asm) {
			for i := range 8 {
				m.imports = append(m.imports, asmImport{"env", fmt.Sprint("f", i), "", ""})
			}
		}), "env.f4 and 3 more"},
		{"import with a wrong signature", with(func(m *asm) {
			m.imports = []asmImport{{"tenure", "now", "i", "I"}}
		}), "tenure.now (it is () -> (i64), not (i32) -> (i64))"},
		{"import of the meter", with(func(m *asm) {
			m.imports = []asmImport{{"tenure_rt", "yield", "", "I"}}
		}), "reserved"},
		{"trap at start", with(func(m *asm) {
			m.funcs = append(m.funcs, asmFunc{code: []byte{0}})
			m.start = true
		}), "does not start: crashed: unreachable"},
		{"trap in _initialize", with(func(m *asm) {
			m.funcs = append(m.funcs, asmFunc{export: exportInit, code: []byte{0}})
		}), "does not start: crashed: unreachable"},
		{"endless start", with(func(m *asm) {
			m.funcs = append(m.funcs, asmFunc{code: loop})
			m.start = true
		}), "the start took longer than 100ms"},
		{"transaction at start", with(func(m *asm) {
			m.imports = []asmImport{{"tenure", "rand", "", "I"}}
			m.funcs = append(m.funcs, asmFunc{code: []byte{0x10, 0, 0x1a}})
			m.start = true
		}), "rand was called while the module starts"},
		{"huge table", with(func(m *asm) { m.table = append([]byte{0}, uleb(1<<27)...) }), "the limit is 262144"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := New(t.Context(), Options{StartTimeout: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Load(t.Context(), "f", tt.module, false)
			e, ok := errors.AsType[*base.Error](err)
			if !ok || e.Kind != base.Invalid || e.Subject != "module" || !strings.Contains(e.Detail, tt.text) {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if r.live != 0 {
				t.Errorf("%d instances are left", r.live)
			}
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoadRefusesAGoProgramThatIsNoFunction(t *testing.T) {
	// An init function that panics is what two handlers of one name look like.
	module, err := buildGuest(t.TempDir(), "./testdata/twice")
	if err != nil {
		t.Fatal(err)
	}
	_, err = shared(t).runtime.Load(t.Context(), "twice", module, false)
	if err == nil || !strings.Contains(err.Error(), `panic: tenure: handler "a" is registered twice`) {
		t.Errorf("error %v", err)
	}
}

// TestTableCannotGrow has a guest that asks for 2^27 elements, which would be a gigabyte of the host's memory.
func TestTableCannotGrow(t *testing.T) {
	// ref.null func; i32.const 2^27; table.grow 0; i32.const -1; i32.ne
	code := append([]byte{0xd0, 0x70, 0x41}, sleb(1<<27)...)
	code = append(code, 0xfc, 15, 0, 0x41, 0x7f, 0x47)
	m := guestOf(invokeWith(code...))
	m.table = []byte{0, 1}
	b := loadSmall(t, Options{}, m, false)
	if _, err := invoke(t, b, "h", ""); err != nil {
		t.Errorf("the table grew: %v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	// i32.const 16; memory.grow; i32.const -1; i32.ne
	code := []byte{0x41, 16, 0x40, 0, 0x41, 0x7f, 0x47}
	if _, err := invoke(t, loadSmall(t, Options{MemoryLimit: 16 * pageBytes}, guestOf(invokeWith(code...)), false), "h", ""); err != nil {
		t.Errorf("a memory of 17 pages under a limit of 16: %v", err)
	}
	b := loadSmall(t, Options{MemoryLimit: 17 * pageBytes}, guestOf(invokeWith(code...)), false)
	if _, err := invoke(t, b, "h", ""); base.KindOf(err) != base.Aborted {
		t.Errorf("a memory of 17 pages under a limit of 17: %v", err)
	}
	b.runtime.refills.Wait()
	if s := b.Stats(); s.Idle != 1 || s.Instantiations != 2 {
		t.Errorf("an instance at its limit was not replaced: %+v", s)
	}
}

func TestOptions(t *testing.T) {
	for _, opt := range []Options{
		{MemoryLimit: 1}, {MemoryLimit: 4 << 30}, {MaxInstances: -1}, {MaxIdle: -1}, {RecycleAfter: -1},
		{StartTimeout: -1}, {Slice: -1}, {CacheDir: "/dev/null/x"},
	} {
		if r, err := New(t.Context(), opt); err == nil {
			t.Errorf("%+v was accepted", opt)
			_ = r.Close(context.Background())
		}
	}
}

// loadSmall loads a hand-made module.
func loadSmall(t testing.TB, opt Options, m asm, isolate bool) *Bundle {
	t.Helper()
	r, err := New(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b, err := r.Load(context.Background(), "small", m.bytes(), isolate)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*Bundle)
}

var _ runtime.Bundle = (*Bundle)(nil)
