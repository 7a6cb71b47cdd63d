package meter_test

import (
	"slices"
	"testing"
)

// workload is one exported function of a guest and its argument.
type workload struct {
	name string
	size uint64
}

var goWorkloads = []workload{{"fib", 20}, {"sha", 100_000}, {"sorted", 5_000}, {"decode", 200}, {"deep", 5_000}}

var asWorkloads = []workload{
	{"fib", 22}, {"arith", 100_000}, {"sieve", 50_000}, {"sort", 10_000}, {"words", 2_000}, {"fill", 1 << 20},
}

func TestGuestsComputeTheSame(t *testing.T) {
	for _, guest := range []struct {
		name      string
		code      []byte
		workloads []workload
	}{
		{"go", goGuest(t), goWorkloads},
		{"assemblyscript", asGuest(t), asWorkloads},
	} {
		t.Run(guest.name, func(t *testing.T) {
			h := newHost(t)
			out := rewrite(t, guest.code)
			t.Logf("%d bytes to %d; %d functions, %d loops, %d checks, %d globals, snapshotable %v",
				len(guest.code), len(out.Code), out.Functions, out.Loops, out.Checks, len(out.SnapshotGlobals), out.Snapshotable)
			original, metered := h.instance(t, guest.code), h.instance(t, out.Code)
			for _, w := range guest.workloads {
				want, got := run(t, original, w.name, w.size), run(t, metered, w.name, w.size)
				if !slices.Equal(got, want) {
					t.Errorf("%s(%d) is %d, originally %d", w.name, w.size, got, want)
				}
			}
			if h.yields == 0 {
				t.Error("the workloads never yielded")
			}
			if a, b := original.Memory(), metered.Memory(); a.Size() != b.Size() {
				t.Errorf("memory is %d bytes, originally %d", b.Size(), a.Size())
			}
		})
	}
}
