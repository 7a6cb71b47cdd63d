// Package queue has the two queues of a provider written in Go: completions
// that wait to be polled, and requests that wait for their completion.
package queue

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// entry is a completion that waits to be polled.
type entry struct {
	rdma.Completion
	// free gets slots back when the completion is polled; nil if nothing does.
	free  *atomic.Int64
	slots int64
}

// Completions implements rdma.CompletionQueue. It never overflows, because
// queue pairs reserve their depth and do not push more than that.
type Completions struct {
	depth  int
	spin   time.Duration
	handle *handle.Handle

	// wake has a token when a sleeping Wait should look again; capacity 1 because
	// one token is enough: who finds more than it takes passes the token on.
	wake   chan struct{}
	closed chan struct{}
	// sleepers is the number of Waits that sleep or are about to.
	sleepers atomic.Int32
	// length is len of the ring's content, for a look without the latch.
	length atomic.Int64

	mu       sync.Mutex // a latch, and a leaf
	ring     []entry    // capacity grows to depth
	head     int        // of the oldest entry
	reserved int
	isClosed bool
}

// NewCompletions makes a queue with the options' defaults.
func NewCompletions(provider string, o rdma.CompletionQueueOptions, limits *rdma.Limits) (*Completions, error) {
	if o.Depth == 0 {
		o.Depth = 1024
	}
	if o.Depth < 0 || o.Depth > limits.MaxCompletions || o.Spin < 0 {
		return nil, fmt.Errorf("%w completion queue: depth %d (1..%d), spin %v", rdma.ErrInvalid, o.Depth, limits.MaxCompletions, o.Spin)
	}
	q := &Completions{depth: o.Depth, spin: o.Spin, wake: make(chan struct{}, 1), closed: make(chan struct{}), ring: make([]entry, o.Depth)}
	q.handle = handle.Open(q, provider+" completion queue")
	return q, nil
}

// Reserve keeps room for n completions.
func (q *Completions) Reserve(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed {
		return rdma.ErrClosed
	}
	if q.reserved+n > q.depth {
		return fmt.Errorf("%w: the completion queue has %d places, %d are reserved, %d more do not fit", rdma.ErrInUse, q.depth, q.reserved, n)
	}
	q.reserved += n
	return nil
}

// Unreserve gives back what Reserve kept. Completions that are still unpolled
// keep their places: call it after they are polled, or see Push.
func (q *Completions) Unreserve(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved -= n
}

// Push adds a completion and wakes a sleeper. When it is polled, slots are added
// to free, if that is not nil. When a closed queue pair has left completions
// behind and others have reserved its places, the ring grows.
func (q *Completions) Push(c rdma.Completion, free *atomic.Int64, slots int64) {
	q.mu.Lock()
	n := int(q.length.Load())
	if n == len(q.ring) {
		q.grow(n)
	}
	i := q.head + n
	if i >= len(q.ring) {
		i -= len(q.ring)
	}
	q.ring[i] = entry{c, free, slots}
	q.length.Store(int64(n + 1))
	q.mu.Unlock()
	if q.sleepers.Load() > 0 {
		q.signal()
	}
}

func (q *Completions) grow(n int) {
	ring := make([]entry, 2*len(q.ring))
	k := copy(ring, q.ring[q.head:])
	copy(ring[k:n], q.ring)
	q.ring, q.head = ring, 0
}

func (q *Completions) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Poll implements rdma.CompletionQueue.
func (q *Completions) Poll(dst []rdma.Completion) int {
	if q.length.Load() == 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	have := int(q.length.Load())
	n := min(have, len(dst))
	for i := range n {
		e := &q.ring[q.head]
		dst[i] = e.Completion
		if e.free != nil {
			e.free.Add(e.slots)
			e.free = nil
		}
		if q.head++; q.head == len(q.ring) {
			q.head = 0
		}
	}
	q.length.Store(int64(have - n))
	return n
}

// Wait implements rdma.CompletionQueue.
func (q *Completions) Wait(ctx context.Context, dst []rdma.Completion) (int, error) {
	if n := q.Poll(dst); n > 0 || len(dst) == 0 {
		return n, nil
	}
	if q.spin > 0 {
		for start := time.Now(); time.Since(start) < q.spin; runtime.Gosched() {
			if n := q.Poll(dst); n > 0 {
				return n, nil
			}
		}
	}
	q.sleepers.Add(1)
	defer q.sleepers.Add(-1)
	for {
		// A Push after this look sees the sleeper and signals.
		if n := q.Poll(dst); n > 0 {
			if q.length.Load() > 0 && q.sleepers.Load() > 1 {
				q.signal()
			}
			return n, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-q.closed:
			return 0, rdma.ErrClosed
		}
	}
}

// Close implements rdma.CompletionQueue.
func (q *Completions) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed {
		return nil
	}
	if q.reserved > 0 {
		return fmt.Errorf("%w: queue pairs still use the completion queue (%d places)", rdma.ErrInUse, q.reserved)
	}
	q.isClosed = true
	close(q.closed)
	q.handle.Close()
	return nil
}
