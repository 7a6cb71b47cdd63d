package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// The limits of a provider.
const (
	maxMessage     = 1 << 20
	maxInline      = 256
	maxDepth       = 1 << 12
	maxCompletions = 1 << 16
	maxRegion      = 1 << 28
	maxRegions     = 1 << 12
	maxQueues      = 1 << 16 // queue pairs, and completion queues, of a provider
)

var limits = rdma.Limits{
	MaxMessage: maxMessage, MaxInline: maxInline, MaxSendDepth: maxDepth, MaxReceiveDepth: maxDepth,
	MaxCompletions: maxCompletions, MaxRegion: maxRegion,
}

// Provider implements rdma.Provider: the device of one node, from Open to Close
// or Crash.
type Provider struct {
	fabric *Fabric
	node   *node
	handle *handle.Handle
	ledger rdma.Ledger

	// All below is guarded by fabric.mu. The lists are in the order of opening.
	dead       bool // closed or crashed
	freed      bool
	list       []*region
	regions    map[uint32]*region // by either key; nil once dead; never ranged over
	queuePairs []*queuePair
	queues     []*completionQueue
}

// Name implements rdma.Provider.
func (p *Provider) Name() string { return "sim" }

// Node is the name that was given to Open.
func (p *Provider) Node() string { return p.node.name }

// Limits implements rdma.Provider.
func (p *Provider) Limits() rdma.Limits { return limits }

// Counters implements rdma.Provider.
func (p *Provider) Counters() []rdma.PeerCounters { return p.ledger.Counters() }

// Register implements rdma.Provider. Addresses exist in the simulation only.
func (p *Provider) Register(size int) (rdma.Region, error) {
	f := p.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case p.dead:
		return nil, rdma.ErrClosed
	case size <= 0 || size > maxRegion:
		return nil, fmt.Errorf("%w region of %d bytes: 1 to %d", rdma.ErrInvalid, size, maxRegion)
	case len(p.list) == maxRegions:
		return nil, fmt.Errorf("%w: %d regions are registered, which is the limit", rdma.ErrInUse, maxRegions)
	}
	m, err := memory.Map(size)
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	f.regions++
	r := newRegion(p, f.regions, m)
	p.list = append(p.list, r)
	p.regions[r.lkey], p.regions[r.rkey] = r, r
	return r, nil
}

// forget takes a region out of the reach of everybody.
func (p *Provider) forget(r *region) {
	delete(p.regions, r.lkey)
	delete(p.regions, r.rkey)
	p.list = slices.DeleteFunc(p.list, func(o *region) bool { return o == r })
}

// NewCompletionQueue implements rdma.Provider. Spin is of no use here: Wait makes
// happen what it waits for.
func (p *Provider) NewCompletionQueue(options rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	f := p.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.dead {
		return nil, rdma.ErrClosed
	}
	if len(p.queues) == maxQueues {
		return nil, fmt.Errorf("%w: %d completion queues are open, which is the limit", rdma.ErrInUse, maxQueues)
	}
	options.Spin = min(options.Spin, 0) // below 0 is refused
	q, err := queue.NewCompletions("sim", options, &limits)
	if err != nil {
		return nil, err
	}
	c := &completionQueue{provider: p, queue: q}
	p.queues = append(p.queues, c)
	return c, nil
}

// NewQueuePair implements rdma.Provider.
func (p *Provider) NewQueuePair(options rdma.QueuePairOptions) (rdma.QueuePair, error) {
	options.EnsureDefaults()
	f := p.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.dead {
		return nil, rdma.ErrClosed
	}
	if len(p.queuePairs) == maxQueues {
		return nil, fmt.Errorf("%w: %d queue pairs are open, which is the limit", rdma.ErrInUse, maxQueues)
	}
	send, ok := options.SendCQ.(*completionQueue)
	receive, ok2 := options.ReceiveCQ.(*completionQueue)
	switch {
	case !ok || !ok2 || send.provider != p || receive.provider != p:
		return nil, fmt.Errorf("%w queue pair: it needs completion queues of this provider", rdma.ErrInvalid)
	case options.SendDepth < 1 || options.SendDepth > maxDepth || options.ReceiveDepth < 1 || options.ReceiveDepth > maxDepth:
		return nil, fmt.Errorf("%w queue pair: depths %d and %d, 1 to %d", rdma.ErrInvalid, options.SendDepth, options.ReceiveDepth, maxDepth)
	case options.Timeout < 0 || options.Timeout > maxDelay:
		return nil, fmt.Errorf("%w queue pair: time-out %v, up to %v", rdma.ErrInvalid, options.Timeout, maxDelay)
	case len(options.Peer) > maxName:
		return nil, fmt.Errorf("%w queue pair: peer of %d bytes, up to %d", rdma.ErrInvalid, len(options.Peer), maxName)
	}
	sendPlaces, err := send.reserve(options.SendDepth)
	if err != nil {
		return nil, err
	}
	receivePlaces, err := receive.reserve(options.ReceiveDepth)
	if err != nil {
		sendPlaces.Release()
		return nil, err
	}
	return newQueuePair(p, &options, sendPlaces, receivePlaces), nil
}

// Close implements rdma.Provider. After a crash it frees everything.
func (p *Provider) Close() error {
	f := p.fabric
	f.lock()
	defer f.mu.Unlock()
	if !p.dead {
		if len(p.list)+len(p.queuePairs)+len(p.queues) > 0 {
			return fmt.Errorf("%w: the device of %s has %d regions, %d queue pairs and %d completion queues open",
				rdma.ErrInUse, p.node.name, len(p.list), len(p.queuePairs), len(p.queues))
		}
		p.kill()
	}
	return p.free()
}

// kill stops the device: nothing happens in it any more, and nobody reaches it.
func (p *Provider) kill() {
	if p.dead {
		return
	}
	p.dead = true
	if p.node.provider == p {
		p.node.provider = nil
	}
	for _, q := range p.queuePairs {
		p.fabric.vanish(q)
		q.release()
	}
	p.regions = nil
	for _, c := range p.queues {
		c.shut()
	}
	p.queuePairs, p.queues = nil, nil
}

// free gives back the memory of a device that is dead.
func (p *Provider) free() error {
	if p.freed {
		return nil
	}
	p.freed = true
	p.fabric.providers = slices.DeleteFunc(p.fabric.providers, func(o *Provider) bool { return o == p })
	var all []error
	for _, r := range p.list {
		all = append(all, r.unmap())
	}
	p.list = nil
	p.handle.Close()
	return errors.Join(all...)
}
