package lease

import (
	"testing"

	"github.com/tenure-faas/tenure/base"
)

// More of the stories of lease_protocol.md section 14, by name, and the fault of the
// released code of RTSFaaS (rtsfaas.md section 6, by number) that is one of the
// protocol alone.

// Nothing is sent to a reader that may still be in V: it would be lost, or taken for
// a message of V. A reader of V+1, who has asked in it, is told at once.
func TestInvalBeforeActivation(t *testing.T) {
	b := newBench(t, 1)
	b.hold()
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: 1, Nonce: 1})
	b.sends(Copy, 2)
	b.view2()
	r := Record{Kind: ReadReq, From: 3, View: 2, Ticket: 0, Nonce: 1}
	if _, err := b.c.Receive(&r); err != nil {
		t.Fatal(err)
	}
	b.sends(Copy, 3)
	u := User{Mode: Write}
	if b.c.Acquire(0, &u, true) != Queued {
		t.Fatal("a writer goes while copies are alive")
	}
	b.sends(Inval, 3)
	b.quiet() // worker 2 is told nothing
	r = Record{Kind: InvalAck, From: 3, View: 2, Stamp: Stamp{0, 1}}
	if _, err := b.c.Receive(&r); err != nil {
		t.Fatal(err)
	}
	b.quiet() // worker 2 may still have its copy
	b.c.Ready(2, 2)
	if b.next(Wake).User != &u {
		t.Fatal("another user was woken")
	}
}

// A slow member swings the word of a home of V, which has not left V either, while
// others are in V+1: nobody in V+1 hears of it, and the lease dies with its report.
func TestSlowMemberAcquiresInOldView(t *testing.T) {
	slow, fast := newBench(t, 1), newBench(t, 2)
	fast.view2()
	u := User{Mode: Write}
	slow.c.Acquire(0, &u, true)
	slow.c.Swung(0, 1, 1, true, MakeWord(1, 2, 4)) // its home's word names worker 2 as the tail
	slow.c.Swung(0, 1, 5, true, slow.next2(CAS).Expect)
	request := slow.sends(Req, 2)
	if _, err := fast.c.Receive(&request); err != nil {
		t.Fatal(err)
	}
	fast.quiet() // of another view
	slow.view2()
	slow.next(Forget)
	slow.want(5, "gone")
	if held := slow.c.Held(slow.c.members.Home(0), nil); len(held) != 0 {
		t.Fatalf("reports %v", held)
	}
	if u.Has() {
		t.Fatal("a user has its turn by a lease of the old view")
	}
	// No word of V+1 is given out before it has reported, and then the word says what
	// it holds.
	home := NewHome(fast.c.members.Home(0))
	home.Install(fast.c.members)
	for _, w := range []Worker{2, 3} {
		if whole, err := home.Report(Member{w, 1}, 2, nil); whole || err != nil {
			t.Fatalf("the words are rebuilt without the slow member (%v)", err)
		}
	}
	if whole, err := home.Report(Member{1, 1}, 2, []base.Slot{0}); !whole || err != nil {
		t.Fatalf("not whole after the last report (%v)", err)
	}
	var word Word
	home.Words(1, func(s base.Slot, w Word) {
		if s == 0 {
			word = w
		}
	})
	if word != MakeWord(2, 1, 0) {
		t.Errorf("the word is %v, want that of what the slow member reported", word)
	}
}

// Outcomes of verbs of V that are heard of in V+1 change nothing, although the slot
// has a node with the same ticket, a pending copy with the same nonce, and a word.
func TestOldVerbAfterRebuild(t *testing.T) {
	b := newBench(t, 1)
	old := User{Mode: Write}
	b.c.Acquire(0, &old, true)
	expect := b.next(CAS).Expect
	b.c.Release(&old, 0) // it gives up; the CAS is on its way
	b.view2()
	b.next(Forget)
	b.quiet()
	for w := Worker(1); w <= 3; w++ {
		b.c.Ready(w, 2)
	}
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	if again := b.next(CAS); again.Ticket != 1 || again.Expect.View() != 2 {
		t.Fatalf("asks with %v for ticket %d", again.Expect, again.Ticket)
	}
	b.c.Swung(0, 1, 1, true, expect) // the old one succeeded
	b.c.Swung(0, 1, 1, false, 0)
	b.c.Unposted(0, 1, 1)
	b.c.Released(0, 1, 1, true, expect)
	b.c.WordRead(0, 1, 1, true, MakeWord(1, 3, 9))
	b.c.TailRead(0, 1, 1, true, MakeWord(1, 3, 9))
	b.c.Loaded(0, 1, 1)
	b.quiet()
	b.want(1, "casing")
	b.c.Swung(0, 2, 1, true, MakeWord(2, Free, 0))
	if b.next(Load).Ticket != 1 {
		t.Fatal("the verb of the new view is forgotten")
	}
}

// Fault 6.10 of the released code: its flag says only whose turn it is, with no
// version and no order, and answers to failed requests are swallowed. Here a hand-over
// names the ticket that it is for: one that is repeated, late or another's is not taken.
func TestRTSFaaS10HandOverNamesItsTicket(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	b.c.Swung(0, 1, 1, true, MakeWord(1, 2, 6))
	b.c.Swung(0, 1, 7, true, b.next2(CAS).Expect)
	b.sends(Req, 2)
	for _, t2 := range []Ticket{0, 1, 6, 8, 9} {
		if b.receive(Record{Kind: Grant, From: 2, Ticket: t2}) {
			t.Fatalf("a grant of ticket %d was taken", t2)
		}
		b.want(7, "waiting")
	}
	if !b.receive(Record{Kind: Grant, From: 2, Ticket: 7}) {
		t.Fatal("the grant was not taken")
	}
	b.next(Wake)
	if b.receive(Record{Kind: Grant, From: 2, Ticket: 7}) {
		t.Fatal("a repeated grant would install old values")
	}
	b.receive(Record{Kind: Req, From: 3, Pred: 7, Ticket: 8})
	b.c.Release(&u, 0)
	b.sends(Grant, 3)
	b.next(Forget)
	if b.receive(Record{Kind: Grant, From: 2, Ticket: 7}) {
		t.Fatal("a repeated grant brought a lease back that was handed on")
	}
	b.quiet()
}
