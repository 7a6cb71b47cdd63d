package sim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// opener opens nodes on f as other providers do.
func opener(f *sim.Fabric) func(string) (rdma.Provider, error) {
	return func(name string) (rdma.Provider, error) {
		p, err := f.Open(name)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
}

func TestMain(m *testing.M) {
	rdmatest.Main(m, opener(sim.New(sim.Options{})))
}

// TestConformance runs the suite over fabrics that lose nothing and fail
// nothing, but tear, reorder, delay, split and acknowledge early whatever they may.
func TestConformance(t *testing.T) {
	micro := time.Microsecond
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			options := sim.Options{Seed: seed, Patience: 5 * time.Millisecond}
			if seed > 0 { // the first is without any chance
				options.Faults = sim.Faults{
					Delay: sim.Range{Min: micro, Max: 20 * micro}, ReplyDelay: sim.Range{Min: micro, Max: 20 * micro},
					Reorder: 0.5, Tear: 0.5, SplitAtomics: 0.3, TimeoutStretch: 1, EarlyAck: 0.3,
				}
			}
			f := sim.New(options)
			defer func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}()
			rdmatest.Run(t, rdmatest.Simulated(opener(f), f.Crash), rdmatest.Options{
				Rounds: 100, Timeout: 20 * time.Millisecond, Window: 50 * time.Millisecond,
			})
		})
	}
}
