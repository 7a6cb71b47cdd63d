package txn

import (
	"fmt"
	"testing"

	"github.com/tenure-faas/tenure/base"
)

// lockOnce is the uncontended path of one lock on a key that is in the table.
func lockOnce() func() {
	table := NewTable(1 << 20)
	l := &Lock{Key: base.Key{Table: "accounts", Key: "alice"}}
	l.Slot = l.Key.Slot()
	woken := make([]*Lock, 0, 1)
	return func() {
		l.Mode = Exclusive
		table.Acquire(l, true)
		table.Release(l, woken)
	}
}

// passOnce is the uncontended path of one pass that writes one key.
func passOnce() func() {
	var g Gate
	p := &Pass{Table: "accounts", Writes: []string{"alice"}}
	woken := make([]*Pass, 0, 1)
	return func() {
		g.Enter(p, true)
		g.Leave(p, woken)
	}
}

// fillSet is an attempt's book-keeping for n keys: footprint, set, lookups.
func fillSet(n int) func() {
	var f Footprint
	var s Set
	keys := make([]base.Key, n)
	for i := range keys {
		keys[i] = base.Key{Table: "accounts", Key: fmt.Sprint("customer-", i)}
	}
	return func() {
		for _, k := range keys {
			f.Want(k, Exclusive)
		}
		f.Sort()
		f.Gates(&s)
		for _, need := range f.Needs {
			s.Insert(need.Key, need.Mode)
		}
		for _, k := range keys {
			if s.Find(k) == nil {
				panic("lost " + k.String())
			}
		}
		s.Reset()
		f.Reset()
	}
}

// TestHotPathDoesNotAllocate holds the paths of every transaction at zero
// allocations. Sets of more keys than are kept spare do allocate.
func TestHotPathDoesNotAllocate(t *testing.T) {
	for name, f := range map[string]func(){
		"acquire and release": lockOnce(), "enter and leave": passOnce(), "a set of 2 keys": fillSet(2), "a set of 16 keys": fillSet(16),
	} {
		f() // the first use makes the entry and the spare memory
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations a run", name, n)
		}
	}
}

func benchmark(b *testing.B, f func()) {
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkAcquireRelease(b *testing.B) { benchmark(b, lockOnce()) }
func BenchmarkGateEnterLeave(b *testing.B) { benchmark(b, passOnce()) }
func BenchmarkSet2(b *testing.B)           { benchmark(b, fillSet(2)) }
func BenchmarkSet50(b *testing.B)          { benchmark(b, fillSet(50)) }
