package pebble

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tenure-faas/tenure/base"
)

// group is the set of waiters one sync wakes.
type group struct {
	// done is closed when the group's batches are durable.
	done chan struct{}
	// n counts the waiters. The one that makes it reach want tells the leader
	// through full (capacity 1: one token is all the leader needs).
	n, want atomic.Int32
	full    chan struct{}
}

func newGroup() *group {
	return &group{done: make(chan struct{}), full: make(chan struct{}, 1)}
}

// join counts a waiter in.
func (g *group) join() {
	if g.n.Add(1) == g.want.Load() {
		select {
		case g.full <- struct{}{}:
		default:
		}
	}
}

// WaitDurable implements store.Engine. The caller that leads the group is in
// the kernel's sync and leaves late if the disk is slow; followers leave at
// once when ctx ends.
func (e *Engine) WaitDurable(ctx context.Context, n base.Number) error {
	var joined *group
	for {
		// The group must be loaded before durable is read: a leader replaces the
		// group before it reads appended, so whoever still finds the old group
		// has its batch covered by that leader's sync.
		g := e.group.Load()
		if e.durable.Load() >= uint64(n) {
			return nil
		}
		if g != joined {
			g.join()
			joined = g
		}
		select {
		case <-e.token:
			if e.durable.Load() < uint64(n) {
				e.gather(ctx)
				e.syncLog()
			}
			e.token <- struct{}{}
		case <-g.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	// gatherTick is how long a leader waits for another waiter to come, and
	// gatherMost how long it waits in all.
	gatherTick = 100 * time.Microsecond
	gatherMost = 2 * time.Millisecond
)

// gather lets a group grow before it is synced, if there is reason to expect
// more. With N clients that wait for their answers, the best rhythm is that half
// of them compute while the other half's batches are synced; to sync the first
// few at once would leave everybody else waiting for the next sync, with the
// processors idle, and cost a sync for few. The sum of the last two groups
// estimates N; half of it is waited for, as long as waiters keep coming. A lone
// client makes groups of one and never waits. Nor does anybody where a sync takes
// less than one tick: there a wait costs more than the sync it saves, and a lease
// that is to go to another worker would wait with it.
func (e *Engine) gather(ctx context.Context) {
	g := e.group.Load()
	want := (e.sizes[0] + e.sizes[1]) / 2
	if want <= 1 || e.took < gatherTick {
		return
	}
	g.want.Store(want)
	var tick *time.Timer
	for waited, n := time.Duration(0), g.n.Load(); n < want && waited < gatherMost; waited += gatherTick {
		if tick == nil {
			tick = time.NewTimer(gatherTick)
			defer tick.Stop()
		} else {
			tick.Reset(gatherTick)
		}
		select {
		case <-g.full:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		came := g.n.Load()
		if came == n {
			return
		}
		n = came
	}
}

// syncLog makes everything that is appended durable. The caller holds the
// token.
func (e *Engine) syncLog() {
	g := e.group.Swap(newGroup())
	e.sizes[0], e.sizes[1] = e.sizes[1], g.n.Load()
	target := e.appended.Load()
	began := time.Now()
	if err := e.db.LogData(nil, pebble.Sync); err != nil {
		// Pebble ends the process on a failed commit; an error here is a closed
		// engine, whose waiters are a fault of the caller.
		panic(fmt.Sprintf("store: sync of the log: %v", err))
	}
	e.took = time.Since(began)
	e.syncs.Add(1)
	e.durable.Store(target)
	close(g.done)
}
