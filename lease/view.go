package lease

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// Receive takes a record of another worker, or of this one. It returns whether
// the values that came with a Grant or Copy are to be installed. A record of
// another view than the installed one is dropped; one of a later view is a fault
// of the protocol, and so an error.
func (c *Core) Receive(r *Record) (install bool, err error) {
	if r.View > c.View() {
		return false, fmt.Errorf("lease: %v of view %d from w%d in view %d: nothing of a view may be sent before all have installed it", r.Kind, r.View, r.From, c.View())
	}
	if r.View < c.View() && !(plant.Is(plant.IgnoreView) && r.Kind == Grant) && !(plant.Is(plant.AcceptOldReq) && r.Kind == Req) {
		return false, nil
	}
	if r.Slot >= c.options.Slots || r.Slot%c.options.Parts != c.options.Part {
		return false, fmt.Errorf("lease: %v about slot %d from w%d, which is not of this part", r.Kind, r.Slot, r.From)
	}
	s := c.slot(r.Slot)
	switch r.Kind {
	case Req:
		c.onReq(s, r)
	case Grant:
		install = c.onGrant(s, r)
	case ReadReq:
		c.onReadReq(s, r)
	case Copy:
		install = c.onCopy(s, r)
	case Nack:
		c.onNack(s, r)
	case Inval:
		c.onInval(s, r)
	case InvalAck:
		c.onInvalAck(s, r)
	default:
		return false, fmt.Errorf("lease: record of kind %d from w%d", r.Kind, r.From)
	}
	c.advance(s)
	return install, nil
}

// LinkDown says that the queue pair to w is broken: no verb is asked for until
// LinkUp. Outcomes that are unknown because of it are reported after this.
func (c *Core) LinkDown(w Worker) { c.down[w] = true }

// LinkUp says that there is a new queue pair to w, and that w had destroyed the
// old one before.
func (c *Core) LinkUp(w Worker) {
	delete(c.down, w)
	c.unblock(w)
}

// Install enters a view. Leases that are held stay, all else of the old view is
// forgotten; users that have a pin are told to give up. The shell has destroyed
// the queue pairs to those who are not members any more.
func (c *Core) Install(m *Members) {
	old := c.members
	if old != nil && m.View <= old.View {
		panic(fmt.Sprintf("lease: view %d installed after %d", m.View, old.View))
	}
	c.members, c.active = m, false
	clear(c.ready)
	clear(c.down)
	clear(c.blocked)
	clear(c.words)
	for s := range c.each {
		s.blocked, s.tries, s.misled, s.pending = false, 0, false, nil
		if s.shared != nil && !plant.Is(plant.KeepCopies) {
			for _, u := range s.shared.pins {
				c.act(Action{Kind: Abort, Slot: s.id, User: u})
			}
			s.shared = nil
		}
		c.carry(s, old)
	}
	for s := range c.each {
		c.advance(s)
	}
}

// carry keeps a node that holds the lease, as ticket 0 of the new view.
func (c *Core) carry(s *slot, old *Members) {
	var kept *node
	for n := s.nodes; n != nil; n = n.next {
		if n.state != held && n.state != loading {
			continue
		}
		if kept != nil {
			panic(fmt.Sprintf("lease: slot %d is held twice, by tickets %d and %d", s.id, kept.ticket, n.ticket))
		}
		kept = n
	}
	s.nodes = kept
	if kept == nil {
		c.act(Action{Kind: Forget, Slot: s.id})
		return
	}
	kept.next, kept.ticket, kept.succ, kept.used, kept.since, kept.round, kept.requests = nil, 0, place{}, 0, 0, 0, nil
	readers := kept.readers
	kept.readers = nil
	for _, x := range readers {
		if c.members.Same(old, x.worker) && !plant.Is(plant.ClearOnInstall) {
			kept.readers = append(kept.readers, reader{x.worker, x.view, oldRound})
		}
	}
	if kept.state == loading {
		c.act(Action{Kind: Load, Slot: s.id, Ticket: 0})
	}
}

// Held appends the slots of home h that this worker holds: what it reports to h
// after it has drained the old view.
func (c *Core) Held(h Worker, dst []base.Slot) []base.Slot {
	for s := range c.each {
		if c.members.Home(s.id) != h {
			continue
		}
		for n := s.nodes; n != nil; n = n.next {
			if n.state == held || n.state == loading {
				dst = append(dst, s.id)
				break
			}
		}
	}
	return dst
}

// Ready says that home h has rebuilt its words in view v. The first one
// activates the view here: whoever had a copy of an older view has reported, so
// those copies are gone.
func (c *Core) Ready(h Worker, v base.View) {
	if v != c.View() || c.ready[h] {
		return
	}
	c.ready[h] = true
	if !c.active {
		c.active = true
		for s := range c.each {
			for n := s.nodes; n != nil; n = n.next {
				n.readers = deleteOlder(n.readers, v)
			}
			if s.arriving.first != nil {
				c.advance(s)
			}
		}
	}
	c.unblock(h)
}

func deleteOlder(readers []reader, v base.View) []reader {
	kept := readers[:0]
	for _, x := range readers {
		if x.view == v && !plant.Is(plant.ReadyClearsAll) {
			kept = append(kept, x)
		}
	}
	return kept
}
