package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	"github.com/tenure-faas/tenure/worker"
)

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
	c := clusterOn(t, vfs.NewMem(), open, 3, 1, nil, handlers{"next": func(h runtime.Host, in []byte) ([]byte, error) {
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
func TestRTSFaaS12RecoveryOfAllTables(t *testing.T) { eachFate(t, recoveryOfAllTables) }

func recoveryOfAllTables(t *testing.T, fate *worker.Cluster) {
	mem := vfs.NewCrashableMem()
	cam := &camera{fs: mem, acked: map[string]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	c := clusterOn(t, errorfs.Wrap(mem, cam), openTCP, 3, 1, fate, nil)
	cam.made()
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
	images := cam.taken()
	last := len(images) - 1
	t.Run("several workers", func(t *testing.T) {
		recovered(t, clusterOn(t, images[last].fs.CrashClone(vfs.CrashCloneCfg{}), openTCP, 3, 2, oneFate(fate != nil), nil).bed, images[last])
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
