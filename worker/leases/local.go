package leases

import (
	"context"
	"fmt"
	"sync"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// Local is the Peers of members in one process: calls are function calls. It is
// safe for concurrent use; the zero value has no members.
type Local struct {
	mu      sync.Mutex
	members map[lease.Member]*Leases
}

// Enter makes a member reachable.
func (p *Local) Enter(m lease.Member, l *Leases) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members == nil {
		p.members = map[lease.Member]*Leases{}
	}
	p.members[m] = l
}

// Leave makes a member unreachable.
func (p *Local) Leave(m lease.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.members, m)
}

func (p *Local) find(m lease.Member) (*Leases, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.members[m]
	if l == nil {
		return nil, base.Errorf(base.Unavailable, "worker %d in incarnation %d is not here", m.Worker, m.Incarnation)
	}
	return l, nil
}

// Exchange implements Peers.
func (p *Local) Exchange(ctx context.Context, to lease.Member, offer mesh.Offer) (mesh.Offer, error) {
	l, err := p.find(to)
	if err != nil {
		return mesh.Offer{}, fmt.Errorf("exchange: %w", err)
	}
	return l.Accept(ctx, offer)
}

// Report implements Peers.
func (p *Local) Report(_ context.Context, to, from lease.Member, v base.View, slots []base.Slot) error {
	l, err := p.find(to)
	if err != nil {
		return err
	}
	return l.Report(from, v, slots)
}

// Ready implements Peers.
func (p *Local) Ready(_ context.Context, to, from lease.Member, v base.View) error {
	l, err := p.find(to)
	if err != nil {
		return err
	}
	return l.Ready(from, v)
}
