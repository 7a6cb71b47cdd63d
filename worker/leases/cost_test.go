package leases

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// still is the log and the values of workers that write nothing.
type still struct{}

func (still) Appended() base.Number                              { return 0 }
func (still) Durable() base.Number                               { return 0 }
func (still) WaitDurable(context.Context, base.Number) error     { return nil }
func (still) AppendValues(dst []byte, _ base.Slot, _ int) []byte { return dst }
func (still) InstallValues(base.Slot, []byte) error              { return nil }
func (still) Forget(base.Slot)                                   {}

// group starts n workers with few slots and installs a view of them.
func group(t *testing.T, n int) []*Leases {
	t.Helper()
	var peers Local
	var members []lease.Member
	all := make([]*Leases, n)
	for i := range all {
		provider, err := tcp.Open(tcp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		me := lease.Member{Worker: lease.Worker(i + 1), Incarnation: 1}
		o := Options{Me: me, Parts: 4, Slots: 1 << 10, Log: still{}, Values: func(int) Values { return still{} }, Relabel: func(base.View) {}, Peers: &peers, Logger: slog.New(slog.DiscardHandler)}
		o.Mesh.Provider = provider
		if all[i], err = New(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := all[i].Close(); err != nil {
				t.Error(err)
			}
			if err := provider.Close(); err != nil {
				t.Error(err)
			}
		})
		peers.Enter(me, all[i])
		members = append(members, me)
	}
	view, err := lease.NewMembers(1, members)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	for _, l := range all {
		views := make(chan *lease.Members, 1)
		views <- view
		running.Go(func() {
			if err := l.Run(ctx, views); err != nil {
				t.Error(err)
			}
		})
	}
	return all
}

// take takes a turn in a slot, waiting for it, and gives it back.
func take(t *testing.T, l *Leases, s base.Slot, mode lease.Mode) {
	t.Helper()
	var turn Turn
	p := l.Part(s)
	p.Lock()
	status := p.Acquire(s, &turn, mode, true)
	p.Unlock()
	if status == lease.Queued {
		select {
		case <-turn.Wake():
		case <-time.After(10 * time.Second):
			t.Fatalf("slot %d: no turn: %v", s, l.Explain(s))
		}
	}
	p.Lock()
	p.Release(&turn, 0)
	p.Unlock()
}

// evict gives a lease up, and says whether a CAS was asked for.
func evict(l *Leases, s base.Slot) bool {
	p := l.Part(s)
	p.Lock()
	defer p.Unlock()
	asked := p.core.Evict(s)
	p.carryOut()
	return asked
}

// verbs waits until all that was asked for is posted and has arrived, and counts
// CAS and messages.
func verbs(t *testing.T, all []*Leases) (cas, messages uint64) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var asked, told, received uint64
		cas, messages = 0, 0
		for _, l := range all {
			stats, _ := l.Stats()
			asked += stats.CAS + stats.Reads + stats.Releases
			told += stats.Messages
			for _, n := range l.Counters() {
				cas += n.Verbs[rdma.OpCAS].Posted
				messages += n.Sent
				received += n.Received
			}
		}
		if cas == asked && messages == told && received == told {
			return cas, messages
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d CAS are posted of %d, %d messages have arrived of %d", cas, asked, received, told)
		}
		time.Sleep(100 * time.Microsecond) // the counters have no channel to wait on
	}
}

// await waits until a slot is in a state here.
func await(t *testing.T, l *Leases, s base.Slot, state string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for l.Explain(s).State != state {
		if time.Now().After(deadline) {
			t.Fatalf("slot %d is not %q: %v", s, state, l.Explain(s))
		}
		time.Sleep(100 * time.Microsecond) // Explain has no channel to wait on
	}
}

// TestCostOfRelease counts what transactions do not cause: that a lease is given
// up, and is free with a ticket that the next one has to guess.
func TestCostOfRelease(t *testing.T) {
	all := group(t, 3)
	a, b := all[0], all[1]
	for i, tt := range []struct {
		name          string
		before, do    func(s base.Slot)
		cas, messages uint64
	}{
		{"release", func(s base.Slot) { take(t, a, s, lease.Write) }, func(s base.Slot) { evict(a, s); await(t, a, s, "") }, 1, 0},
		{"free, right guess: who has released it", func(s base.Slot) { take(t, a, s, lease.Write); evict(a, s); await(t, a, s, "") }, func(s base.Slot) { take(t, a, s, lease.Write) }, 1, 0},
		{"free, wrong guess", func(s base.Slot) { take(t, a, s, lease.Write); evict(a, s); await(t, a, s, "") }, func(s base.Slot) { take(t, b, s, lease.Write) }, 2, 0},
		{"release with a reader: its copy goes first", func(s base.Slot) { take(t, a, s, lease.Write); take(t, b, s, lease.Read) }, func(s base.Slot) {
			if evict(a, s) {
				t.Error("a lease with a copy elsewhere was given up")
			}
			await(t, b, s, "")
			verbs(t, all) // the acknowledgement has arrived
			evict(a, s)
			await(t, a, s, "")
		}, 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := base.Slot(100 + i)
			tt.before(s)
			cas, messages := verbs(t, all)
			tt.do(s)
			casAfter, messagesAfter := verbs(t, all)
			if cas, messages = casAfter-cas, messagesAfter-messages; cas != tt.cas || messages != tt.messages {
				t.Errorf("%d CAS and %d messages, want %d and %d", cas, messages, tt.cas, tt.messages)
			}
		})
	}
}
