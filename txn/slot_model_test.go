package txn

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// draw gives the key what the next write leaves there: a value or none.
func (k *modelKey) draw(t *rapid.T) {
	k.version++
	k.present = rapid.IntRange(0, 4).Draw(t, "delete") > 0
	k.value = ""
	if k.present {
		k.value = rapid.StringN(0, 200, 200).Draw(t, "value")
	}
}

// touch makes a key the one used last; it is in the table from then on.
func (m *tableMachine) touch(name base.Key) {
	m.recent = slices.DeleteFunc(m.recent, func(k base.Key) bool { return k == name })
	m.recent = slices.Insert(m.recent, 0, name)
	m.count(name)
}

// count notes the bytes of a key in the table.
func (m *tableMachine) count(name base.Key) {
	m.bytes[name] = int64(entryOverhead + len(name.Table) + len(name.Key))
	if m.keys[name].loaded {
		m.bytes[name] += int64(len(m.keys[name].value))
	}
}

// leave takes an idle key out of the model's table.
func (m *tableMachine) leave(name base.Key) {
	gone := func(k base.Key) bool { return k == name }
	m.idle = slices.DeleteFunc(m.idle, gone)
	m.recent = slices.DeleteFunc(m.recent, gone)
	delete(m.bytes, name)
	m.keys[name].loaded, m.keys[name].era = false, 0
}

// ofSlot returns the keys of a slot that are in the table, the one used last
// first.
func (m *tableMachine) ofSlot(s base.Slot) (keys []base.Key) {
	for _, k := range m.recent {
		if k.Slot() == s {
			keys = append(keys, k)
		}
	}
	return keys
}

// lose is what Forget does, in the model.
func (m *tableMachine) lose(s base.Slot) {
	for _, name := range m.ofSlot(s) {
		if slices.Contains(m.idle, name) {
			m.leave(name)
			continue
		}
		k := m.keys[name]
		k.loaded = false
		k.era++
		m.count(name)
	}
}

// forget takes a slot away, whoever uses it. Others may then write there: the
// versions that come back later need not follow those that left.
func (m *tableMachine) forget(t *rapid.T) {
	s := rapid.SampledFrom(m.names).Draw(t, "slot of").Slot()
	m.table.Forget(s)
	m.lose(s)
	for _, name := range m.names {
		if name.Slot() == s && rapid.Bool().Draw(t, "written elsewhere") {
			m.keys[name].draw(t)
			m.keys[name].batch = 0 // durable
		}
	}
	m.woken = nil
}

// fitting returns the loaded keys of a slot that AppendValues takes along.
func (m *tableMachine) fitting(s base.Slot, limit int) (keys []base.Key) {
	size := 0
	for _, name := range m.ofSlot(s) {
		k := m.keys[name]
		if !k.loaded {
			continue
		}
		n := 4 + len(name.Table) + len(name.Key) + len(k.value)
		if len(k.value) >= 127 { // its length has two bytes; no version here is as large
			n++
		}
		if size == 0 {
			n++
		}
		if size+n <= limit {
			size += n
			keys = append(keys, name)
		}
	}
	return keys
}

// visit lends a slot to another table, where some of its keys are written, and
// takes it back. Everything in it is durable then.
func (m *tableMachine) visit(t *rapid.T) {
	s := rapid.SampledFrom(m.names).Draw(t, "slot of").Slot()
	limit := rapid.SampledFrom([]int{0, 1, 10, 150, 1 << 10}).Draw(t, "limit")
	body := m.table.AppendValues([]byte("before"), s, limit)
	if string(body[:6]) != "before" || len(body)-6 > limit {
		t.Fatalf("%d bytes were appended to %q, the limit is %d", len(body)-6, body[:6], limit)
	}
	kept := m.fitting(s, limit)
	there := NewTable(1 << 20)
	if err := there.InstallValues(s, body[6:], 200, 0); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if there.Len() != len(kept) {
		t.Fatalf("%d values arrived, want %v", there.Len(), kept)
	}
	for _, name := range kept {
		k, e := m.keys[name], lookup(there, name)
		if e == nil || !e.Loaded || e.Version != k.version || string(e.Value) != k.value || e.Present != k.present || e.Dirty != 0 {
			t.Fatalf("%v arrived as %+v, want %+v", name, e, k)
		}
	}
	for _, name := range m.names {
		if name.Slot() != s {
			continue
		}
		k := m.keys[name]
		if k.batch = 0; rapid.Bool().Draw(t, "write there") {
			k.draw(t)
			hold(there, name, k.version, k.value, k.present)()
			kept = slices.Insert(slices.DeleteFunc(kept, func(o base.Key) bool { return o == name }), 0, name)
		}
	}
	m.lose(s)
	if err := m.table.InstallValues(s, there.AppendValues(nil, s, 1<<20), 200, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Backward(kept) {
		m.keys[name].loaded = true
		if m.bytes[name] == 0 {
			m.idle = append(m.idle, name)
		}
		m.touch(name)
	}
	m.evict()
	m.woken = nil
}
