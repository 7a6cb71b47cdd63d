package txn

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// modelRequest is a lock in the model of the lock table.
type modelRequest struct {
	lock *Lock
	mode Mode
}

// modelKey is one key in the model: who holds or wants it, in order of
// arrival, and what the store would say of it.
type modelKey struct {
	requests []modelRequest
	version  base.Version
	value    string
	present  bool
	batch    base.Number
	// loaded says that the table has the value, era how often it was taken
	// from holders.
	loaded bool
	era    uint32
}

// granted reports whether the i-th request holds its lock: it is compatible
// with everybody who came before it. That is all there is to FIFO.
func (k *modelKey) granted(i int) bool {
	for _, earlier := range k.requests[:i] {
		if earlier.mode != k.requests[i].mode || earlier.mode == Exclusive {
			return false
		}
	}
	return true
}

func (k *modelKey) holders() (n int) {
	for i := range k.requests {
		if k.granted(i) {
			n++
		}
	}
	return n
}

// tableMachine drives a Table and its model with the same operations.
type tableMachine struct {
	table  *Table
	budget int64
	names  []base.Key
	keys   map[base.Key]*modelKey
	idle   []base.Key // keys in the table that nobody wants, longest idle first
	recent []base.Key // keys in the table, the one used last first
	bytes  map[base.Key]int64
	batch  base.Number
	woken  []*Lock // the result of the last operation
}

func newTableMachine(budget int64, names []base.Key) *tableMachine {
	m := &tableMachine{table: NewTable(budget), budget: budget, names: names, keys: map[base.Key]*modelKey{}, bytes: map[base.Key]int64{}}
	for _, k := range names {
		m.keys[k] = &modelKey{}
	}
	return m
}

// pick returns a request whose lock is held, or one that waits; nil if there is
// none, and then the action does nothing.
func (m *tableMachine) pick(t *rapid.T, held bool) (*modelKey, int) {
	type place struct {
		key *modelKey
		i   int
	}
	var places []place
	for _, name := range m.names {
		for i := range m.keys[name].requests {
			if m.keys[name].granted(i) == held {
				places = append(places, place{m.keys[name], i})
			}
		}
	}
	if len(places) == 0 {
		return nil, 0
	}
	p := rapid.SampledFrom(places).Draw(t, "request")
	return p.key, p.i
}

func (m *tableMachine) acquire(t *rapid.T) {
	name := rapid.SampledFrom(m.names).Draw(t, "key")
	k := m.keys[name]
	l := &Lock{Key: name, Slot: name.Slot(), Mode: Mode(rapid.IntRange(1, 3).Draw(t, "mode"))}
	wait := rapid.Bool().Draw(t, "wait")
	k.requests = append(k.requests, modelRequest{l, l.Mode})
	want := Granted
	switch granted := k.granted(len(k.requests) - 1); {
	case !granted && wait:
		want = Queued
	case !granted:
		want = Refused
		k.requests = k.requests[:len(k.requests)-1]
	}
	m.idle = slices.DeleteFunc(m.idle, func(i base.Key) bool { return i == name })
	m.touch(name)
	if got := m.table.Acquire(l, wait); got != want {
		t.Fatalf("acquire %v %v: %s, want %s", name, l.Mode, statusWord(got), statusWord(want))
	}
	m.woken = nil
}

func (m *tableMachine) upgrade(t *rapid.T) {
	k, i := m.pick(t, true)
	if k == nil {
		return
	}
	r := &k.requests[i]
	mode := Mode(rapid.IntRange(1, 3).Draw(t, "mode"))
	want := Granted
	switch {
	case r.mode == mode || r.mode == Exclusive:
	case k.holders() > 1:
		want = Refused
	default:
		r.mode = Exclusive
	}
	if got := m.table.Upgrade(r.lock, mode); got != want {
		t.Fatalf("upgrade %v to %v: %s, want %s", r.lock.Key, mode, statusWord(got), statusWord(want))
	}
	if r.lock.Mode != r.mode {
		t.Fatalf("after the upgrade %v is held %v, want %v", r.lock.Key, r.lock.Mode, r.mode)
	}
	m.woken = nil
}

// drop takes a request out of the model and returns whom that wakes.
func (m *tableMachine) drop(k *modelKey, i int) (name base.Key, woken []*Lock) {
	name = k.requests[i].lock.Key
	var before []bool
	for j := range k.requests {
		before = append(before, k.granted(j))
	}
	k.requests, before = slices.Delete(k.requests, i, i+1), slices.Delete(before, i, i+1)
	for j, r := range k.requests {
		if k.granted(j) && !before[j] {
			woken = append(woken, r.lock)
		}
	}
	if len(k.requests) == 0 {
		m.idle = append(m.idle, name)
		m.evict()
	}
	return name, woken
}

func (m *tableMachine) evict() {
	for m.total() > m.budget && len(m.idle) > 0 {
		m.leave(m.idle[0])
	}
}

func (m *tableMachine) total() (sum int64) {
	for _, n := range m.bytes {
		sum += n
	}
	return sum
}

func (m *tableMachine) release(t *rapid.T) {
	k, i := m.pick(t, true)
	if k == nil {
		return
	}
	l := k.requests[i].lock
	name, want := m.drop(k, i)
	if m.woken = m.table.Release(l, nil); !slices.Equal(m.woken, want) {
		t.Fatalf("release of %v wakes %d, want %d", name, len(m.woken), len(want))
	}
}

func (m *tableMachine) cancel(t *rapid.T) {
	held := rapid.Bool().Draw(t, "too late")
	k, i := m.pick(t, held)
	if k == nil {
		return
	}
	l := k.requests[i].lock
	if held {
		if woken, cancelled := m.table.Cancel(l, nil); cancelled || len(woken) > 0 {
			t.Fatalf("cancel of a held lock on %v: cancelled %v, wakes %d", l.Key, cancelled, len(woken))
		}
		return
	}
	name, want := m.drop(k, i)
	woken, cancelled := m.table.Cancel(l, nil)
	if m.woken = woken; !cancelled || !slices.Equal(woken, want) {
		t.Fatalf("cancel on %v: cancelled %v, wakes %d, want %d", name, cancelled, len(woken), len(want))
	}
}

// use does what a holder does: load the value, and write it if it may.
func (m *tableMachine) use(t *rapid.T) {
	k, i := m.pick(t, true)
	if k == nil {
		return
	}
	l := k.requests[i].lock
	m.table.Fill(l.Entry, k.version, []byte(k.value), k.present, 0)
	k.loaded = true
	if rapid.Bool().Draw(t, "write") && k.requests[i].mode != Shared {
		m.batch++
		k.batch = m.batch
		k.draw(t)
		m.table.Install(l.Entry, k.version, []byte(k.value), k.present, m.batch)
	}
	m.count(l.Key)
}

// check compares everything that can be seen.
func (m *tableMachine) check(t *rapid.T) {
	for _, l := range m.woken {
		if !l.Held() || l.Entry == nil {
			t.Fatalf("a woken lock on %v is not held", l.Key)
		}
	}
	for _, name := range m.names {
		m.checkKey(t, name)
	}
	var sum int64
	for _, e := range entriesOf(m.table) {
		sum += e.bytes()
	}
	if m.table.Bytes() != sum || sum != m.total() {
		t.Fatalf("the table counts %d bytes, its entries have %d, the model %d", m.table.Bytes(), sum, m.total())
	}
	if m.table.Len() != len(m.bytes) {
		t.Fatalf("%d entries, the model has %d", m.table.Len(), len(m.bytes))
	}
	var idle []base.Key
	for e := m.table.oldest; e != nil; e = e.newer {
		idle = append(idle, e.Key)
	}
	if !slices.Equal(idle, m.idle) {
		t.Fatalf("idle are %v, want %v", idle, m.idle)
	}
	for _, name := range m.names {
		var slot []base.Key
		for e := m.table.slots[name.Slot()]; e != nil; e = e.next {
			slot = append(slot, e.Key)
		}
		if want := m.ofSlot(name.Slot()); !slices.Equal(slot, want) {
			t.Fatalf("slot %d has %v, want %v", name.Slot(), slot, want)
		}
	}
	if len(m.recent) == 0 && len(m.table.slots) > 0 {
		t.Fatalf("%d slots without entries are left", len(m.table.slots))
	}
}

func (m *tableMachine) checkKey(t *rapid.T, name base.Key) {
	k := m.keys[name]
	held := map[Mode]int{}
	for i, r := range k.requests {
		if r.lock.Held() != k.granted(i) {
			t.Fatalf("request %d for %v is held: %v, want %v", i, name, r.lock.Held(), k.granted(i))
		}
		if r.lock.Held() {
			held[r.lock.Mode]++
		}
	}
	if len(held) > 1 || held[Exclusive] > 1 {
		t.Fatalf("%v is held in conflict: %v", name, held)
	}
	holders, waiters, _ := m.table.Waiting(name)
	if holders != k.holders() || holders+waiters != len(k.requests) {
		t.Fatalf("%v has %d holders and %d waiters, want %d requests, %d of them granted", name, holders, waiters, len(k.requests), k.holders())
	}
	e := lookup(m.table, name)
	if e == nil && len(k.requests) > 0 {
		t.Fatalf("%v is in use and not in the table", name)
	}
	if e == nil {
		return
	}
	if e.Loaded != k.loaded || e.Era != k.era {
		t.Fatalf("%v is loaded: %v, want %v; its era is %d, want %d", name, e.Loaded, k.loaded, e.Era, k.era)
	}
	if !e.Loaded {
		if e.Value != nil || e.Present || e.Version != 0 || e.Dirty != 0 {
			t.Fatalf("%v is not loaded and has version %d, batch %d, %d bytes", name, e.Version, e.Dirty, len(e.Value))
		}
		return
	}
	if e.Version != k.version || string(e.Value) != k.value || e.Present != k.present {
		t.Fatalf("%v has version %d, want %d", name, e.Version, k.version)
	}
	// A reader must wait for at least the batch that wrote what it reads.
	if e.Dirty < k.batch || e.Dirty > m.batch {
		t.Fatalf("%v was written by batch %d of %d, the entry says %d", name, k.batch, m.batch, e.Dirty)
	}
}

// drain releases whatever is held until nothing is left: a request that is
// still there then has lost its wake-up.
func (m *tableMachine) drain(t *rapid.T) {
	for {
		var l *Lock
		left := 0
		for _, name := range m.names {
			for _, r := range m.keys[name].requests {
				if left++; r.lock.Held() {
					l = r.lock
				}
			}
		}
		if l == nil {
			if left > 0 {
				t.Fatalf("%d requests wait for nobody", left)
			}
			break
		}
		k := m.keys[l.Key]
		m.drop(k, slices.IndexFunc(k.requests, func(r modelRequest) bool { return r.lock == l }))
		m.woken = m.table.Release(l, nil)
		m.check(t)
	}
	if len(m.bytes) > 0 && m.table.Bytes() > m.budget {
		t.Fatalf("nobody uses the table and it has %d bytes, the budget is %d", m.table.Bytes(), m.budget)
	}
}

// TestTableAgainstModel runs random operations of many transactions.
func TestTableAgainstModel(t *testing.T) {
	names := slices.Concat(sameSlot(3, "a"), sameSlot(2, "b"), sameSlot(1, "c"))
	rapid.Check(t, func(t *rapid.T) {
		m := newTableMachine(rapid.SampledFrom([]int64{0, 300, 700, 1 << 20}).Draw(t, "budget"), names)
		t.Repeat(map[string]func(*rapid.T){
			"acquire": m.acquire, "upgrade": m.upgrade, "release": m.release,
			"cancel": m.cancel, "use": m.use, "": m.check,
			"forget": m.forget, "visit": m.visit,
		})
		m.drain(t)
	})
}

// TestTableRefusesALostVersion shows that a write that does not follow the
// newest version stops the process instead of being installed.
func TestTableRefusesALostVersion(t *testing.T) {
	table := NewTable(1 << 20)
	k := base.Key{Table: "t", Key: "a"}
	l := &Lock{Key: k, Slot: k.Slot(), Mode: Exclusive}
	table.Acquire(l, false)
	table.Fill(l.Entry, 4, []byte("x"), true, 0)
	for _, version := range []base.Version{3, 4, 6} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("version %d was installed after version 4", version)
				}
			}()
			table.Install(l.Entry, version, nil, true, 1)
		}()
	}
	table.Install(l.Entry, 5, nil, false, 1)
	if l.Entry.Version != 5 || l.Entry.Present {
		t.Errorf("after a delete the entry has version %d, present %v", l.Entry.Version, l.Entry.Present)
	}
}
