package lease

import (
	"testing"

	"github.com/tenure-faas/tenure/base"
)

// bench is one core in a view of workers 1..3, all homes ready, and what it has
// asked for.
type bench struct {
	t    *testing.T
	c    *Core
	acts []Action
}

func newBench(t *testing.T, me Worker) *bench {
	t.Helper()
	m, err := NewMembers(1, []Member{{1, 1}, {2, 1}, {3, 1}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, c: New(Options{Me: me, Slots: 16})}
	b.c.Install(m)
	for w := Worker(1); w <= 3; w++ {
		b.c.Ready(w, 1)
	}
	return b
}

// next takes the one action that there must be, of this kind.
func (b *bench) next(kind ActionKind) Action {
	b.t.Helper()
	b.acts = b.c.Actions(b.acts)
	if len(b.acts) == 0 || b.acts[0].Kind != kind {
		b.t.Fatalf("got actions %+v, want first one of kind %d", b.acts, kind)
	}
	a := b.acts[0]
	b.acts = b.acts[1:]
	return a
}

// sends takes the next action, which must send a record of this kind.
func (b *bench) sends(kind Kind, to Worker) Record {
	b.t.Helper()
	a := b.next(Send)
	if a.Record.Kind != kind || a.To != to {
		b.t.Fatalf("sends %v to w%d, want %v to w%d", a.Record.Kind, a.To, kind, to)
	}
	return a.Record
}

func (b *bench) quiet() {
	b.t.Helper()
	if b.acts = b.c.Actions(b.acts); len(b.acts) > 0 {
		b.t.Fatalf("unexpected actions %+v", b.acts)
	}
}

func (b *bench) receive(r Record) bool {
	b.t.Helper()
	r.View, r.Slot = 1, 0
	install, err := b.c.Receive(&r)
	if err != nil {
		b.t.Fatal(err)
	}
	return install
}

// hold makes the core hold slot 0 with ticket 1, taken from FREE.
func (b *bench) hold() {
	b.t.Helper()
	var u User
	u.Mode = Write
	if s := b.c.Acquire(0, &u, true); s != Queued {
		b.t.Fatalf("status %d", s)
	}
	b.c.Swung(0, 1, 1, true, b.next(CAS).Expect)
	b.c.Loaded(0, 1, b.next(Load).Ticket)
	if b.next(Wake).User != &u {
		b.t.Fatal("another user was woken")
	}
	b.c.Release(&u, 0)
	b.quiet()
}

// release posts the CAS to FREE.
func (b *bench) release() Action {
	b.t.Helper()
	if !b.c.Evict(0) {
		b.t.Fatal("not released")
	}
	return b.next(Release)
}

func state(c *Core, t Ticket) string {
	s := c.at(0)
	if s == nil || s.find(t) == nil {
		return "gone"
	}
	n := s.find(t)
	if n.inert {
		return "inert " + n.state.String()
	}
	return n.state.String()
}

func (b *bench) want(t Ticket, want string) {
	b.t.Helper()
	if got := state(b.c, t); got != want {
		b.t.Fatalf("node %d is %s, want %s", t, got, want)
	}
}

// The stories of lease_protocol.md section 14, by name, and those that the
// adversary found since.

// The reply of the CAS is lost and another worker queues behind: the word shows a
// third worker. The node must wake up when somebody names its ticket.
func TestTailCASUnknownThenQueuedBehind(t *testing.T) {
	for _, evidence := range []Record{
		{Kind: Req, From: 2, Pred: 1, Ticket: 2},
		{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 7},
	} {
		b := newBench(t, 1)
		u := User{Mode: Write}
		b.c.Acquire(0, &u, true)
		b.next(CAS)
		b.c.Swung(0, 1, 1, false, 0)
		b.next(ReadWord)
		b.want(1, "maybe")
		b.c.WordRead(0, 1, 1, true, MakeWord(1, 3, 3))
		b.want(1, "inert maybe")
		again := b.next(CAS) // nobody waits for an inert node
		if again.Expect != MakeWord(1, 3, 3) {
			t.Fatalf("queues behind %v", again.Expect)
		}
		b.receive(evidence)
		b.want(1, "loading")
	}
}

// An unknown CAS that expected a wrong guess: a ticket not above ours in the word
// proves that it was not executed.
func TestGuessThatWasNeverTrue(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	b.next(CAS)
	b.c.Swung(0, 1, 1, false, 0)
	b.next(ReadWord)
	b.c.WordRead(0, 1, 1, true, MakeWord(1, 2, 1))
	b.want(1, "gone")
	if again := b.next(CAS); again.Expect != MakeWord(1, 2, 1) {
		t.Fatalf("queues behind %v", again.Expect)
	}
}

// An old READ completes after a newer CAS reply: the next attempt must not claim
// a ticket that was used here.
func TestRememberedWordGoesBack(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.c.Released(0, 1, 1, true, b.release().Expect)
	b.next(Forget)
	b.c.slot(0).pending = &pendingCopy{nonce: 9} // its READ was posted before the release
	b.c.TailRead(0, 1, 9, true, MakeWord(1, 1, 1))
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	if again := b.next(CAS); again.Expect != MakeWord(1, Free, 2) {
		t.Fatalf("queues behind %v, want 1/free/2", again.Expect)
	}
}

// A worker whose slot became idle must not guess a word that it has used: a
// repeated REQ would be evidence for the wrong node.
func TestIdleSlotKeepsItsWord(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	b.sends(Grant, 2)
	b.next(Forget)
	if b.c.Known() != 0 {
		t.Fatal("the slot is not idle")
	}
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	if n := b.next(CAS); n.Ticket != 3 {
		t.Fatalf("takes ticket %d, want 3", n.Ticket)
	}
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2}) // a repeat
	b.want(3, "casing")
}

// The successor's request arrives before our own CAS completes.
func TestReqBeforeOwnCASCompletion(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	cas := b.next(CAS)
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	b.want(1, "loading")
	b.next(Load)
	b.c.Swung(0, 1, 1, true, cas.Expect) // too late to matter
	b.quiet()
	b.c.Loaded(0, 1, 1)
	b.next(Wake)
	b.quiet() // the successor waits for the user
	b.c.Release(&u, 0)
	if r := b.sends(Grant, 2); r.Ticket != 2 {
		t.Fatalf("grants ticket %d", r.Ticket)
	}
}

// A request during a release is the proof that the release fails.
func TestReqDuringRelease(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.release()
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	if r := b.sends(Grant, 2); r.Ticket != 2 {
		t.Fatalf("grants ticket %d", r.Ticket)
	}
	b.next(Forget)
	b.c.Released(0, 1, 1, true, MakeWord(1, 2, 2))
	b.want(1, "gone")
}

// An unknown release where a requester had won: the node answers its request.
func TestReleaseUnknownRequesterWon(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.release()
	b.c.Released(0, 1, 1, false, 0)
	b.next(ReadWord)
	b.c.WordRead(0, 1, 1, true, MakeWord(1, 3, 5))
	b.want(1, "inert limbo")
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	b.sends(Grant, 2)
}

// An unknown release that had won: the node stays silent for ever.
func TestReleaseUnknownReleaseWon(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.release()
	b.c.Released(0, 1, 1, false, 0)
	b.next(ReadWord)
	b.c.WordRead(0, 1, 1, true, MakeWord(1, Free, 2))
	b.want(1, "gone")
}

// A reader that asked during a release must not wait for a node that stays
// undecided. Found by the adversary.
func TestLimboRefusesReaders(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.release()
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 4})
	b.quiet()
	b.c.Released(0, 1, 1, false, 0)
	if r := b.sends(Nack, 2); r.Nonce != 4 {
		t.Fatalf("refuses request %d", r.Nonce)
	}
}

// hasCopy makes the core have a copy of slot 0, of ticket 1, round 0, that u has
// pinned.
func (b *bench) hasCopy(u *User) {
	b.t.Helper()
	b.c.Acquire(0, u, true)
	read := b.next(ReadTail)
	b.c.TailRead(0, 1, read.Nonce, true, MakeWord(1, 2, 1))
	b.sends(ReadReq, 2)
	if !b.receive(Record{Kind: Copy, From: 2, Nonce: read.Nonce, Stamp: Stamp{1, 0}}) {
		b.t.Fatal("the copy was not taken")
	}
	b.next(Wake)
	if !u.Has() || !u.Pinned() {
		b.t.Fatal("no pin")
	}
}

// The acknowledgement waits for the last pin.
func TestPinnedCopyAcked(t *testing.T) {
	b := newBench(t, 1)
	var u User
	b.hasCopy(&u)
	b.receive(Record{Kind: Inval, From: 2, Stamp: Stamp{1, 1}})
	b.quiet()
	b.c.Release(&u, 0)
	b.next(Forget)
	if r := b.sends(InvalAck, 2); r.Stamp != (Stamp{1, 1}) {
		t.Fatalf("acknowledges %v", r.Stamp)
	}
}

// The copy comes after the invalidation that was sent after it.
func TestCopyOvertakenByInval(t *testing.T) {
	b := newBench(t, 1)
	var u User
	b.c.Acquire(0, &u, true)
	read := b.next(ReadTail)
	b.c.TailRead(0, 1, read.Nonce, true, MakeWord(1, 2, 1))
	b.sends(ReadReq, 2)
	b.receive(Record{Kind: Inval, From: 2, Stamp: Stamp{1, 1}})
	b.sends(InvalAck, 2)
	if b.receive(Record{Kind: Copy, From: 2, Nonce: read.Nonce, Stamp: Stamp{1, 0}}) {
		t.Fatal("a dead copy was taken")
	}
}

// The copy of a request that was given up is not taken for a later one's.
func TestCopyOfAbandonedRequest(t *testing.T) {
	b := newBench(t, 1)
	var u User
	b.c.Acquire(0, &u, true)
	first := b.next(ReadTail)
	b.c.TailRead(0, 1, first.Nonce, true, MakeWord(1, 2, 1))
	b.sends(ReadReq, 2)
	b.receive(Record{Kind: Nack, From: 2, Nonce: first.Nonce})
	second := b.next(ReadTail)
	if b.receive(Record{Kind: Copy, From: 2, Nonce: first.Nonce, Stamp: Stamp{1, 0}}) || second.Nonce == first.Nonce {
		t.Fatal("the copy of the first request was taken for the second's")
	}
}

// A repeated acknowledgement of an abandoned round must not remove the younger
// copy of the same reader.
func TestOldInvAckRemovesNewCopy(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 1})
	b.sends(Copy, 2)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	if r := b.sends(Inval, 2); r.Stamp != (Stamp{1, 1}) {
		t.Fatalf("invalidates %v", r.Stamp)
	}
	b.receive(Record{Kind: InvalAck, From: 2, Stamp: Stamp{1, 1}})
	b.next(Wake)
	b.c.Release(&u, 0)
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 2})
	if r := b.sends(Copy, 2); r.Stamp != (Stamp{1, 1}) {
		t.Fatalf("copy of %v", r.Stamp)
	}
	b.receive(Record{Kind: InvalAck, From: 2, Stamp: Stamp{1, 1}}) // a repeat
	if n := b.c.at(0).held(); len(n.readers) != 1 {
		t.Fatal("the reader of round 1 was removed by the acknowledgement of round 1")
	}
}

// A lease is not handed on while this worker's own copy is pinned: it is in
// nobody's list. Found by the adversary.
func TestNoGrantOverOwnPin(t *testing.T) {
	b := newBench(t, 1)
	var reader User
	b.hasCopy(&reader)
	writer := User{Mode: Write}
	b.c.Acquire(0, &writer, true)
	b.c.Swung(0, 1, 2, true, b.next(CAS).Expect)
	b.sends(Req, 2)
	b.c.Release(&writer, 0) // gives up waiting
	b.receive(Record{Kind: Req, From: 3, Pred: 2, Ticket: 3})
	b.receive(Record{Kind: Grant, From: 2, Ticket: 2, Readers: []ReaderEntry{{1, 1}}})
	b.quiet()
	b.c.Release(&reader, 0)
	if r := b.sends(Grant, 3); len(r.Readers) != 0 {
		t.Fatalf("grants with readers %v", r.Readers)
	}
}

// view2 installs view 2 with the same members.
func (b *bench) view2() {
	b.t.Helper()
	m, err := NewMembers(2, []Member{{1, 1}, {2, 1}, {3, 1}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.c.Install(m)
}

// A holder in V+1 sends nothing to a reader that may still be in V; the reader's
// entry goes at activation, an active reader's stays.
func TestHolderWritesWhileSlowReader(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 1})
	b.sends(Copy, 2)
	b.view2()
	u := User{Mode: Write}
	if b.c.Acquire(0, &u, true) != Queued {
		t.Fatal("a writer goes while a copy of the old view may be alive")
	}
	b.quiet() // no invalidation before activation
	b.c.Ready(3, 2)
	if b.next(Wake).User != &u {
		t.Fatal("another user was woken")
	}
}

// READY drops entries of the old view only.
func TestActivationClearsNewReader(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.view2()
	r := Record{Kind: ReadReq, From: 2, View: 2, Ticket: 0, Nonce: 1}
	if _, err := b.c.Receive(&r); err != nil { // from one who is active
		t.Fatal(err)
	}
	b.sends(Copy, 2)
	b.c.Ready(3, 2)
	if n := b.c.at(0).held(); len(n.readers) != 1 {
		t.Fatal("the reader of the new view is forgotten")
	}
}

// A grant that lands after the report of its receiver is dropped.
func TestGrantLandsAfterReport(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	b.c.Swung(0, 1, 1, true, MakeWord(1, 2, 1)) // the guess was wrong
	b.c.Swung(0, 1, 2, true, b.next2(CAS).Expect)
	b.sends(Req, 2)
	b.view2()
	b.next(Forget)
	if held := b.c.Held(b.c.members.Home(0), nil); len(held) != 0 {
		t.Fatalf("reports %v", held)
	}
	if b.receive(Record{Kind: Grant, From: 2, Ticket: 2}) {
		t.Fatal("a grant of the old view was taken")
	}
	b.want(2, "gone")
}

// next2 takes the second of two actions of a kind.
func (b *bench) next2(kind ActionKind) Action {
	b.t.Helper()
	b.next(kind)
	return b.next(kind)
}

// A LOAD reply of view V meets a node with the same ticket in V+1.
func TestOldLoadReply(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	b.c.Swung(0, 1, 1, true, b.next(CAS).Expect)
	b.next(Load)
	b.view2() // the node is carried and loads anew
	if a := b.next(Load); a.Ticket != 0 {
		t.Fatalf("loads for ticket %d", a.Ticket)
	}
	b.c.Loaded(0, 1, 0)
	b.want(0, "loading")
	b.c.Loaded(0, 2, 0)
	b.want(0, "held")
}

// An undeclared slot is taken at once or not at all.
func TestUndeclaredLowerSlot(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	u, v := User{Mode: Write}, User{Mode: Write}
	if s := b.c.Acquire(0, &u, false); s != Granted {
		t.Fatalf("a held slot: status %d", s)
	}
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	if s := b.c.Acquire(0, &v, false); s != Refused {
		t.Fatalf("a slot that another worker waits for: status %d", s)
	}
	if s := b.c.Acquire(5, &v, false); s != Refused {
		t.Fatalf("a slot that is not here: status %d", s)
	}
	b.quiet()
}

// Holding a lease costs little: what one held, idle slot takes.
func BenchmarkLocalHit(b *testing.B) {
	c := New(Options{Me: 1, Slots: 1})
	m, err := NewMembers(1, []Member{{1, 1}})
	if err != nil {
		b.Fatal(err)
	}
	c.Install(m)
	c.Ready(1, 1)
	u := User{Mode: Write}
	c.Acquire(0, &u, true)
	c.Swung(0, 1, 1, true, MakeWord(1, Free, 0))
	c.Loaded(0, 1, 1)
	c.Release(&u, 0)
	acts := c.Actions(nil)
	b.ReportAllocs()
	number := base.Number(0)
	for b.Loop() {
		if c.Acquire(0, &u, true) != Granted {
			b.Fatal("not granted")
		}
		number++
		c.Release(&u, number)
		c.Durable(number)
	}
	if acts = c.Actions(acts[:0]); len(acts) != 0 {
		b.Fatal("a local hit asked for something")
	}
}
