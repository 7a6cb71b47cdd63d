package meter_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// errStopped is what the yield function of the tests panics with when the deadline has passed.
var errStopped = errors.New("stopped at the deadline")

// compilations keeps what any runtime of the process compiled: the Go guest takes seconds.
var compilations = wazero.NewCompilationCache()

// host is a wazero runtime with the yield module.
type host struct {
	runtime wazero.Runtime
	// deadline may be written only while no guest runs.
	deadline time.Time
	// yields counts the calls of yield; it belongs to the goroutine that calls the guest.
	yields int
	slice  uint64
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(2048).WithCompilationCache(compilations)
	h := &host{
		runtime:  wazero.NewRuntimeWithConfig(ctx, config),
		deadline: time.Now().Add(time.Hour),
		slice:    10_000,
	}
	tb.Cleanup(func() { h.runtime.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, h.runtime)
	yield := func(_ context.Context, stack []uint64) {
		h.yields++
		if time.Now().After(h.deadline) {
			panic(errStopped)
		}
		stack[0] = h.slice
	}
	_, err := h.runtime.NewHostModuleBuilder(meter.YieldModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(yield), nil, []api.ValueType{api.ValueTypeI64}).Export(meter.YieldName).
		Instantiate(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// instance instantiates code without a name, so that any number may live side by side.
func (h *host) instance(tb testing.TB, code []byte) api.Module {
	tb.Helper()
	ctx := context.Background()
	compiled, err := h.runtime.CompileModule(ctx, code)
	if err != nil {
		tb.Fatalf("compile: %v", err)
	}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
	mod, err := h.runtime.InstantiateModule(ctx, compiled, config)
	if err != nil {
		tb.Fatalf("instantiate: %v", err)
	}
	return mod
}

func rewrite(tb testing.TB, code []byte) *meter.Module {
	tb.Helper()
	m, err := meter.Rewrite(code, meter.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func run(tb testing.TB, mod api.Module, name string, args ...uint64) []uint64 {
	tb.Helper()
	results, err := mod.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		tb.Fatalf("%s%v: %v", name, args, err)
	}
	return results
}

// buildGo compiles the Go guest once for all tests of the process.
var buildGo = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "meter")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = filepath.Join("testdata", "goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(text))
	}
	return os.ReadFile(out)
})

func goGuest(tb testing.TB) []byte {
	tb.Helper()
	code, err := buildGo()
	if err != nil {
		tb.Fatalf("build the Go guest: %v", err)
	}
	return code
}

func asGuest(tb testing.TB) []byte {
	tb.Helper()
	code, err := os.ReadFile(filepath.Join("testdata", "as", "guest.wasm"))
	if err != nil {
		tb.Fatal(err)
	}
	return code
}
