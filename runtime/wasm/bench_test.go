package wasm

import (
	"context"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/sdk/go"
)

// benchHost answers Get without a lookup, so that what is measured is the way to it and back.
type benchHost struct {
	fakeHost
	value []byte
}

func (h *benchHost) Get(_, _ string) ([]byte, bool, error) { return h.value, true, nil }

// BenchmarkCallGet compares a handler with one Get of 100 bytes in the two runtimes, and the engine's own cost of a call
// with one host call. The bound to keep: wasm is at most 1 microsecond over native plus the engine.
func BenchmarkCallGet(b *testing.B) {
	host := &benchHost{value: make([]byte, 100)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	run := func(bundle runtime.Bundle, handler string) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			call := runtime.Call{Handler: handler, Input: []byte(`{"from":"ann"}`), Host: host}
			for b.Loop() {
				if _, err := bundle.Invoke(ctx, call); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	handlers := map[string]tenure.Handler{"get": func(ctx *tenure.Context) ([]byte, error) {
		value, _, err := ctx.Get("accounts", "ann")
		return value, err
	}}
	compiled, err := native.New(handlers)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("native", run(compiled, "get"))
	b.Run("engine", benchmarkEngine)
	b.Run("wasm", run(shared(b), "get"))
	b.Run("wasm-noop", run(shared(b), "noop"))
	b.Run("wasm-json", run(shared(b), "json"))
	b.Run("wasm-decode", run(shared(b), "decode"))
	smallest := loadSmall(b, Options{}, guestOf(invokeWith(return0...)), false)
	b.Run("hand-made-noop", run(smallest, "h"))
	isolated := load(b, Options{}, true)
	b.Run("wasm-isolated", run(isolated, "get"))
}

// benchmarkEngine is what wazero needs for a call of an unmetered module that calls one trivial host function.
func benchmarkEngine(b *testing.B) {
	ctx := context.Background()
	engine := wazero.NewRuntime(ctx)
	defer engine.Close(ctx)
	host := engine.NewHostModuleBuilder("tenure").NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(context.Context, api.Module, []uint64) {}), types("iiiiii"), types("I"))
	if _, err := host.Export("get").Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	arguments := []byte{0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0x10, 0, 0x1a, 0x41, 0}
	m := guestOf(invokeWith(arguments...))
	m.imports = []asmImport{{"tenure", "get", "iiiiii", "I"}}
	module, err := engine.Instantiate(ctx, m.bytes())
	if err != nil {
		b.Fatal(err)
	}
	invoke := module.ExportedFunction(exportInvoke)
	stack := make([]uint64, 2)
	for b.Loop() {
		if err := invoke.CallWithStack(ctx, stack); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart measures a new instance of a Go guest.
func BenchmarkStart(b *testing.B) {
	r := shared(b).runtime
	for b.Loop() {
		in, err := r.start(context.Background(), shared(b))
		if err != nil {
			b.Fatal(err)
		}
		in.close()
	}
}

// BenchmarkLoad measures a Go module that is in the cache, and one that is not.
func BenchmarkLoad(b *testing.B) {
	for _, dir := range []string{"", shared(b).runtime.opt.CacheDir} {
		name := "cached"
		if dir == "" {
			name = "new"
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r, err := New(context.Background(), Options{CacheDir: dir})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.Load(context.Background(), "guest", sharedGuest(b).module, false); err != nil {
					b.Fatal(err)
				}
				if err := r.Close(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
