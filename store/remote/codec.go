package remote

import (
	"bytes"
	"encoding/binary"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// Operations are encoded one behind the other:
//
//	opSet         len key len value
//	opDelete      len key
//	opDeleteRange len lo len hi         lo < hi
//
// with lengths as unsigned varints.
const (
	opSet         = 1
	opDelete      = 2
	opDeleteRange = 3
)

// batch implements store.Batch: it is its own encoding.
type batch struct {
	operations []byte
	// spent says that the operations belong to a pipeline now.
	spent bool
}

// Set implements store.Batch.
func (b *batch) Set(key, value []byte) { b.append(opSet, key, value) }

// Delete implements store.Batch.
func (b *batch) Delete(key []byte) {
	b.append(opDelete, key, nil)
}

// DeleteRange implements store.Batch; an empty range is left out.
func (b *batch) DeleteRange(lo, hi []byte) {
	if bytes.Compare(lo, hi) < 0 {
		b.append(opDeleteRange, lo, hi)
	}
}

// Len implements store.Batch.
func (b *batch) Len() int { return len(b.operations) }

// Release implements store.Batch. The pipeline goes on to hold what was
// appended.
func (b *batch) Release() { b.operations, b.spent = nil, true }

func (b *batch) append(op byte, first, second []byte) {
	if b.spent {
		panic("store: misused batch: it was appended or released")
	}
	b.operations = append(b.operations, op)
	b.operations = appendBytes(b.operations, first)
	if op != opDelete {
		b.operations = appendBytes(b.operations, second)
	}
}

func appendBytes(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}

// territory says which keys a caller may write: nothing in the ranges.
type territory []keyRange

// keyRange is [lo, hi).
type keyRange struct{ lo, hi []byte }

// meta are the keys of the metadata: a worker's commits never write them.
func meta() territory {
	lo := store.MetaKey("")
	return territory{{lo, []byte{lo[0] + 1}}}
}

// own are the keys that only this package and the engine write.
func own() territory {
	seal := store.MetaKey("seal")
	applied := store.MetaKey(appliedPrefix)
	end := append([]byte(nil), applied...)
	end[len(end)-1]++
	return territory{{seal, append(seal[:len(seal):len(seal)], 0)}, {applied, end}}
}

func (t territory) forbids(lo, hi []byte) bool {
	for _, r := range t {
		if bytes.Compare(lo, r.hi) < 0 && bytes.Compare(r.lo, hi) < 0 {
			return true
		}
	}
	return false
}

func (t territory) forbidsKey(key []byte) bool {
	for _, r := range t {
		if bytes.Compare(r.lo, key) <= 0 && bytes.Compare(key, r.hi) < 0 {
			return true
		}
	}
	return false
}

// decode adds encoded operations to b. They come from another process: an error
// (kind Invalid) says what is wrong, and b is to be thrown away then.
func decode(operations []byte, b store.Batch, closed territory) error {
	if len(operations) > MaxBatchBytes {
		return base.Invalidf("batch", "the batch has %d bytes, the limit is %d", len(operations), MaxBatchBytes)
	}
	for rest := operations; len(rest) > 0; {
		op, at := rest[0], len(operations)-len(rest)
		key, after, ok := cutBytes(rest[1:])
		if !ok || len(key) > MaxKeyBytes {
			return base.Invalidf("batch", "the operation at byte %d has no key, or one over %d bytes", at, MaxKeyBytes)
		}
		var second []byte
		if op == opSet || op == opDeleteRange {
			if second, after, ok = cutBytes(after); !ok {
				return base.Invalidf("batch", "the operation at byte %d is cut off", at)
			}
		}
		switch op {
		case opSet, opDelete:
			if closed.forbidsKey(key) {
				return base.Invalidf("batch", "key %q is not the sender's to write", key)
			}
			if op == opSet {
				b.Set(key, second)
			} else {
				b.Delete(key)
			}
		case opDeleteRange:
			if len(second) > MaxKeyBytes || bytes.Compare(key, second) >= 0 {
				return base.Invalidf("batch", "the range at byte %d is empty, or its end is over %d bytes", at, MaxKeyBytes)
			}
			if closed.forbids(key, second) {
				return base.Invalidf("batch", "the range from %q to %q has keys that are not the sender's to write", key, second)
			}
			b.DeleteRange(key, second)
		default:
			return base.Invalidf("batch", "operation %d at byte %d is unknown", op, at)
		}
		rest = after
	}
	return nil
}

// cutBytes takes one length and its bytes off p.
func cutBytes(p []byte) (head, rest []byte, ok bool) {
	n, width := binary.Uvarint(p)
	if width <= 0 || n > uint64(len(p)-width) {
		return nil, nil, false
	}
	end := width + int(n)
	return p[width:end:end], p[end:], true
}
