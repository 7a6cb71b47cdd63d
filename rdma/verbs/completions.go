//go:build linux && cgo && rdma

package verbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

const (
	// batch is how many completions cross from C at once.
	batch = 64
	// spinSlice bounds a look in C: while it lasts, the latch of the queue is held
	// and nobody notices a context that ends.
	spinSlice = 10 * time.Microsecond
)

// entry is a completion on its way to the caller.
type entry struct {
	rdma.Completion
	// pair gets its slot back when the completion is delivered: one of its send
	// queue, or a receive if it is an OpReceive.
	pair *queuePair
	// left says that pair is detached and the entry has kept its place.
	left bool
}

// attachment is a queue pair that sends or receives through a completion queue.
type attachment struct {
	pair *queuePair // nil if the slot is free
	// generation counts the tenants of the slot.
	generation uint16
}

// completionQueue implements rdma.CompletionQueue over a queue of the device and
// a list of what was taken from it before the caller asked.
//
// Who wants to sleep arms the device, looks once more and waits for a token. The
// goroutine of the queue gets the device's event and puts the token. One token
// is enough: who finds something passes it on if others sleep, so that one of
// them arms again.
type completionQueue struct {
	provider *Provider
	cq       *ibverbs.CQ
	depth    int
	spin     time.Duration
	handle   *handle.Handle

	wake   chan struct{} // capacity 1, see above
	closed chan struct{}
	// sleepers is the number of Waits that sleep or are about to.
	sleepers atomic.Int32
	events   sync.WaitGroup // the goroutine of the queue

	mu       sync.Mutex
	isClosed bool
	armed    bool // an event will come
	// reserved are places in the device's queue; left, a part of them, those of
	// completions that wait in pending although their queue pair is detached.
	reserved, left int
	// pending is what was taken from the device and not delivered, oldest first
	// from head on. It has at most reserved entries.
	pending []entry
	head    int
	raw     []ibverbs.Completion
	slots   []attachment
	free    []int // slots
	// owed are queue pairs that lack receives since this poll.
	owed []*queuePair
}

// NewCompletionQueue implements rdma.Provider.
func (p *Provider) NewCompletionQueue(o rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	if o.Depth == 0 {
		o.Depth = min(1024, p.limits.MaxCompletions)
	}
	if o.Depth < 0 || o.Depth > p.limits.MaxCompletions || o.Spin < 0 {
		return nil, fmt.Errorf("%w completion queue: depth %d (1..%d), spin %v", rdma.ErrInvalid, o.Depth, p.limits.MaxCompletions, o.Spin)
	}
	if err := p.enter(&p.open.queues); err != nil {
		return nil, err
	}
	cq, err := p.context.CreateCQ(o.Depth)
	if err != nil {
		p.leave(&p.open.queues)
		return nil, fmt.Errorf("rdma verbs: completion queue of depth %d: %w", o.Depth, err)
	}
	q := &completionQueue{provider: p, cq: cq, depth: o.Depth, spin: o.Spin,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), raw: make([]ibverbs.Completion, batch)}
	q.handle = handle.Open(q, "verbs completion queue")
	p.mu.Lock()
	p.queues[q] = true
	p.mu.Unlock()
	q.events.Go(q.waitEvents)
	return q, nil
}

// waitEvents turns the events of the device into tokens until the queue closes.
func (q *completionQueue) waitEvents() {
	for {
		err := q.cq.WaitEvent()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			q.provider.log.Error("rdma verbs: no more events of a completion queue", "error", err)
			q.fail(err)
			return
		}
		q.mu.Lock()
		q.armed = false
		q.mu.Unlock()
		q.signal()
	}
}

func (q *completionQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// attach reserves places for a queue pair and returns the base of its IDs.
func (q *completionQueue) attach(pair *queuePair, receive bool, places int) (requestID, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.isClosed:
		return 0, fmt.Errorf("completion queue: %w", rdma.ErrClosed)
	case q.reserved+places > q.depth && q.left > 0:
		return 0, fmt.Errorf("%w: the completion queue has %d places, %d are reserved, %d of them by completions of closed queue pairs, %d more do not fit: poll the queue",
			rdma.ErrInUse, q.depth, q.reserved, q.left, places)
	case q.reserved+places > q.depth:
		return 0, fmt.Errorf("%w: the completion queue has %d places, %d are reserved, %d more do not fit", rdma.ErrInUse, q.depth, q.reserved, places)
	}
	if len(q.free) == 0 {
		if len(q.slots) == maxSlots {
			return 0, fmt.Errorf("%w: the completion queue has %d queue pairs, which is the limit", rdma.ErrInUse, maxSlots)
		}
		q.free = append(q.free, len(q.slots))
		q.slots = append(q.slots, attachment{})
	}
	slot := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	q.reserved += places
	a := &q.slots[slot]
	a.pair = pair
	a.generation++
	return newRequestID(receive, slot, a.generation), nil
}

// detach takes back what attach gave. The device makes no completions for the
// queue pair any more; those that nobody polled keep their places until they are.
func (q *completionQueue) detach(pair *queuePair, id requestID, places int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slots[id.slot()].pair = nil
	q.free = append(q.free, id.slot())
	for i := q.head; i < len(q.pending); i++ {
		if e := &q.pending[i]; e.pair == pair && (e.Op == rdma.OpReceive) == id.receive() {
			e.left = true
			q.left++
			places--
		}
	}
	q.reserved -= places
}

// Poll implements rdma.CompletionQueue.
func (q *completionQueue) Poll(dst []rdma.Completion) int {
	return q.take(dst, 0, false)
}

// take fills dst from the pending list and the device, looking at the device for
// up to spin, and with arm for an event if there is nothing.
func (q *completionQueue) take(dst []rdma.Completion, spin time.Duration, arm bool) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed {
		return 0
	}
	for ; n < len(dst) && q.head < len(q.pending); n++ {
		if q.pending[q.head].left {
			q.left--
			q.reserved--
		}
		q.deliver(&q.pending[q.head], &dst[n])
		q.pending[q.head] = entry{}
		if q.head++; q.head == len(q.pending) {
			q.pending, q.head = q.pending[:0], 0
		}
	}
	if n > 0 {
		spin, arm = 0, false
	}
	for n < len(dst) {
		want := min(len(dst)-n, batch)
		got := q.look(want, spin, arm)
		for i := range got {
			if e, ok := q.translate(&q.raw[i]); ok {
				q.deliver(&e, &dst[n])
				n++
			}
		}
		if got < want {
			break
		}
		spin, arm = 0, false
	}
	q.replaceReceives()
	return n
}

// look gets up to n completions of the device into raw. The caller holds mu.
func (q *completionQueue) look(n int, spin time.Duration, arm bool) (got int) {
	var err error
	if arm && !q.armed {
		q.armed = true
		got, err = q.cq.ArmAndPoll(q.raw[:n])
	} else {
		got, err = q.cq.Poll(q.raw[:n], spin)
	}
	if err != nil {
		for _, a := range q.slots {
			if a.pair != nil {
				a.pair.fail(&failure{cause: err, status: rdma.StatusFatal})
			}
		}
	}
	return got
}

// translate finds out what a completion of the device is. It is false for what
// the caller must not see.
func (q *completionQueue) translate(c *ibverbs.Completion) (entry, bool) {
	id := requestID(c.ID)
	if id.slot() >= len(q.slots) {
		return entry{}, false
	}
	a := q.slots[id.slot()]
	if a.pair == nil || a.generation != id.generation() {
		return entry{}, false // of a queue pair that is gone
	}
	if id.receive() {
		return a.pair.received(c)
	}
	return a.pair.completed(c, id.sequence())
}

// deliver hands an entry to the caller. The caller holds mu.
func (q *completionQueue) deliver(e *entry, to *rdma.Completion) {
	*to = e.Completion
	if e.Op != rdma.OpReceive {
		e.pair.free.Add(1)
		return
	}
	if e.pair.owed == 0 {
		q.owed = append(q.owed, e.pair)
	}
	e.pair.owed++
}

// replaceReceives posts a receive for each doorbell that was delivered. The
// caller holds mu.
func (q *completionQueue) replaceReceives() {
	for i, pair := range q.owed {
		pair.postReceives(pair.owed)
		pair.owed = 0
		q.owed[i] = nil
	}
	q.owed = q.owed[:0]
}

// reap takes all there is from the device into the pending list, so that queue
// pairs learn of it.
func (q *completionQueue) reap() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed {
		return
	}
	for {
		got := q.look(batch, 0, false)
		for i := range got {
			if e, ok := q.translate(&q.raw[i]); ok {
				q.push(e)
			}
		}
		if got < batch {
			return
		}
	}
}

// push adds an entry to the pending list. The caller holds mu.
func (q *completionQueue) push(e entry) {
	if q.head > 0 && len(q.pending) == cap(q.pending) {
		kept := copy(q.pending, q.pending[q.head:])
		clear(q.pending[kept:])
		q.pending, q.head = q.pending[:kept], 0
	}
	q.pending = append(q.pending, e)
	if q.sleepers.Load() > 0 {
		q.signal()
	}
}

// Wait implements rdma.CompletionQueue.
func (q *completionQueue) Wait(ctx context.Context, dst []rdma.Completion) (int, error) {
	if n := q.take(dst, min(q.spin, spinSlice), false); n > 0 || len(dst) == 0 {
		return n, nil
	}
	if q.spin > spinSlice {
		for start := time.Now(); time.Since(start) < q.spin && ctx.Err() == nil; {
			if n := q.take(dst, spinSlice, false); n > 0 {
				return n, nil
			}
		}
	}
	q.sleepers.Add(1)
	defer q.sleepers.Add(-1)
	for {
		if n := q.take(dst, 0, true); n > 0 {
			if q.sleepers.Load() > 1 {
				q.signal()
			}
			return n, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			// The token may have come with the end, and be meant for another.
			q.signal()
			return 0, ctx.Err()
		case <-q.closed:
			return 0, rdma.ErrClosed
		}
	}
}

// fail breaks all queue pairs of the queue: it works no more.
func (q *completionQueue) fail(cause error) {
	q.mu.Lock()
	slots := slices.Clone(q.slots)
	q.mu.Unlock()
	for _, a := range slots {
		if a.pair != nil {
			a.pair.fail(&failure{cause: cause, status: rdma.StatusFatal})
		}
	}
}

// Close implements rdma.CompletionQueue. Completions that nobody polled are lost.
func (q *completionQueue) Close() error {
	q.mu.Lock()
	if q.isClosed {
		q.mu.Unlock()
		return nil
	}
	if used := q.reserved - q.left; used > 0 {
		q.mu.Unlock()
		return fmt.Errorf("%w: queue pairs still use the completion queue (%d places)", rdma.ErrInUse, used)
	}
	q.isClosed = true
	close(q.closed)
	q.mu.Unlock()
	p := q.provider
	p.mu.Lock()
	delete(p.queues, q)
	p.mu.Unlock()
	err := q.cq.Shut()
	q.events.Wait()
	err = errors.Join(err, q.cq.Close())
	q.handle.Close()
	p.leave(&p.open.queues)
	return err
}
