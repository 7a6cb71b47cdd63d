package rdmatest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tenure-faas/tenure/rdma"
)

// agent is a node: a provider, and its handles by number. Operations run
// concurrently.
type agent struct {
	open func(name string) (rdma.Provider, error)

	mu       sync.Mutex // a leaf; no provider is called under it
	provider rdma.Provider
	last     int // the last number given out
	regions  map[int]rdma.Region
	queues   map[int]rdma.CompletionQueue
	pairs    map[int]rdma.QueuePair
	before   *holdings // what the process held before the provider was opened
}

func newAgent(open func(string) (rdma.Provider, error)) *agent {
	return &agent{open: open, regions: map[int]rdma.Region{}, queues: map[int]rdma.CompletionQueue{}, pairs: map[int]rdma.QueuePair{}}
}

// do runs an operation and turns what it does into an answer.
func (a *agent) do(op operation) answer {
	v, err := op.run(a)
	if v == nil {
		v = done{}
	}
	return answer{v, faultOf(err)}
}

// keep enters a handle into one of the maps and returns its number.
func keep[H any](a *agent, handles map[int]H, h H) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	handles[a.last] = h
	return a.last
}

// get returns the handle with this number. A wrong one is a fault of the suite.
func get[H any](a *agent, handles map[int]H, number int) H {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := handles[number]
	if !ok {
		panic(fmt.Sprintf("rdmatest: the node has no handle %d of type %T", number, h))
	}
	return h
}

func (a *agent) region(number int) rdma.Region         { return get(a, a.regions, number) }
func (a *agent) queue(number int) rdma.CompletionQueue { return get(a, a.queues, number) }
func (a *agent) pair(number int) rdma.QueuePair        { return get(a, a.pairs, number) }

// breakOff closes all queue pairs, then all completion queues, so that whatever
// runs on them ends.
func (a *agent) breakOff() error {
	a.mu.Lock()
	pairs, queues := slices.Collect(maps.Values(a.pairs)), slices.Collect(maps.Values(a.queues))
	a.mu.Unlock()
	var errs []error
	for _, p := range pairs {
		if err := p.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close queue pair %d: %w", p.Number(), err))
		}
	}
	for _, q := range queues {
		if err := q.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close completion queue: %w", err))
		}
	}
	return errors.Join(errs...)
}

// reset closes all handles but the provider, also those that were closed before:
// Close is idempotent. Nothing may look at the memory any more.
func (a *agent) reset() error {
	errs := []error{a.breakOff()}
	a.mu.Lock()
	regions := a.regions
	a.regions, a.queues, a.pairs = map[int]rdma.Region{}, map[int]rdma.CompletionQueue{}, map[int]rdma.QueuePair{}
	a.mu.Unlock()
	for _, r := range regions {
		if err := r.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close region: %w", err))
		}
	}
	return errors.Join(errs...)
}
