package worker_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
)

// The faults of the released code of RTSFaaS (branch FaaS at 668326c6), by their
// numbers in rtsfaas.md section 6: each of these tests fails in a system that has
// the fault.

// clusterOn is newCluster with n workers on a disk and over verbs of the test's
// choice, all in the same incarnation, of the fate of newCluster.
func clusterOn(t testing.TB, fs vfs.FS, open func(string) (rdma.Provider, error), n int, incarnation uint32, fate *worker.Cluster, fns handlers) *cluster {
	t.Helper()
	c := &cluster{members: map[lease.Worker]*member{}, open: open}
	c.bed = &bed{t: t, fns: fns, pick: c.any}
	c.options.Logger, c.options.Cluster = slog.New(slog.DiscardHandler), fate
	var err error
	if c.engine, err = pebble.Open(pebble.Options{Dir: "db", FS: fs, CacheBytes: 8 << 20, MemTableBytes: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	for i := range n {
		c.start(lease.Member{Worker: lease.Worker(i + 1), Incarnation: incarnation})
	}
	c.install()
	return c
}

// enters waits until a worker has installed the newest view.
func (c *cluster) enters(w lease.Worker) {
	l := c.members[w].w.Leases()
	for v := l.View(); v < c.view.View; v = l.View() {
		<-l.Installed(v)
	}
}

// version is how often a key was written.
func (b *bed) version(k base.Key) base.Version {
	b.t.Helper()
	r := b.ops(worker.Op{Kind: worker.OpGet, Key: k})
	if r.Err != nil {
		b.t.Fatalf("get %v: %v", k, r.Err)
	}
	return r.Results[0].Version
}

// increment reads a number and writes the next one.
func increment(h runtime.Host, k string) error {
	v, _, err := h.Get("t", k)
	if err != nil {
		return err
	}
	return h.Put("t", k, strconv.AppendInt(nil, int64(number(v)+1), 10))
}

func oneMore(k string) func(runtime.Host, []byte) ([]byte, error) {
	return func(h runtime.Host, _ []byte) ([]byte, error) { return nil, increment(h, k) }
}

// expect fails the test without ending the goroutine.
func expect(t testing.TB, r worker.Reply) {
	t.Helper()
	if r.Err != nil {
		t.Errorf("unexpected error: %v", r.Err)
	}
}

// Fault 6.1: their commit writes what was loaded at the start of the batch, so no
// update reaches the store. Here what was acknowledged on any worker is on the disk,
// and there after a power failure.
func TestRTSFaaS1CommitReachesStore(t *testing.T) {
	mem := vfs.NewCrashableMem()
	c := clusterOn(t, mem, openTCP, 3, 1, nil, nil)
	for round := range 9 {
		c.on(lease.Worker(1+round%3)).set("k", strconv.Itoa(round))
		raw, found, err := c.engine.Get(nil, store.AppendDataKey(nil, key("k")))
		if err != nil || !found {
			t.Fatalf("round %d: the store has no value: %v", round, err)
		}
		version, value, _, err := store.DecodeDataValue(raw)
		if err != nil || string(value) != strconv.Itoa(round) || version != base.Version(round+1) {
			t.Fatalf("round %d: the store has %q in version %d (%v)", round, value, version, err)
		}
		after := openBed(t, mem.CrashClone(vfs.CrashCloneCfg{}), worker.Options{}, nil)
		if got := after.value("k"); got != strconv.Itoa(round) {
			t.Errorf("round %d: after a power failure the value is %s", round, got)
		}
		if err := after.engine.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Fault 6.2: their home keeps its own updates where remote readers do not look, and
// forgets them when the lease comes back. Here each worker sees the updates of all
// others, and none is lost.
func TestRTSFaaS2LocalWritesSeenElsewhere(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{"inc": oneMore("k")})
	want := 0
	for round := range 12 {
		for range 1 + round%4 { // those after the first are local
			c.on(1).want(c.on(1).call("inc", "{}"), "")
			want++
		}
		for _, w := range []lease.Worker{2, 3} {
			if got := c.on(w).value("k"); got != strconv.Itoa(want) {
				t.Fatalf("worker %d reads %s after %d updates of worker 1", w, got, want)
			}
		}
		c.on(2).want(c.on(2).call("inc", "{}"), "")
		want++
	}
	var wg sync.WaitGroup
	const each = 60
	for w := lease.Worker(1); w <= 3; w++ {
		wg.Go(func() {
			for range each {
				expect(t, c.on(w).call("inc", "{}"))
			}
		})
	}
	wg.Wait()
	want += 3 * each
	pulls, copies := uint64(0), uint64(0)
	for w := lease.Worker(1); w <= 3; w++ {
		if got := c.on(w).value("k"); got != strconv.Itoa(want) {
			t.Errorf("worker %d reads %s, want %d", w, got, want)
		}
		stats, _ := c.members[w].w.Leases().Stats()
		pulls, copies = pulls+stats.Pulls, copies+stats.Copies
	}
	if pulls < 12 || copies < 12 {
		t.Errorf("%d leases and %d copies went from worker to worker: the test exercises too little", pulls, copies)
	}
}

// sameSlot finds a key of another table in the slot of key("x").
func sameSlot() base.Key {
	for i := 0; ; i++ {
		if k := keyOf("u", strconv.Itoa(i)); k.Slot() == key("x").Slot() {
			return k
		}
	}
}

// Fault 6.3: their chains are compared by the key alone, so that of two tables with
// one key one is dropped: work is skipped, or waited for for ever. Here tables with
// the same keys, and keys of two tables in one slot, are different keys.
func TestRTSFaaS3SameKeyInTwoTables(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, nil)
	twin := sameSlot()
	add := func(k base.Key) worker.Op { return worker.Op{Kind: worker.OpAdd, Key: k, Value: []byte("1")} }
	const each = 40
	var wg sync.WaitGroup
	for w := lease.Worker(1); w <= 3; w++ {
		wg.Go(func() {
			b := c.on(w)
			for range each {
				expect(t, b.ops(add(keyOf("t", "7")), add(keyOf("u", "7")), add(keyOf("v", "7"))))
				switch w {
				case 1:
					expect(t, b.ops(add(key("x"))))
				case 2:
					expect(t, b.ops(add(twin)))
				default:
					expect(t, b.ops(add(twin), add(key("x"))))
				}
			}
		})
	}
	wg.Wait()
	for k, want := range map[base.Key]base.Version{
		keyOf("t", "7"): 3 * each, keyOf("u", "7"): 3 * each, keyOf("v", "7"): 3 * each, key("x"): 2 * each, twin: 2 * each,
	} {
		for w := lease.Worker(1); w <= 3; w++ {
			if got := c.on(w).version(k); got != want {
				t.Errorf("worker %d: %v was written %d times, want %d", w, k, got, want)
			}
		}
	}
}

// Fault 6.4: their operations on a key are compared by their timestamp alone, so two
// functions of one workflow collide on a key and one is dropped. Here both have
// their effect, one after another or side by side.
func TestRTSFaaS4TwoFunctionsOfOneWorkflowOnOneKey(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{"first": oneMore("k"), "second": oneMore("k")})
	chain := c.flow("functions:\n  first: {function: f, writes: ['t/k']}\n  second: {function: f, writes: ['t/k'], after: [first]}\n")
	aside := c.flow("functions:\n  first: {function: f}\n  second: {function: f}\n")
	const each = 20
	var wg sync.WaitGroup
	for w := lease.Worker(1); w <= 3; w++ {
		wg.Go(func() {
			for range each {
				expect(t, c.on(w).invoke(chain, "{}"))
				expect(t, c.on(w).invoke(aside, "{}"))
			}
		})
	}
	wg.Wait()
	if got, want := c.value("k"), strconv.Itoa(3*each*2*2); got != want {
		t.Errorf("k=%s, want %s", got, want)
	}
}

// Fault 6.5: their operations are committed one by one as they are executed. Here a
// transaction over keys of several workers is seen as a whole or not at all, on the
// workers that take part in it and on the others.
func TestRTSFaaS5NoHalfTransfer(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{"move": move})
	moved, _ := c.transfers(func(moved, seen int64) bool { return moved >= 600 && seen >= 100 })
	if versions := c.balanced(); versions != 2*moved {
		t.Errorf("%d writes of accounts for %d transfers", versions, moved)
	}
}

// Fault 6.5 again, while members are evicted in the middle of transfers.
func TestRTSFaaS5NoHalfTransferOverViews(t *testing.T) {
	c := newCluster(t, 3, worker.Options{Timeout: time.Second}, handlers{"move": move})
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() { c.change(stop) })
	c.transfers(func(moved, seen int64) bool { return moved >= 50 && seen >= 10 && c.engine.Sealed() >= 7 })
	close(stop)
	changing.Wait()
	c.balanced()
}

const moveAccounts = 6

func (c *cluster) accounts() (reads []worker.Op) {
	for a := range moveAccounts {
		reads = append(reads, get(strconv.Itoa(a)))
	}
	return reads
}

// transfers moves money between accounts, and reads all of them, on workers at
// random until enough says so of how often that was done, or for half a minute. It
// fails the test if an account reading sees a half transfer.
func (c *cluster) transfers(enough func(moved, seen int64) bool) (moved, seen int64) {
	var did, read atomic.Int64
	limit := time.Now().Add(30 * time.Second)
	over := func() bool { return enough(did.Load(), read.Load()) || time.Now().After(limit) }
	var wg sync.WaitGroup
	for m := range 4 {
		wg.Go(func() {
			for i := 0; !over(); i++ {
				from := (m + i) % moveAccounts
				if passing(c.t, c.call("move", fmt.Sprintf("%d %d", from, (from+1+i%(moveAccounts-1))%moveAccounts))) {
					did.Add(1)
				}
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for !over() {
				r := c.ops(c.accounts()...)
				if !passing(c.t, r) {
					continue
				}
				read.Add(1)
				if sum, _ := addUp(r); sum != 0 {
					c.t.Errorf("a half transfer: the accounts hold %d, want 0", sum)
				}
			}
		})
	}
	wg.Wait()
	if !enough(did.Load(), read.Load()) {
		c.t.Errorf("only %d transfers and %d readings", did.Load(), read.Load())
	}
	return did.Load(), read.Load()
}

// balanced checks that the accounts hold nothing together, and returns how often
// they were written.
func (c *cluster) balanced() int64 {
	c.t.Helper()
	r := c.ops(c.accounts()...)
	c.want(r, "")
	sum, versions := addUp(r)
	if sum != 0 {
		c.t.Errorf("at the end the accounts hold %d, want 0", sum)
	}
	return versions
}

func addUp(r worker.Reply) (sum int, versions int64) {
	for _, x := range r.Results {
		sum += number(x.Value)
		versions += int64(x.Version)
	}
	return sum, versions
}

// passing says whether an invocation succeeded; one that failed may have failed
// only for its worker being out, or slow to hear of a view.
func passing(t testing.TB, r worker.Reply) bool {
	t.Helper()
	if r.Err != nil && r.Err.Kind != base.Unavailable && r.Err.Kind != base.Timeout && r.Err.Kind != base.Conflict {
		t.Errorf("unexpected error: %v", r.Err)
	}
	return r.Err == nil
}

// Fault 6.6: a function that fails decrements its children's counter twice: they
// hang, or run all the same, and what was written before stays. Here the abort of a
// late step undoes what came before it on every worker, its children do not run, and
// nobody waits for the keys afterwards.
func TestRTSFaaS6AbortUndoesAndFrees(t *testing.T) {
	var children atomic.Int32
	c := newCluster(t, 3, worker.Options{}, handlers{
		"take": func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Put("t", "a", []byte("taken")) },
		"also": func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Put("t", "undeclared", []byte("taken")) },
		"refuse": func(h runtime.Host, _ []byte) ([]byte, error) {
			return nil, errors.Join(h.Put("t", "b", nil), errors.New("insufficient funds"))
		},
		"left":  func(h runtime.Host, _ []byte) ([]byte, error) { children.Add(1); return nil, h.Put("t", "c", nil) },
		"right": func(h runtime.Host, _ []byte) ([]byte, error) { children.Add(1); return nil, nil },
	})
	flow := c.flow("functions:\n  take: {function: f, writes: ['t/a']}\n  also: {function: f}\n" +
		"  refuse: {function: f, writes: ['t/b'], after: [take, also]}\n" +
		"  left: {function: f, writes: ['t/c'], after: [refuse]}\n  right: {function: f, after: [refuse]}\n")
	keys := []string{"a", "undeclared", "b", "c"}
	for round := range 9 {
		for i, k := range keys { // the keys are held by others, and so are waited for
			c.on(lease.Worker(1+(round+i)%3)).set(k, strconv.Itoa(round))
		}
		r := c.on(lease.Worker(1+round%3)).invoke(flow, "{}")
		c.want(r, "aborted")
		if r.Err.Reason != "insufficient funds" {
			t.Errorf("round %d: reason %q", round, r.Err.Reason)
		}
		for w := lease.Worker(1); w <= 3; w++ {
			for _, k := range keys {
				if got := c.on(w).value(k); got != strconv.Itoa(round) {
					t.Errorf("round %d: worker %d reads %s=%s after an abort", round, w, k, got)
				}
			}
		}
	}
	if n := children.Load(); n > 0 {
		t.Errorf("%d children of an aborted function were run", n)
	}
}
