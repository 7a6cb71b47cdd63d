package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/sim"
	verbs "github.com/tenure-faas/tenure/rdma/sim"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/store/remote"
)

// TestConformance holds the embedded, the remote and the simulated engine to one
// contract.
func TestConformance(t *testing.T) {
	engines := map[string]func(t *testing.T) store.Engine{
		"pebble": func(t *testing.T) store.Engine {
			e, err := pebble.Open(pebble.Options{Dir: "db", FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeEngine(t, e) })
			return e
		},
		"remote": func(t *testing.T) store.Engine {
			return startHost(t, remote.ServerOptions{PageKeys: 7, PageBytes: 300}).member(1, 1, remote.Options{})
		},
		"simulated": func(t *testing.T) store.Engine {
			brief := verbs.Range{Max: 50 * time.Microsecond}
			e, err := sim.NewDisk(sim.DiskOptions{Random: rand.New(rand.NewPCG(1, 1)), Faults: sim.DiskFaults{Sync: brief, Read: brief}}).Open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeEngine(t, e) })
			return e
		},
	}
	behaviours := map[string]func(t *testing.T, e store.Engine){
		"a batch is visible when Append returns":   visible,
		"operations of a batch apply in order":     operations,
		"scans are ordered, bounded and stop":      scans,
		"numbers have no gap among many appenders": numbers,
		"WaitDurable honours its context":          honours,
		"Apply is behind what was appended":        applies,
		"the seal only grows":                      seals,
	}
	for engine, open := range engines {
		for name, behaviour := range behaviours {
			t.Run(engine+"/"+name, func(t *testing.T) { behaviour(t, open(t)) })
		}
	}
}

func appendSet(t *testing.T, e store.Engine, view base.View, key, value string) base.Number {
	t.Helper()
	b := e.NewBatch()
	defer b.Release()
	b.Set([]byte(key), []byte(value))
	n, err := e.Append(view, b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func visible(t *testing.T, e store.Engine) {
	for i := base.Number(1); i <= 50; i++ {
		if n := appendSet(t, e, 1, "k", fmt.Sprint(i)); n != i || e.Appended() != i {
			t.Fatalf("batch %d has number %d, appended %d", i, n, e.Appended())
		}
		v, found, err := e.Get([]byte("<"), []byte("k"))
		if err != nil || !found || string(v) != fmt.Sprint("<", i) {
			t.Fatalf("got %q, %t, %v", v, found, err)
		}
	}
	if v, found, err := e.Get([]byte("<"), []byte("absent")); err != nil || found || string(v) != "<" {
		t.Errorf("got %q, %t, %v for an absent key", v, found, err)
	}
	waitDurable(t, e, 50)
	if err := e.WaitDurable(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

func dump(t *testing.T, e store.Engine, lo, hi string) string {
	t.Helper()
	var out strings.Builder
	var upper []byte
	if hi != "" {
		upper = []byte(hi)
	}
	if err := e.Scan([]byte(lo), upper, func(k, v []byte) bool {
		fmt.Fprintf(&out, "%s=%s ", k, v)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func operations(t *testing.T, e store.Engine) {
	b := e.NewBatch()
	defer b.Release()
	if b.Len() > 64 {
		t.Errorf("an empty batch has %d bytes", b.Len())
	}
	key, value := []byte("d/a"), []byte("1")
	b.Set(key, value)
	key[2], value[0] = 'b', '2'
	b.Set(key, value)
	b.Set([]byte("d/c"), nil)
	b.Delete([]byte("d/a"))
	b.DeleteRange([]byte("d/b"), []byte("d/c"))
	b.Set([]byte("d/d"), []byte("4"))
	b.Delete([]byte("d/absent"))
	if b.Len() < 20 {
		t.Errorf("the batch has %d bytes", b.Len())
	}
	if _, err := e.Append(1, b); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, e, "d/", "d0"); got != "d/c= d/d=4 " {
		t.Errorf("the store has %s", got)
	}
}

func scans(t *testing.T, e store.Engine) {
	b := e.NewBatch()
	defer b.Release()
	var all []string
	for i := range 60 {
		all = append(all, fmt.Sprintf("s/%02d=%s ", i, strings.Repeat("v", i)))
		b.Set(fmt.Appendf(nil, "s/%02d", i), bytes.Repeat([]byte("v"), i))
	}
	b.Set([]byte("s/99"), make([]byte, 4096)) // larger than a page
	if _, err := e.Append(1, b); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		lo, hi   string
		from, to int
	}{{"s/", "s/60", 0, 60}, {"s/10", "s/11", 10, 11}, {"s/10x", "s/17", 11, 17}, {"s/60", "s/61", 0, 0}, {"s/00", "s/59", 0, 59}} {
		if got := dump(t, e, test.lo, test.hi); got != strings.Join(all[test.from:test.to], "") {
			t.Errorf("from %q to %q: %s", test.lo, test.hi, got)
		}
	}
	if got := dump(t, e, "s/60", ""); len(got) != 4096+6 {
		t.Errorf("without an upper bound: %d bytes", len(got))
	}
	for _, stop := range []int{1, 7, 8, 30} {
		seen := 0
		if err := e.Scan([]byte("s/"), []byte("t"), func(_, _ []byte) bool { seen++; return seen < stop }); err != nil || seen != stop {
			t.Errorf("%d keys visited, want %d: %v", seen, stop, err)
		}
	}
}

func numbers(t *testing.T, e store.Engine) {
	const writers, each = 16, 50
	var seen sync.Map
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := e.NewBatch()
				b.Set(fmt.Appendf(nil, "n/%d/%d", w, i), []byte("v"))
				n, err := e.Append(1, b)
				b.Release()
				if _, double := seen.LoadOrStore(n, true); double || n < 1 || n > writers*each {
					t.Errorf("number %d of %d batches was given twice, or is none", n, writers*each)
				}
				if err == nil {
					err = e.WaitDurable(t.Context(), n)
				}
				if err != nil || e.Durable() < n {
					t.Errorf("batch %d: %v, durable %d", n, err, e.Durable())
				}
			}
		})
	}
	wg.Wait()
	if n := strings.Count(dump(t, e, "n/", "n0"), "="); n != writers*each {
		t.Errorf("%d of %d batches are there", n, writers*each)
	}
}

// honours asks with a context that has ended: the answer is its error, or nil
// if the batch was faster.
func honours(t *testing.T, e store.Engine) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := appendSet(t, e, 1, "k", "v")
	if err := e.WaitDurable(ctx, n); err != nil && !errors.Is(err, context.Canceled) || err == nil && e.Durable() < n {
		t.Errorf("got %v", err)
	}
	waitDurable(t, e, n)
	if err := e.WaitDurable(ctx, n); err != nil {
		t.Errorf("a durable batch: %v", err)
	}
}

func applies(t *testing.T, e store.Engine) {
	for i := range 20 {
		appendSet(t, e, 1, "k", fmt.Sprint("appended", i))
		b := e.NewBatch()
		b.Set([]byte("k"), fmt.Append(nil, "applied", i))
		if err := e.Apply(b); err != nil {
			t.Fatal(err)
		}
		b.Release()
		if got := dump(t, e, "k", "l"); got != fmt.Sprintf("k=applied%d ", i) {
			t.Fatalf("the store has %s", got)
		}
	}
}

func seals(t *testing.T, e store.Engine) {
	if e.Sealed() != 0 {
		t.Errorf("a new store is sealed for view %d", e.Sealed())
	}
	waitDurable(t, e, appendSet(t, e, 3, "a", "v"))
	if err := errors.Join(e.Seal(4), e.Seal(4)); err != nil {
		t.Fatal(err)
	}
	if err := e.Seal(2); err == nil {
		t.Error("the seal went back")
	}
	if e.Sealed() != 4 {
		t.Errorf("sealed for view %d", e.Sealed())
	}
	waitDurable(t, e, appendSet(t, e, 4, "b", "v"))
	if !has(t, e, []byte("a")) || !has(t, e, []byte("b")) {
		t.Error("a batch before the seal, or of the sealed view, is not there")
	}
}
