package meter_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// FuzzRewrite checks that no input makes the rewriter panic, and that the rewrite neither breaks a valid module nor makes
// an invalid one valid. The Go guest is no seed, because a mutation of 3.4 MB takes seconds to compile.
func FuzzRewrite(f *testing.F) {
	seeds := [][]byte{wasm(), asGuest(f), callTree(), fills(2), unwinding(20)}
	for seed := range uint64(20) {
		seeds = append(seeds, newGenerator(seed, true).module())
	}
	for _, seed := range seeds {
		f.Add(seed)
		for i := 9; i < len(seed); i += 1 + len(seed)/8 {
			mutated := bytes.Clone(seed)
			mutated[i]++
			f.Add(mutated)
		}
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		original := bytes.Clone(code)
		out, err := meter.Rewrite(code, meter.Options{})
		if !bytes.Equal(code, original) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		valid, metered := compiles(code), compiles(out.Code)
		if (valid == nil) != (metered == nil) {
			t.Fatalf("original: %v\nmetered: %v\n%x", valid, metered, code)
		}
		again, err := meter.Rewrite(code, meter.Options{})
		if err != nil || !bytes.Equal(again.Code, out.Code) || !slices.Equal(again.SnapshotGlobals, out.SnapshotGlobals) {
			t.Fatal("a second rewrite differs")
		}
	})
}

// compiles returns the error of the engine for code.
func compiles(code []byte) error {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer rt.Close(ctx)
	_, err := rt.CompileModule(ctx, code)
	return err
}
