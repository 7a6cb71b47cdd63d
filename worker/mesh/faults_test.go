package mesh

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// TestOutcomes: while links break, the word is at least the CAS that are known to
// have succeeded and at most those with the unknown ones, whatever NotDone there
// was; and messages beside them arrive once and in order.
func TestOutcomes(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, func(o *Options) { o.Timeout = 300 * time.Millisecond })
		random := rand.New(rand.NewPCG(3, 4))
		sum := count(t, nodes, 600, func(round int) {
			if all := nodes[random.IntN(2)].mesh.ends.list(); round%15 == 0 && len(all) > 0 {
				_ = all[random.IntN(len(all))].qp.Revoke(t.Context()) // it may be closed
			}
		})
		sum.check(t, nodes)
		if reconnects(nodes) == 0 {
			t.Error("nothing broke")
		}
	})
}

// TestSwarm: the same under all faults of the simulated device, for many seeds.
func TestSwarm(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	broken := uint64(0)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := sim.New(sim.Options{Seed: seed, Patience: time.Millisecond, Faults: sim.Swarm(seed)})
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
			open := func(name string) (rdma.Provider, error) { return f.Open(name) }
			nodes := cluster(t, open, 2, func(o *Options) { o.Timeout, o.RingBytes = 10*time.Millisecond, 1024 })
			sum := count(t, nodes, 30, func(int) {})
			f.SetFaults(sim.Faults{})
			sum.check(t, nodes)
			broken += reconnects(nodes)
			for _, n := range nodes { // before the fabric
				n.stop()
			}
		})
	}
	if broken < seeds {
		t.Errorf("in %d seeds only %d links broke", seeds, broken)
	}
}

// reconnects is how many links were made anew.
func reconnects(nodes []*node) (all uint64) {
	for _, n := range nodes {
		for _, c := range n.mesh.Counters() {
			all += c.Reconnects
		}
	}
	return all
}

// sum is what is known of the CAS that counted a word up.
type sum struct {
	mu            sync.Mutex
	done, unknown uint64
	messages      int
}

// count makes all nodes count the word of slot 0 at worker 1 up, with a message to
// each after each CAS. The first node calls each before its rounds.
func count(t *testing.T, nodes []*node, rounds int, each func(round int)) *sum {
	s := &sum{messages: rounds}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			seen := uint64(0)
			for i := range rounds {
				if n == nodes[0] {
					each(i)
				}
				a := n.cas(1, 0, seen, seen+1)
				s.mu.Lock()
				switch {
				case a.outcome == rdma.Done && a.old == seen:
					s.done++
					seen++
				case a.outcome == rdma.Done:
					seen = a.old
				case a.outcome == rdma.Unknown:
					s.unknown++
				}
				s.mu.Unlock()
				if a.outcome != rdma.Done {
					n.up(1) // else the rest would be refused
				}
				for to := lease.Worker(1); int(to) <= len(nodes); to++ {
					if err := n.send(to, uint64(i), i%100); err != nil {
						t.Errorf("worker %d: %v", n.me.Worker, err)
					}
				}
				n.mesh.Flush()
			}
		})
	}
	wg.Wait()
	return s
}

// check compares the word and the inboxes when all is quiet.
func (s *sum) check(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		for from := lease.Worker(1); int(from) <= len(nodes); from++ {
			n.until(fmt.Sprintf("messages of %d", from), func() bool { return n.checkInbox(from) >= s.messages })
		}
	}
	for _, n := range nodes {
		if err := n.mesh.Drain(within(t)); err != nil {
			t.Error(err)
		}
		n.mu.Lock()
		for from := lease.Worker(1); int(from) <= len(nodes); from++ {
			if got := n.checkInbox(from); got != s.messages {
				t.Errorf("worker %d got %d messages of worker %d, want %d", n.me.Worker, got, from, s.messages)
			}
		}
		n.mu.Unlock()
	}
	if word := nodes[0].mesh.Word(0); word < s.done || word > s.done+s.unknown {
		t.Errorf("the word is %d after %d CAS that succeeded and %d with unknown outcomes", word, s.done, s.unknown)
	}
}

// TestDroppedDoorbells: the passive end fails after its peer had the proof of all
// that it posted, but before the poller took the last messages from the completion
// queue. They are dropped with the end, and the peer, which has nothing more to
// post, must repeat them.
func TestDroppedDoorbells(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		nodes := cluster(t, open, 2, func(o *Options) { o.Timeout, o.RingBytes = 50*time.Millisecond, 1024 })
		a, b := nodes[0], nodes[1]
		const all = 12 // fits into the ring; every fourth makes a credit due
		var once sync.Once
		b.mu.Lock()
		b.taken = func() {
			once.Do(func() {
				if err := a.mesh.Drain(within(t)); err != nil {
					t.Error(err)
				}
				for _, e := range b.mesh.ends.list() {
					if e.passive {
						_ = e.qp.Revoke(t.Context()) // as if the device had failed it
					}
				}
			})
		}
		b.mu.Unlock()
		for i := range uint64(all) {
			if err := a.send(2, i, 10); err != nil {
				t.Fatal(err)
			}
		}
		a.mesh.Flush()
		b.until("the messages", func() bool { return b.checkInbox(1) >= all })
	})
}

// TestNothingPasses: a link over which offers and connections pass, but no data, is
// not up, not even for a moment.
func TestNothingPasses(t *testing.T) {
	f := sim.New(sim.Options{Patience: time.Millisecond})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(name string) (rdma.Provider, error) { return f.Open(name) }
	nodes := cluster(t, open, 2, func(o *Options) { o.Timeout = 5 * time.Millisecond })
	a := nodes[0]
	f.SetFaults(sim.Faults{LoseRequest: 1})
	tag := a.ask(2, 0, 0, 1)
	a.mesh.Flush()
	a.outcome(tag)
	a.until("LinkDown", func() bool { return a.mesh.Down(2) })
	for range 8 { // offers go on
		<-a.net.offered
	}
	a.mu.Lock()
	ups := 0
	for _, e := range a.events {
		if e == "up 2" {
			ups++
		}
	}
	a.mu.Unlock()
	if ups != 1 {
		t.Errorf("the link was up %d times, want once: %v", ups, a.events)
	}
	f.SetFaults(sim.Faults{})
	a.up(2)
	for _, n := range nodes {
		n.stop()
	}
}

// TestCrash: the device of one node dies under it. The other goes on, and both
// can be closed.
func TestCrash(t *testing.T) {
	f := sim.New(sim.Options{Patience: time.Millisecond})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(name string) (rdma.Provider, error) { return f.Open(name) }
	nodes := cluster(t, open, 3, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	f.Crash("node 3.1")
	nodes[2].until("its links", func() bool { return nodes[2].mesh.Down(1) && nodes[2].mesh.Down(3) })
	for _, n := range nodes[:2] {
		if a := n.cas(3, 0, 0, 1); a.outcome == rdma.Done {
			t.Error("a CAS on the memory of a dead node is done")
		}
	}
	install(t, members(t, 2, member(1), member(2)), nodes[:2]...)
	if a := nodes[0].cas(2, 0, 0, 1); a.outcome != rdma.Done {
		t.Errorf("a CAS between the others is %v", a.outcome)
	}
	for _, n := range nodes {
		n.stop()
	}
}

// TestInstallAgain: an Install that cannot revoke says so, and the next one with
// the same view does it.
func TestInstallAgain(t *testing.T) {
	f := sim.New(sim.Options{Patience: time.Millisecond})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(name string) (rdma.Provider, error) { return f.Open(name) }
	nodes := cluster(t, open, 2, nil)
	f.SetFaults(sim.Faults{FailRevoke: 1})
	m := members(t, 2, member(1))
	if err := nodes[0].mesh.Install(t.Context(), m); err == nil {
		t.Error("a view was installed though a queue pair could not be revoked")
	}
	if err := nodes[0].send(2, 0, 0); err == nil {
		t.Error("a message to a worker that is leaving was taken")
	}
	f.SetFaults(sim.Faults{})
	install(t, m, nodes[0])
	if got := nodes[1].cas(1, 0, 0, 1); got.outcome == rdma.Done {
		t.Error("a CAS of a worker that is no member is done")
	}
	for _, n := range nodes {
		n.stop()
	}
}

// TestChurn: incarnations of one worker come and go, some killed without a word,
// under traffic of all; the others never lose or repeat a message.
func TestChurn(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		const rounds = 8
		short := func(o *Options) { o.Timeout = 200 * time.Millisecond }
		w := newNetwork()
		stay := []*node{w.start(t, open, member(1), short), w.start(t, open, member(2), short)}
		done := make(chan struct{})
		var traffic sync.WaitGroup
		var sent [2]uint64
		view := base.View(1)
		install(t, members(t, view, member(1), member(2)), stay...)
		for i, n := range stay {
			other := stay[1-i].me.Worker
			n.up(other)
			traffic.Go(func() {
				tick := time.NewTicker(100 * time.Microsecond)
				defer tick.Stop()
				for {
					select {
					case <-done:
						return
					case <-tick.C:
					}
					if err := n.send(other, sent[i], int(sent[i]%300)); err != nil {
						t.Errorf("worker %d: %v", n.me.Worker, err)
					}
					sent[i]++
					_ = n.send(3, 0, 10) // whether it is a member now or not
					n.ask(3, 2, 0, 0)
					n.mesh.Flush()
				}
			})
		}
		for round := range rounds {
			guest := w.start(t, open, lease.Member{Worker: 3, Incarnation: uint32(round + 1)}, short)
			view++
			m := members(t, view, member(1), member(2), guest.me)
			// In any order, as views spread.
			install(t, m, stay[round%2], guest, stay[1-round%2])
			guest.up(1, 2, 3)
			if a := guest.cas(1, 9, uint64(round), uint64(round+1)); a.outcome != rdma.Done || a.old != uint64(round) {
				t.Errorf("round %d: the guest finds %+v", round, a)
			}
			if round%2 == 0 {
				guest.stop()
			}
			view++
			install(t, members(t, view, member(1), member(2)), stay...)
			if round%2 == 1 { // its CAS must not land: the next guest looks
				guest.ask(1, 9, uint64(round+1), 999)
				guest.mesh.Flush()
				guest.stop()
			}
		}
		close(done)
		traffic.Wait()
		// What was queued when a view was installed is gone, so numbers have gaps, but
		// they only grow.
		for i, n := range stay {
			last := stay[1-i]
			if err := last.mesh.Drain(within(t)); err != nil {
				t.Fatal(err)
			}
			final := sent[1-i]
			if err := last.send(n.me.Worker, final, 0); err != nil {
				t.Fatal(err)
			}
			last.mesh.Flush()
			n.until("the last message", func() bool {
				all := n.inbox[last.me.Worker]
				return len(all) > 0 && number(all[len(all)-1]) == final
			})
			before := int64(-1)
			for _, l := range n.inbox[last.me.Worker] {
				if now := int64(number(l)); now <= before {
					t.Fatalf("worker %d got message %d of worker %d after %d", n.me.Worker, now, last.me.Worker, before)
				} else {
					before = now
				}
			}
			if got := uint64(len(n.inbox[last.me.Worker])); got < final/2 {
				t.Errorf("worker %d got only %d messages of %d", n.me.Worker, got, final)
			}
		}
	})
}

func number(l letter) uint64 { return binary.LittleEndian.Uint64(l.payload) }
