package lease

import (
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// askCopy begins to ask for a copy. The remembered word is a hint whom: a word that
// its home once had names a ticket that was given out, so the request is evidence
// for whoever has it, and a worker that has it no more refuses. Then, and without
// a hint, the word itself says whom.
func (c *Core) askCopy(s *slot) {
	h, ok := c.usableHome(s)
	if !ok {
		return
	}
	c.nonce++
	s.pending = &pendingCopy{nonce: c.nonce, floor: Stamp{0, oldRound}}
	hint := c.words[c.place(s.id)]
	if owner := hint.Owner(); owner != Free && owner != c.me && (!s.misled || plant.Is(plant.HintAgain)) {
		s.pending.hinted = true
		c.requestCopy(s, hint)
		return
	}
	c.act(Action{Kind: ReadTail, Slot: s.id, To: h, Nonce: c.nonce})
}

// requestCopy asks the tail that a word names for a copy.
func (c *Core) requestCopy(s *slot, w Word) {
	s.pending.sent = true
	c.send(w.Owner(), Record{Kind: ReadReq, Slot: s.id, Ticket: w.Ticket(), Nonce: s.pending.nonce})
}

// TailRead reports the READ of a word for a copy; known as in Swung.
func (c *Core) TailRead(id base.Slot, v base.View, nonce uint32, known bool, w Word) {
	s := c.at(id)
	if s == nil || v != c.View() || s.pending == nil || s.pending.nonce != nonce || s.pending.sent {
		return
	}
	switch {
	case !known:
		s.pending = nil
	case w.Owner() == Free || w.Owner() == c.me:
		// Nobody to ask: the lease itself is as cheap.
		s.pending, s.tries = nil, triesForCopy
		c.learn(s, w)
	default:
		c.learn(s, w)
		c.requestCopy(s, w)
	}
	c.advance(s)
}

func (c *Core) onReadReq(s *slot, r *Record) {
	n := c.evidence(s, r.Ticket)
	if n == nil && plant.Is(plant.CopyWithoutLease) {
		c.send(r.From, Record{Kind: Copy, Slot: s.id, Nonce: r.Nonce, Stamp: Stamp{r.Ticket, 0}})
		return
	}
	if n == nil || n.state == limbo {
		c.send(r.From, Record{Kind: Nack, Slot: s.id, Nonce: r.Nonce})
		return
	}
	n.ask(r.From, r.Nonce)
}

// serveReaders answers the readers that wait. The entry stands before the copy
// is sent.
func (c *Core) serveReaders(s *slot, n *node) {
	for r := n.requests; r != nil; r = r.next {
		if _, member := c.members.Incarnation(r.from); !member {
			continue
		}
		n.enter(reader{r.from, c.members.View, int64(n.round)})
		c.send(r.from, Record{Kind: Copy, Slot: s.id, Nonce: r.nonce, Stamp: Stamp{n.ticket, int64(n.round)}})
	}
	n.requests = nil
}

// enter adds a reader or replaces its entry.
func (n *node) enter(r reader) {
	for i := range n.readers {
		if n.readers[i].worker == r.worker {
			n.readers[i] = r
			return
		}
	}
	n.readers = append(n.readers, r)
}

// invalidate begins a round. Readers of an older view go at activation: nothing
// is sent to them before.
func (c *Core) invalidate(s *slot, n *node) {
	n.round++
	for _, x := range n.readers {
		if x.view == c.members.View || plant.Is(plant.EarlyInval) {
			c.send(x.worker, Record{Kind: Inval, Slot: s.id, Stamp: Stamp{n.ticket, int64(n.round)}})
		}
	}
}

// onCopy takes a copy over; false if it is not wanted any more.
func (c *Core) onCopy(s *slot, r *Record) bool {
	p := s.pending
	if plant.Is(plant.UnsolicitedCopy) && p == nil && s.shared == nil && !s.hasLive() {
		p = &pendingCopy{nonce: r.Nonce}
	}
	if p == nil || p.nonce != r.Nonce {
		return false // of an abandoned request
	}
	s.pending = nil
	if r.Stamp.Less(p.floor) && !plant.Is(plant.NoFloor) {
		s.tried() // overtaken by an invalidation
		return false
	}
	if s.held() != nil || s.shared != nil {
		return false
	}
	s.shared = &slotCopy{stamp: r.Stamp, valid: true}
	s.tries, s.misled = 0, false
	return true
}

func (c *Core) onNack(s *slot, r *Record) {
	if s.pending == nil || s.pending.nonce != r.Nonce {
		return
	}
	if !s.pending.hinted { // what the word said counts, what was remembered does not
		s.tried()
	}
	s.pending, s.misled = nil, true
}

func (c *Core) onInval(s *slot, r *Record) {
	if s.pending != nil && s.pending.floor.Less(r.Stamp) {
		s.pending.floor = r.Stamp
	}
	if s.shared != nil && s.shared.stamp.Less(r.Stamp) {
		s.shared.valid = false
		if !plant.Is(plant.AckPinned) {
			s.shared.acks = append(s.shared.acks, ack{r.From, r.Stamp}) // when the last pin is gone
			return
		}
	}
	c.send(r.From, Record{Kind: InvalAck, Slot: s.id, Stamp: r.Stamp})
}

func (c *Core) onInvalAck(s *slot, r *Record) {
	n := s.find(r.Stamp.Ticket)
	if n == nil {
		return
	}
	// An acknowledgement of an older round must not remove a younger copy.
	n.readers = slices.DeleteFunc(n.readers, func(x reader) bool {
		return x.worker == r.From && (x.round < r.Stamp.Round || plant.Is(plant.AckAnyRound))
	})
}

// settleCopy pins the copy for the readers that wait, or drops it when it is
// invalid and nobody pins it.
func (c *Core) settleCopy(s *slot) {
	if !s.shared.valid {
		if len(s.shared.pins) == 0 && (plant.Is(plant.AckDirtyGate) || c.clean(s, s.shared.dirty)) {
			c.dropCopy(s)
		}
		return
	}
	var rest userQueue
	for s.queue.first != nil {
		u := s.queue.pop()
		if u.Mode != Read {
			rest.push(u)
			continue
		}
		s.shared.pin(u)
		c.wake(u)
	}
	s.queue = rest
}

func (c *Core) dropCopy(s *slot) {
	acks := s.shared.acks
	s.shared = nil
	if s.held() == nil { // else the values are those of the lease
		c.act(Action{Kind: Forget, Slot: s.id})
	}
	for _, a := range acks {
		c.send(a.to, Record{Kind: InvalAck, Slot: s.id, Stamp: a.stamp})
	}
}
