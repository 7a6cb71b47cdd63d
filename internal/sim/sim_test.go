//go:build linux && amd64

package sim_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/tenure-faas/tenure/internal/sim/host"
)

// seedsEnv is how many seeds TestSeeds runs; make sim runs many more.
const seedsEnv = "TENURE_SIM_SEEDS"

func build(t *testing.T, tags ...string) *host.Runner {
	t.Helper()
	r, err := host.Build(t.Context(), ".", "./internal/sim/guest", tags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestSeeds runs clusters with faults, the first of them twice.
func TestSeeds(t *testing.T) {
	seeds := uint64(200)
	if n, err := strconv.ParseUint(os.Getenv(seedsEnv), 10, 64); err == nil {
		seeds = n
	}
	r := build(t, "fewslots")
	results := map[uint64]host.Result{}
	sum := map[string]int64{}
	report := func(x host.Result, err error) bool {
		results[x.Seed] = x
		if err != nil || x.Report.Failure != "" {
			t.Errorf("seed %d: %s%v", x.Seed, x.Report.Failure, err)
		}
		for name, n := range x.Report.Figures {
			sum[name] += n
		}
		return true
	}
	if err := r.RunAll(t.Context(), 0, seeds, 2, nil, nil, report); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d seeds: %v", seeds, sum)
	if sum["committed"] == 0 || sum["crashes of w"] == 0 || sum["unknown outcomes"] == 0 {
		t.Errorf("the seeds are no test: %v", sum)
	}
	for seed := range min(seeds, 50) {
		again, err := r.Run(t.Context(), seed, nil, nil, nil)
		if err != nil || again.Hash != results[seed].Hash {
			t.Errorf("seed %d does not replay: hash %x, then %x, %v", seed, results[seed].Hash, again.Hash, err)
		}
	}
}
