package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
)

// cluster is several workers in this process over one store, with verbs by tcp
// unless open says otherwise, in views that the test decides.
type cluster struct {
	*bed
	peers   leases.Local
	view    *lease.Members
	options worker.Options
	open    func(name string) (rdma.Provider, error)

	mu      sync.Mutex // guards members for those who pick one
	members map[lease.Worker]*member
}

// member is one worker of it.
type member struct {
	lease.Member
	w        *worker.Worker
	provider rdma.Provider
	views    chan *lease.Members
	current  atomic.Bool
	stop     context.CancelFunc
	running  sync.WaitGroup
	err      error
}

// providerEnv names the provider of verbs that clusters use; empty is tcp. In the
// virtual machine of make test-rxe it is verbs.
const providerEnv = "TENURE_TEST_PROVIDER"

func openProvider(string) (rdma.Provider, error) {
	if name := os.Getenv(providerEnv); name != "" {
		_, verdict := machine.Choose(context.Background(), machine.Demand{Provider: name})
		return machine.Open(context.Background(), verdict, slog.New(slog.DiscardHandler))
	}
	return openTCP("")
}

func openTCP(string) (rdma.Provider, error) { return tcp.Open(tcp.Options{}) }

// oneFate is for workers that share theirs with the store.
func oneFate(yes bool) *worker.Cluster {
	if !yes {
		return nil
	}
	return &worker.Cluster{OneFate: new(worker.Fate)}
}

// eachFate runs a test over workers that may die alone, and over such of one fate
// with the store.
func eachFate(t *testing.T, test func(t *testing.T, fate *worker.Cluster)) {
	t.Run("fates of their own", func(t *testing.T) { test(t, oneFate(false)) })
	t.Run("one fate", func(t *testing.T) { test(t, oneFate(true)) })
}

// newCluster starts n workers over a store in memory. Of opt.Cluster it takes the
// fate; nil: they may die alone.
func newCluster(t testing.TB, n int, opt worker.Options, fns handlers) *cluster {
	t.Helper()
	c := &cluster{members: map[lease.Worker]*member{}, options: opt, open: openProvider}
	c.bed = &bed{t: t, fs: vfs.NewMem(), fns: fns, pick: c.any}
	c.options.Logger = slog.New(slog.DiscardHandler)
	var err error
	if c.engine, err = pebble.Open(pebble.Options{Dir: "db", FS: c.fs}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	for i := range n {
		c.start(lease.Member{Worker: lease.Worker(i + 1), Incarnation: 1})
	}
	c.install()
	return c
}

// start starts a worker that is in no view yet.
func (c *cluster) start(id lease.Member) *member {
	c.t.Helper()
	m := &member{Member: id, views: make(chan *lease.Members, 16)}
	var err error
	name := fmt.Sprintf("w%d", id.Worker)
	if m.provider, err = c.open(name); err != nil {
		c.t.Fatal(err)
	}
	opt := c.options
	opt.Name = name
	m.current.Store(true)
	opt.Cluster = &worker.Cluster{Views: m.views, Current: m.current.Load}
	if c.options.Cluster != nil {
		opt.Cluster.OneFate = c.options.Cluster.OneFate
	}
	opt.Cluster.Leases.Me, opt.Cluster.Leases.Peers = id, &c.peers
	opt.Cluster.Leases.Mesh.Provider = m.provider
	if m.w, err = worker.New(opt, c.engine); err != nil {
		c.t.Fatal(err)
	}
	c.peers.Enter(id, m.w.Leases())
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.running.Go(func() { m.err = m.w.Run(ctx) })
	c.mu.Lock()
	c.members[id.Worker] = m
	c.mu.Unlock()
	return m
}

// any is a worker at random, which may be one that was evicted and does not know.
func (c *cluster) any() *worker.Worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := rand.IntN(len(c.members))
	for _, m := range c.members {
		if n--; n < 0 {
			return m.w
		}
	}
	panic("the cluster has no workers")
}

// install seals the store for a view of all members, then publishes it.
func (c *cluster) install() {
	c.t.Helper()
	var all []lease.Member
	for _, m := range c.members {
		if m.current.Load() {
			all = append(all, m.Member)
		}
	}
	var err error
	if c.view, err = lease.NewMembers(c.engine.Sealed()+1, all); err != nil {
		c.t.Fatal(err)
	}
	if err := c.engine.Seal(c.view.View); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.members {
		if m.current.Load() {
			m.views <- c.view
		}
	}
}

// evict makes a view without a member, which is not told: its time is over, that
// is all.
func (c *cluster) evict(m *member) {
	m.current.Store(false)
	c.install()
}

// end stops a worker; what it holds is gone.
func (c *cluster) end(m *member) {
	c.mu.Lock()
	delete(c.members, m.Worker)
	c.mu.Unlock()
	c.peers.Leave(m.Member)
	m.stop()
	m.running.Wait()
	if m.err != nil {
		c.t.Errorf("worker %d: %v", m.Worker, m.err)
	}
	if err := m.w.Leases().Close(); err != nil {
		c.t.Errorf("close the leases of worker %d: %v", m.Worker, err)
	}
	if err := m.provider.Close(); err != nil {
		c.t.Errorf("close the provider of worker %d: %v", m.Worker, err)
	}
}

func (c *cluster) close() {
	for _, m := range c.members {
		c.end(m)
	}
	if err := c.engine.Close(); err != nil {
		c.t.Errorf("close the store: %v", err)
	}
}

// on runs what follows on one worker.
func (c *cluster) on(w lease.Worker) *bed {
	b := *c.bed
	b.pick = func() *worker.Worker { return c.members[w].w }
	return &b
}

// TestLeaseMovesBetweenWorkers writes a key on each of three workers in turn; each
// sees what the one before it wrote.
func TestLeaseMovesBetweenWorkers(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, nil)
	for round := range 30 {
		b := c.on(lease.Worker(1 + round%3))
		if round > 0 {
			if got, want := b.value("k"), fmt.Sprint(round-1); got != want {
				t.Fatalf("round %d: worker %d reads %s, want %s", round, 1+round%3, got, want)
			}
		}
		b.set("k", fmt.Sprint(round))
	}
}

// TestStrictSerializabilityOverWorkers is TestStrictSerializability with each
// transaction on a worker drawn at random, so that every key is wanted everywhere.
func TestStrictSerializabilityOverWorkers(t *testing.T) {
	operations := 20_000
	if testing.Short() {
		operations = 5_000
	}
	eachFate(t, func(t *testing.T, fate *worker.Cluster) {
		c := newCluster(t, 3, worker.Options{Cluster: fate}, players())
		if report := runHistory(t, c.bed, operations); len(report.Anomalies) > 0 {
			t.Errorf("the history is not strictly serializable:\n%v", report)
		}
		c.log()
	})
}

// log writes down what the workers did.
func (c *cluster) log() {
	for _, m := range c.members {
		stats, known := m.w.Leases().Stats()
		c.t.Logf("worker %d: %+v, %d slots known", m.Worker, stats, known)
	}
}

// TestStrictSerializabilityOverViews has members evicted without their knowledge,
// and come back as new incarnations, while transactions run on all of them.
func TestStrictSerializabilityOverViews(t *testing.T) {
	operations := 20_000
	if testing.Short() {
		operations = 5_000
	}
	eachFate(t, func(t *testing.T, fate *worker.Cluster) {
		c := newCluster(t, 3, worker.Options{Timeout: time.Second, Cluster: fate}, players())
		stop := make(chan struct{})
		var changing sync.WaitGroup
		changing.Go(func() { c.change(stop) })
		c.calm = sync.OnceFunc(func() { close(stop); changing.Wait() })
		defer c.calm()
		report := runHistory(t, c.bed, operations)
		if len(report.Anomalies) > 0 {
			t.Errorf("the history is not strictly serializable:\n%v", report)
		}
		c.log()
		t.Logf("%d views", c.view.View)
	})
}

// rejoin ends an evicted member and lets it come back.
func (c *cluster) rejoin(m *member) {
	c.end(m)
	c.start(lease.Member{Worker: m.Worker, Incarnation: m.Incarnation + 1})
	c.install()
}

// change changes the membership until stop.
func (c *cluster) change(stop <-chan struct{}) {
	var out *member
	for {
		select {
		case <-stop:
			if out != nil {
				c.rejoin(out)
			}
			return
		case <-time.After(150 * time.Millisecond): // the pace of the faults, not a wait for anything
		}
		switch {
		case out != nil:
			c.rejoin(out)
			out = nil
		case rand.IntN(3) == 0:
			c.install()
		default:
			out = c.members[lease.Worker(1+rand.IntN(3))]
			c.evict(out)
		}
	}
}

// TestUnservedInvocationKeepsNoRecord asks a worker whose membership is over, and
// then another one, under the same id, as a gateway does. The simulator found that
// the record of the first could replace that of the second.
func TestUnservedInvocationKeepsNoRecord(t *testing.T) {
	c := newCluster(t, 2, worker.Options{}, nil)
	c.do(1, put("k", "v"))
	req := worker.Request{ID: newID(), Name: "txn", Ops: []worker.Op{get("k")}}
	c.members[1].current.Store(false)
	c.want(c.members[1].w.Execute(t.Context(), &req), "unavailable")
	if r, err := c.members[2].w.Record(req.ID); base.KindOf(err) != base.NotFound {
		t.Errorf("the record of an invocation that was not served: %+v, %v", r, err)
	}
}
