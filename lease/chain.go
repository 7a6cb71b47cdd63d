package lease

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// want puts this worker behind the tail of the slot's chain. The expected word
// may be a guess: a failed CAS returns the truth.
func (c *Core) want(s *slot) *node {
	h, ok := c.usableHome(s)
	if !ok {
		return nil
	}
	expect := c.words[c.place(s.id)]
	if expect == 0 {
		expect = MakeWord(c.members.View, Free, 0)
	}
	n := s.newNode(node{ticket: expect.Ticket() + 1, state: casing, expect: expect})
	s.add(n)
	c.act(Action{Kind: CAS, Slot: s.id, To: h, Ticket: n.ticket, Expect: expect, New: expect.Swung(c.me)})
	return n
}

// Prefetch asks for the lease of a slot that a transaction will need, without a
// user: it is given away like any other lease if somebody asks first. If the tail
// was guessed wrong it asks once more; whoever loses that race asks when its
// transaction comes to the slot.
func (c *Core) Prefetch(id base.Slot) {
	s := c.slot(id)
	if !s.hasLive() {
		if n := c.want(s); n != nil {
			n.ahead = true
		}
	}
	c.forgetIdle(s)
}

// learn remembers the newest word of this view: an old READ may complete after a
// newer CAS.
func (c *Core) learn(s *slot, w Word) {
	if w.View() != c.members.View {
		panic(fmt.Sprintf("lease: slot %d: word %v in view %d", s.id, w, c.members.View))
	}
	if seen := &c.words[c.place(s.id)]; w.newer(*seen) {
		*seen = w
	}
}

// Swung reports the outcome of a CAS of kind CAS in view v. Known is false after
// a completion with an unknown outcome; a request that was certainly not done is
// reported by Unposted. Old is what the CAS found.
func (c *Core) Swung(id base.Slot, v base.View, t Ticket, known bool, old Word) {
	s, n := c.nodeOf(id, v, t)
	if n == nil || n.state != casing {
		return // of another view, or evidence has decided
	}
	switch {
	case !known && plant.Is(plant.UnknownFailed):
		s.remove(n)
	case !known && plant.Is(plant.UnknownDone):
		c.promote(s, n)
	case !known:
		n.state = maybe
	case old == n.expect:
		c.promote(s, n)
	default:
		s.remove(n)
		c.learn(s, old)
		if n.ahead && !s.hasLive() {
			c.want(s)
		}
	}
	c.advance(s)
}

// nodeOf finds a node for a report of view v.
func (c *Core) nodeOf(id base.Slot, v base.View, t Ticket) (*slot, *node) {
	s := c.at(id)
	if s == nil || v != c.View() {
		return nil, nil
	}
	return s, s.find(t)
}

// Unposted reports that a CAS, of either kind, was certainly not done.
func (c *Core) Unposted(id base.Slot, v base.View, t Ticket) {
	s, n := c.nodeOf(id, v, t)
	if n == nil {
		return
	}
	switch n.state {
	case casing:
		s.remove(n)
	case releasing:
		n.state = held
	default:
		return
	}
	c.advance(s)
}

// promote goes on after our CAS is known to have been executed.
func (c *Core) promote(s *slot, n *node) {
	n.inert = false
	c.learn(s, n.expect.Swung(c.me)) // also if evidence came instead of the reply
	if n.expect.Owner() == Free {
		n.state = loading
		c.act(Action{Kind: Load, Slot: s.id, Ticket: n.ticket})
		return
	}
	n.state = waiting
	c.send(n.expect.Owner(), Record{Kind: Req, Slot: s.id, Pred: n.expect.Ticket(), Ticket: n.ticket})
}

func (c *Core) send(to Worker, r Record) {
	r.From, r.View = c.me, c.members.View
	c.act(Action{Kind: Send, Slot: r.Slot, To: to, Record: r})
}

// Loaded reports that the values for a node are here, in view v.
func (c *Core) Loaded(id base.Slot, v base.View, t Ticket) {
	s, n := c.nodeOf(id, v, t)
	if n == nil || n.state != loading {
		return
	}
	n.state = held
	c.gained(s)
	c.advance(s)
}

// gained is what having the lease means for copies.
func (c *Core) gained(s *slot) {
	if s.shared != nil {
		s.shared.valid = false
	}
	s.pending, s.tries, s.misled = nil, 0, false
}

// resolve reads the word to decide an unknown CAS. The queue pair must be
// younger than the CAS: the shell has reported LinkDown with the unknown outcome
// and LinkUp when the peer had destroyed the old one.
func (c *Core) resolve(s *slot, n *node) {
	if n.reading {
		return
	}
	h, ok := c.usableHome(s)
	if !ok {
		return
	}
	n.reading = true
	c.act(Action{Kind: ReadWord, Slot: s.id, To: h, Ticket: n.ticket})
}

// WordRead reports the READ of a word for a node; known as in Swung.
func (c *Core) WordRead(id base.Slot, v base.View, t Ticket, known bool, w Word) {
	s, n := c.nodeOf(id, v, t)
	if n == nil || !n.reading {
		return
	}
	n.reading = false
	if known && (n.state == maybe || n.state == limbo) {
		c.learn(s, w)
		if n.state == maybe {
			c.decideAcquire(s, n, w)
		} else {
			c.decideRelease(s, n, w)
		}
	}
	c.advance(s)
}

// decideAcquire: a ticket above ours hides whether we stood between.
func (c *Core) decideAcquire(s *slot, n *node, w Word) {
	switch {
	case w == n.expect.Swung(c.me):
		c.promote(s, n)
	case w.Ticket() <= n.ticket && (w == n.expect || !plant.Is(plant.GuessAmbiguous)):
		s.remove(n)
	default:
		n.inert = true // whoever names our ticket is the proof
	}
}

func (c *Core) decideRelease(s *slot, n *node, w Word) {
	mine := MakeWord(c.members.View, c.me, n.ticket)
	switch {
	case w == mine || w.Ticket() == n.ticket+1 && w.Owner() != Free:
		n.state = held
	case w == MakeWord(c.members.View, Free, n.ticket+1):
		c.drop(s, n)
	default:
		n.inert = true
	}
}

// drop removes a node whose lease is gone; readers must look again.
func (c *Core) drop(s *slot, n *node) {
	c.refuse(s, n)
	s.remove(n)
	c.act(Action{Kind: Forget, Slot: s.id})
}

// refuse tells the readers that wait for a copy to read the word again.
func (c *Core) refuse(s *slot, n *node) {
	for r := n.requests; r != nil; r = r.next {
		c.send(r.from, Record{Kind: Nack, Slot: s.id, Nonce: r.nonce})
	}
	n.requests = nil
}

// Evict gives the lease up if nobody needs it: it is FREE afterwards, unless
// somebody asks meanwhile. Copies elsewhere are invalidated first; call it again
// later. It returns whether a CAS was posted.
func (c *Core) Evict(id base.Slot) bool {
	s := c.at(id)
	if s == nil {
		return false
	}
	n := s.held()
	if n == nil || s.users > 0 || s.queue.first != nil || n.succ.worker != Free || s.shared != nil {
		return false
	}
	if len(n.readers) > 0 && !plant.Is(plant.ReleaseReaders) {
		c.invalidate(s, n)
		return false
	}
	if n.dirty > c.durable && !plant.Is(plant.ReleaseDirty) || n.requests != nil {
		return false
	}
	h := c.members.Home(id)
	if !c.ready[h] || c.down[h] {
		return false
	}
	n.state = releasing
	mine := MakeWord(c.members.View, c.me, n.ticket)
	c.act(Action{Kind: Release, Slot: id, To: h, Ticket: n.ticket, Expect: mine, New: mine.Swung(Free)})
	return true
}

// Released reports the outcome of a CAS of kind Release; known and old as in Swung.
func (c *Core) Released(id base.Slot, v base.View, t Ticket, known bool, old Word) {
	s, n := c.nodeOf(id, v, t)
	if n == nil || n.state != releasing {
		return
	}
	mine := MakeWord(c.members.View, c.me, t)
	switch {
	case !known && plant.Is(plant.UnknownReleaseDone):
		c.drop(s, n)
	case !known && plant.Is(plant.UnknownReleaseKept):
		n.state = held
	case !known:
		n.state = limbo
		if !plant.Is(plant.LimboKeepsRequests) {
			c.refuse(s, n) // it may stay undecided: nobody may wait for it
		}
	case old == mine:
		c.learn(s, mine.Swung(Free))
		c.drop(s, n)
	default:
		c.learn(s, old)
		n.state = held // a request is on its way
	}
	c.advance(s)
}

// evidence: somebody names our ticket, so our CAS was executed.
func (c *Core) evidence(s *slot, t Ticket) *node {
	n := s.find(t)
	if n != nil && (n.state == casing || n.state == maybe) {
		c.promote(s, n)
	}
	return n
}

func (c *Core) onReq(s *slot, r *Record) bool {
	n := c.evidence(s, r.Pred)
	if plant.Is(plant.AcceptOldReq) && r.View < c.View() {
		n = s.held()
	}
	if n == nil {
		return false // a repeat
	}
	if n.state == releasing || n.state == limbo {
		n.state, n.inert = held, false // the release was not executed
	}
	from := place{r.From, r.Ticket}
	if n.succ.worker == Free {
		n.succ = from
		c.learn(s, MakeWord(r.View, r.From, r.Ticket))
	} else if n.succ != from {
		panic(fmt.Sprintf("lease: slot %d: ticket %d has two successors, w%d/%d and w%d/%d",
			s.id, n.ticket, n.succ.worker, n.succ.ticket, from.worker, from.ticket))
	}
	return true
}

func (c *Core) grant(s *slot, n *node) {
	c.serveReaders(s, n)
	r := Record{Kind: Grant, Slot: s.id, Ticket: n.succ.ticket}
	for _, x := range n.readers {
		if plant.Is(plant.ForgetReader) {
			break
		}
		r.Readers = append(r.Readers, ReaderEntry{x.worker, x.view})
	}
	to := n.succ.worker
	s.remove(n)
	c.send(to, r) // the shell adds the values, then forgets them
	c.act(Action{Kind: Forget, Slot: s.id})
}

func (c *Core) onGrant(s *slot, r *Record) bool {
	n := s.find(r.Ticket)
	if plant.Is(plant.IgnoreView) && r.View < c.View() && !s.hasLive() {
		n = &node{ticket: 99, state: waiting}
		s.add(n)
	}
	if plant.Is(plant.IgnoreTicket) && n == nil {
		n = s.anyWaiting()
	}
	if n == nil || n.state != waiting {
		return false // a repeat
	}
	n.state = held
	for _, x := range r.Readers {
		_, member := c.members.Incarnation(x.Worker)
		if x.Worker != c.me && member && (x.View == c.members.View || !c.active) {
			n.readers = append(n.readers, reader{x.Worker, x.View, oldRound})
		}
	}
	c.gained(s)
	return true
}
