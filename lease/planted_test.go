package lease

import (
	"os"
	"testing"

	"github.com/tenure-faas/tenure/internal/plant"
)

// plantedSeeds is how many seeds a planted bug is looked for.
const plantedSeeds = 40000

// TestPlantedBugIsFound plays seeds, with the build tag "plant", until the bug
// that TENURE_PLANT names is found: an adversary that never found anything
// proves nothing. internal/plant runs it for every bug.
func TestPlantedBugIsFound(t *testing.T) {
	bug := plant.Bug(os.Getenv("TENURE_PLANT"))
	if bug == "" || !plant.Is(bug) {
		t.Log("no bug is planted in this build")
		return
	}
	for seed := uint64(1); seed <= plantedSeeds; seed++ {
		if a, found := play(seed); found != "" {
			t.Logf("%s: found after %d seeds, at step %d: %s", bug, seed, a.now, found)
			return
		}
	}
	t.Errorf("%s: not found in %d seeds", bug, plantedSeeds)
}
