package lease

import (
	"fmt"
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// Options of a Core.
type Options struct {
	// Me is the number of this worker.
	Me Worker
	// Turns is how many local users may go, from when the lease came, before a
	// successor that is known, and how many writers may have a turn at once; 0
	// means 8. Who asks late finds them gone, so that a worker that is far from the
	// home has as many turns as one that is near.
	Turns int
	// Burst is how many may go as long as nothing that they have written is durable:
	// the lease cannot leave before a sync in any case, which then serves more of
	// them. 0 means 8 times Turns.
	Burst int
	// Slots is how many slots there are in all; 0 means base.SlotCount.
	Slots base.Slot
	// Part and Parts say which of them are this core's: those that leave Part when
	// divided by Parts, a divisor of Slots; 0 for Parts means 1.
	Part, Parts base.Slot
	// Exclusive turns shared copies off: every reader takes the lease.
	Exclusive bool
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.Turns == 0 {
		o.Turns = 8
	}
	if o.Burst == 0 {
		o.Burst = 8 * o.Turns
	}
	if o.Slots == 0 {
		o.Slots = base.SlotCount
	}
	if o.Parts == 0 {
		o.Parts = 1
	}
}

// triesForCopy is how often a copy is asked for before the lease is: the chain
// is first come, first served, so readers cannot starve.
const triesForCopy = 2

// Core is what one worker knows of the leases of a part of the slots. It is not
// safe for concurrent use: the shell calls it under the latch of that part, and
// then carries out what Actions returns.
type Core struct {
	options Options
	me      Worker
	members *Members // nil before the first view
	// ready are the homes whose words are rebuilt in this view, down those whose
	// queue pair is broken.
	ready, down map[Worker]bool
	active      bool
	durable     base.Number
	nonce       uint32

	// slots are those about which there is something to know.
	slots table
	// words are the newest that were seen of each slot in this view, 0 if none.
	// They outlive the slot's state: a worker that forgets a word would guess that
	// the chain is empty, use a ticket a second time in one view, and take a
	// repeated record for evidence about the wrong node.
	words []Word
	// blocked are the slots that wait for a home.
	blocked map[Worker][]*slot
	// undurable are the slots that wait for the disk before they are handed on,
	// awaited is the newest batch that one of them waits for.
	undurable []*slot
	awaited   base.Number

	actions []Action
	// present is the user whose Acquire is on the stack: it gets its turn as a
	// result and not as an action.
	present *User
}

// New returns a core in no view: it grants nothing before Install and Ready.
func New(o Options) *Core {
	o.EnsureDefaults()
	return &Core{options: o, me: o.Me, ready: map[Worker]bool{}, down: map[Worker]bool{},
		slots: newTable(o.Parts), words: make([]Word, o.Slots/o.Parts), blocked: map[Worker][]*slot{}}
}

// Actions appends what there is to do to dst, in order, and forgets it.
func (c *Core) Actions(dst []Action) []Action {
	dst = append(dst, c.actions...)
	clear(c.actions)
	c.actions = c.actions[:0]
	return dst
}

// Quiet says that there are no Actions and that Awaits is 0.
func (c *Core) Quiet() bool { return len(c.actions) == 0 && len(c.undurable) == 0 }

// View is the installed view; 0 before the first.
func (c *Core) View() base.View {
	if c.members == nil {
		return 0
	}
	return c.members.View
}

func (c *Core) act(a Action) { c.actions = append(c.actions, a) }

// place is where what is known of a slot of this part is kept.
func (c *Core) place(id base.Slot) base.Slot { return c.slots.place(id) }

func (c *Core) slot(id base.Slot) *slot { return c.slots.enter(id) }

// at is the slot if there is something to know about it, or nil.
func (c *Core) at(id base.Slot) *slot { return c.slots.at(id) }

// Known is the number of slots about which there is something to know.
func (c *Core) Known() int { return c.slots.known() }

// Acquire asks for a turn in a slot. Without wait it is given at once, or
// Refused: then nothing has changed. With wait it may be Queued. A transaction
// waits only for slots greater than all it has.
func (c *Core) Acquire(id base.Slot, u *User, wait bool) Status {
	if u.state != idle {
		panic(fmt.Sprintf("lease: slot %d: a user that has or waits for slot %d", id, u.slot))
	}
	u.slot, u.pinned = id, false
	if s := c.at(id); s != nil && c.hit(s, u) {
		return Granted
	}
	s := c.slot(id)
	if !wait && !c.atOnce(s, u) {
		c.forgetIdle(s)
		return Refused
	}
	u.state = queued
	s.queue.push(u)
	c.present = u
	c.advance(s)
	c.present = nil
	if u.state == using {
		return Granted
	}
	return Queued
}

// hit gives a turn if that needs nothing else: the lease is here, nobody waits for
// it, and there is no copy that a writer would have to wait for; or a copy is here.
// It is what most calls of Acquire come to.
func (c *Core) hit(s *slot, u *User) bool {
	if u.Mode == Read && s.shared != nil && s.shared.valid && s.queue.first == nil {
		s.shared.pin(u)
		u.state = using
		return true
	}
	n := s.nodes
	if n == nil || n.state != held || s.queue.first != nil || n.wanted(Write) {
		return false
	}
	if u.Mode == Write {
		if s.shared != nil || len(n.readers) > 0 || s.arriving.first != nil || int(s.writers) >= c.options.Turns {
			return false
		}
		s.writers++
	}
	s.users++
	c.count(n)
	u.state = using
	return true
}

// count counts a turn since the lease came, as far as it matters.
func (c *Core) count(n *node) {
	if int(n.used) < c.options.Burst {
		n.used++
	}
}

// atOnce says whether u would have its turn without waiting and without keeping
// anybody else waiting.
func (c *Core) atOnce(s *slot, u *User) bool {
	if s.queue.first != nil {
		return false
	}
	if n := s.held(); n != nil {
		return n.succ.worker == Free && (u.Mode == Read || len(n.readers) == 0 && n.requests == nil && s.shared == nil && int(s.writers) < c.options.Turns)
	}
	return u.Mode == Read && s.shared != nil && s.shared.valid
}

// Upgrade makes a read turn one that may write, if nobody has to be waited for:
// the lease is here and no copy of it is alive. False leaves the turn as it was.
func (c *Core) Upgrade(u *User) bool {
	if u.Mode == Write {
		return true
	}
	s := c.at(u.slot)
	if u.state != using || u.pinned || s.shared != nil || len(s.held().readers) > 0 || s.held().requests != nil || int(s.writers) >= c.options.Turns {
		return false
	}
	u.Mode = Write
	s.writers++
	return true
}

// Release ends a user's turn or its wait. Dirty is the batch in which it wrote,
// 0 if it wrote nothing. A user that reads a gate writes in other slots: dirty is
// its batch, and the gate does not leave this worker before that is durable.
func (c *Core) Release(u *User, dirty base.Number) {
	s := c.at(u.slot)
	if s == nil { // the copy it had a pin on is gone with the view, or it has nothing
		u.state = idle
		return
	}
	switch u.state {
	case idle:
		return
	case queued:
		s.queue.remove(u)
	case invalidating:
		s.arriving.remove(u)
		c.endTurn(s, u)
	case using:
		if u.pinned {
			if s.shared != nil {
				s.shared.pins = remove(s.shared.pins, u)
				s.shared.dirty = max(s.shared.dirty, dirty)
				if s.shared.valid && s.queue.first == nil {
					u.state = idle
					return // nobody waits for it
				}
			}
		} else {
			n := s.held()
			if n != nil {
				n.dirty = max(n.dirty, dirty)
				if n.since == 0 {
					n.since = dirty
				}
			}
			c.endTurn(s, u)
			if n != nil && s.queue.first == nil && s.arriving.first == nil && s.shared == nil && !n.wanted(Write) {
				u.state = idle
				return // nobody waits for it
			}
		}
	}
	u.state = idle
	c.advance(s)
}

func (c *Core) endTurn(s *slot, u *User) {
	s.users--
	if u.Mode == Write {
		s.writers--
	}
}

// Durable says that all batches up to n are durable.
func (c *Core) Durable(n base.Number) {
	if n <= c.durable {
		return
	}
	c.durable = n
	list := c.undurable
	c.undurable = nil
	for _, s := range list {
		s.undurable = false
		c.advance(s) // enters it again if that is not enough
	}
}

// Awaits is the newest batch that a slot waits for before it is handed on; 0 if
// none does. The shell has it made durable, then calls Durable.
func (c *Core) Awaits() base.Number {
	if len(c.undurable) == 0 {
		return 0
	}
	return c.awaited
}

// clean says that batch dirty, which wrote in the slot, is durable, so that the
// slot may leave this worker. If not, the slot is advanced when it is.
func (c *Core) clean(s *slot, dirty base.Number) bool {
	if dirty <= c.durable || plant.Is(plant.GrantBeforeDurable) {
		return true
	}
	c.awaited = max(c.awaited, dirty)
	if !s.undurable {
		s.undurable = true
		c.undurable = append(c.undurable, s)
	}
	return false
}

// advance does all that is possible in a slot. It is called after every event.
func (c *Core) advance(s *slot) {
	if s.shared != nil {
		c.settleCopy(s)
	}
	for n := s.nodes; n != nil; n = n.next {
		if (n.state == maybe || n.state == limbo) && !n.inert {
			c.resolve(s, n)
		}
	}
	if n := s.held(); n != nil {
		c.serve(s, n)
	}
	if s.queue.first != nil && !s.hasLive() {
		c.obtain(s)
	}
	c.forgetIdle(s)
}

func (c *Core) forgetIdle(s *slot) {
	if s.idleNow() && c.at(s.id) == s {
		if plant.Is(plant.ForgetWord) {
			c.words[c.place(s.id)] = 0
		}
		c.slots.forget(s)
	}
}

// serve gives turns while the lease is held, then hands it over or hands out
// copies.
func (c *Core) serve(s *slot, n *node) {
	for s.queue.first != nil && c.mayTurn(s, n) {
		c.admit(s, n, s.queue.pop())
	}
	c.settleArriving(s, n)
	switch {
	case s.users == 0 && n.succ.worker != Free:
		// An own copy that is still pinned is in nobody's list of readers.
		if (s.shared == nil || plant.Is(plant.GrantOverPin)) && c.clean(s, n.dirty) {
			c.grant(s, n)
		}
	case s.writers == 0 && n.requests != nil:
		if c.clean(s, n.dirty) {
			c.serveReaders(s, n)
			if n.succ.worker == Free {
				n.used, n.since = 0, 0
				c.serve(s, n) // writers that had to let the readers go first
			}
		}
	}
}

func (c *Core) mayTurn(s *slot, n *node) bool {
	most := c.options.Turns
	if n.since > c.durable {
		most = c.options.Burst
	}
	if int(n.used) >= most && n.wanted(s.queue.first.Mode) && !plant.Is(plant.NoFair) {
		return false
	}
	return s.queue.first.Mode == Read || int(s.writers) < c.options.Turns
}

// wanted says whether somebody elsewhere waits for a turn of this mode to end: a
// successor for all of them, readers that want a copy for those who may write.
func (n *node) wanted(m Mode) bool {
	return n.succ.worker != Free || m == Write && n.requests != nil
}

func (c *Core) admit(s *slot, n *node, u *User) {
	s.users++
	c.count(n)
	if u.Mode == Write {
		s.writers++
		if (s.shared != nil || len(n.readers) > 0) && !plant.Is(plant.NoInval) {
			first := s.arriving.first == nil
			u.state = invalidating
			s.arriving.push(u)
			if first {
				c.invalidate(s, n)
			}
			return
		}
	}
	c.wake(u)
}

func (c *Core) wake(u *User) {
	u.state = using
	if u != c.present {
		c.act(Action{Kind: Wake, Slot: u.slot, User: u})
	}
}

// settleArriving lets writers go when no copy is left.
func (c *Core) settleArriving(s *slot, n *node) {
	if s.shared != nil || len(n.readers) > 0 {
		return
	}
	for s.arriving.first != nil {
		c.wake(s.arriving.pop())
	}
}

// obtain gets the lease or a copy for those who wait.
func (c *Core) obtain(s *slot) {
	if s.tries < triesForCopy && !c.options.Exclusive && s.queue.onlyReaders() {
		if s.pending == nil && s.shared == nil { // an invalid copy is dropped first
			c.askCopy(s)
		}
		return
	}
	c.want(s)
}

func (q *userQueue) onlyReaders() bool {
	for u := q.first; u != nil; u = u.next {
		if u.Mode != Read {
			return false
		}
	}
	return true
}

// usableHome is the home of the slot; false if verbs cannot be posted to it now:
// the slot is advanced when they can.
func (c *Core) usableHome(s *slot) (Worker, bool) {
	if c.members == nil {
		return Free, false // Install advances all
	}
	h := c.members.Home(s.id)
	if c.ready[h] && !c.down[h] {
		return h, true
	}
	if !s.blocked {
		s.blocked = true
		c.blocked[h] = append(c.blocked[h], s)
	}
	return h, false
}

// unblock advances the slots that wait for a home.
func (c *Core) unblock(h Worker) {
	list := c.blocked[h]
	delete(c.blocked, h)
	for _, s := range list {
		s.blocked = false
		c.advance(s)
	}
}

// each yields the slots that are known now; what is done to one may make it, or
// another, unknown.
func (c *Core) each(yield func(*slot) bool) { c.slots.all(yield) }

// remove takes one element out of a list whose order means nothing.
func remove[E comparable](list []E, e E) []E {
	if i := slices.Index(list, e); i >= 0 {
		list[i] = list[len(list)-1]
		list = list[:len(list)-1]
	}
	return list
}
