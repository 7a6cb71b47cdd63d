package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
)

// TestWordIsCounted: CAS of all members on one word, also of its owner, add up.
func TestWordIsCounted(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		const each = 60
		nodes := cluster(t, open, 3, nil)
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() {
				for done, seen := 0, uint64(0); done < each; {
					a := n.cas(1, 5, seen, seen+1)
					if a.outcome != rdma.Done {
						t.Errorf("worker %d: a CAS on a good link is %v", n.me.Worker, a.outcome)
						return
					}
					if a.old == seen {
						done++
						seen++
					} else {
						seen = a.old
					}
				}
			})
		}
		wg.Wait()
		if got := nodes[0].mesh.Word(5); got != 3*each {
			t.Errorf("the word is %d after %d successes", got, 3*each)
		}
		for _, n := range nodes[1:] {
			if got := n.mesh.Word(5); got != 0 {
				t.Errorf("the word of worker %d is %d", n.me.Worker, got)
			}
		}
	})
}

// TestMessagesArriveOnceInOrder: of all sizes, to all members and to itself,
// while queue pairs of both ends are revoked.
func TestMessagesArriveOnceInOrder(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		for _, breaks := range []int{0, 30} {
			const each = 400
			nodes := cluster(t, open, 3, func(o *Options) { o.Timeout = 300 * time.Millisecond })
			var senders, breaker sync.WaitGroup
			for _, n := range nodes {
				senders.Go(func() {
					random := rand.New(rand.NewPCG(uint64(n.me.Worker), 1))
					for i := range uint64(each) {
						for to := lease.Worker(1); to <= 3; to++ {
							length := random.IntN(60)
							if random.IntN(8) == 0 {
								length = random.IntN(n.mesh.MaxMessage() - 7)
							}
							if err := n.send(to, i, length); err != nil {
								t.Errorf("worker %d: message %d: %v", n.me.Worker, i, err)
								return
							}
						}
						n.mesh.Flush()
					}
				})
			}
			breaker.Go(func() {
				random := rand.New(rand.NewPCG(9, 9))
				for range breaks {
					n := nodes[random.IntN(3)]
					if all := n.mesh.ends.list(); len(all) > 0 {
						_ = all[random.IntN(len(all))].qp.Revoke(t.Context()) // it may be closed
					}
					pause := time.NewTimer(time.Duration(random.IntN(3)) * time.Millisecond)
					<-pause.C
				}
			})
			senders.Wait()
			breaker.Wait()
			for _, n := range nodes {
				for from := lease.Worker(1); from <= 3; from++ {
					n.until("all messages", func() bool { return n.checkInbox(from) >= each })
				}
			}
			var reconnects uint64
			for _, n := range nodes {
				if err := n.mesh.Drain(within(t)); err != nil {
					t.Error(err)
				}
				for from := lease.Worker(1); from <= 3; from++ {
					n.mu.Lock()
					if got := n.checkInbox(from); got != each {
						t.Errorf("worker %d got %d messages of worker %d, want %d", n.me.Worker, got, from, each)
					}
					n.mu.Unlock()
				}
				for _, c := range n.mesh.Counters() {
					reconnects += c.Reconnects
					if c.Sent != each || c.Received != each {
						t.Errorf("worker %d counts %d messages to and %d from worker %d, want %d", n.me.Worker, c.Sent, c.Received, c.Worker, each)
					}
				}
			}
			if (reconnects > 0) != (breaks > 0) {
				t.Errorf("%d links were made anew after %d breaks", reconnects, breaks)
			}
			for _, n := range nodes {
				n.stop()
			}
		}
	})
}

// TestManyAtOnce: one Flush is enough for more than the send queue holds.
func TestManyAtOnce(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		const many = 1000
		a := cluster(t, open, 2, nil)[0]
		before := a.mesh.Counters()[1].Verbs[rdma.OpRead].Posted
		var tags []uint64
		for range many {
			tags = append(tags, a.ask(2, 1, 1, 1))
		}
		a.mesh.Flush()
		for _, tag := range tags {
			if got := a.outcome(tag); got.outcome != rdma.Done {
				t.Fatalf("a CAS is %v", got.outcome)
			}
		}
		c := a.mesh.Counters()[1]
		if c.Verbs[rdma.OpCAS].Posted != many || c.Verbs[rdma.OpWriteImm].Posted != 0 || c.Verbs[rdma.OpRead].Posted != before {
			t.Errorf("%d CAS cost %+v", many, c.Verbs)
		}
	})
}

// TestPeerRevokes: an end that its peer revoked, with nothing outstanding, is
// found out by the proof, and what was lost is repeated.
func TestPeerRevokes(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, func(o *Options) { o.Timeout = 100 * time.Millisecond })
		a, b := nodes[0], nodes[1]
		for i := range uint64(6) {
			for _, e := range b.mesh.ends.list() {
				if e.passive {
					if err := e.qp.Revoke(t.Context()); err != nil && !errors.Is(err, rdma.ErrClosed) {
						t.Fatal(err)
					}
				}
			}
			if err := a.send(2, i, 10); err != nil {
				t.Fatal(err)
			}
			a.mesh.Flush()
			b.until("the message", func() bool { return b.checkInbox(1) == int(i)+1 })
		}
	})
}

// TestBreakOrder: LinkDown, then the outcomes, then LinkUp.
func TestBreakOrder(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, func(o *Options) { o.Timeout = 200 * time.Millisecond })
		a := nodes[0]
		for range 10 {
			var tags []uint64
			for range 8 {
				tags = append(tags, a.ask(2, 1, 1<<40, 0))
			}
			a.mesh.Flush()
			for _, e := range a.mesh.ends.list() {
				if !e.passive && e.peer.member.Worker == 2 {
					_ = e.qp.Revoke(t.Context())
				}
			}
			tags = append(tags, a.ask(2, 1, 1<<40, 0)) // finds the link broken, if nobody has before
			a.mesh.Flush()
			for _, tag := range tags {
				a.outcome(tag)
			}
			a.until("the link", func() bool { return len(a.events) > 0 && a.events[len(a.events)-1] == "up 2" && !a.mesh.Down(2) })
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		up := map[string]bool{}
		for _, e := range a.events {
			kind, w, _ := strings.Cut(e, " ")
			if kind == "lost" {
				if up["2"] {
					t.Fatalf("the outcome of a CAS is unknown on a link that is up: %v", a.events)
				}
				continue
			}
			if (kind == "up") == up[w] {
				t.Fatalf("%s does not alternate in %v", e, a.events)
			}
			up[w] = kind == "up"
		}
		if len(a.events) < 4 {
			t.Errorf("nothing broke: %v", a.events)
		}
	})
}

// TestMemberDisappears: its links go down, the others go on.
func TestMemberDisappears(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 3, func(o *Options) { o.Timeout = 200 * time.Millisecond })
		nodes[2].stop()
		for i, n := range nodes[:2] {
			if a := n.cas(3, 0, 0, 1); a.outcome == rdma.Done {
				t.Error("a CAS on the memory of a worker that left is done")
			}
			n.until("LinkDown", func() bool {
				for _, e := range n.events {
					if e == "down 3" {
						return true
					}
				}
				return false
			})
			if !n.mesh.Down(3) {
				t.Error("the link to a worker that left is up")
			}
			if err := n.send(3, 0, 0); err != nil {
				t.Errorf("a message to a member whose link is down is refused: %v", err)
			}
			other := lease.Worker(2 - i)
			if a := n.cas(other, 7, 0, 1); a.outcome != rdma.Done {
				t.Errorf("a CAS between the others is %v", a.outcome)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if err := n.mesh.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("drained the link to a worker that left: %v", err)
			}
			cancel()
		}
		install(t, members(t, 2, member(1), member(2)), nodes[:2]...)
		for _, n := range nodes[:2] {
			if err := n.mesh.Drain(within(t)); err != nil {
				t.Error(err)
			}
			if err := n.send(3, 0, 0); !errors.Is(err, ErrNotMember) {
				t.Errorf("a message to a worker that is no member: %v", err)
			}
		}
	})
}

// TestInstallFences: once a view without a worker is installed, nothing of that
// worker, which goes on posting, lands any more.
func TestInstallFences(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 3, func(o *Options) { o.Timeout = 200 * time.Millisecond })
		zombie, home := nodes[2], nodes[0]
		var hammer sync.WaitGroup
		hammer.Go(func() {
			for seen := uint64(0); ; {
				a := zombie.cas(1, 3, seen, seen+1)
				switch {
				case a.outcome != rdma.Done:
					return
				case a.old == seen:
					seen++
				default:
					seen = a.old
				}
				if err := zombie.send(1, seen-1, 30); err != nil {
					t.Error(err)
				}
			}
		})
		home.until("messages of the zombie", func() bool { return len(home.inbox[3]) > 10 })
		install(t, members(t, 2, member(1), member(2)), home, nodes[1])
		word := home.mesh.Word(3)
		home.mesh.StoreWord(4, 77)
		hammer.Wait() // its link broke
		a := zombie.cas(1, 4, 77, 78)
		if a.outcome == rdma.Done {
			t.Error("a CAS of a worker that is no member any more is done")
		}
		if got := home.mesh.Word(3); got != word {
			t.Errorf("the word went from %d to %d after its home had installed the view", word, got)
		}
		if got := home.mesh.Word(4); got != 77 {
			t.Errorf("a word that was rebuilt went to %d", got)
		}
		if !zombie.mesh.Down(1) {
			t.Error("the zombie has a link")
		}
		// As another incarnation it is welcome.
		zombie.stop()
		again := lease.Member{Worker: 3, Incarnation: 2}
		n := home.net.start(t, open, again, nil)
		install(t, members(t, 3, member(1), member(2), again), home, nodes[1], n)
		n.up(1, 2, 3)
		home.up(3)
		if a := n.cas(1, 4, 77, 78); a.outcome != rdma.Done || a.old != 77 {
			t.Errorf("its next incarnation finds %+v, want 77", a)
		}
	})
}

// TestInstallDropsWhatIsQueued: messages and CAS that were not posted are of an
// older view. What was posted arrives, and the order goes on behind it.
func TestInstallDropsWhatIsQueued(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, nil)
		a, b := nodes[0], nodes[1]
		if err := a.send(2, 0, 5); err != nil {
			t.Fatal(err)
		}
		a.mesh.Flush()
		for range 100 { // more than the ring holds
			if err := a.send(2, 99, 100); err != nil {
				t.Fatal(err)
			}
		}
		tag := a.ask(2, 0, 0, 1)
		install(t, members(t, 2, member(1), member(2)), nodes...)
		if got := a.outcome(tag); got.outcome != rdma.NotDone {
			t.Errorf("a CAS that was queued in the old view is %v", got.outcome)
		}
		if err := a.send(2, 1, 500); err != nil {
			t.Fatal(err)
		}
		a.mesh.Flush()
		b.until("both messages", func() bool { return b.checkInbox(1) == 2 })
		if err := a.mesh.Drain(within(t)); err != nil {
			t.Error(err)
		}
		if got := b.mesh.Word(0); got != 0 {
			t.Errorf("the word is %d", got)
		}
	})
}

// TestDrain: what was posted before has taken effect afterwards, and was reported.
func TestDrain(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 3, nil)
		for round := range uint64(20) {
			var tags [3][]uint64
			for i, n := range nodes {
				for k := range uint64(10) {
					tags[i] = append(tags[i], n.ask(1, n.slot(), 10*round+k, 10*round+k+1))
				}
				n.mesh.Flush()
			}
			for i, n := range nodes {
				if err := n.mesh.Drain(within(t)); err != nil {
					t.Fatal(err)
				}
				n.mu.Lock()
				for k, tag := range tags[i] {
					if a, ok := n.swung[tag]; !ok || a.outcome != rdma.Done {
						t.Errorf("worker %d: after the drain CAS %d of round %d is %+v, reported %v", n.me.Worker, k, round, a, ok)
					}
				}
				n.mu.Unlock()
				// CAS may overtake each other, but what they left behind stays.
				word := nodes[0].mesh.Word(n.slot())
				if got := n.cas(1, n.slot(), word, 10*(round+1)); got.old != word {
					t.Fatalf("after the drain the word went from %d to %d", word, got.old)
				}
			}
		}
	})
}

// TestRefusedMessage: the handler's error breaks the link from the peer, which
// counts the message as delivered and goes on.
func TestRefusedMessage(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, func(o *Options) { o.Timeout = 200 * time.Millisecond })
		a, b := nodes[0], nodes[1]
		b.mu.Lock()
		b.refuse = 2
		b.mu.Unlock()
		for i := range uint64(6) {
			if err := a.send(2, i, 3); err != nil {
				t.Fatal(err)
			}
			a.mesh.Flush()
		}
		b.until("all messages", func() bool { return b.checkInbox(1) == 6 })
		a.until("a new link", func() bool { return !a.mesh.Down(2) && a.mesh.Counters()[1].Reconnects > 0 })
	})
}
