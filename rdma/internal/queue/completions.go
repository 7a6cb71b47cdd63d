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
	// free gets one more when the completion is polled; nil if nothing does.
	free *atomic.Int64
	// places are those it came by.
	places *Places
}

// Places is the share of one queue pair in a queue: room for so many completions
// that are not polled. The queue pair does not push more than that.
type Places struct {
	q *Completions
	// These are guarded by the queue's latch: how many there are, how many of them
	// have a completion, and whether the queue pair is closed.
	n, unpolled int
	released    bool
}

// Completions implements rdma.CompletionQueue. It never overflows: queue pairs
// reserve their depth and do not push more than that, and a completion keeps its
// place until it is polled, also when its queue pair is closed.
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

	mu   sync.Mutex // a latch, and a leaf
	ring []entry    // of depth
	head int        // of the oldest entry
	// reserved are the places of open queue pairs, left those of closed ones whose
	// completions are not polled.
	reserved, left int
	isClosed       bool
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

// Reserve keeps n places for a queue pair, until Release.
func (q *Completions) Reserve(n int) (*Places, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed {
		return nil, rdma.ErrClosed
	}
	if q.reserved+q.left+n > q.depth {
		return nil, fmt.Errorf("%w: of the %d places of the completion queue, open queue pairs have %d and unpolled completions of closed ones %d (poll the queue): %d more do not fit",
			rdma.ErrInUse, q.depth, q.reserved, q.left, n)
	}
	q.reserved += n
	return &Places{q: q, n: n}, nil
}

// Release gives the places back when the queue pair is closed: those that are
// empty at once, the others as their completions are polled. Nothing may be
// pushed afterwards.
func (p *Places) Release() {
	q := p.q
	q.mu.Lock()
	defer q.mu.Unlock()
	p.released = true
	q.reserved -= p.n
	q.left += p.unpolled
}

// Push adds a completion and wakes a sleeper. When it is polled, 1 is added to
// free, if that is not nil.
func (p *Places) Push(c rdma.Completion, free *atomic.Int64) {
	q := p.q
	q.mu.Lock()
	n := int(q.length.Load())
	i := q.head + n
	if i >= len(q.ring) {
		i -= len(q.ring)
	}
	if n == len(q.ring) || p.released {
		panic(fmt.Sprintf("queue: a completion of queue pair %d has no place in a queue of %d", c.QP, q.depth))
	}
	p.unpolled++
	q.ring[i] = entry{c, free, p}
	q.length.Store(int64(n + 1))
	q.mu.Unlock()
	if q.sleepers.Load() > 0 {
		q.signal()
	}
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
			e.free.Add(1)
		}
		if e.places.unpolled--; e.places.released {
			q.left--
		}
		e.free, e.places = nil, nil // a closed queue pair can be collected
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
