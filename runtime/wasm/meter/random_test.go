package meter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// programs is the number of random programs of each test; the number of a program is its seed.
const programs = 300

// outcome is all that a caller can see of an instance after a series of calls, as text.
func outcome(mod api.Module, funcs []sig, args []uint64) string {
	var b strings.Builder
	for i, f := range funcs {
		results, err := mod.ExportedFunction(fmt.Sprintf("f%d", i)).Call(context.Background(), args[:len(f.params)]...)
		if err != nil {
			// The first line names the trap; the stack trace behind it has shifted indices.
			err = errors.New(strings.SplitN(err.Error(), "\n", 2)[0])
		}
		fmt.Fprintf(&b, "f%d %v %v\n", i, results, err)
	}
	for i := range globalTypes {
		fmt.Fprintf(&b, "v%d %d\n", i, mod.ExportedGlobal(fmt.Sprintf("v%d", i)).Get())
	}
	memory, _ := mod.Memory().Read(0, mod.Memory().Size())
	fmt.Fprintf(&b, "memory %x\n", bytes.TrimRight(memory, "\x00"))
	return b.String()
}

func TestRandomProgramsComputeTheSame(t *testing.T) {
	h := newHost(t)
	h.slice = 3 // many yields
	ctx := context.Background()
	kinds := map[string]int{}
	for seed := range uint64(programs) {
		g := newGenerator(seed, true)
		code := g.module()
		args := []uint64{uint64(g.n(1 << 20)), uint64(g.n(10)), uint64(g.n(1 << 30))}
		out, err := meter.Rewrite(code, meter.Options{Slice: 5})
		if err != nil {
			t.Fatalf("seed %d: %v\n%x", seed, err, code)
		}
		var outcomes []string
		for _, c := range [][]byte{code, out.Code} {
			mod, err := h.runtime.InstantiateWithConfig(ctx, c, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatalf("seed %d: %v\noriginal %x\nthis %x", seed, err, code, c)
			}
			outcomes = append(outcomes, outcome(mod, g.funcs, args))
			mod.Close(ctx)
		}
		if outcomes[0] != outcomes[1] {
			t.Fatalf("seed %d: original\n%s\nmetered\n%s\n%x", seed, outcomes[0], outcomes[1], code)
		}
		if strings.Contains(outcomes[0], "error") {
			kinds["trapped"]++
		}
		if !strings.Contains(outcomes[0], "v0 300") {
			kinds["used steps"]++
		}
		kinds["checks"] += out.Checks
		kinds["loops"] += out.Loops
	}
	t.Logf("%d yields, %v", h.yields, kinds)
	if h.yields == 0 || kinds["used steps"] == 0 {
		t.Error("the programs do not loop; the generator is broken")
	}
}

// TestRandomProgramsAreStopped runs programs whose loops and recursion have no bound of their own. Each must end by
// itself, by a trap, or by yield. The engine's own interruption at loop headers is the safety net of the test: reaching it
// means that a loop has no check.
func TestRandomProgramsAreStopped(t *testing.T) {
	const maxYields = 200
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true))
	defer rt.Close(ctx)
	yields := 0
	yield := func(_ context.Context, stack []uint64) {
		if yields++; yields > maxYields {
			panic(errStopped)
		}
		stack[0] = 50
	}
	_, err := rt.NewHostModuleBuilder(meter.YieldModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(yield), nil, []api.ValueType{api.ValueTypeI64}).Export(meter.YieldName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stopped := 0
	for seed := range uint64(programs) {
		g := newGenerator(seed, false)
		code := g.module()
		args := []uint64{uint64(g.n(1 << 20)), uint64(g.n(10)), uint64(g.n(1 << 30))}
		out, err := meter.Rewrite(code, meter.Options{})
		if err != nil {
			t.Fatalf("seed %d: %v\n%x", seed, err, code)
		}
		for i, f := range g.funcs {
			mod, err := rt.InstantiateWithConfig(ctx, out.Code, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			yields = 0
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err = mod.ExportedFunction(fmt.Sprintf("f%d", i)).Call(limited, args[:len(f.params)]...)
			if limited.Err() != nil {
				t.Fatalf("seed %d: f%d%v was not stopped by yield: %v\n%x", seed, i, args, err, code)
			}
			cancel()
			if errors.Is(err, errStopped) {
				stopped++
			}
			mod.Close(ctx)
		}
	}
	t.Logf("%d calls were stopped by yield", stopped)
	if stopped == 0 {
		t.Error("no program was endless; the generator is broken")
	}
}

// TestSnapshotGlobals saves the exported globals of one instance and restores them in another.
func TestSnapshotGlobals(t *testing.T) {
	// g0 is i32 and mutable, g1 i64 and constant, g2 f64 and mutable; f adds 1 to g0.
	code := wasm(
		sec(1, vec(typ(nil, []byte{i32}))), sec(3, vec(u(0))),
		sec(6, vec([]byte{i32, 1, i32Const, 5, end}, []byte{i64, 0, i64Const, 6, end},
			cat([]byte{f64, 1, 0x44}, make([]byte, 8), []byte{end}))),
		sec(7, vec(export("f", 0, 0))),
		sec(10, vec(fn(nil, globalGet, 0, i32Const, 1, i32Add, globalSet, 0, globalGet, 0))),
	)
	out := rewrite(t, code)
	if want := []string{"tenure_rt.g0", "tenure_rt.g2"}; !slices.Equal(out.SnapshotGlobals, want) {
		t.Fatalf("snapshot globals are %q, want %q", out.SnapshotGlobals, want)
	}
	if !out.Snapshotable {
		t.Error("the module is not snapshotable")
	}
	h := newHost(t)
	first, second := h.instance(t, out.Code), h.instance(t, out.Code)
	run(t, first, "f")
	run(t, first, "f")
	for _, name := range out.SnapshotGlobals {
		second.ExportedGlobal(name).(api.MutableGlobal).Set(first.ExportedGlobal(name).Get())
	}
	if got := run(t, second, "f"); got[0] != 8 {
		t.Errorf("the restored instance answers %d, want 8", got[0])
	}
}
