package txn

import (
	"encoding/binary"
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// The entries of one slot are a list, the one used last in front: a slot has
// few of them, and what is wanted again is found first. An entry counts as used
// when a lock on it is asked for and when its value arrives with a lease.

// find returns the entry of a key, or nil.
func (t *Table) find(s base.Slot, k base.Key) *Entry {
	for e := t.slots[s]; e != nil; e = e.next {
		if e.Key == k {
			return e
		}
	}
	return nil
}

// use returns the entry of a key, made if there is none, and puts it in front
// of its slot.
func (t *Table) use(s base.Slot, k base.Key) *Entry {
	first := t.slots[s]
	if first != nil && first.Key == k {
		return first
	}
	for before := first; before != nil; before = before.next {
		if e := before.next; e != nil && e.Key == k {
			before.next, e.next = e.next, first
			t.slots[s] = e
			return e
		}
	}
	e := &Entry{Key: k, slot: s, next: first}
	t.slots[s] = e
	t.entries++
	t.bytes += e.bytes()
	return e
}

// drop takes an entry that nobody holds or wants out of the table.
func (t *Table) drop(e *Entry) {
	t.unlinkIdle(e)
	t.entries--
	t.bytes -= e.bytes()
	t.floor = max(t.floor, e.Dirty)
	first := t.slots[e.slot]
	switch {
	case first != e:
		for first.next != e {
			first = first.next
		}
		first.next = e.next
	case e.next == nil:
		delete(t.slots, e.slot)
	default:
		t.slots[e.slot] = e.next
	}
	e.next = nil
}

// Forget drops the values of a slot whose lease is no longer here. Entries that
// nobody uses leave the table. One that is held or wanted stays with its locks,
// is no longer Loaded and may be filled again; its Era grows by one, by which
// its holders can tell.
//
// The bytes of a value are never written to, but the fields of an entry in use
// change here: whoever may see its slot forgotten reads them under the latch.
// A slot must not be forgotten between the append of a batch that writes there
// and Install.
//
// What the dropped values depended on goes into the floor as at an eviction:
// the store may show a batch of this worker before it is durable.
func (t *Table) Forget(s base.Slot) {
	for e := t.slots[s]; e != nil; {
		next := e.next
		if e.idle {
			t.drop(e)
		} else {
			t.replace(e, 0, nil, false)
			t.floor = max(t.floor, e.Dirty)
			e.Loaded, e.Dirty = false, 0
			e.Era++
		}
		e = next
	}
}

// The values of a slot on their way from one worker to the next: nothing at
// all if there are none, else the byte valuesFormat and for each key
//
//	length of the table's name, length of the key    (uvarint each)
//	the table's name, the key
//	version                                          (uvarint)
//	0 if the key is absent, else 1 + length of value (uvarint)
//	the value
//
// up to the end of the body, the one used last first.
const (
	valuesFormat = 1
	// maxSlotValues bounds the values of one body, and with that the time for
	// which a body holds the latch.
	maxSlotValues = 1024
)

// AppendValues appends to dst the values of a slot that are known here, at most
// limit bytes and at most 1,024 values; also of keys that are known to be absent.
// The ones used last come first. What does not fit is left out: the receiver
// reads it from the store. The caller has made sure that the receiver may have
// them: that they are durable, or that it knows by when. It allocates only what dst
// needs to grow.
func (t *Table) AppendValues(dst []byte, s base.Slot, limit int) []byte {
	start, values := len(dst), 0
	for e := t.slots[s]; e != nil && values < maxSlotValues; e = e.next {
		if !e.Loaded {
			continue
		}
		size := e.wireSize()
		if values == 0 {
			size++ // the format
		}
		if size > limit-(len(dst)-start) {
			continue
		}
		if values == 0 {
			dst = append(dst, valuesFormat)
		}
		dst = e.appendTo(dst)
		values++
	}
	return dst
}

func (e *Entry) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(e.Key.Table)))
	dst = binary.AppendUvarint(dst, uint64(len(e.Key.Key)))
	dst = append(dst, e.Key.Table...)
	dst = append(dst, e.Key.Key...)
	dst = binary.AppendUvarint(dst, uint64(e.Version))
	if !e.Present {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, 1+uint64(len(e.Value)))
	return append(dst, e.Value...)
}

// wireSize returns how many bytes appendTo appends.
func (e *Entry) wireSize() int {
	n := uvarintSize(uint64(len(e.Key.Table))) + uvarintSize(uint64(len(e.Key.Key))) + len(e.Key.Table) + len(e.Key.Key) +
		uvarintSize(uint64(e.Version))
	if !e.Present {
		return n + 1
	}
	return n + uvarintSize(1+uint64(len(e.Value))) + len(e.Value)
}

func uvarintSize(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// InstallValues replaces whatever is known of a slot by the values that came
// with its lease, in a body that AppendValues made elsewhere. Dirty is a batch that
// is not older than those that wrote them, 0 if they are durable. The values are
// copied: body remains the caller's.
//
// The body is not trusted. The error says what is wrong with it: it is cut off,
// a key is not valid or not of the slot or there twice, a value has more than
// maxValue bytes, or there are too many. Then the table knows nothing of the
// slot, as after Forget, and everything is read from the store.
//
// An entry in use is filled too: what Forget says of its fields holds here.
func (t *Table) InstallValues(s base.Slot, body []byte, maxValue int, dirty base.Number) error {
	t.Forget(s)
	var few [8]arrival
	arrivals, err := decodeValues(few[:0], s, body, maxValue, maxSlotValues)
	if err != nil {
		return fmt.Errorf("txn: values of slot %d: %w", s, err)
	}
	// The one used last comes last, so that it is in front and evicted last.
	for i := len(arrivals) - 1; i >= 0; i-- {
		a := &arrivals[i]
		before := t.entries
		e := t.use(s, a.key)
		var value []byte
		if a.present {
			value = append(make([]byte, 0, len(a.value)), a.value...)
		}
		t.replace(e, a.version, value, a.present)
		e.Dirty = dirty
		if t.entries > before {
			t.linkIdle(e)
		}
	}
	t.evict()
	return nil
}

// arrival is one value of a body; value aliases the body.
type arrival struct {
	key     base.Key
	version base.Version
	present bool
	value   []byte
}

// decodeValues appends the values of a body to dst, at most `most` of them, or
// says what is wrong with it.
func decodeValues(dst []arrival, s base.Slot, body []byte, maxValue, most int) ([]arrival, error) {
	if len(body) == 0 {
		return dst, nil
	}
	if body[0] != valuesFormat {
		return nil, fmt.Errorf("format %d is not known, %d is", body[0], valuesFormat)
	}
	rest := body[1:]
	for len(rest) > 0 {
		if len(dst) == most {
			return nil, fmt.Errorf("more than %d values", most)
		}
		a, tail, ok := cutArrival(rest)
		if !ok {
			return nil, fmt.Errorf("value %d, from byte %d of %d on, is cut off or malformed", len(dst), len(body)-len(rest), len(body))
		}
		if err := a.check(s, maxValue); err != nil {
			return nil, fmt.Errorf("value %d: %w", len(dst), err)
		}
		for i := range dst {
			if dst[i].key == a.key {
				return nil, fmt.Errorf("values %d and %d are both of %v", i, len(dst), a.key)
			}
		}
		dst, rest = append(dst, a), tail
	}
	return dst, nil
}

func (a *arrival) check(s base.Slot, maxValue int) error {
	if err := a.key.Validate(); err != nil {
		return err
	}
	switch slot := a.key.Slot(); {
	case slot != s:
		return fmt.Errorf("%v is a key of slot %d", a.key, slot)
	case len(a.value) > maxValue:
		return fmt.Errorf("%v has %d bytes, the limit is %d", a.key, len(a.value), maxValue)
	case a.present && a.version == 0:
		return fmt.Errorf("%v has a value and was never written", a.key)
	}
	return nil
}

// cutArrival takes the first value off a body. Nothing is allocated before all
// lengths are known to be right.
func cutArrival(b []byte) (a arrival, rest []byte, ok bool) {
	table, b, ok := cutLength(b, base.MaxNameBytes)
	if !ok {
		return a, nil, false
	}
	key, b, ok := cutLength(b, base.MaxKeyBytes)
	if !ok || table+key > len(b) {
		return a, nil, false
	}
	name, b := b[:table+key], b[table+key:]
	version, n := binary.Uvarint(b)
	if n <= 0 {
		return a, nil, false
	}
	length, b, ok := cutLength(b[n:], len(b))
	if !ok {
		return a, nil, false
	}
	a.version, a.present = base.Version(version), length > 0
	if a.present {
		if length--; length > len(b) {
			return a, nil, false
		}
		a.value, b = b[:length], b[length:]
	}
	whole := string(name) // the two halves share it
	a.key = base.Key{Table: whole[:table], Key: whole[table:]}
	return a, b, true
}

// cutLength takes a length of at most limit off b.
func cutLength(b []byte, limit int) (length int, rest []byte, ok bool) {
	u, n := binary.Uvarint(b)
	if n <= 0 || u > uint64(limit) {
		return 0, nil, false
	}
	return int(u), b[n:], true
}
