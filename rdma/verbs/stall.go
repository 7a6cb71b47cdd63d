//go:build linux && cgo && rdma

package verbs

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// stall notices a queue pair that makes no progress although requests are
// outstanding. A device reports a silent peer by itself, but rxe has ways to
// forget a queue pair, and every request must end. The timer runs while something
// is outstanding, and costs Post nothing while it runs.
type stall struct {
	limit time.Duration
	timer *time.Timer
	// running, and the head that the timer saw last, if it has seen one since it
	// began to run; guarded by queuePair.mu.
	running, seen bool
	head          uint32
}

// stallLimit is after how long without progress the queue pair is given up, twice
// as much at most: well after the device should have done so, which may take four
// times its timeout.
func stallLimit(timeout time.Duration) time.Duration {
	return 8*timeoutTotal(timeoutCode(timeout)) + 2*time.Second
}

// watch starts the timer. The caller holds mu and has posted.
func (q *queuePair) watch() {
	if !q.stall.running {
		q.stall.running, q.stall.seen = true, false
		q.stall.timer.Reset(q.stall.limit)
	}
}

// look is called by the timer: it sleeps again, or breaks the queue pair.
func (q *queuePair) look() {
	if q.broken.Load() != nil {
		return
	}
	q.sendCQ.reap()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sendCQ.mu.Lock()
	head := q.head
	q.sendCQ.mu.Unlock()
	switch {
	case head == q.tail.Load():
		q.stall.running = false
	case !q.stall.seen || head != q.stall.head:
		q.stall.seen, q.stall.head = true, head
		q.stall.timer.Reset(q.stall.limit)
	default:
		q.fail(&failure{cause: fmt.Errorf("%w: requests to %q made no progress for %v, and the device says nothing", rdma.StatusUnreachable, q.options.Peer, q.stall.limit),
			status: rdma.StatusUnreachable})
	}
}
