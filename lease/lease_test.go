package lease

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

var (
	seeds = flag.Int("lease.seeds", 300, "how many seeds TestAdversary plays")
	trace = flag.Bool("lease.trace", false, "print what happens")
	first = flag.Uint64("lease.seed", 1, "the first of them")
)

// play runs one seed and returns what was violated, if anything.
func play(seed uint64) (a *adversary, found string) {
	const steps = 4000
	a = newAdversary(seed, steps)
	if *trace {
		a.trace = func(line string) { fmt.Println(line) }
	}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			found = v.text
		case string:
			if !strings.HasPrefix(v, "lease:") {
				panic(v)
			}
			found = v
		default:
			panic(v)
		}
	}()
	a.run()
	return a, ""
}

// TestAdversary plays many seeds; each must end with all transactions ended and
// no invariant violated. Run one seed again with -lease.seed=N -lease.seeds=1.
func TestAdversary(t *testing.T) {
	coverage := map[string]int{}
	done, gone := 0, 0
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		a, found := play(seed)
		if found != "" {
			t.Errorf("seed %d: at step %d: %s", seed, a.now, found)
		}
		for name, n := range a.coverage {
			coverage[name] += n
		}
		for _, x := range a.txns {
			if x.state == txnDone {
				done++
			} else {
				gone++
			}
		}
	}
	t.Logf("%d transactions done, %d lost with their worker", done, gone)
	for _, name := range slices.Sorted(maps.Keys(coverage)) {
		t.Log(fmt.Sprintf("%8d %s", coverage[name], name))
	}
}
