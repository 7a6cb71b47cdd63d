package sim_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// Many goroutines wait and post; whichever waits makes things happen for all.
func TestWaitDrives(t *testing.T) {
	f := newFabric(t, sim.Options{Seed: 3, Faults: sim.Faults{Delay: sim.Range{Min: us, Max: 20 * us}, Reorder: 0.5, Tear: 0.5}})
	home := open(t, f, "home")
	const users, rounds = 4, 200
	var wg sync.WaitGroup
	for i := range users {
		n := open(t, f, string(rune('a'+i)))
		x, _ := join(n, home, rdma.QueuePairOptions{})
		wg.Go(func() {
			var c [1]rdma.Completion
			for range rounds {
				if _, err := x.Post([]rdma.WorkRequest{rdma.FAA(1, n.memory.Local(0, 8), home.memory.Remote(), 0, 1)}); err != nil {
					t.Error(err)
					return
				}
				if _, err := n.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != rdma.StatusOK {
					t.Error(err, c[0].Status)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := home.memory.Load(0); got != users*rounds {
		t.Errorf("the word is %d, want %d", got, users*rounds)
	}
}

// Two nodes ring at each other's door. Each waits for the other, so a lost
// wake-up stops both.
func TestWaitersWakeEachOther(t *testing.T) {
	_, a, b, x, y := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	var wg sync.WaitGroup
	play := func(n *node, qp rdma.QueuePair, first bool) {
		rung, sent := 0, 0
		var c [4]rdma.Completion
		for rung < 300 || sent < 300 {
			if sent < 300 && (first && sent == rung || !first && sent < rung) {
				if _, err := qp.Post([]rdma.WorkRequest{{Op: rdma.OpWriteImm}}); err != nil {
					t.Error(err)
					return
				}
				sent++
				continue
			}
			k, err := n.cq.Wait(t.Context(), c[:])
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range c[:k] {
				if c.Op == rdma.OpReceive {
					rung++
				}
			}
		}
	}
	wg.Go(func() { play(a, x, true) })
	wg.Go(func() { play(b, y, false) })
	wg.Wait()
}

// A Wait for nothing ends with its context, with the queue, or with the node.
func TestWaitEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(f *sim.Fabric, n *node, cancel func())
		want error
	}{
		{"context", func(_ *sim.Fabric, _ *node, cancel func()) { cancel() }, context.Canceled},
		{"queue", func(_ *sim.Fabric, n *node, _ func()) { n.must(n.cq.Close()) }, rdma.ErrClosed},
		{"node", func(f *sim.Fabric, n *node, _ func()) { f.Crash(n.name) }, rdma.ErrClosed},
		{"fabric", func(f *sim.Fabric, n *node, _ func()) { n.must(f.Close()) }, rdma.ErrClosed},
	} {
		waitEnds := func(t *testing.T, options sim.Options) {
			synctest.Test(t, func(t *testing.T) {
				f := sim.New(options)
				n := open(t, f, "a")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						if k, err := n.cq.Wait(ctx, make([]rdma.Completion, 1)); k != 0 || !errors.Is(err, tt.want) {
							t.Errorf("Wait ended with %d, %v, want %v", k, err, tt.want)
						}
					})
				}
				synctest.Wait() // all sleep
				tt.end(f, n, cancel)
				wg.Wait()
				n.must(f.Close())
			})
		}
		t.Run(tt.name, func(t *testing.T) { waitEnds(t, sim.Options{}) })
		t.Run(tt.name+" by a clock", func(t *testing.T) {
			waitEnds(t, sim.Options{Clock: func() time.Duration { return 0 }})
		})
	}
}

// With Patience, a time-out of the simulation lets others act before it.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		patience time.Duration
		want     rdma.Status
	}{{0, rdma.StatusUnreachable}, {10 * time.Millisecond, rdma.StatusOK}} {
		synctest.Test(t, func(t *testing.T) {
			f := sim.New(sim.Options{Patience: tt.patience})
			a, b := open(t, f, "a"), open(t, f, "b")
			x, _ := join(a, b, rdma.QueuePairOptions{})
			f.Partition("a", "b")
			a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
			var wg sync.WaitGroup
			wg.Go(func() {
				var c [1]rdma.Completion
				if _, err := a.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != tt.want {
					t.Errorf("patience %v: the WRITE ended as %v, %v", tt.patience, c[0].Status, err)
				}
			})
			time.Sleep(5 * time.Millisecond) // of the bubble
			f.HealAll()
			wg.Wait()
			// And without anybody who acts, the time-out comes in the end.
			f.Partition("a", "b")
			if tt.want == rdma.StatusOK {
				a.post(x, rdma.Write(2, a.memory.Local(0, 8), b.memory.Remote(), 0))
				var c [1]rdma.Completion
				if _, err := a.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != rdma.StatusUnreachable {
					t.Errorf("the WRITE ended as %v, %v", c[0].Status, err)
				}
			}
			a.must(f.Close())
		})
	}
}

// Drive is for those who poll, or look at memory.
func TestDrive(t *testing.T) {
	f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Drive(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Drive ended with %v", err)
		}
	})
	for i := range uint64(100) {
		a.memory.Store(0, i+1)
		a.post(x, rdma.Write(i, a.memory.Local(0, 8), b.memory.Remote(), 0))
		for len(a.poll()) == 0 {
			runtime.Gosched()
		}
		if w := b.memory.Load(0); w != i+1 {
			t.Fatalf("round %d: the word is %d", i, w)
		}
	}
	cancel()
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Drive(t.Context()); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("Drive of a closed fabric ended with %v", err)
	}
}

func TestOptionsOutOfRangePanic(t *testing.T) {
	for name, options := range map[string]sim.Options{
		"probability": {Faults: sim.Faults{Tear: 1.5}},
		"range":       {Faults: sim.Faults{Delay: sim.Range{Min: 2, Max: 1}}},
		"length":      {TraceLength: -1},
		"two times":   {Clock: func() time.Duration { return 0 }, Patience: 1},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: New has taken %+v", name, options)
				}
			}()
			sim.New(options)
		}()
	}
	if err := sim.New(sim.Options{Faults: sim.Swarm(1)}).Close(); err != nil {
		t.Error(err)
	}
}
