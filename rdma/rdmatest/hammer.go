package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doHammer lets several goroutines post batches of the same signaled request on
// one queue pair while several others wait on its queue. The answer says what
// is wrong with the completions, or "".
type doHammer struct {
	Pair, Queue              int
	Request                  rdma.WorkRequest
	Posters, Batches, Length int // batches for each poster, requests in a batch
	Waiters                  int
	Bound                    time.Duration
}

// hammer is a doHammer under way.
type hammer struct {
	doHammer
	pair  rdma.QueuePair
	queue rdma.CompletionQueue

	mu      sync.Mutex
	changed *sync.Cond // when ids grew or err was set
	// ids of the completions, in the order in which they were polled; that order
	// means something for one waiter only.
	ids []uint64
	err error
	cut map[uint64]bool // batches that were posted in parts
}

func (o doHammer) run(a *agent) (any, error) {
	h := &hammer{doHammer: o, pair: a.pair(o.Pair), queue: a.queue(o.Queue), cut: map[uint64]bool{}}
	h.changed = sync.NewCond(&h.mu)
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	var wg sync.WaitGroup
	for p := range o.Posters {
		wg.Go(func() {
			for b := range o.Batches {
				h.post(uint64(p*o.Batches + b))
			}
		})
	}
	for range o.Waiters {
		wg.Go(func() { h.wait(ctx, cancel) })
	}
	wg.Wait()
	return h.verdict(), nil
}

// total is the number of completions that must come.
func (h *hammer) total() int { return h.Posters * h.Batches * h.Length }

// post posts one batch, in parts if the queue is full.
func (h *hammer) post(batch uint64) {
	requests := make([]rdma.WorkRequest, h.Length)
	for i := range requests {
		requests[i] = h.Request
		requests[i].ID = batch<<16 | uint64(i)
	}
	for len(requests) > 0 {
		h.mu.Lock()
		seen := len(h.ids)
		failed := h.err != nil
		h.mu.Unlock()
		if failed {
			return
		}
		n, err := h.pair.Post(requests)
		requests = requests[n:]
		h.mu.Lock()
		switch {
		case errors.Is(err, rdma.ErrQueueFull):
			h.cut[batch] = true
			for len(h.ids) == seen && h.err == nil {
				h.changed.Wait()
			}
		case err != nil:
			h.failLocked(err)
		}
		h.mu.Unlock()
	}
}

// wait takes completions until there is none to come.
func (h *hammer) wait(ctx context.Context, cancel context.CancelFunc) {
	polled := make([]rdma.Completion, 7)
	for {
		n, err := h.queue.Wait(ctx, polled)
		h.mu.Lock()
		for _, c := range polled[:n] {
			h.ids = append(h.ids, c.ID)
			if err := c.Err(); err != nil {
				h.failLocked(err)
			}
		}
		all := len(h.ids) >= h.total()
		if err != nil && !all {
			h.failLocked(fmt.Errorf("%d of %d completions came: %w", len(h.ids), h.total(), err))
		}
		failed := h.err != nil
		h.changed.Broadcast()
		h.mu.Unlock()
		if all || failed {
			cancel()
			return
		}
	}
}

func (h *hammer) failLocked(err error) {
	if h.err == nil {
		h.err = err
	}
	h.changed.Broadcast()
}

// verdict checks that each request completed once and, where that can be seen,
// that batches stayed whole.
func (h *hammer) verdict() string {
	if h.err != nil {
		return h.err.Error()
	}
	if len(h.ids) != h.total() {
		return fmt.Sprintf("%d completions, want %d", len(h.ids), h.total())
	}
	seen := map[uint64]bool{}
	for i, id := range h.ids {
		if seen[id] {
			return fmt.Sprintf("request %d of batch %d has two completions", id&0xffff, id>>16)
		}
		seen[id] = true
		if h.Waiters == 1 && id&0xffff > 0 && !h.cut[id>>16] && h.ids[i-1] != id-1 {
			return fmt.Sprintf("request %d of batch %d, which was posted at once, completed after request %d of batch %d",
				id&0xffff, id>>16, h.ids[i-1]&0xffff, h.ids[i-1]>>16)
		}
	}
	return ""
}
