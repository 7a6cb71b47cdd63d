package lease

import "testing"

// knows makes the core remember the word of slot 0: worker 2 is the tail, with
// ticket 2, after this worker has handed the lease over to it.
func (b *bench) knows() {
	b.t.Helper()
	b.hold()
	b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
	b.sends(Grant, 2)
	b.next(Forget)
}

// A reader that remembers the tail asks it at once; what it is refused, it asks the
// tail that the word names, and it is refused by a hint once only.
func TestReaderAsksWhomItRemembers(t *testing.T) {
	b := newBench(t, 1)
	b.knows()
	var u User
	b.c.Acquire(0, &u, true)
	asked := b.sends(ReadReq, 2)
	if asked.Ticket != 2 {
		t.Fatalf("asks for ticket %d, want that of the word", asked.Ticket)
	}
	b.receive(Record{Kind: Nack, From: 2, Nonce: asked.Nonce})
	read := b.next(ReadTail)
	b.c.TailRead(0, 1, read.Nonce, true, MakeWord(1, 3, 3))
	again := b.sends(ReadReq, 3)
	if again.Ticket != 3 || again.Nonce == asked.Nonce {
		t.Fatalf("asks %+v, was refused %+v", again, asked)
	}
	b.receive(Record{Kind: Nack, From: 3, Nonce: again.Nonce})
	b.next(ReadTail) // the word of a moment ago is a hint as well, and has just failed
}

// The answer to a request that went by a hint is a copy like any other, and the
// next request may go by the hint again.
func TestHintedCopyIsInvalidated(t *testing.T) {
	b := newBench(t, 1)
	b.knows()
	for round := range int64(3) {
		var u User
		b.c.Acquire(0, &u, true)
		asked := b.sends(ReadReq, 2)
		if !b.receive(Record{Kind: Copy, From: 2, Nonce: asked.Nonce, Stamp: Stamp{2, round}}) {
			t.Fatal("the copy was not taken")
		}
		b.next(Wake)
		b.c.Release(&u, 0)
		b.receive(Record{Kind: Inval, From: 2, Stamp: Stamp{2, round + 1}})
		b.next(Forget)
		b.sends(InvalAck, 2)
	}
}

// A request by a hint names a ticket that was given out: it wakes the node whose
// CAS has an unknown outcome.
func TestHintIsEvidence(t *testing.T) {
	b := newBench(t, 1)
	u := User{Mode: Write}
	b.c.Acquire(0, &u, true)
	cas := b.next(CAS)
	b.c.LinkDown(cas.To)
	b.c.Swung(0, 1, cas.Ticket, false, 0)
	b.receive(Record{Kind: ReadReq, From: 2, Ticket: cas.Ticket, Nonce: 1})
	if load := b.next(Load); load.Ticket != cas.Ticket {
		t.Fatalf("loads for ticket %d, want %d", load.Ticket, cas.Ticket)
	}
}

// A prefetch that has guessed the wrong tail asks behind the right one, once.
func TestPrefetchGuessesWrong(t *testing.T) {
	b := newBench(t, 1)
	b.c.Prefetch(0)
	first := b.next(CAS)
	b.c.Swung(0, 1, first.Ticket, true, MakeWord(1, 2, 7))
	second := b.next(CAS)
	if second.Expect != MakeWord(1, 2, 7) {
		t.Fatalf("expects %v", second.Expect)
	}
	b.c.Swung(0, 1, second.Ticket, true, MakeWord(1, 3, 8))
	b.quiet()
	if b.c.Known() != 0 {
		t.Fatalf("%d slots are known after a prefetch that came to nothing", b.c.Known())
	}
}

// A prefetched lease goes to whoever asks for it; the transaction that comes later
// asks anew.
func TestPrefetchedLeaseIsGivenAway(t *testing.T) {
	b := newBench(t, 1)
	b.c.Prefetch(0)
	cas := b.next(CAS)
	b.c.Swung(0, 1, cas.Ticket, true, cas.Expect)
	b.next(Load)
	b.receive(Record{Kind: Req, From: 2, Pred: cas.Ticket, Ticket: cas.Ticket + 1})
	b.quiet()
	b.c.Loaded(0, 1, cas.Ticket)
	b.sends(Grant, 2)
	b.next(Forget)
	u := User{Mode: Write}
	if status := b.c.Acquire(0, &u, true); status != Queued {
		t.Fatalf("status %d", status)
	}
	if again := b.next(CAS); again.Expect != MakeWord(1, 2, cas.Ticket+1) {
		t.Fatalf("expects %v", again.Expect)
	}
}
