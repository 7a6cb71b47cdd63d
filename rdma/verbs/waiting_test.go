//go:build linux && cgo && rdma

package verbs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// TestDoorbellsWakeSleepers has waiters that sleep on one queue get all doorbells
// of many, each once.
func TestDoorbellsWakeSleepers(t *testing.T) {
	const waiters, bells = 4, 2000
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	var wg sync.WaitGroup
	seen := make([]int, bells)
	got := make(chan uint32, bells)
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	for range waiters {
		wg.Go(func() {
			dst := make([]rdma.Completion, 2)
			for {
				n, err := b.cq.Wait(ctx, dst)
				if err != nil {
					return
				}
				for _, c := range dst[:n] {
					got <- c.Imm
				}
			}
		})
	}
	for i := range bells {
		a.succeed(rdma.WriteImm(1, a.region.Local(0, 0), b.region.Remote(), 0, uint32(i)))
	}
	for i := range bells {
		select {
		case imm := <-got:
			seen[imm]++
		case <-ctx.Done():
			t.Fatalf("%d of %d doorbells, then none", i, bells)
		}
	}
	enough()
	wg.Wait()
	for i, n := range seen {
		if n != 1 {
			t.Errorf("doorbell %d was seen %d times", i, n)
		}
	}
}

// TestIdleWaitUsesNoProcessor sleeps for a second in Wait and looks at the
// processor time of the whole process.
func TestIdleWaitUsesNoProcessor(t *testing.T) {
	a, _ := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	before := used()
	if n, err := a.cq.Wait(ctx, make([]rdma.Completion, 1)); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%d completions, %v", n, err)
	}
	// A spinning wait would have used a second.
	if d := used() - before; d > 200*time.Millisecond {
		t.Errorf("an idle second took %v of processor time", d)
	}
}

func TestWaitEnds(t *testing.T) {
	p := openProvider(t)
	for _, spin := range []time.Duration{0, 2 * time.Millisecond} {
		q, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{Spin: spin})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := q.Wait(ctx, make([]rdma.Completion, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		if n, err := q.Wait(ctx, nil); n != 0 || err != nil {
			t.Errorf("nothing to fill: %d, %v", n, err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := q.Wait(t.Context(), make([]rdma.Completion, 1)); !errors.Is(err, rdma.ErrClosed) {
					t.Errorf("closed: %v", err)
				}
			})
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// TestConcurrentUse has many goroutines post, poll and wait at once; the FAAs
// must add up and each completion must come once.
func TestConcurrentUse(t *testing.T) {
	const posters, each = 8, 300
	p := openProvider(t)
	b := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	a := newSide(t, p, rdma.CompletionQueueOptions{Spin: 50 * time.Microsecond}, rdma.QueuePairOptions{SendDepth: 32})
	connect(t, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	var wg sync.WaitGroup
	for i := range posters {
		wg.Go(func() {
			for k := 0; k < each && ctx.Err() == nil; {
				n, err := a.pair.Post([]rdma.WorkRequest{rdma.FAA(uint64(i*each+k), a.region.Local(8*i, 8), b.region.Remote(), 0, 1)})
				if err != nil && !errors.Is(err, rdma.ErrQueueFull) {
					t.Error(err)
					return
				}
				k += n
			}
		})
	}
	seen := make([]int, posters*each)
	var mu sync.Mutex
	left := posters * each
	until, enough := context.WithCancel(ctx)
	defer enough()
	for range 2 {
		wg.Go(func() {
			dst := make([]rdma.Completion, 5)
			for {
				n, err := a.cq.Wait(until, dst)
				if err != nil {
					return
				}
				mu.Lock()
				for _, c := range dst[:n] {
					seen[c.ID]++
					if left--; left == 0 {
						enough()
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Fatalf("request %d completed %d times", id, n)
		}
	}
	if got := b.region.Load(0); got != posters*each {
		t.Errorf("%d FAAs made %d", posters*each, got)
	}
}

// TestManyPairsOnOneQueue holds that completions go to the right queue pair when
// slots are used again.
func TestManyPairsOnOneQueue(t *testing.T) {
	p := openProvider(t)
	hub := newSide(t, p, rdma.CompletionQueueOptions{Depth: 256}, rdma.QueuePairOptions{SendDepth: 8, ReceiveDepth: 8})
	connect(t, hub, newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{}))
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			far := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
			pair, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: hub.cq, SendDepth: 8, ReceiveDepth: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { far.mustClose("queue pair", pair.Close) }()
			near := &side{t, hub.cq, pair, hub.region}
			connect(t, near, far)
			near.succeed(rdma.Write(uint64(round), hub.region.Local(0, 8), far.region.Remote(), 0))
		})
	}
}
