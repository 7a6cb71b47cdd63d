package txn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// lookup returns the entry of a key, or nil.
func lookup(t *Table, k base.Key) *Entry { return t.find(k.Slot(), k) }

// entriesOf returns all entries, by slot in no order, the one used last first.
func entriesOf(t *Table) (entries []*Entry) {
	for _, e := range t.slots {
		for ; e != nil; e = e.next {
			entries = append(entries, e)
		}
	}
	return entries
}

// sameSlot returns n keys of one slot that begin with prefix.
func sameSlot(n int, prefix string) []base.Key {
	first := base.Key{Table: "t", Key: prefix}
	keys := []base.Key{first}
	for i := 0; len(keys) < n; i++ {
		if k := (base.Key{Table: "t", Key: prefix + fmt.Sprint(i)}); k.Slot() == first.Slot() {
			keys = append(keys, k)
		}
	}
	return keys
}

// hold locks a key and gives it a durable value, or none if present is false.
// What it returns gives the lock back.
func hold(t *Table, k base.Key, version base.Version, value string, present ...bool) (release func()) {
	l := &Lock{Key: k, Slot: k.Slot(), Mode: Exclusive}
	if t.Acquire(l, false) != Granted {
		panic("nobody may have " + k.String())
	}
	l.Entry.Loaded = false
	t.Fill(l.Entry, version, []byte(value), !slices.Contains(present, false), 0)
	return func() { t.Release(l, nil) }
}

// contents says what the table knows of a slot.
func contents(t *Table, s base.Slot) string {
	var b strings.Builder
	for e := t.slots[s]; e != nil; e = e.next {
		switch {
		case !e.Loaded:
			fmt.Fprintf(&b, "%v unknown; ", e.Key)
		case !e.Present:
			fmt.Fprintf(&b, "%v absent v%d; ", e.Key, e.Version)
		default:
			fmt.Fprintf(&b, "%v=%s v%d; ", e.Key, e.Value, e.Version)
		}
	}
	return b.String()
}

// TestAppendValuesTakesTheNewestThatFit walks the limit over a slot whose
// values have different sizes.
func TestAppendValuesTakesTheNewestThatFit(t *testing.T) {
	keys := sameSlot(4, "k")
	s := keys[0].Slot()
	table := NewTable(1 << 20)
	hold(table, keys[0], 0, "", false)()
	hold(table, keys[1], 300, "yy")()
	hold(table, keys[2], 5, strings.Repeat("x", 100))()
	table.Acquire(&Lock{Key: keys[3], Slot: s, Mode: Shared}, false) // not loaded: never sent
	size := func(i, value, more int) int { return 4 + 1 + len(keys[i].Key) + value + more }
	absent, small, large := size(0, 0, 0), size(1, 2, 1), size(2, 100, 0)
	for _, test := range []struct {
		limit, size int
		want        string
	}{
		{-1, 0, ""}, {0, 0, ""}, {absent, 0, ""}, {absent + 1, absent + 1, "0"}, {small, absent + 1, "0"},
		{small + 1, small + 1, "1"}, {small + absent, small + 1, "1"}, {small + absent + 1, small + absent + 1, "1 0"},
		{large, small + absent + 1, "1 0"}, {large + 1, large + 1, "2"}, {large + absent + 1, large + absent + 1, "2 0"},
		{large + small + 1, large + small + 1, "2 1"}, {1 << 20, large + small + absent + 1, "2 1 0"},
	} {
		body := table.AppendValues(nil, s, test.limit)
		arrivals, err := decodeValues(nil, s, body, 100, 3)
		if err != nil {
			t.Fatalf("limit %d: %v", test.limit, err)
		}
		var got []string
		for _, a := range arrivals {
			got = append(got, fmt.Sprint(slices.Index(keys, a.key)))
		}
		if strings.Join(got, " ") != test.want || len(body) != test.size {
			t.Errorf("limit %d: %d bytes with %v, want %d with %s", test.limit, len(body), got, test.size, test.want)
		}
	}
}

// TestAppendValuesIsBounded gives one slot, by name, more entries than a
// receiver accepts.
func TestAppendValuesIsBounded(t *testing.T) {
	table := NewTable(1 << 30)
	const s = 7
	for i := range maxSlotValues + 1 {
		l := &Lock{Key: base.Key{Table: "t", Key: fmt.Sprint(i)}, Slot: s, Mode: Exclusive}
		table.Acquire(l, false)
		table.Fill(l.Entry, 1, nil, true, 0)
	}
	body := table.AppendValues(nil, s, 1<<20)[1:]
	n := 0
	for ; len(body) > 0; n++ {
		_, rest, ok := cutArrival(body)
		if !ok {
			t.Fatalf("value %d does not parse", n)
		}
		body = rest
	}
	if n != maxSlotValues {
		t.Errorf("%d values, want %d", n, maxSlotValues)
	}
}

// wire is a body of values in the documented format.
func wire(fields ...any) []byte {
	body := []byte{1}
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			body = binary.AppendUvarint(body, uint64(f))
		case string:
			body = append(body, f...)
		}
	}
	return body
}

// TestInstallValuesRefuses gives a receiver everything that a body must not be.
// Nothing is kept of it, nor of what was known before.
func TestInstallValuesRefuses(t *testing.T) {
	keys := sameSlot(3, "k")
	a, b, s := keys[1], keys[2], keys[0].Slot()
	la, lb := len(a.Key), len(b.Key)
	good := []any{1, la, "t", a.Key, 4, 3, "xy", 1, lb, "t", b.Key, 4, 0}
	for name, test := range map[string]struct {
		body []byte
		want string
	}{
		"another format":  {append([]byte{2}, wire(good...)[1:]...), "format 2 is not known"},
		"a key twice":     {wire(append(good, good...)...), "both of t/" + a.Key},
		"another slot":    {wire(append(good, 1, 1, "t", "z", 1, 1)...), "t/z is a key of slot"},
		"no table":        {wire(0, 1, "z", 1, 1), "table name has 0 bytes"},
		"no key":          {wire(1, 0, "t", 1, 1), "is empty"},
		"a NUL":           {wire(1, 2, "t", "z\x00", 1, 1), "NUL"},
		"not UTF-8":       {wire(1, 1, "t", "\xff", 1, 1), "UTF-8"},
		"a long table":    {wire(base.MaxNameBytes+1, 1, strings.Repeat("t", 2000)), "malformed"},
		"a long key":      {wire(1, base.MaxKeyBytes+1, "t", strings.Repeat("k", 2000)), "malformed"},
		"a long value":    {wire(1, la, "t", a.Key, 4, 12, "0123456789!"), "has 11 bytes, the limit is 10"},
		"no version":      {wire(1, la, "t", a.Key, 0, 1), "was never written"},
		"a huge length":   {wire(1, la, "t", a.Key, 1, string(binary.AppendUvarint(nil, 1<<63)), "x"), "malformed"},
		"a long version":  {wire(1, la, "t", a.Key, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0), "malformed"},
		"bytes behind it": {wire(append(good, 1)...), "from byte"},
	} {
		t.Run(name, func(t *testing.T) {
			table := NewTable(1 << 20)
			hold(table, a, 3, "old")()
			defer hold(table, b, 3, "old")()
			err := table.InstallValues(s, test.body, 10, 0)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %q", err, test.want)
			}
			if got, want := contents(table, s), b.String()+" unknown; "; got != want {
				t.Errorf("the table has %q, want %q", got, want)
			}
		})
	}
	table := NewTable(1 << 20)
	if err := table.InstallValues(s, wire(good...), 10, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := contents(table, s), fmt.Sprintf("%v=xy v4; %v absent v4; ", a, b); got != want {
		t.Errorf("the table has %q, want %q", got, want)
	}
	if _, err := decodeValues(nil, s, wire(good...), 10, 1); err == nil || !strings.Contains(err.Error(), "more than 1 values") {
		t.Errorf("two values where one is allowed: %v", err)
	}
}

// TestInstallValuesRefusesEveryCut cuts a body at each byte: it is refused, or
// it ends where a value ends.
func TestInstallValuesRefusesEveryCut(t *testing.T) {
	keys := sameSlot(2, "k")
	s := keys[0].Slot()
	table := NewTable(1 << 20)
	hold(table, keys[0], 1<<40, strings.Repeat("v", 200))()
	one := len(table.AppendValues(nil, s, 1<<10))
	hold(table, keys[1], 1, "w")()
	body := table.AppendValues(nil, s, 1<<10)
	ends := []int{0, 1, len(body) - one + 1, len(body)}
	for n := range len(body) + 1 {
		if err := table.InstallValues(s, body[:n:n], 200, 0); (err == nil) != slices.Contains(ends, n) {
			t.Errorf("%d of %d bytes: %v", n, len(body), err)
		}
	}
}

// TestValuesRoundTrip sends any values of a slot through a body.
func TestValuesRoundTrip(t *testing.T) {
	keys := sameSlot(5, "k")
	s := keys[0].Slot()
	rapid.Check(t, func(t *rapid.T) {
		here, there := NewTable(1<<20), NewTable(1<<20)
		for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom(keys), rapid.ID).Draw(t, "keys") {
			version := base.Version(rapid.Uint64().Draw(t, "version"))
			present := version > 0 && rapid.Bool().Draw(t, "present")
			value := ""
			if present {
				value = rapid.String().Draw(t, "value")
			}
			hold(here, k, version, value, present)()
		}
		body := here.AppendValues(nil, s, 1<<20)
		if err := there.InstallValues(s, body, 1<<20, 0); err != nil {
			t.Fatal(err)
		}
		again := there.AppendValues(nil, s, len(body))
		if contents(here, s) != contents(there, s) || !bytes.Equal(body, again) {
			t.Fatalf("%s became %s", contents(here, s), contents(there, s))
		}
		if here.Bytes() != there.Bytes() || here.Len() != there.Len() {
			t.Fatalf("%d bytes in %d entries became %d in %d", here.Bytes(), here.Len(), there.Bytes(), there.Len())
		}
	})
}

// TestForgetTakesValuesFromHolders forgets a slot under a reader, and fills the
// reader's entry again with a version that does not follow.
func TestForgetTakesValuesFromHolders(t *testing.T) {
	keys := sameSlot(2, "k")
	k, s := keys[1], keys[0].Slot()
	table := NewTable(1 << 20)
	l, waiter := &Lock{Key: k, Slot: s, Mode: Exclusive}, &Lock{Key: k, Slot: s, Mode: Shared}
	table.Acquire(l, false)
	table.Acquire(waiter, true)
	table.Fill(l.Entry, 4, []byte("four"), true, 0)
	table.Install(l.Entry, 5, []byte("five"), true, 17)
	value := l.Entry.Value
	table.Forget(s)
	if e := lookup(table, k); e != l.Entry || e.Loaded || e.Value != nil || e.Era != 1 || string(value) != "five" {
		t.Fatalf("after Forget the entry is %+v, its old value %q", e, value)
	}
	table.Forget(s)
	if l.Entry.Era != 2 {
		t.Errorf("a load that began between two Forgets is not known as old: era %d", l.Entry.Era)
	}
	table.Fill(l.Entry, 9, []byte("nine"), true, 0)
	if l.Entry.Version != 9 || l.Entry.Dirty != 17 {
		t.Errorf("the store may show batch 17 before it is durable: the entry has version %d, dirty %d", l.Entry.Version, l.Entry.Dirty)
	}
	if err := table.InstallValues(s, wire(1, len(k.Key), "t", k.Key, 20, 1), 10, 0); err != nil {
		t.Fatal(err)
	}
	if e := l.Entry; !e.Loaded || e.Version != 20 || e.Dirty != 0 || e.Era != 3 {
		t.Errorf("after InstallValues the entry is %+v", e)
	}
	table.Install(l.Entry, 21, nil, true, 18)
	if woken := table.Release(l, nil); len(woken) != 1 || woken[0] != waiter {
		t.Errorf("the waiter was lost")
	}
}

// TestEntryOverhead compares what an entry is said to need with what it needs.
func TestEntryOverhead(t *testing.T) {
	const keys, shards = 100_000, 64
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // the second one frees what the first one's finalizers kept
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	locks := make([]Lock, keys)
	for i := range locks {
		locks[i].Key = base.Key{Table: "accounts", Key: fmt.Sprint("customer-", i)}
		locks[i].Slot, locks[i].Mode = locks[i].Key.Slot(), Exclusive
	}
	before := heap()
	var tables [shards]*Table
	for i := range tables {
		tables[i] = NewTable(1 << 30)
	}
	for i := range locks {
		table := tables[locks[i].Slot%shards]
		table.Acquire(&locks[i], false)
		table.Release(&locks[i], nil)
	}
	each := (heap() - before) / keys
	runtime.KeepAlive(&tables)
	runtime.KeepAlive(locks)
	t.Logf("%d bytes an entry", each)
	if each > entryOverhead*11/10 || each < entryOverhead*3/4 {
		t.Errorf("an entry has %d bytes beside key and value, entryOverhead says %d", each, entryOverhead)
	}
}

// FuzzInstallValues gives a receiver any bytes. It must keep all of them or
// nothing, and what it keeps must come out again.
func FuzzInstallValues(f *testing.F) {
	keys := sameSlot(3, "k")
	table := NewTable(1 << 20)
	for i, k := range keys {
		hold(table, k, base.Version(i)*1000, strings.Repeat("v", i), i > 0)()
		f.Add(table.AppendValues(nil, k.Slot(), 1<<10))
	}
	body := table.AppendValues(nil, keys[0].Slot(), 1<<10)
	f.Add(append(body, body[1:]...))
	f.Fuzz(func(t *testing.T, body []byte) {
		used, other := keys[0], keys[1]
		if len(body) > 0 { // a slot that the body may be of
			if a, _, ok := cutArrival(body[1:]); ok {
				used = a.key
			}
		}
		s := used.Slot()
		table := NewTable(1 << 20)
		defer hold(table, used, 3, "used")()
		if other != used {
			hold(table, other, 3, "idle")()
		}
		err := table.InstallValues(s, body, 8, 0)
		first := bytes.Clone(table.AppendValues(nil, s, 1<<20))
		if err != nil && len(first) > 0 {
			t.Fatalf("%v, and %d bytes are kept", err, len(first))
		}
		if first != nil && len(first) > len(body) {
			t.Fatalf("%d bytes became %d", len(body), len(first))
		}
		clear(body)
		there := NewTable(1 << 20)
		if err := there.InstallValues(s, first, 8, 0); err != nil {
			t.Fatal(err)
		}
		if again := there.AppendValues(nil, s, 1<<20); !bytes.Equal(first, again) {
			t.Fatalf("%x became %x", first, again)
		}
		checkTable(t, table)
		checkTable(t, there)
	})
}

// checkTable checks what a table says of itself.
func checkTable(t *testing.T, table *Table) {
	t.Helper()
	var sum int64
	idle, entries := map[*Entry]bool{}, entriesOf(table)
	for e := table.oldest; e != nil; e = e.newer {
		idle[e] = true
	}
	for _, e := range entries {
		if sum += e.bytes(); e.idle != idle[e] || e.idle != (e.holders.n+e.waiters.n == 0) || e.slot != e.Key.Slot() {
			t.Errorf("%v is idle: %v, in the list: %v, in slot %d", e.Key, e.idle, idle[e], e.slot)
		}
	}
	if sum != table.Bytes() || len(entries) != table.Len() {
		t.Errorf("%d entries with %d bytes, the table says %d with %d", len(entries), sum, table.Len(), table.Bytes())
	}
	if len(idle) != table.Len()-inUse(entries) {
		t.Errorf("%d entries are idle, %d in use, of %d", len(idle), inUse(entries), table.Len())
	}
}

func inUse(entries []*Entry) (n int) {
	for _, e := range entries {
		if e.holders.n+e.waiters.n > 0 {
			n++
		}
	}
	return n
}
