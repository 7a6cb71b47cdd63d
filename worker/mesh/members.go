package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
)

// Install enters a view. It drops what was queued and not posted, destroys both
// ends of the links to workers that are not members, or are other incarnations,
// and starts links to new members. When it returns nil, nothing of a non-member
// takes effect in the memory of this worker any more. After an error that is not
// certain, and it may be called again with the same members; links to members work
// all the same. If this worker is not among the members, all links are destroyed.
// It blocks until queue pairs are revoked, Exchange and Connect of links that go
// have returned, or ctx ends. Not to be called under a latch that the Handler takes.
func (m *Mesh) Install(ctx context.Context, members *lease.Members) error {
	m.installing.Lock()
	defer m.installing.Unlock()
	if m.closed.Load() {
		return ErrClosed
	}
	old := m.view.Load()
	if old.members != nil && members.View < old.members.View {
		return fmt.Errorf("mesh: view %d cannot be installed after %d", members.View, old.members.View)
	}
	if len(members.All) > m.options.Members {
		return fmt.Errorf("mesh: view %d has %d members, option Members is %d", members.View, len(members.All), m.options.Members)
	}
	next := &view{members: members, peers: map[lease.Worker]*peer{}}
	wanted := members.All
	if !slices.Contains(wanted, m.options.Me) {
		wanted = nil
	}
	var fresh []lease.Member
	for _, member := range wanted {
		if p := old.peers[member.Worker]; p != nil && p.member == member {
			next.peers[member.Worker] = p
		} else {
			fresh = append(fresh, member)
		}
	}
	for _, p := range old.all {
		if next.peers[p.member.Worker] == p {
			if old.members.View < members.View {
				p.out.forget()
			}
		} else if !plant.Is(plant.SkipFence) {
			m.leaving = append(m.leaving, p)
		}
	}
	if old.members == nil || old.members.View < members.View {
		m.self.mu.Lock()
		m.self.messages.reset()
		m.self.mu.Unlock()
	}
	// The old ends first: a new incarnation needs their places in the queue. Until
	// then there are neither links nor offers of those that leave.
	m.publish(next)
	err := m.dismiss(ctx)
	return errors.Join(err, m.welcome(next, fresh))
}

// publish makes a view the one that CAS, Send and Accept see.
func (m *Mesh) publish(v *view) {
	v.all = nil
	for _, member := range v.members.All {
		if p := v.peers[member.Worker]; p != nil {
			v.all = append(v.all, p)
		}
	}
	m.view.Store(v)
}

// welcome starts the links to new members.
func (m *Mesh) welcome(v *view, fresh []lease.Member) error {
	next := &view{members: v.members, peers: map[lease.Worker]*peer{}}
	for w, p := range v.peers {
		next.peers[w] = p
	}
	var errs []error
	for _, member := range fresh {
		p, err := m.newPeer(member)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next.peers[member.Worker] = p
	}
	m.publish(next)
	for _, member := range fresh {
		if p := next.peers[member.Worker]; p != nil {
			ctx, cancel := m.begin()
			p.cancel = cancel
			m.wg.Go(func() { p.keep(ctx) })
		}
	}
	return errors.Join(errs...)
}

// dismiss takes down the links of all that are leaving, at the same time. Those
// for which that failed stay on the list.
func (m *Mesh) dismiss(ctx context.Context) error {
	errs := make([]error, len(m.leaving))
	var wg sync.WaitGroup
	for i, p := range m.leaving {
		p.out.leave()
		p.cancel()
		wg.Go(func() { errs[i] = m.part(ctx, p) })
	}
	wg.Wait()
	var failed []*peer
	for i, p := range m.leaving {
		if errs[i] != nil {
			failed = append(failed, p)
		}
	}
	m.leaving = failed
	return errors.Join(errs...)
}

// part takes down both ends of a link. What is left of it is its memory, until the
// outcomes of what was outstanding were reported.
func (m *Mesh) part(ctx context.Context, p *peer) error {
	// The peer's verbs come in through the inbox: that end goes first.
	err := p.in.leave(ctx)
	select {
	case <-p.stopped:
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("mesh: the link to worker %d is still being connected: %w", p.member.Worker, ctx.Err()))
	}
	p.out.mu.Lock()
	e := p.out.end
	p.out.mu.Unlock()
	if e != nil {
		err = errors.Join(err, m.revokeEnd(ctx, e))
	}
	if err != nil {
		return err
	}
	m.graves.add(p)
	run, cancel := m.begin()
	m.wg.Go(func() {
		defer cancel()
		p.bury(run)
	})
	return nil
}

// bury frees the memory of a peer that left when nobody uses it any more, unless
// ctx ends before.
func (p *peer) bury(ctx context.Context) {
	if p.out.settle(ctx) != nil {
		return // Close frees it
	}
	if err := p.region.Close(); err != nil {
		p.log().Error("mesh: the memory of a link cannot be freed", "error", err)
	}
	p.mesh.graves.remove(p)
}

// graves are the peers that left and whose memory is not free yet.
type graves struct {
	mu  sync.Mutex // a leaf
	all []*peer
}

func (g *graves) add(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, p)
}

func (g *graves) remove(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = slices.DeleteFunc(g.all, func(o *peer) bool { return o == p })
}

// Accept answers the offer of another member, which wants a link to this worker,
// after its old end was revoked: nothing that it posted before takes effect any
// more. An offer that is no member's is refused as ErrNotMember: it may have
// installed a view before this worker did, and is to try again. Blocks until the
// old end is revoked, or ctx ends. It keeps nothing of the offer.
func (m *Mesh) Accept(ctx context.Context, offer Offer) (Offer, error) {
	if m.closed.Load() {
		return Offer{}, ErrClosed
	}
	if err := offer.check(&m.options); err != nil {
		return Offer{}, err
	}
	p := m.view.Load().peers[offer.From.Worker]
	if p == nil || p.member != offer.From || p.self() {
		return Offer{}, fmt.Errorf("%w: worker %d, incarnation %d", ErrNotMember, offer.From.Worker, offer.From.Incarnation)
	}
	answer, err := p.in.accept(ctx, &offer)
	if err == nil {
		p.hurry()
	}
	return answer, err
}

// Drain blocks until all that was posted before has taken effect or never will:
// on each link a READ that is posted now has completed, or the link was made anew
// since. So a link that stays down blocks it until ctx ends. Not for a Handler.
func (m *Mesh) Drain(ctx context.Context) error {
	type wait struct {
		link *link
		upTo uint64
	}
	var waits []wait
	for _, p := range m.view.Load().all {
		l := &p.out
		l.mu.Lock()
		if l.wasUp {
			waits = append(waits, wait{l, l.proofLocked()})
		}
		l.mu.Unlock()
	}
	m.Flush()
	for _, w := range waits {
		if err := w.link.awaitProof(ctx, w.upTo); err != nil {
			return err
		}
	}
	return nil
}

// awaitProof waits until a proof holds.
func (l *link) awaitProof(ctx context.Context, number uint64) error {
	for {
		l.mu.Lock()
		proven, gone, changed := l.proven >= number, l.gone, l.changed
		l.mu.Unlock()
		switch {
		case proven:
			return nil
		case gone:
			return fmt.Errorf("mesh: drain the link to worker %d: %w", l.peer.member.Worker, ErrNotMember)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("mesh: drain the link to worker %d: %w", l.peer.member.Worker, ctx.Err())
		}
	}
}
