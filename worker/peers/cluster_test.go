package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// cluster is members with leases, each with a server, an address book and verbs of
// its own, in views that the test decides. Every slot has a counter.
type cluster struct {
	t       *testing.T
	members map[lease.Member]*member
	view    base.View

	mu    sync.Mutex
	store map[base.Slot]uint64 // the counters, as the store has them
}

type member struct {
	lease.Member
	c        *cluster
	here     leases.Local
	address  string
	stop     func() // the server
	peers    *Peers
	provider rdma.Provider
	leases   *leases.Leases
	views    chan *lease.Members
	cancel   context.CancelFunc
	running  sync.WaitGroup
	err      error
	// parts have the counters that are here; guarded by their latches.
	parts []values
}

// values are the counters of a part, as the member that has the lease has them.
type values map[base.Slot]uint64

// AppendValues implements leases.Values.
func (v values) AppendValues(dst []byte, s base.Slot, _ int) []byte {
	return binary.LittleEndian.AppendUint64(dst, v[s])
}

// InstallValues implements leases.Values.
func (v values) InstallValues(s base.Slot, body []byte) error {
	if len(body) != 8 {
		return fmt.Errorf("a value of %d bytes", len(body))
	}
	v[s] = binary.LittleEndian.Uint64(body)
	return nil
}

// Forget implements leases.Values.
func (v values) Forget(s base.Slot) { delete(v, s) }

// durable is a log in which all is durable at once.
type durable struct{}

func (durable) Appended() base.Number                          { return 0 }
func (durable) Durable() base.Number                           { return 0 }
func (durable) WaitDurable(context.Context, base.Number) error { return nil }

const (
	testParts = 4
	testSlots = 1 << 14
)

func (c *cluster) start(id lease.Member) *member {
	c.t.Helper()
	m := &member{Member: id, c: c, views: make(chan *lease.Members, 16), peers: New(Options{})}
	m.address, m.stop = serve(c.t, &m.here)
	for range testParts {
		m.parts = append(m.parts, values{})
	}
	var err error
	if m.provider, err = tcp.Open(tcp.Options{}); err != nil {
		c.t.Fatal(err)
	}
	o := leases.Options{
		Me: id, Parts: testParts, Slots: testSlots, Values: func(part int) leases.Values { return m.parts[part] },
		Log: durable{}, Relabel: func(base.View) {}, Peers: m.peers, Logger: slog.New(slog.DiscardHandler),
	}
	o.Mesh.Provider = m.provider
	if m.leases, err = leases.New(o); err != nil {
		c.t.Fatal(err)
	}
	m.here.Enter(id, m.leases)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.running.Go(func() { m.err = m.leases.Run(ctx, m.views) })
	c.members[id] = m
	return m
}

// end ends a member as a process ends: without a word to the others.
func (c *cluster) end(m *member) {
	c.t.Helper()
	delete(c.members, m.Member)
	m.stop()
	m.cancel()
	m.running.Wait()
	if m.err != nil {
		c.t.Errorf("worker %d: %v", m.Worker, m.err)
	}
	for what, closing := range map[string]func() error{"leases": m.leases.Close, "peers": m.peers.Close} {
		if err := closing(); err != nil {
			c.t.Errorf("close the %s of worker %d: %v", what, m.Worker, err)
		}
	}
	if err := m.provider.Close(); err != nil {
		c.t.Errorf("close the provider of worker %d: %v", m.Worker, err)
	}
}

// install makes a view of all members there are.
func (c *cluster) install() {
	c.t.Helper()
	c.view++
	var all []lease.Member
	book := map[lease.Member]string{}
	for id, m := range c.members {
		all = append(all, id)
		book[id] = m.address
	}
	view, err := lease.NewMembers(c.view, all)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.members {
		if err := m.peers.SetMembers(book); err != nil {
			c.t.Fatal(err)
		}
		m.views <- view
	}
}

// add adds 1 to the counter of a slot.
func (m *member) add(s base.Slot) {
	t := m.c.t
	t.Helper()
	var turn leases.Turn
	p := m.leases.Part(s)
	p.Lock()
	status := p.Acquire(s, &turn, lease.Write, true)
	p.Unlock()
	if status == lease.Queued {
		select {
		case <-turn.Wake():
		case <-time.After(30 * time.Second):
			t.Fatalf("worker %d waits for slot %d in view %d for ever: %+v", m.Worker, s, m.leases.View(), m.leases.Explain(s))
		}
	}
	p.Lock()
	defer p.Unlock()
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	v := m.parts[int(s)%testParts]
	if n, known := v[s]; known && n != m.c.store[s] {
		t.Errorf("worker %d has %d in slot %d, the store %d", m.Worker, n, s, m.c.store[s])
	}
	m.c.store[s]++
	v[s] = m.c.store[s]
	p.Release(&turn, 0)
}

// TestLeasesAndViews passes leases among three members, one of which ends and
// comes back as another incarnation at another address.
func TestLeasesAndViews(t *testing.T) {
	c := &cluster{t: t, members: map[lease.Member]*member{}, store: map[base.Slot]uint64{}}
	t.Cleanup(func() {
		for _, m := range c.members {
			c.end(m)
		}
	})
	first, second, third := lease.Member{Worker: 1, Incarnation: 1}, lease.Member{Worker: 2, Incarnation: 4}, lease.Member{Worker: 3, Incarnation: 9}
	for _, id := range []lease.Member{first, second, third} {
		c.start(id)
	}
	slots, rounds := run(0, testSlots, 100), uint64(0)
	all := func(ids ...lease.Member) {
		t.Helper()
		for _, s := range slots {
			for _, id := range ids {
				c.members[id].add(s)
			}
		}
		rounds += uint64(len(ids))
	}
	c.install()
	all(first, second, third)
	stats, _ := c.members[third].leases.Stats()
	if stats.Pulls == 0 {
		t.Errorf("no lease came from another member: %+v", stats)
	}
	c.install() // the same members: leases stay where they are
	all(third, first)
	all(third) // it holds all when it ends
	gone := c.members[third]
	c.end(gone)
	c.install()
	all(second, first)
	if err := c.members[first].peers.Ready(t.Context(), third, first, c.view); base.KindOf(err) != base.Unavailable {
		t.Errorf("a call to who is gone: %v", err)
	}
	again := lease.Member{Worker: third.Worker, Incarnation: third.Incarnation + 1}
	c.start(again)
	c.install()
	all(again, second, first)
	for _, s := range slots {
		if c.store[s] != rounds {
			t.Fatalf("slot %d counts %d, want %d", s, c.store[s], rounds)
		}
	}
	if len(c.members[first].peers.connections) != 3 {
		t.Errorf("connections %v, want one to each member", c.members[first].peers.connections)
	}
}

// TestRealRefusals: what leases themselves answer before a view is installed.
func TestRealRefusals(t *testing.T) {
	c := &cluster{t: t, members: map[lease.Member]*member{}, store: map[base.Slot]uint64{}}
	first, second := lease.Member{Worker: 1, Incarnation: 1}, lease.Member{Worker: 2, Incarnation: 1}
	m, n := c.start(first), c.start(second)
	defer c.end(m)
	defer c.end(n)
	if err := m.peers.SetMembers(map[lease.Member]string{first: m.address, second: n.address}); err != nil {
		t.Fatal(err)
	}
	offer, _ := offers()
	offer.From, offer.To, offer.Slots, offer.Provider = first, second, testSlots, m.provider.Name()
	if _, err := m.peers.Exchange(t.Context(), offer.To, offer); !errors.Is(err, mesh.ErrNotMember) {
		t.Errorf("exchange: %v", err)
	}
	if err := m.peers.Report(t.Context(), offer.To, offer.From, 1, []base.Slot{1}); !errors.Is(err, leases.ErrNotYet) {
		t.Errorf("report: %v", err)
	}
	if err := m.peers.Ready(t.Context(), offer.To, offer.From, 1); !errors.Is(err, leases.ErrNotYet) {
		t.Errorf("ready: %v", err)
	}
	offer.Provider = "another"
	if _, err := m.peers.Exchange(t.Context(), offer.To, offer); base.KindOf(err) != base.Invalid || errors.Is(err, mesh.ErrNotMember) {
		t.Errorf("exchange with another provider: %v", err)
	}
}
