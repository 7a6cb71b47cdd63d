package shm

import (
	"errors"

	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// Offsets in control memory, see the package comment. Every word has one
// writer; words of different writers, or of different rhythm, are on cache
// lines of their own.
const (
	// revokedAt: the owner stores 1 when the peer may touch its memory no more.
	revokedAt = 0
	// busyAt: the peer stores 1 before it looks at revokedAt and touches the
	// owner's memory, and 0 when it is done.
	busyAt = 64
	// tailAt: the peer counts the doorbells that it has put.
	tailAt = 128
	// headAt: the owner counts the doorbells that were polled.
	headAt = 192
	// armedAt: the owner stores 1 before it sleeps; the peer stores 0 when it
	// rings the bell.
	armedAt = 256
	// entriesAt: depth words, a ring of doorbells.
	entriesAt = 320
)

// pageSize is what sizes of shared files are rounded up to.
const pageSize = 4096

// controlSize is the length of the control memory of an end that takes depth
// doorbells.
func controlSize(depth int) int {
	return (entriesAt + 8*depth + pageSize - 1) &^ (pageSize - 1)
}

// errRing: the other process wrote nonsense into the control memory.
var errRing = errors.New("the peer wrote impossible counts into the ring of doorbells")

// doorbell is an entry of the ring: the immediate value in the high half of a
// word, the length in the low half.
type doorbell struct{ imm, length uint32 }

// outbox is the peer's end of a ring: it puts doorbells. Not safe for concurrent
// use.
type outbox struct {
	control *memory.Mapping
	depth   uint64
	tail    uint64
}

// room says whether a doorbell can be put.
func (o *outbox) room() (bool, error) {
	unpolled := o.tail - o.control.Load(headAt)
	if unpolled > o.depth {
		return false, errRing
	}
	return unpolled < o.depth, nil
}

// put puts a doorbell, for which there must be room, after everything that this
// goroutine has written. It says whether the bell must be rung.
func (o *outbox) put(d doorbell) (ring bool) {
	o.control.Store(entriesAt+int(o.tail%o.depth)*8, uint64(d.imm)<<32|uint64(d.length))
	o.tail++
	o.control.Store(tailAt, o.tail)
	// The owner arms before it looks at the tail for the last time: one of us
	// sees the other.
	if o.control.Load(armedAt) == 0 {
		return false
	}
	o.control.Store(armedAt, 0)
	return true
}

// inbox is the owner's end of a ring: it takes doorbells. Not safe for
// concurrent use. It believes nothing that the peer writes: next and polled are
// its own, and the tail may move within what they allow.
type inbox struct {
	control *memory.Mapping
	depth   uint64
	// next counts the doorbells taken, polled those that the peer may overwrite;
	// polled <= next <= polled+depth.
	next, polled uint64
}

// take takes the oldest doorbell, if there is one.
func (i *inbox) take() (d doorbell, ok bool, err error) {
	tail := i.control.Load(tailAt)
	if put := tail - i.polled; put > i.depth || put < i.next-i.polled {
		return d, false, errRing
	}
	if tail == i.next {
		return d, false, nil
	}
	w := i.control.Load(entriesAt + int(i.next%i.depth)*8)
	i.next++
	return doorbell{uint32(w >> 32), uint32(w)}, true, nil
}

// release tells the peer how many doorbells were polled so far.
func (i *inbox) release(polled uint64) {
	if polled != i.polled {
		i.polled = polled
		i.control.Store(headAt, polled)
	}
}

// arm asks for the bell, and says whether to sleep: not if something has come.
func (i *inbox) arm() bool {
	i.control.Store(armedAt, 1)
	return i.control.Load(tailAt) == i.next
}

// The directory of a provider is shared memory that peers can only read. Its
// first word counts the regions that were closed; then one word per slot has the
// generation of the region in it, or 0. Generations never repeat, so a peer that
// kept the mapping of a closed region finds out, whatever took its slot or key.
const (
	closingsAt     = 0
	generationsAt  = 8
	directorySlots = 4096
	directorySize  = generationsAt + 8*directorySlots
)

// generationAt is the offset of a slot's word.
func generationAt(slot uint32) int { return generationsAt + 8*int(slot) }
