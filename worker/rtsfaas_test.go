package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
)

// The faults of the released code of RTSFaaS (branch FaaS at 668326c6), by their
// numbers in rtsfaas.md section 6: each of these tests fails in a system that has
// the fault.

// clusterOn is newCluster with n workers on a disk and over verbs of the test's
// choice, all in the same incarnation.
func clusterOn(t testing.TB, fs vfs.FS, open func(string) (rdma.Provider, error), n int, incarnation uint32, fns handlers) *cluster {
	t.Helper()
	c := &cluster{members: map[lease.Worker]*member{}, open: open}
	c.bed = &bed{t: t, fns: fns, pick: c.any}
	c.options.Logger = slog.New(slog.DiscardHandler)
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
	c := clusterOn(t, mem, openTCP, 3, 1, nil)
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

// Fault 6.7: on their remote path every value becomes a String, numbers cannot be
// read, and no output reaches a child. Here values of all bytes and lengths, also
// those that no message has room for, and outputs are the same on every worker.
func TestRTSFaaS7ValuesAndOutputsAreKept(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{
		"withdraw": func(h runtime.Host, _ []byte) ([]byte, error) {
			v, _, err := h.Get("t", "balance")
			return fmt.Appendf(nil, "%d", number(v)-30), err
		},
		"deposit": func(h runtime.Host, _ []byte) ([]byte, error) {
			left, known := h.Result("withdraw")
			if !known {
				return nil, errors.New("the parent's output is not known")
			}
			return left, h.Put("t", "balance", left)
		},
	})
	flow := c.flow("functions:\n  withdraw: {function: f, reads: ['t/balance']}\n  deposit: {function: f, writes: ['t/balance'], after: [withdraw]}\noutput: deposit\n")
	c.on(1).set("balance", "1000")
	for i := range 6 {
		r := c.on(lease.Worker(1+(i+1)%3)).invoke(flow, "{}")
		c.want(r, "")
		if want := strconv.Itoa(1000 - 30*(i+1)); string(r.Output) != want || c.value("balance") != want {
			t.Fatalf("output %s, balance %s, want %s", r.Output, c.value("balance"), want)
		}
	}
	for i, length := range []int{0, 1, 63, 64, 65, 4000, 15 << 10, 17 << 10, 300 << 10} {
		value := make([]byte, length)
		for j := range value {
			value[j] = byte(j*7 + i)
		}
		c.on(lease.Worker(1+i%3)).set("bytes", string(value))
		for w := lease.Worker(1); w <= 3; w++ {
			if got := c.on(w).value("bytes"); got != string(value) {
				t.Errorf("worker %d reads other bytes than the %d that were written", w, length)
			}
		}
	}
}

// Fault 6.8: their second epoch ends in a null pointer: the statistics are cleared
// for good and the lease tables are never ready again. Here view follows view, with
// all that was known before, with new keys, and with the service going on.
func TestRTSFaaS8ViewAfterView(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{"inc": oneMore("k")})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served int
	wg.Go(func() { // the service never stops
		for ; ; served++ {
			select {
			case <-stop:
				return
			default:
				expect(t, c.call("inc", "{}"))
			}
		}
	})
	const views = 12
	for v := range views {
		c.install()
		for w := lease.Worker(1); w <= 3; w++ {
			c.enters(w)
			b := c.on(w)
			b.set(fmt.Sprintf("new in %d of %d", v, w), strconv.Itoa(v))
			if got := c.on(1 + w%3).value(fmt.Sprintf("new in %d of %d", v/2, w)); got != strconv.Itoa(v/2) {
				t.Errorf("in view %d a key of view %d is %s", v, v/2, got)
			}
		}
	}
	close(stop)
	wg.Wait()
	if got := c.value("k"); got != strconv.Itoa(served) || served < views {
		t.Errorf("k=%s after %d updates over %d views", got, served, views)
	}
}

// Fault 6.9: their circular buffers do not wrap: after one round, writes run past
// the region. Here leases with large values go to and fro until the rings have been
// round many times, and every value is whole.
func TestRTSFaaS9RingsWrap(t *testing.T) {
	const length, rounds, lap = 9 << 10, 200, 64 << 10
	c := newCluster(t, 2, worker.Options{}, handlers{"next": func(h runtime.Host, _ []byte) ([]byte, error) {
		v, _, err := h.Get("t", "k")
		if err != nil {
			return nil, err
		}
		return nil, h.Put("t", "k", bytes.Repeat([]byte{byte(len(v)) + 1}, len(v)+1))
	}})
	c.set("k", strings.Repeat("x", length))
	for i := range rounds {
		b := c.on(lease.Worker(1 + i%2))
		b.want(b.call("next", "{}"), "")
		want := bytes.Repeat([]byte{byte(length+i) + 1}, length+i+1)
		if got := c.on(lease.Worker(1 + (i+1)%2)).value("k"); got != string(want) {
			t.Fatalf("round %d: other bytes than were written arrived", i)
		}
	}
	for w := lease.Worker(1); w <= 2; w++ {
		for _, x := range c.members[w].w.Leases().Counters() {
			if sent := x.Verbs[rdma.OpWriteImm].Bytes; x.Worker != w && sent < 8*lap {
				t.Errorf("worker %d sent %d bytes, which is less than 8 rounds of the ring", w, sent)
			}
		}
	}
}

// Fault 6.10: their flag stands before the value in one WRITE, whose bytes may
// arrive in any order, and a failed request is swallowed. Here verbs are torn,
// reordered, acknowledged early and lost, and a value is always seen whole.
func TestRTSFaaS10TornHandOver(t *testing.T) {
	f := sim.New(sim.Options{Seed: rand.Uint64(), Patience: time.Millisecond, Faults: sim.Faults{
		Delay: sim.Range{Min: time.Microsecond, Max: 20 * time.Microsecond}, Reorder: 0.4, Tear: 0.6, EarlyAck: 0.3, SplitAtomics: 0.3,
		LoseReply: 0.003, LoseRequest: 0.003, Late: 0.3,
	}})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(name string) (rdma.Provider, error) { return f.Open(name) }
	var torn atomic.Int32
	c := clusterOn(t, vfs.NewMem(), open, 3, 1, handlers{"next": func(h runtime.Host, in []byte) ([]byte, error) {
		v, _, err := h.Get("t", string(in))
		if err != nil {
			return nil, err
		}
		if len(v) > 0 && !bytes.Equal(v, bytes.Repeat(v[:1], len(v))) {
			torn.Add(1)
		}
		n := 1
		if len(v) > 0 {
			n = int(v[0]) + 1
		}
		return nil, h.Put("t", string(in), bytes.Repeat([]byte{byte(n)}, 1+n*37))
	}})
	const each = 120
	var wg sync.WaitGroup
	for i, k := range []string{"a", "b"} {
		wg.Go(func() {
			for j := range each { // each on another worker than the one before
				expect(t, c.on(lease.Worker(1+(i+j)%3)).call("next", k))
			}
		})
	}
	wg.Wait()
	for _, k := range []string{"a", "b"} {
		if got, want := c.value(k), strings.Repeat(string([]byte{each}), 1+each*37); got != want {
			t.Errorf("%s has %d bytes, want %d: a hand-over was lost or torn", k, len(got), len(want))
		}
	}
	if n := torn.Load(); n > 0 {
		t.Errorf("%d torn values were seen", n)
	}
	c.log()
}

// Fault 6.11: their results are read only when all inputs have been sent, and wait
// for the slowest of the batch. Here an invocation that does not end keeps nobody
// waiting, on its worker or elsewhere, but those who want its keys.
func TestRTSFaaS11NobodyWaitsForOthers(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	c := newCluster(t, 3, worker.Options{}, handlers{
		"stay": func(h runtime.Host, _ []byte) ([]byte, error) {
			if err := increment(h, "stays"); err != nil {
				return nil, err
			}
			inside <- struct{}{}
			<-leave
			return nil, nil
		},
	})
	stay := c.flow("functions:\n  stay: {function: f, writes: ['t/stays']}\n")
	var wg sync.WaitGroup
	wg.Go(func() { expect(t, c.on(1).invoke(stay, "{}")) })
	<-inside
	for i := range 30 {
		b := c.on(lease.Worker(1 + i%3))
		b.set("other", strconv.Itoa(i))
		if got := c.on(lease.Worker(1 + (i+1)%3)).value("other"); got != strconv.Itoa(i) {
			t.Errorf("other=%s, want %d", got, i)
		}
	}
	close(leave)
	wg.Wait()
}

// Fault 6.12: their snapshots have no table in their keys, are overwritten by every
// thread, and nothing reads them. Here the disk as a power failure leaves it brings
// every table, every acknowledged outcome and one effect of each request back.
func TestRTSFaaS12RecoveryOfAllTables(t *testing.T) {
	mem := vfs.NewCrashableMem()
	cam := &camera{fs: mem, acked: map[string]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	c := clusterOn(t, errorfs.Wrap(mem, cam), openTCP, 3, 1, nil)
	cam.mu.Lock()
	cam.images = nil // of a store that is being made and has acknowledged nothing
	cam.mu.Unlock()
	var wg sync.WaitGroup
	for client := range crashClients {
		wg.Go(func() {
			for i := range crashRequests {
				r := inAllTables(c.members[lease.Worker(1+(client+i)%3)].w, client, i)
				expect(t, r)
				cam.ack(crashKey(client, i), string(r.Output))
			}
		})
	}
	wg.Wait()
	cam.mu.Lock() // the store goes on writing
	images := slices.Clone(cam.images)
	cam.mu.Unlock()
	last := len(images) - 1
	t.Run("several workers", func(t *testing.T) {
		recovered(t, clusterOn(t, images[last].fs.CrashClone(vfs.CrashCloneCfg{}), openTCP, 3, 2, nil).bed, images[last])
	})
	for _, img := range images {
		b := openBed(t, img.fs, worker.Options{}, nil)
		recovered(t, b, img)
		if err := b.engine.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(images) < 50 || len(images[last].acked) == 0 {
		t.Errorf("%d images, the last with %d acknowledgements: the test sees too little", len(images), len(images[last].acked))
	}
}

const crashClients, crashRequests, crashKeys = 3, 20, 4

var crashTables = []string{"t", "u", "v"}

func crashKey(client, i int) string { return fmt.Sprintf("c%d-%d", client, i) }

// inAllTables makes a request, under its idempotency key, that writes the same key
// in all tables.
func inAllTables(w *worker.Worker, client, i int) worker.Reply {
	var ops []worker.Op
	for _, table := range crashTables {
		k := keyOf(table, strconv.Itoa((client+i)%crashKeys))
		ops = append(ops, worker.Op{Kind: worker.OpAppend, Key: k, Value: fmt.Appendf(nil, "%q", fmt.Sprint(table, client, "-", i))})
	}
	return w.Execute(context.Background(), &worker.Request{ID: newID(), Name: "txn", Ops: ops, IdempotencyKey: crashKey(client, i)})
}

// recovered repeats all requests on what was started on an image.
func recovered(t *testing.T, b *bed, img image) {
	t.Helper()
	for client := range crashClients {
		for i := range crashRequests {
			r := inAllTables(b.worker(), client, i)
			expect(t, r)
			k := crashKey(client, i)
			if output, was := img.acked[k]; was && (!r.Replayed || string(r.Output) != output) {
				t.Errorf("before %s: acknowledged request %s is lost", img.op, k)
			}
		}
	}
	for _, table := range crashTables {
		sum := base.Version(0)
		for k := range crashKeys {
			sum += b.version(keyOf(table, strconv.Itoa(k)))
		}
		if sum != crashClients*crashRequests {
			t.Errorf("before %s: table %s was written %d times for %d requests", img.op, table, sum, crashClients*crashRequests)
		}
	}
}

// Fault 6.12, as the paper means it: when a machine fails, all of them execute the
// whole batch again. Here the death of one worker repeats nothing elsewhere, and what
// it had acknowledged is there.
func TestRTSFaaS12DeathRepeatsNothingElsewhere(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	var runs atomic.Int32
	c := newCluster(t, 3, worker.Options{}, handlers{"stay": func(h runtime.Host, _ []byte) ([]byte, error) {
		err := h.Put("mine", "k", []byte("1"))
		if runs.Add(1) == 1 {
			inside <- struct{}{}
			<-leave
		}
		return nil, err
	}})
	// In a table of its own: those who share its gate with others have a copy, which
	// goes with the view, and try again.
	stay := c.flow("functions:\n  stay: {function: f, writes: ['mine/k']}\n")
	c.on(2).set("theirs", "kept")
	var wg sync.WaitGroup
	wg.Go(func() {
		r := c.on(1).invoke(stay, "{}")
		expect(t, r)
		if r.Attempts != 1 || runs.Load() != 1 {
			t.Errorf("%d attempts, %d runs of a function on a worker that lives", r.Attempts, runs.Load())
		}
	})
	<-inside
	dead := c.members[2]
	c.evict(dead)
	c.end(dead)
	c.enters(1)
	for _, w := range []lease.Worker{1, 3} {
		if got := c.on(w).value("theirs"); got != "kept" {
			t.Errorf("worker %d reads %s, which a dead worker had acknowledged", w, got)
		}
	}
	close(leave)
	wg.Wait()
	if v := c.on(3).version(keyOf("mine", "k")); v != 1 {
		t.Errorf("the key was written %d times", v)
	}
}

// Fault 6.14: they keep an object for every key of every table from the start, and
// look at all of them in each epoch. Here a worker knows of what it has used.
func TestRTSFaaS14StateOfUsedKeysOnly(t *testing.T) {
	c := newCluster(t, 2, worker.Options{}, nil)
	for i := range 50 {
		c.on(1).set(strconv.Itoa(i), "x")
	}
	_, known := c.members[1].w.Leases().Stats()
	if _, elsewhere := c.members[2].w.Leases().Stats(); known > 51 || elsewhere > 0 {
		t.Errorf("after 50 keys in one table worker 1 knows of %d slots, worker 2 of %d", known, elsewhere)
	}
}

// Fault 6.19: they have no retries and no idempotency. Here a key that is used on all
// workers at once, and again after a worker has gone, has one effect and one answer.
func TestRTSFaaS19ExactlyOnceAcrossWorkers(t *testing.T) {
	c := newCluster(t, 3, worker.Options{}, handlers{
		"inc": func(h runtime.Host, in []byte) ([]byte, error) {
			err := increment(h, string(in))
			v, _, _ := h.Get("t", string(in))
			return v, err
		},
		"no": func(h runtime.Host, _ []byte) ([]byte, error) { return nil, errors.New("no") },
	})
	const requests = 25
	first := make([]worker.Reply, requests)
	for i := range requests {
		replies := make([]worker.Reply, 6)
		var wg sync.WaitGroup
		for j := range replies {
			handler := "inc"
			if i%5 == 4 {
				handler = "no"
			}
			wg.Go(func() {
				replies[j] = c.on(lease.Worker(1+j%3)).call(handler, "n"+strconv.Itoa(i%4), idempotent(fmt.Sprint("key ", i), "body"))
			})
		}
		wg.Wait()
		first[i] = replies[0]
		fresh := 0
		for _, r := range replies {
			if !r.Replayed {
				fresh++
			}
			sameOutcome(t, i, first[i], r)
		}
		if fresh != 1 {
			t.Errorf("request %d was run %d times", i, fresh)
		}
	}
	dead := c.members[2]
	c.evict(dead)
	c.rejoin(dead)
	total := 0
	for i, was := range first {
		r := c.on(lease.Worker(1+i%3)).call("inc", "n"+strconv.Itoa(i%4), idempotent(fmt.Sprint("key ", i), "body"))
		if sameOutcome(t, i, was, r); !r.Replayed {
			t.Errorf("request %d was run again after a change of view", i)
		}
		c.want(c.on(lease.Worker(1+i%3)).call("inc", "n", idempotent(fmt.Sprint("key ", i), "other")), "idempotency-mismatch")
	}
	for k := range 4 {
		total += number([]byte(c.value("n" + strconv.Itoa(k))))
	}
	if want := requests - requests/5; total != want {
		t.Errorf("%d effects of %d requests", total, want)
	}
}

func sameOutcome(t testing.TB, i int, a, b worker.Reply) {
	t.Helper()
	if a.ID != b.ID || string(a.Output) != string(b.Output) || (a.Err == nil) != (b.Err == nil) || a.Err != nil && a.Err.Reason != b.Err.Reason {
		t.Errorf("request %d was answered %v %q (%v) and %v %q (%v)", i, a.ID, a.Output, a.Err, b.ID, b.Output, b.Err)
	}
}

// Fault 6.19: they have no inserts, deletes or scans. Here a scan on one worker sees
// neither phantoms nor halves of what others insert and delete.
func TestRTSFaaS19ScansSeeNoPhantom(t *testing.T) {
	pair := func(h runtime.Host, in []byte, do func(table, k string) error) error {
		return errors.Join(do("s", "a"+string(in)), do("s", "b"+string(in)))
	}
	c := newCluster(t, 3, worker.Options{}, handlers{
		"insert": func(h runtime.Host, in []byte) ([]byte, error) {
			return nil, pair(h, in, func(table, k string) error { return h.Put(table, k, in) })
		},
		"delete": func(h runtime.Host, in []byte) ([]byte, error) { return nil, pair(h, in, h.Delete) },
		"scan": func(h runtime.Host, in []byte) ([]byte, error) {
			var seen [2]string
			for i := range seen {
				a, err := h.Scan("s", "a", 0)
				if err != nil {
					return nil, err
				}
				b, err := h.Scan("s", "b", 0)
				if err != nil {
					return nil, err
				}
				if len(a) != len(b) {
					return nil, fmt.Errorf("%d halves a, %d halves b", len(a), len(b))
				}
				seen[i] = fmt.Sprint(a, b)
			}
			if seen[0] != seen[1] {
				return nil, errors.New("two scans of one transaction differ")
			}
			return []byte(seen[0]), nil
		},
	})
	var writing, scanning sync.WaitGroup
	done := make(chan struct{})
	for w := lease.Worker(1); w <= 2; w++ {
		writing.Go(func() {
			for i := range 60 {
				expect(t, c.on(w).call("insert", fmt.Sprint(w, "-", i)))
				if i%3 > 0 {
					expect(t, c.on(3-w).call("delete", fmt.Sprint(w, "-", i)))
				}
			}
		})
	}
	scanning.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				expect(t, c.on(lease.Worker(3-i%2)).call("scan", "{}"))
			}
		}
	})
	writing.Wait()
	close(done)
	scanning.Wait()
	for w := lease.Worker(1); w <= 3; w++ {
		r := c.on(w).call("scan", "{}")
		if c.want(r, ""); strings.Count(string(r.Output), "{") != 2*2*20 {
			t.Errorf("worker %d sees %d entries, want %d", w, strings.Count(string(r.Output), "{"), 2*2*20)
		}
	}
}

// Stories of lease_protocol.md section 14 that need a whole worker.

// A worker that was evicted and does not know answers nothing from what it has, a
// lease or a shared copy. Single reads append nothing that the store could refuse.
func TestZombieRead(t *testing.T) {
	c := newCluster(t, 2, worker.Options{}, handlers{
		"read": func(h runtime.Host, _ []byte) ([]byte, error) { v, _, err := h.Get("t", "held"); return v, err },
		"scan": func(h runtime.Host, _ []byte) ([]byte, error) {
			entries, err := h.Scan("t", "", 0)
			return fmt.Append(nil, len(entries)), err
		},
	})
	c.on(2).set("held", "old")
	c.on(1).set("copied", "old")
	for _, k := range []string{"held", "copied"} {
		if got := c.on(2).value(k); got != "old" {
			t.Fatalf("%s=%s", k, got)
		}
	}
	zombie := c.members[2]
	c.evict(zombie)
	c.on(1).set("held", "new", "copied", "new")
	soon := within(100 * time.Millisecond)
	for _, handler := range []string{"read", "scan"} {
		if r := c.on(2).call(handler, "{}", soon); r.Err == nil {
			t.Errorf("a worker that is out answers %s with %q", handler, r.Output)
		}
	}
	for _, k := range []string{"held", "copied"} {
		request := &worker.Request{ID: newID(), Name: "txn", Ops: []worker.Op{get(k)}, Ephemeral: true, Deadline: time.Now().Add(100 * time.Millisecond)}
		if r := zombie.w.Execute(t.Context(), request); r.Err == nil {
			t.Errorf("a worker that is out reads %s=%s", k, r.Results[0].Value)
		}
	}
}

// A worker that was evicted and does not know commits nothing, also where nobody has
// taken its lease over; when it comes back it sees what the others see.
func TestZombieWriteOnUntakenKey(t *testing.T) {
	c := newCluster(t, 2, worker.Options{}, nil)
	c.on(2).set("untaken", "1", "gone", "1")
	zombie := c.members[2]
	c.evict(zombie)
	for _, op := range []worker.Op{put("untaken", "2"), {Kind: worker.OpDelete, Key: key("gone")}, {Kind: worker.OpAdd, Key: key("untaken"), Value: []byte("1")}} {
		request := &worker.Request{ID: newID(), Name: "txn", Ops: []worker.Op{op}, Deadline: time.Now().Add(50 * time.Millisecond)}
		if r := zombie.w.Execute(t.Context(), request); r.Err == nil || r.Err.Unknown {
			t.Errorf("a write of a worker that is out ended with %v, want a failure that changed nothing", r.Err)
		}
	}
	for _, k := range []string{"untaken", "gone"} {
		raw, _, err := c.engine.Get(nil, store.AppendDataKey(nil, key(k)))
		version, value, present, decodeErr := store.DecodeDataValue(raw)
		if err := errors.Join(err, decodeErr); err != nil || version != 1 || string(value) != "1" || !present {
			t.Errorf("the store has %s=%q in version %d (%v)", k, value, version, err)
		}
	}
	c.on(1).set("untaken", "3")
	c.rejoin(zombie)
	if got, gone := c.on(2).value("untaken"), c.on(2).value("gone"); got != "3" || gone != "1" {
		t.Errorf("after its return the worker reads %s and %s", got, gone)
	}
}

// Three transactions on three workers, each with a key that the next one wants, and
// none declared: none waits out of order, so all of them commit.
func TestThreeCycleUnordered(t *testing.T) {
	var met [3]sync.Once
	var all sync.WaitGroup
	all.Add(3)
	c := newCluster(t, 3, worker.Options{Timeout: 10 * time.Second}, handlers{"cycle": func(h runtime.Host, in []byte) ([]byte, error) {
		i := number(in)
		if err := increment(h, "x"+strconv.Itoa(i)); err != nil {
			return nil, err
		}
		met[i].Do(func() { all.Done(); all.Wait() }) // each has its first key, once
		return nil, increment(h, "x"+strconv.Itoa((i+1)%3))
	}})
	for i := range 3 {
		c.on(lease.Worker(1+i)).set("x"+strconv.Itoa(i), "0")
	}
	attempts := make([]int, 3)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			r := c.on(lease.Worker(1+i)).call("cycle", strconv.Itoa(i))
			expect(t, r)
			attempts[i] = r.Attempts
		})
	}
	wg.Wait()
	for i := range 3 {
		if got := c.value("x" + strconv.Itoa(i)); got != "2" {
			t.Errorf("x%d=%s, want 2", i, got)
		}
	}
	if attempts[0]+attempts[1]+attempts[2] < 4 {
		t.Errorf("attempts %v: there was no cycle to give way in", attempts)
	}
}
