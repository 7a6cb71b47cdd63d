package worker_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// cost is what leases have cost all workers together.
type cost struct {
	// CAS were posted on words, messages sent; turns were waited for.
	cas, messages, waits uint64
}

func (c cost) minus(o cost) cost {
	return cost{c.cas - o.cas, c.messages - o.messages, c.waits - o.waits}
}

func (c cost) String() string {
	return fmt.Sprintf("%d CAS, %d messages, %d waits", c.cas, c.messages, c.waits)
}

// cost waits until what was asked for is posted and has arrived, and counts it. The
// links must count what the leases asked for, no more and no less: a WRITE for each
// message to another worker, as long as there are too few of them for a credit.
func (c *cluster) cost() cost {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var sum cost
		var asked, told, received, writes uint64
		for me, m := range c.members {
			stats, _ := m.w.Leases().Stats()
			asked += stats.CAS + stats.Reads + stats.Releases
			told += stats.Messages
			sum.waits += stats.Turns - stats.Hits
			for _, n := range m.w.Leases().Counters() {
				sum.cas += n.Verbs[rdma.OpCAS].Posted
				sum.messages += n.Sent
				received += n.Received
				writes += n.Verbs[rdma.OpWriteImm].Posted
				if n.Worker == me {
					writes += n.Sent // these go through memory
				}
			}
		}
		if sum.cas == asked && sum.messages == told && received == told && writes == told {
			return sum
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the links count %v, %d received, %d WRITE; the leases have asked for %d CAS and %d messages", sum, received, writes, asked, told)
		}
		time.Sleep(100 * time.Microsecond) // the counters have no channel to wait on
	}
}

// do runs operations on one worker, which must succeed.
func (c *cluster) do(w lease.Worker, ops ...worker.Op) {
	c.t.Helper()
	if r := c.on(w).ops(ops...); r.Err != nil {
		c.t.Fatalf("worker %d: %v", w, r.Err)
	}
}

// warm gives every worker its share of the gate of table "t".
func (c *cluster) warm() {
	for w := range c.members {
		c.do(w, put(fmt.Sprint("warm", w), ""))
	}
}

// TestCostOfLeases counts what one transaction costs: the table of the protocol.
// Releases, and what they leave behind, are counted in package leases: no
// transaction gives a lease up.
func TestCostOfLeases(t *testing.T) {
	c := newCluster(t, 4, worker.Options{}, nil)
	c.warm()
	puts := func(k string) (ops []worker.Op) {
		for i := range 5 {
			ops = append(ops, put(fmt.Sprint(k, i), "v"))
		}
		return ops
	}
	for _, tt := range []struct {
		name   string
		before func(k string)
		do     func(k string)
		// want has the fewest waits; more of them, up to most, are for what was asked
		// for ahead and has not come yet.
		want cost
		most uint64
	}{
		{"held here, write", func(k string) { c.do(1, put(k, "v")) }, func(k string) { c.do(1, put(k, "w")) }, cost{}, 0},
		{"held here, read", func(k string) { c.do(1, put(k, "v")) }, func(k string) { c.do(1, get(k)) }, cost{}, 0},
		{"copy here", func(k string) { c.do(1, put(k, "v")); c.do(2, get(k)) }, func(k string) { c.do(2, get(k)) }, cost{}, 0},
		{"free, right guess", nil, func(k string) { c.do(1, put(k, "v")) }, cost{1, 0, 1}, 0},
		{"free, a reader looks for whom to ask", nil, func(k string) { c.do(1, get(k)) }, cost{2, 0, 1}, 0},
		{"idle elsewhere, wrong guess", func(k string) { c.do(1, put(k, "v")) }, func(k string) { c.do(2, put(k, "w")) }, cost{2, 2, 1}, 0},
		{"idle elsewhere, right guess", func(k string) { c.do(1, put(k, "v")); c.do(2, put(k, "w")) }, func(k string) { c.do(1, put(k, "x")) }, cost{1, 2, 1}, 0},
		{"copy, no hint", func(k string) { c.do(1, put(k, "v")) }, func(k string) { c.do(2, get(k)) }, cost{1, 2, 1}, 0},
		{"copy, right hint", func(k string) { c.do(1, put(k, "v")); c.do(2, put(k, "v")) }, func(k string) { c.do(1, get(k)) }, cost{0, 2, 1}, 0},
		{"copy, once more from the same holder", func(k string) { c.do(1, put(k, "v")); c.do(2, get(k)); c.do(1, put(k, "w")) }, func(k string) { c.do(2, get(k)) }, cost{0, 2, 1}, 0},
		{"copy, wrong hint", func(k string) { c.do(1, put(k, "v")); c.do(2, put(k, "v")); c.do(3, put(k, "v")) }, func(k string) { c.do(1, get(k)) }, cost{1, 4, 1}, 0},
		{"write with one reader", func(k string) { c.do(1, put(k, "v")); c.do(2, get(k)) }, func(k string) { c.do(1, put(k, "w")) }, cost{0, 2, 1}, 0},
		{"write with three readers", func(k string) { c.do(1, put(k, "v")); c.do(2, get(k)); c.do(3, get(k)); c.do(4, get(k)) }, func(k string) { c.do(1, put(k, "w")) }, cost{0, 6, 1}, 0},
		{"idle elsewhere with a reader", func(k string) { c.do(1, put(k, "v")); c.do(2, get(k)) }, func(k string) { c.do(3, put(k, "w")) }, cost{2, 4, 1}, 0},
		{"five slots, free", nil, func(k string) { c.do(1, puts(k)...) }, cost{5, 0, 1}, 5},
		{"five slots, idle elsewhere", func(k string) { c.do(1, puts(k)...); c.do(2, puts(k)...) }, func(k string) { c.do(1, puts(k)...) }, cost{5, 10, 1}, 5},
		{"five slots, idle elsewhere, wrong guesses", func(k string) { c.do(1, puts(k)...) }, func(k string) { c.do(2, puts(k)...) }, cost{10, 10, 1}, 5},
		{"five slots, held here", func(k string) { c.do(1, puts(k)...) }, func(k string) { c.do(1, puts(k)...) }, cost{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				tt.before(tt.name)
			}
			before := c.cost()
			tt.do(tt.name)
			got := c.cost().minus(before)
			if tt.want.waits < got.waits && got.waits <= tt.most {
				got.waits = tt.want.waits
			}
			if got != tt.want {
				t.Errorf("%v, want %v and at most %d waits", got, tt.want, tt.most)
			}
		})
	}
}

// spread are keys whose slots are in order, none of them below that of "k".
func spread(n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if k := fmt.Sprint("spread", i); key(k).Slot() > key("k").Slot() {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(key(a).Slot(), key(b).Slot()) })
	return keys
}

// TestPrefetchDuringTheFirstWait has a transaction wait for the first of six
// slots: the others come meanwhile, so that it waits once. One that is wanted
// elsewhere goes there without waiting for the transaction, and is asked for again.
func TestPrefetchDuringTheFirstWait(t *testing.T) {
	for _, recalled := range []bool{false, true} {
		t.Run(fmt.Sprint("recalled ", recalled), func(t *testing.T) {
			h := newHold()
			c := newCluster(t, 3, worker.Options{}, handlers{"hold": h.handler})
			c.warm()
			keys := spread(5)
			ops := []worker.Op{put("k", "w")}
			for _, k := range keys {
				c.do(2, put(k, "v"))
				c.do(1, put(k, "v")) // worker 2 knows the word
				ops = append(ops, put(k, "w"))
			}
			c.do(2, put("k", "v"))
			var running sync.WaitGroup
			running.Go(func() {
				if r := c.on(1).invoke(workflow.Single("f", "hold"), "{}"); r.Err != nil {
					t.Error(r.Err)
				}
			})
			<-h.inside
			before := c.cost()
			running.Go(func() { c.do(2, ops...) })
			for _, k := range keys {
				c.awaitHeld(2, k)
			}
			want := cost{6, 12, 1}
			if recalled {
				c.do(3, put(keys[2], "x")) // CAS, wrong guess and right, request and grant, and one wait
				want = cost{6 + 2 + 1, 12 + 2 + 2, 1 + 1 + 1}
			}
			close(h.leave)
			running.Wait()
			if got := c.cost().minus(before); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			for _, k := range keys {
				if got := c.on(3).value(k); got != "w" {
					t.Errorf("%s is %s", k, got)
				}
			}
		})
	}
}

// awaitHeld waits until a worker holds the lease of a key.
func (c *cluster) awaitHeld(w lease.Worker, k string) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for c.members[w].w.Leases().Explain(key(k).Slot()).State != "held" {
		if time.Now().After(deadline) {
			c.t.Fatalf("worker %d does not get %s", w, k)
		}
		time.Sleep(100 * time.Microsecond) // Explain has no channel to wait on
	}
}

// hold is a handler that writes key k and then stays until it is let go.
type hold struct{ inside, leave chan struct{} }

func newHold() *hold { return &hold{make(chan struct{}, 16), make(chan struct{})} }

func (h *hold) handler(host runtime.Host, _ []byte) ([]byte, error) {
	if err := host.Put("t", "k", []byte("held")); err != nil {
		return nil, err
	}
	h.inside <- struct{}{}
	<-h.leave
	return []byte("1"), nil
}

// awaitSuccessor waits until a worker knows who comes after it.
func (c *cluster) awaitSuccessor(w lease.Worker, k string) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for c.members[w].w.Leases().Explain(key(k).Slot()).Successor == lease.Free {
		if time.Now().After(deadline) {
			c.t.Fatalf("nobody asks worker %d for %s", w, k)
		}
		time.Sleep(100 * time.Microsecond) // Explain has no channel to wait on
	}
}

// TestCostOfContendedHandOver has a request wait at the holder: then the lease
// costs one message, the values included.
func TestCostOfContendedHandOver(t *testing.T) {
	h := newHold()
	c := newCluster(t, 2, worker.Options{}, handlers{"hold": h.handler})
	c.warm()
	c.do(2, put("k", "v")) // worker 1 has to get it first, worker 2 knows the word then
	var running sync.WaitGroup
	running.Go(func() {
		if r := c.on(1).invoke(workflow.Single("f", "hold"), "{}"); r.Err != nil {
			t.Error(r.Err)
		}
	})
	<-h.inside
	running.Go(func() { c.do(2, put("k", "w")) })
	c.awaitSuccessor(1, "k")
	before := c.cost()
	close(h.leave)
	running.Wait()
	if got, want := c.cost().minus(before), (cost{0, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// renewals is a leasemgr that counts the renewals it is asked for.
type renewals struct {
	leasemgr.Registry
	mu   sync.Mutex
	last leasemgr.RenewRequest
	came chan struct{}
}

func (r *renewals) Renew(ctx context.Context, q leasemgr.RenewRequest) (leasemgr.Published, error) {
	p, err := r.Registry.Renew(ctx, q)
	if err == nil {
		r.mu.Lock()
		r.last = q
		r.mu.Unlock()
		select {
		case r.came <- struct{}{}:
		default:
		}
	}
	return p, err
}

// await waits for n more renewals and returns the last request.
func (r *renewals) await(n int) leasemgr.RenewRequest {
	for range n {
		<-r.came
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// TestRenewalDoesNotCountLeases renews the membership of a worker that holds no
// lease, and when it holds ten thousand: it is the same request, and no verb.
func TestRenewalDoesNotCountLeases(t *testing.T) {
	c := newCluster(t, 2, worker.Options{}, nil)
	engine, err := pebble.Open(pebble.Options{Dir: "members", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	manager, err := leasemgr.NewManager(engine, leasemgr.ManagerOptions{
		Options: membership.Options{TTL: 6 * time.Second}, Seal: func(base.View) error { return nil }, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := manager.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	counter := &renewals{Registry: manager, came: make(chan struct{}, 1)}
	session, err := leasemgr.Join(ctx, leasemgr.SessionOptions{Registry: counter, Name: "w1", Address: "here:1", Provider: "tcp", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := session.Run(ctx); err != nil {
			t.Error(err)
		}
	})

	const slots = 10_000
	counter.await(2) // the first one may have news
	before := c.cost()
	none := counter.await(3)
	if got := c.cost().minus(before); got != (cost{}) {
		t.Errorf("renewals without leases: %v, want nothing", got)
	}
	for i := 0; i < slots; i += 1000 {
		var ops []worker.Op
		for j := range 1000 {
			ops = append(ops, put(fmt.Sprint("k", i+j), "v"))
		}
		c.do(1, ops...)
	}
	stats, known := c.members[1].w.Leases().Stats()
	if known < slots*98/100 { // some keys share a slot
		t.Fatalf("%d slots are known after %d keys: %+v", known, slots, stats)
	}
	before = c.cost()
	many := counter.await(3)
	if got := c.cost().minus(before); got != (cost{}) {
		t.Errorf("renewals with %d leases: %v, want nothing", known, got)
	}
	if !reflect.DeepEqual(none, many) {
		t.Errorf("the renewal with %d leases is %+v, without any %+v", known, many, none)
	}
}
