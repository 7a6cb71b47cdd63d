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

// lockMany is lockOnce over n keys in an order that no cache likes.
func lockMany(n int) func() {
	table := NewTable(1 << 40)
	locks := make([]Lock, n)
	woken := make([]*Lock, 0, 1)
	for i := range locks {
		l := &locks[i]
		l.Key = base.Key{Table: "accounts", Key: fmt.Sprint("customer-", i)}
		l.Slot, l.Mode = l.Key.Slot(), Exclusive
		table.Acquire(l, true)
		table.Release(l, woken)
	}
	i := 0
	return func() {
		i = (i + 7919) % n // a prime: every key has its turn
		table.Acquire(&locks[i], true)
		table.Release(&locks[i], woken)
	}
}

// lockNew is the life of an entry: a key that is not in the table comes, and
// another is evicted for it.
func lockNew(n int) func() {
	table := NewTable(1 << 20)
	keys := make([]base.Key, n)
	slots := make([]base.Slot, n)
	for i := range keys {
		keys[i] = base.Key{Table: "accounts", Key: fmt.Sprint("customer-", i)}
		slots[i] = keys[i].Slot()
	}
	woken := make([]*Lock, 0, 1)
	i := 0
	l := &Lock{Mode: Exclusive}
	return func() {
		i = (i + 1) % n
		l.Key, l.Slot = keys[i], slots[i]
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
		"append values": appendOnce(),
	} {
		f() // the first use makes the entry and the spare memory
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations a run", name, n)
		}
	}
}

// slotOf is a table with n values of 8 bytes in one slot.
func slotOf(n int) (*Table, base.Slot) {
	table, keys := NewTable(1<<20), sameSlot(n, "customer-")
	for _, k := range keys {
		hold(table, k, 7, "10000000")()
	}
	return table, keys[0].Slot()
}

// appendOnce is the giver's side of a hand-over of two values.
func appendOnce() func() {
	table, s := slotOf(2)
	dst := make([]byte, 0, 256)
	return func() { table.AppendValues(dst, s, cap(dst)) }
}

// installOnce is the receiver's.
func installOnce() func() {
	table, s := slotOf(2)
	body := table.AppendValues(nil, s, 256)
	return func() {
		if err := table.InstallValues(s, body, 64, 0); err != nil {
			panic(err)
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
func BenchmarkAcquireMany16k(b *testing.B) { benchmark(b, lockMany(1<<14)) }
func BenchmarkAcquireMany1m(b *testing.B)  { benchmark(b, lockMany(1<<20)) }
func BenchmarkAcquireMany8m(b *testing.B)  { benchmark(b, lockMany(8<<20)) }
func BenchmarkAcquireEvict(b *testing.B)   { benchmark(b, lockNew(1<<16)) }
func BenchmarkAppendValues2(b *testing.B)  { benchmark(b, appendOnce()) }
func BenchmarkInstallValues2(b *testing.B) { benchmark(b, installOnce()) }
func BenchmarkGateEnterLeave(b *testing.B) { benchmark(b, passOnce()) }
func BenchmarkSet2(b *testing.B)           { benchmark(b, fillSet(2)) }
func BenchmarkSet50(b *testing.B)          { benchmark(b, fillSet(50)) }
