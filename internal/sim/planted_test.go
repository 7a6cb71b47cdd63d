//go:build linux && amd64

package sim_test

import (
	"testing"

	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/internal/sim/host"
)

// plantedSeeds is how many seeds a planted bug may take to be found.
const plantedSeeds = 3000

// TestEveryPlantedBugIsFound plants bugs in the protocol, the transactions and the
// shells, one at a time: some seed must fail.
func TestEveryPlantedBugIsFound(t *testing.T) {
	r := build(t, "fewslots", "plant")
	for _, bug := range plant.Cluster {
		t.Run(string(bug), func(t *testing.T) {
			done, found := 0, false
			err := r.RunAll(t.Context(), 0, plantedSeeds, 2, nil, []string{"TENURE_PLANT=" + string(bug)}, func(x host.Result, err error) bool {
				done++
				if found = err != nil || x.Report.Failure != ""; found {
					t.Logf("%s: found after %d seeds: seed %d: %.200s%v", bug, done, x.Seed, x.Report.Failure, err)
				}
				return !found
			})
			if err != nil || !found {
				t.Errorf("%s: not found in %d seeds, %v", bug, done, err)
			}
		})
	}
}
