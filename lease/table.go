package lease

import "github.com/tenure-faas/tenure/base"

// chunkSlots is how many slots share an allocation.
const chunkSlots = 64

// table has the slots of a core about which there is something to know. They lie in
// chunks that never move, and are found by number: a pointer for each possible slot
// would be megabytes that the garbage collector reads in every cycle.
type table struct {
	parts base.Slot
	// index has the number of each slot plus 1, by place; 0: nothing is known.
	index  []uint32
	chunks []*[chunkSlots]slot
	// numbered is how many numbers were given out, free are those that came back.
	numbered uint32
	free     []uint32
}

func newTable(slots, parts base.Slot) table {
	return table{parts: parts, index: make([]uint32, slots/parts)}
}

// place is where a slot of this part is kept.
func (t *table) place(id base.Slot) base.Slot { return id / t.parts }

// numbering is the slot of a number.
func (t *table) numbering(i uint32) *slot { return &t.chunks[i/chunkSlots][i%chunkSlots] }

// at is the slot if there is something to know about it, or nil.
func (t *table) at(id base.Slot) *slot {
	i := t.index[t.place(id)]
	if i == 0 {
		return nil
	}
	return t.numbering(i - 1)
}

// enter is the slot, about which there is something to know from now on. The
// pointer is valid until it is forgotten.
func (t *table) enter(id base.Slot) *slot {
	if s := t.at(id); s != nil {
		return s
	}
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = t.numbered
		t.numbered++
		if int(i/chunkSlots) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSlots]slot))
		}
	}
	t.index[t.place(id)] = i + 1
	s := t.numbering(i)
	s.id = id
	return s
}

// forget drops a slot that was entered; its memory is used for another one.
func (t *table) forget(s *slot) {
	i := &t.index[t.place(s.id)]
	t.free = append(t.free, *i-1)
	*i = 0
	*s = slot{}
}

// known is how many slots were entered and not forgotten.
func (t *table) known() int { return int(t.numbered) - len(t.free) }

// all yields the slots that are known; what is done to one may make it unknown.
func (t *table) all(yield func(*slot) bool) {
	for i := range t.numbered {
		s := t.numbering(i)
		if t.index[t.place(s.id)] == i+1 && !yield(s) {
			return
		}
	}
}
