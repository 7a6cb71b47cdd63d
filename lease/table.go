package lease

import (
	"math/bits"

	"github.com/tenure-faas/tenure/base"
)

const (
	// chunkSlots is how many slots share an allocation.
	chunkSlots = 64
	// firstIndex is how many entries an index begins with, a power of two.
	firstIndex = 64
	// numberBits of an entry are for a number plus 1, the others for a tag.
	numberBits = 21
)

// table has the slots of a core about which there is something to know. They lie in
// chunks that never move, and are found by a hash table of their numbers: an entry
// for each possible slot would be a cache line of its own for each slot in use, and
// pointers would be megabytes that the garbage collector reads in every cycle.
type table struct {
	parts base.Slot
	// index has open addressing with linear probing. An entry is a number plus 1 and
	// a tag, which is of the slot's hash and saves the look at another slot; 0 is free.
	index []uint32
	// shift takes a hash to a place in index.
	shift  int
	chunks []*[chunkSlots]slot
	// numbered is how many numbers were given out, free are those that came back.
	numbered uint32
	free     []uint32
}

func newTable(parts base.Slot) table {
	t := table{parts: parts}
	t.resize(firstIndex)
	return t
}

func (t *table) resize(entries int) {
	t.index, t.shift = make([]uint32, entries), 64-bits.Len(uint(entries-1))
}

// place is where a slot is among those of this part.
func (t *table) place(id base.Slot) base.Slot { return id / t.parts }

// hash is where the search for a slot begins, and its tag. Slots are hashes of keys
// already, but those of one part may be a pattern.
func (t *table) hash(id base.Slot) (first int, tag uint32) {
	h := uint64(id) * 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return int(h >> t.shift), uint32(h>>numberBits) << numberBits
}

// numbering is the slot of a number.
func (t *table) numbering(i uint32) *slot { return &t.chunks[i/chunkSlots][i%chunkSlots] }

// search is where the entry of a slot is and the slot, or where it would be and nil.
func (t *table) search(id base.Slot) (int, *slot) {
	i, tag := t.hash(id)
	for {
		x := t.index[i]
		if x == 0 {
			return i, nil
		}
		if x>>numberBits == tag>>numberBits {
			if s := t.numbering(x&(1<<numberBits-1) - 1); s.id == id {
				return i, s
			}
		}
		i = (i + 1) & (len(t.index) - 1)
	}
}

// at is the slot if there is something to know about it, or nil.
func (t *table) at(id base.Slot) *slot {
	_, s := t.search(id)
	return s
}

// enter is the slot, about which there is something to know from now on. The
// pointer is valid until it is forgotten.
func (t *table) enter(id base.Slot) *slot {
	i, s := t.search(id)
	if s != nil {
		return s
	}
	if 4*(t.known()+1) > 3*len(t.index) {
		t.grow()
		i, _ = t.search(id)
	}
	var n uint32
	if last := len(t.free) - 1; last >= 0 {
		n, t.free = t.free[last], t.free[:last]
	} else {
		n = t.numbered
		t.numbered++
		if int(n/chunkSlots) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSlots]slot))
		}
	}
	_, tag := t.hash(id)
	t.index[i] = tag | (n + 1)
	s = t.numbering(n)
	s.id = id
	return s
}

// grow doubles the index.
func (t *table) grow() {
	old := t.index
	t.resize(2 * len(old))
	for _, x := range old {
		if x != 0 {
			i, _ := t.search(t.numbering(x&(1<<numberBits-1) - 1).id)
			t.index[i] = x
		}
	}
}

// forget drops a slot that was entered; its memory is used for another one.
func (t *table) forget(s *slot) {
	hole, _ := t.search(s.id)
	t.free = append(t.free, t.index[hole]&(1<<numberBits-1)-1)
	// What lies behind moves up, unless its search begins behind the hole.
	mask := len(t.index) - 1
	for i := (hole + 1) & mask; t.index[i] != 0; i = (i + 1) & mask {
		first, _ := t.hash(t.numbering(t.index[i]&(1<<numberBits-1) - 1).id)
		if (i-first)&mask >= (i-hole)&mask {
			t.index[hole] = t.index[i]
			hole = i
		}
	}
	t.index[hole] = 0
	*s = slot{}
}

// known is how many slots were entered and not forgotten.
func (t *table) known() int { return int(t.numbered) - len(t.free) }

// all yields the slots that are known; what is done to one may make it unknown.
func (t *table) all(yield func(*slot) bool) {
	for i := range t.numbered {
		s := t.numbering(i)
		if t.at(s.id) == s && !yield(s) {
			return
		}
	}
}
