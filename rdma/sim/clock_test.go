package sim_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// byClock runs a story of a fabric that keeps the time of the bubble and is
// driven until the story ends.
func byClock(t *testing.T, options sim.Options, story func(t *testing.T, f *sim.Fabric)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		options.Clock = func() time.Duration { return time.Since(start) }
		f := newFabric(t, options)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := f.Drive(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Drive ended with %v", err)
			}
		})
		defer wg.Wait()
		defer cancel()
		story(t, f)
	})
}

var steady = sim.Faults{Delay: sim.Range{Min: 5 * us, Max: 5 * us}, ReplyDelay: sim.Range{Min: 3 * us, Max: 3 * us}}

// An event happens when the clock says so, neither earlier nor later, however
// long the fabric was idle before.
func TestClockSetsTheTime(t *testing.T) {
	byClock(t, sim.Options{Faults: steady}, func(t *testing.T, f *sim.Fabric) {
		a, b := open(t, f, "a"), open(t, f, "b")
		x, _ := join(a, b, rdma.QueuePairOptions{})
		for round := range uint64(3) {
			time.Sleep(time.Second)
			posted := time.Now()
			a.memory.Store(0, round+1)
			a.post(x, rdma.Write(round, a.memory.Local(0, 8), b.memory.Remote(), 0))
			time.Sleep(5*us - 1)
			if w := b.memory.Load(0); w != round {
				t.Errorf("the WRITE took effect before its time: the word is %d, want %d", w, round)
			}
			time.Sleep(1)
			synctest.Wait()
			if w := b.memory.Load(0); w != round+1 {
				t.Errorf("the WRITE did not take effect at its time: the word is %d, want %d", w, round+1)
			}
			var c [1]rdma.Completion
			if _, err := a.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != rdma.StatusOK {
				t.Fatal(err, c[0].Status)
			}
			if took := time.Since(posted); took != 8*us {
				t.Errorf("the WRITE completed after %v, want 8us", took)
			}
			if now := f.Now(); now != time.Duration(round+1)*(time.Second+8*us) {
				t.Errorf("round %d: the fabric's time is %v", round, now)
			}
		}
	})
}

// Drive wakes for what is posted to happen before the event it sleeps for.
func TestClockWakesForEarlierEvents(t *testing.T) {
	byClock(t, sim.Options{Faults: steady}, func(t *testing.T, f *sim.Fabric) {
		a, b := open(t, f, "a"), open(t, f, "b")
		slow, _ := join(a, b, rdma.QueuePairOptions{})
		fast, _ := join(a, b, rdma.QueuePairOptions{})
		f.Script(sim.Rule{ID: 1, Fate: sim.Fate{Delay: time.Millisecond}})
		start := time.Now()
		a.post(slow, rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 1))
		synctest.Wait() // Drive sleeps for the slow one
		a.post(fast, rdma.FAA(2, a.memory.Local(8, 8), b.memory.Remote(), 0, 10))
		var ids []uint64
		var at []time.Duration
		for range 2 {
			var c [1]rdma.Completion
			if _, err := a.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != rdma.StatusOK {
				t.Fatal(err, c[0].Status)
			}
			ids, at = append(ids, c[0].ID), append(at, time.Since(start))
		}
		if !slices.Equal(ids, []uint64{2, 1}) || !slices.Equal(at, []time.Duration{8 * us, time.Millisecond + 8*us}) {
			t.Errorf("requests %v completed at %v", ids, at)
		}
	})
}

// Silence breaks a queue pair when its time-out has passed by the clock; a link
// that is mended before is in time.
func TestClockTimeouts(t *testing.T) {
	for _, mended := range []bool{false, true} {
		byClock(t, sim.Options{Faults: steady}, func(t *testing.T, f *sim.Fabric) {
			a, b := open(t, f, "a"), open(t, f, "b")
			x, _ := join(a, b, rdma.QueuePairOptions{Timeout: 100 * time.Millisecond})
			f.Partition("a", "b")
			start := time.Now()
			a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
			want, took := rdma.StatusUnreachable, 100*time.Millisecond
			if mended {
				time.Sleep(99 * time.Millisecond)
				f.HealAll()
				want, took = rdma.StatusOK, 99*time.Millisecond+8*us
			}
			var c [1]rdma.Completion
			if _, err := a.cq.Wait(t.Context(), c[:]); err != nil || c[0].Status != want || time.Since(start) != took {
				t.Errorf("mended %t: the WRITE ended as %v after %v: %v", mended, c[0].Status, time.Since(start), err)
			}
		})
	}
}

// Many waiters beside one Drive: each gets its completions, and all of a faulty
// network's adversities come to their end.
func TestClockManyWaiters(t *testing.T) {
	faults := sim.Faults{Delay: sim.Range{Min: us, Max: 20 * us}, Reorder: 0.5, Tear: 0.5, SplitAtomics: 0.5}
	byClock(t, sim.Options{Seed: 5, Faults: faults}, func(t *testing.T, f *sim.Fabric) {
		home := open(t, f, "home")
		const users, rounds = 5, 100
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
	})
}

// Nothing happens by a Wait alone, and Drive ends with its fabric.
func TestClockNeedsDrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := sim.New(sim.Options{Clock: func() time.Duration { return time.Since(start) }})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, _ := join(a, b, rdma.QueuePairOptions{})
		a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if n, err := a.cq.Wait(ctx, make([]rdma.Completion, 1)); n != 0 || !errors.Is(err, context.DeadlineExceeded) || f.Events() != 0 {
			t.Errorf("a Wait beside no Drive: %d completions, %d events, %v", n, f.Events(), err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := f.Drive(t.Context()); !errors.Is(err, rdma.ErrClosed) {
				t.Errorf("Drive of a fabric that closes ended with %v", err)
			}
		})
		synctest.Wait()
		if c := a.poll(); len(c) != 1 || b.memory.Load(0) != 0 {
			t.Errorf("completions %v", c)
		}
		a.must(f.Close())
		wg.Wait()
	})
}
