package worker_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/worker"
)

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
