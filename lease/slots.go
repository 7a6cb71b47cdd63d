package lease

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// Mode is what a user wants to do with the keys of a slot.
type Mode uint8

const (
	// Read needs the lease or a copy.
	Read Mode = iota
	// Write needs the lease and no copies elsewhere.
	Write
)

// Status is the answer to a request of a user.
type Status uint8

const (
	// Refused means that it would have to wait and may not.
	Refused Status = iota
	// Granted means that the user has its turn.
	Granted
	// Queued means that an action Wake will name the user, once.
	Queued
)

// User is one transaction's use of one slot. It belongs to the transaction; the
// core keeps the pointer from Acquire to Release. The exported fields are set by
// the transaction before.
type User struct {
	// Mode is what it wants to do.
	Mode Mode

	// Owner is for the shell.
	Owner any

	slot   base.Slot
	state  userState
	pinned bool // the turn is a pin on a copy, not on the lease
	next   *User
}

type userState uint8

const (
	idle userState = iota
	queued
	invalidating // has its turn, but copies elsewhere are still alive
	using
)

// Slot is the slot the user has or waits for.
func (u *User) Slot() base.Slot { return u.slot }

// Pinned says whether the turn is a pin on a copy: the transaction must check
// the worker's own time-out after its last read, and may not write in the slot.
func (u *User) Pinned() bool { return u.pinned }

// Has says whether the user has its turn.
func (u *User) Has() bool { return u.state == using }

// userQueue is a FIFO.
type userQueue struct{ first, last *User }

func (q *userQueue) push(u *User) {
	u.next = nil
	if q.last == nil {
		q.first = u
	} else {
		q.last.next = u
	}
	q.last = u
}

func (q *userQueue) pop() *User {
	u := q.first
	if q.first = u.next; q.first == nil {
		q.last = nil
	}
	u.next = nil
	return u
}

// remove takes u out; false if it is not in.
func (q *userQueue) remove(u *User) bool {
	var before *User
	for x := q.first; x != nil; before, x = x, x.next {
		if x != u {
			continue
		}
		if before == nil {
			q.first = u.next
		} else {
			before.next = u.next
		}
		if q.last == u {
			q.last = before
		}
		u.next = nil
		return true
	}
	return false
}

// nodeState is where a node stands; section 2 of the protocol has the names.
type nodeState uint8

const (
	casing    nodeState = iota + 1 // our CAS is posted
	maybe                          // its outcome is unknown
	waiting                        // in the chain; the request is with the predecessor
	loading                        // we hold; values come from the store
	held                           // usable, sticky
	releasing                      // the CAS to FREE is posted; not usable
	limbo                          // its outcome is unknown; not usable
)

var stateNames = [...]string{casing: "casing", maybe: "maybe", waiting: "waiting", loading: "loading", held: "held", releasing: "releasing", limbo: "limbo"}

func (s nodeState) String() string { return stateNames[s] }

// place is a ticket of a worker: where a successor waits.
type place struct {
	worker Worker
	ticket Ticket
}

// copyRequest is a reader that waits for a copy.
type copyRequest struct {
	from  Worker
	nonce uint32
	next  *copyRequest
}

// reader is a worker that may have a copy.
type reader struct {
	worker Worker
	// view in which the copy was made; entries of an older view are dropped at
	// activation, and nothing is sent to them before.
	view base.View
	// round of invalidation in which the copy was made, oldRound for entries that
	// came with a grant.
	round int64
}

// oldRound is older than every round of a holder.
const oldRound = -1

// node is this worker's place in a slot's chain. There is one for each slot held:
// the order of the fields keeps it small.
type node struct {
	ticket Ticket
	// used counts turns, up to Burst, since the lease came, or readers elsewhere had
	// their copies.
	used int32
	// expect is the word our CAS expects: it names the predecessor.
	expect Word
	succ   place // worker Free: none known
	// dirty is the newest batch that wrote in the slot, since the first one while
	// turns were counted.
	dirty, since base.Number
	readers      []reader
	// requests are the readers that wait for a copy, first come first.
	requests *copyRequest
	next     *node // of the same slot; more than one is rare
	round    int32
	state    nodeState
	// inert nodes stay undecided until evidence comes or the view ends.
	inert bool
	// reading says that the READ which may decide is posted.
	reading bool
	// ahead says that no user waits for it yet: see Prefetch.
	ahead bool
}

// ask enters a reader that waits for a copy, once.
func (n *node) ask(from Worker, nonce uint32) {
	end := &n.requests
	for ; *end != nil; end = &(*end).next {
		if (*end).from == from && (*end).nonce == nonce {
			return
		}
	}
	*end = &copyRequest{from: from, nonce: nonce}
}

// live nodes stand for a lease that we have or will get.
func (n *node) live() bool { return !n.inert }

// Stamp orders copies and invalidations of one slot in one view.
type Stamp struct {
	// Ticket is the holder's, Round its round of invalidation.
	Ticket Ticket
	Round  int64
}

// Less says whether s is older than o.
func (s Stamp) Less(o Stamp) bool {
	return s.Ticket < o.Ticket || s.Ticket == o.Ticket && s.Round < o.Round
}

// slotCopy is a shared copy that this worker has.
type slotCopy struct {
	stamp Stamp
	valid bool
	// pins are the users of the copy.
	pins []*User
	// dirty is the newest batch of a user of the copy, if it is a gate's.
	dirty base.Number
	// acks are owed when the last pin is gone.
	acks []ack
}

func (x *slotCopy) pin(u *User) {
	u.pinned = true
	x.pins = append(x.pins, u)
}

type ack struct {
	to    Worker
	stamp Stamp
}

// pendingCopy is our request for a copy.
type pendingCopy struct {
	nonce uint32
	// floor is the newest invalidation that overtook the answer.
	floor Stamp
	// sent says that the word is read and the request is with the holder.
	sent bool
	// hinted says that it went to whom a remembered word names.
	hinted bool
}

// slot is what this worker knows of one slot. Absent slots are all zero.
type slot struct {
	id base.Slot
	// users have a turn on the lease, those in arriving included.
	users int32
	// writers of them may write.
	writers int32
	// tries counts copies that were refused or overtaken, up to triesForCopy.
	tries uint8
	// misled says that whom the remembered word names has no copy to give: the
	// word is read before the next request.
	misled bool
	// blocked says that the slot is in a list of those that wait for a home.
	blocked bool
	// undurable says that the slot is in the list of those that wait for the disk.
	undurable bool
	nodes     *node // newest first
	// room is for the first node, as most slots have one: what a turn looks at lies
	// together.
	room node
	// arriving have their turn and wait until no copies are left.
	arriving userQueue
	// queue waits for a turn.
	queue   userQueue
	shared  *slotCopy
	pending *pendingCopy
}

// newNode is a node for the slot that is in no list yet. What was said of a node
// that was removed is gone then.
func (s *slot) newNode(of node) *node {
	for n := s.nodes; n != nil; n = n.next {
		if n == &s.room {
			spilled := new(node)
			*spilled = of
			return spilled
		}
	}
	s.room = of
	return &s.room
}

// tried counts a copy that was not had.
func (s *slot) tried() { s.tries = min(s.tries+1, triesForCopy) }

func (s *slot) find(t Ticket) *node {
	for n := s.nodes; n != nil; n = n.next {
		if n.ticket == t {
			return n
		}
	}
	return nil
}

func (s *slot) held() *node {
	for n := s.nodes; n != nil; n = n.next {
		if n.state == held {
			return n
		}
	}
	return nil
}

// anyWaiting is for a planted bug.
func (s *slot) anyWaiting() *node {
	for n := s.nodes; n != nil; n = n.next {
		if n.state == waiting {
			return n
		}
	}
	return nil
}

func (s *slot) hasLive() bool {
	for n := s.nodes; n != nil; n = n.next {
		if n.live() {
			return true
		}
	}
	return false
}

func (s *slot) add(n *node) {
	if s.find(n.ticket) != nil {
		panic(fmt.Sprintf("lease: slot %d: ticket %d is used twice by one worker", s.id, n.ticket))
	}
	n.next = s.nodes
	s.nodes = n
}

func (s *slot) remove(n *node) {
	for p := &s.nodes; *p != nil; p = &(*p).next {
		if *p == n {
			*p = n.next
			n.next = nil
			return
		}
	}
}

// idleNow says that nothing about the slot is worth remembering.
func (s *slot) idleNow() bool {
	return s.nodes == nil && s.users == 0 && s.queue.first == nil && s.shared == nil && s.pending == nil && !s.blocked && !s.undurable
}
