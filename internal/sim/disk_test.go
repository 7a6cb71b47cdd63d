package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/base"
	verbs "github.com/tenure-faas/tenure/rdma/sim"
	"github.com/tenure-faas/tenure/store"
)

func newDisk(seed uint64, faults DiskFaults, onFatal func(string)) *Disk {
	return NewDisk(DiskOptions{Random: rand.New(rand.NewPCG(seed, 1)), Faults: faults, OnFatal: onFatal})
}

func openDisk(t *testing.T, d *Disk) *Engine {
	t.Helper()
	e, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fill returns a batch of these keys, with their own names as values.
func fill(e *Engine, keys ...string) store.Batch {
	b := e.NewBatch()
	for _, k := range keys {
		b.Set([]byte(k), []byte(k))
	}
	return b
}

func appendKeys(t *testing.T, e *Engine, keys ...string) base.Number {
	t.Helper()
	b := fill(e, keys...)
	defer b.Release()
	n, err := e.Append(1, b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keysOf lists the keys of the store but for the seal.
func keysOf(t *testing.T, e *Engine) string {
	t.Helper()
	var all []string
	if err := e.Scan([]byte("k"), nil, func(k, _ []byte) bool { all = append(all, string(k)); return true }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func exactly(d time.Duration) verbs.Range { return verbs.Range{Min: d, Max: d} }

func unavailable(err error) bool {
	var e *base.Error
	return errors.As(err, &e) && e.Kind == base.Unavailable
}

// crashStory appends ten batches of two keys, the first four of them durable,
// crashes, and returns what is there then.
func crashStory(t *testing.T, seed uint64) string {
	t.Helper()
	d := newDisk(seed, DiskFaults{}, nil)
	e := openDisk(t, d)
	for i := range 10 {
		if n := appendKeys(t, e, fmt.Sprintf("k%da", i), fmt.Sprintf("k%db", i)); n != base.Number(i+1) {
			t.Fatalf("batch %d has number %d", i, n)
		}
		if i == 3 {
			if err := e.WaitDurable(t.Context(), 4); err != nil || e.Durable() != 4 {
				t.Fatalf("durable %d: %v", e.Durable(), err)
			}
		}
	}
	d.Crash()
	recovered := openDisk(t, d)
	if n := recovered.Appended(); n != 0 {
		t.Errorf("a new engine has appended %d", n)
	}
	return keysOf(t, recovered)
}

// A crash leaves what was synced and some of the batches behind it, whole and in
// order; any number of them in one seed or another.
func TestDiskCrashKeepsAPrefix(t *testing.T) {
	outcomes := map[int]int{}
	for seed := range uint64(200) {
		got := crashStory(t, seed)
		kept := strings.Count(got, "a")
		var want []string
		for i := range kept {
			want = append(want, fmt.Sprintf("k%da", i), fmt.Sprintf("k%db", i))
		}
		if got != strings.Join(want, " ") || kept < 4 {
			t.Fatalf("seed %d: the store has %s", seed, got)
		}
		outcomes[kept]++
		if again := crashStory(t, seed); again != got {
			t.Fatalf("seed %d: %s, and then %s", seed, got, again)
		}
	}
	if kinds := slices.Sorted(maps.Keys(outcomes)); !slices.Equal(kinds, []int{4, 5, 6, 7, 8, 9, 10}) {
		t.Errorf("of 10 batches, 4 of them synced, these many are left: %v", outcomes)
	}
}

// A crash ends every call that waits for the disk, and all later ones.
func TestDiskCrashWakesAll(t *testing.T) {
	calls := []struct {
		name string
		call func(e *Engine) error
	}{
		{"Get", func(e *Engine) error { _, _, err := e.Get(nil, []byte("k")); return err }},
		{"Scan", func(e *Engine) error { return e.Scan(nil, nil, func(_, _ []byte) bool { return true }) }},
		{"WaitDurable", func(e *Engine) error { return e.WaitDurable(context.Background(), 1) }},
		{"Apply", func(e *Engine) error { return e.Apply(fill(e, "applied")) }},
		{"Seal", func(e *Engine) error { return e.Seal(1) }},
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1, DiskFaults{Sync: exactly(time.Hour), Read: exactly(time.Hour)}, func(string) { t.Error("a crash is not fatal") })
		e := openDisk(t, d)
		appendKeys(t, e, "k")
		start := time.Now()
		var wg sync.WaitGroup
		for _, c := range calls {
			wg.Go(func() {
				if err := c.call(e); !unavailable(err) {
					t.Errorf("%s ended with %v", c.name, err)
				}
			})
		}
		synctest.Wait()
		d.Crash()
		wg.Wait()
		if time.Since(start) != 0 {
			t.Errorf("they waited for %v", time.Since(start))
		}
		for _, c := range calls {
			if err := c.call(e); !unavailable(err) {
				t.Errorf("%s of a dead engine: %v", c.name, err)
			}
		}
		if _, err := e.Append(9, fill(e, "k")); !unavailable(err) {
			t.Errorf("Append to a dead engine: %v", err)
		}
		if err := e.Close(); !unavailable(err) {
			t.Errorf("Close of a dead engine: %v", err)
		}
		d.SetFaults(DiskFaults{})
		next := openDisk(t, d)
		appendKeys(t, next, "k")
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Those who come during a sync share the next one.
func TestDiskGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openDisk(t, newDisk(1, DiskFaults{Sync: exactly(time.Second)}, nil))
		start := time.Now()
		var wg sync.WaitGroup
		wait := func(n base.Number, want time.Duration) {
			wg.Go(func() {
				if err := e.WaitDurable(t.Context(), n); err != nil || time.Since(start) != want {
					t.Errorf("batch %d is durable after %v, want %v: %v", n, time.Since(start), want, err)
				}
			})
		}
		wait(appendKeys(t, e, "k0"), time.Second)
		synctest.Wait()
		for range 20 {
			wait(appendKeys(t, e, "k1"), 2*time.Second)
		}
		wg.Go(func() {
			if err := e.Apply(fill(e, "k2")); err != nil || time.Since(start) != 2*time.Second {
				t.Errorf("applied after %v: %v", time.Since(start), err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := e.WaitDurable(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait of a millisecond: %v", err)
		}
		wg.Wait()
	})
}

// A sync that fails stops the process: OnFatal is called once, nothing is
// durable any more, and the disk can be opened again.
func TestDiskFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fatal := 0
		d := newDisk(1, DiskFaults{Sync: exactly(time.Second), FailSync: 1}, nil)
		d.onFatal = func(string) {
			fatal++
			d.SetFaults(DiskFaults{})
			again := openDisk(t, d) // no lock is held
			if err := again.Apply(fill(again, "k2")); err != nil {
				t.Error(err)
			}
		}
		e := openDisk(t, d)
		n := appendKeys(t, e, "k1")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := e.WaitDurable(t.Context(), n); !unavailable(err) {
					t.Errorf("a batch whose sync failed: %v", err)
				}
			})
		}
		wg.Wait()
		if fatal != 1 || e.Durable() != 0 {
			t.Errorf("OnFatal was called %d times, durable %d", fatal, e.Durable())
		}
		if err := e.WaitDurable(t.Context(), n); !unavailable(err) {
			t.Errorf("later: %v", err)
		}
	})
}

// The faults take the time, and come with the chance, that they are given.
func TestDiskFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1, DiskFaults{Sync: verbs.Range{Min: 1, Max: 10}, SlowSync: 0.5, Slow: exactly(time.Second), Read: exactly(time.Minute)}, nil)
		e := openDisk(t, d)
		slow := 0
		for range 100 {
			start := time.Now()
			if err := e.Apply(fill(e, "k")); err != nil {
				t.Fatal(err)
			}
			switch took := time.Since(start); {
			case took == time.Second:
				slow++
			case took < 1 || took > 10:
				t.Errorf("a sync took %v", took)
			}
		}
		if slow < 20 || slow > 80 {
			t.Errorf("%d of 100 syncs were slow, want about half", slow)
		}
		start := time.Now()
		if _, found, err := e.Get(nil, []byte("k")); err != nil || !found || time.Since(start) != time.Minute {
			t.Errorf("Get took %v: %t, %v", time.Since(start), found, err)
		}
		d.SetFaults(DiskFaults{FailRead: 0.5})
		failed := 0
		for range 100 {
			if v, _, err := e.Get([]byte("<"), []byte("k")); err != nil {
				failed++
				if string(v) != "<" || unavailable(err) {
					t.Errorf("a failed Get has %q, %v", v, err)
				}
			}
			if err := e.Scan(nil, nil, func(_, _ []byte) bool { return true }); err != nil {
				failed++
			}
		}
		if failed < 50 || failed > 150 {
			t.Errorf("%d of 200 reads failed, want about half", failed)
		}
	})
}

// The seal refuses older views at once, is known when it is durable, and
// outlives a crash then.
func TestDiskSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1, DiskFaults{Sync: exactly(time.Second)}, nil)
		e := openDisk(t, d)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := e.Seal(3); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if e.Sealed() != 0 {
			t.Error("a seal is known before it is durable")
		}
		if n, err := e.Append(2, fill(e, "old")); !unavailable(err) || n != 0 {
			t.Errorf("a batch of an older view: %d, %v", n, err)
		}
		wg.Wait()
		d.Crash()
		e = openDisk(t, d)
		if e.Sealed() != 3 {
			t.Errorf("after a crash the seal is %d", e.Sealed())
		}
		if _, err := e.Append(2, fill(e, "old")); !unavailable(err) {
			t.Errorf("a batch of an older view after a crash: %v", err)
		}
		if n, err := e.Append(3, fill(e, "new")); err != nil || n != 1 {
			t.Errorf("a batch of the view: %d, %v", n, err)
		}
		if err := e.Seal(2); err == nil {
			t.Error("the seal went back")
		}
	})
}

// Close makes durable what nobody has waited for, as a log does that is full.
func TestDiskCloseAndFullLog(t *testing.T) {
	d := newDisk(1, DiskFaults{}, nil)
	e := openDisk(t, d)
	if _, err := d.Open(); err == nil {
		t.Fatal("two engines are open on one disk")
	}
	for range maxDiskLog + 1 {
		appendKeys(t, e, "k")
	}
	if got := e.Durable(); got != maxDiskLog/2 || len(e.log) != maxDiskLog/2+1 {
		t.Errorf("of %d batches %d are durable, %d in the log", maxDiskLog+1, got, len(e.log))
	}
	last := appendKeys(t, e, "last")
	if err := e.WaitDurable(t.Context(), last+1); err == nil {
		t.Error("a batch that was not appended is durable")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	d.Crash() // nobody is there
	e = openDisk(t, d)
	if _, found, err := e.Get(nil, []byte("last")); !found || err != nil {
		t.Errorf("the last batch before Close: %t, %v", found, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// A table does what a map and a sort do.
func TestDiskTable(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var table diskTable
	model := map[string]string{}
	key := func() string { return fmt.Sprintf("%04d", random.IntN(3000)) }
	for step := range 30_000 {
		k := key()
		switch v := fmt.Sprint(step); {
		case step%3000 == 2999:
			hi := key()
			table.apply([]diskOperation{{kind: diskDeleteRange, key: k, end: hi}})
			maps.DeleteFunc(model, func(m, _ string) bool { return m >= k && m < hi })
		case random.IntN(3) == 0:
			table.apply([]diskOperation{{kind: diskDelete, key: k}})
			delete(model, k)
		default:
			table.apply([]diskOperation{{kind: diskSet, key: k, value: []byte(v)}})
			model[k] = v
		}
		k = key()
		if v, found := table.get(k); found != (model[k] != "") || string(v) != model[k] {
			t.Fatalf("step %d: %s is %q, want %q", step, k, v, model[k])
		}
		if step%500 != 0 {
			continue
		}
		lo, hi := key(), key()
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if k >= lo && k < hi {
				want = append(want, k+"="+model[k])
			}
		}
		var got []string
		for _, e := range table.page(nil, lo, hi, 1<<20) {
			got = append(got, e.key+"="+string(e.value))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d: from %s to %s there are %d entries, want %d", step, lo, hi, len(got), len(want))
		}
		if copied := table.clone(); len(copied.page(nil, "", "", 1<<20)) != len(model) {
			t.Fatalf("step %d: a copy has not all %d entries", step, len(model))
		}
	}
	if len(table.chunks) < 4 {
		t.Errorf("%d chunks: the test has split none", len(table.chunks))
	}
}

func TestDiskMisusePanics(t *testing.T) {
	d := newDisk(1, DiskFaults{}, nil)
	e := openDisk(t, d)
	used := fill(e, "k")
	if err := e.Apply(used); err != nil {
		t.Fatal(err)
	}
	released := fill(e, "k")
	released.Release()
	for name, misuse := range map[string]func(){
		"no source of chance": func() { NewDisk(DiskOptions{}) },
		"probability":         func() { d.SetFaults(DiskFaults{FailSync: 1.5}) },
		"range":               func() { d.SetFaults(DiskFaults{Read: verbs.Range{Min: 2, Max: 1}}) },
		"a batch twice":       func() { _, _ = e.Append(1, used) },
		"a released batch":    func() { _ = e.Apply(released) },
		"a write too late":    func() { used.Delete(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			misuse()
		}()
	}
}
