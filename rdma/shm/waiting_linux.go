package shm

import (
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// waiting are the requests that wait for the peer, oldest first: those in the
// send queue, with all that it takes to execute them.
type waiting struct {
	// requests and payloads (nil unless inline) are rings of the depth of the send
	// queue, made when first needed.
	requests []rdma.WorkRequest
	payloads [][]byte
	head     int
	// since is when the oldest one met its obstacle.
	since time.Time
	// progress says whether the goroutine of that name runs.
	progress bool
}

// waitLocked leaves a request to progress.
func (q *queuePair) waitLocked(w *rdma.WorkRequest) {
	p := &q.waiting
	if p.requests == nil {
		p.requests, p.payloads = make([]rdma.WorkRequest, q.options.SendDepth), make([][]byte, q.options.SendDepth)
	}
	if q.sends.Len() == 0 {
		p.since = time.Now()
	}
	i := (p.head + q.sends.Len()) % len(p.requests)
	q.sends.Add(w)
	p.requests[i], p.payloads[i] = *w, nil
	if w.Flags&rdma.Inline != 0 {
		// A payload that is not there is found out again, in its turn.
		if span, ok := q.provider.regions.Acquire(w.Local.LKey, w.Local.Addr, w.Local.Length); ok {
			p.payloads[i] = append(make([]byte, 0, len(span.Bytes)), span.Bytes...)
			span.Release()
		}
	}
	if !p.progress {
		p.progress = true
		q.others.Go(q.progress)
	}
}

// The pauses between looks for room in the peer's ring.
const (
	minPause = 20 * time.Microsecond
	maxPause = 2 * time.Millisecond
)

// progress executes the waiting requests as their obstacles go away, breaks the
// pair if that takes too long, and ends when none is left.
func (q *queuePair) progress() {
	timer := time.NewTimer(q.options.Timeout)
	defer timer.Stop()
	pause, before := minPause, time.Time{}
	for {
		done, o, until := q.advance()
		if done {
			return
		}
		left := time.Until(until)
		if pause = min(2*pause, maxPause); !until.Equal(before) {
			pause, before = minPause, until // another request is the oldest now
		}
		if o == noRoom { // nobody will tell
			left = min(left, pause)
		}
		timer.Reset(left)
		select {
		case <-q.wake:
		case <-timer.C:
		}
	}
}

// nudge makes progress look again.
func (q *queuePair) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// advance executes waiting requests until one meets an obstacle; then it says
// which, and until when that one waits. Done means that none waits.
func (q *queuePair) advance() (done bool, o obstacle, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := &q.waiting
	if o = noPeer; q.state == connected {
		o = q.advanceLocked()
	}
	if until = p.since.Add(q.options.Timeout); q.sends.Len() > 0 && time.Now().Before(until) {
		return false, o, until
	}
	if q.sends.Len() > 0 {
		front := q.sends.Front()
		q.failLocked(front.ID, front.Op, o.expired())
	}
	p.progress = false // all are done, or flushed because the pair broke
	return true, o, until
}

func (q *queuePair) advanceLocked() obstacle {
	p := &q.waiting
	for q.sends.Len() > 0 {
		w := &p.requests[p.head]
		status, o := q.executeLocked(w, p.payloads[p.head])
		if o == noRoom {
			q.link.ring() // the peer may have polled and not said so
		}
		if o != nothing {
			return o
		}
		if status != rdma.StatusOK {
			q.failLocked(w.ID, w.Op, status)
			return nothing
		}
		p.payloads[p.head] = nil
		p.head = (p.head + 1) % len(p.requests)
		p.since = time.Now()
		q.sends.Finish(status)
	}
	return nothing
}

// breakLocked ends the pair for good: it takes no requests, the outstanding ones
// complete, the oldest with first and the others as flushed, and the peer may
// not begin another. The first cause stays.
func (q *queuePair) breakLocked(cause error, first rdma.Status) {
	if q.state >= broken {
		return
	}
	q.state = broken
	q.cause.Store(&cause)
	q.stopping.Store(true)
	q.control.Store(revokedAt, 1)
	q.sends.Flush(first)
	clear(q.waiting.payloads)
	q.remotes.drop(func(*remoteRegion) bool { return true })
	q.nudge()
}
