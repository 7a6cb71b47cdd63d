package tcp

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// ticks is how many times in a Timeout the watchdog looks.
const ticks = 4

// watchdog breaks a queue pair whose peer is silent while requests are
// outstanding. It looks a few times in each Timeout, so that neither Post nor
// the reader asks for the time, and not at all while nothing is outstanding.
// The queue pair's latch guards it.
type watchdog struct {
	timer *time.Timer // nil before Accept or Connect
	every time.Duration
	armed bool
	// seen is the progress at the last look, and silent how many looks in a row
	// have found the same.
	seen   uint64
	silent int
}

// startWatchLocked starts the goroutine of the watchdog, at Accept or Connect.
func (q *queuePair) startWatchLocked() {
	if q.watch.timer != nil {
		return
	}
	q.watch.every = max(q.timeout/ticks, time.Millisecond)
	q.watch.timer = time.NewTimer(time.Hour)
	q.watch.timer.Stop()
	q.wg.Go(q.guard)
}

// arm makes the watchdog look.
func (w *watchdog) arm() {
	if !w.armed {
		w.armed, w.silent = true, 0
		w.timer.Reset(w.every)
	}
}

// guard is the goroutine of the watchdog.
func (q *queuePair) guard() {
	defer q.watch.timer.Stop()
	for {
		select {
		case <-q.done:
			return
		case <-q.watch.timer.C:
		}
		q.mu.Lock()
		q.lookLocked()
		q.unlock()
	}
}

func (q *queuePair) lookLocked() {
	w := &q.watch
	if q.sends.Len() == 0 || q.phase == phaseBroken {
		w.armed = false
		return
	}
	now := q.progress.Load()
	if w.silent++; now != w.seen {
		w.seen, w.silent = now, 0
	}
	if w.silent >= ticks {
		q.breakLocked(rdma.StatusUnreachable, fmt.Errorf("no answer for %v", q.timeout))
		return
	}
	w.timer.Reset(w.every)
}
