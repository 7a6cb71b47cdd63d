package sim

import (
	"slices"
	"strings"

	"github.com/tenure-faas/tenure/store"
)

// diskKind is what an operation of a batch does.
type diskKind uint8

const (
	diskSet diskKind = iota
	diskDelete
	// diskDeleteRange removes the keys from key up to, and without, end.
	diskDeleteRange
)

// diskOperation is one write of a batch. It never changes once it is made, so
// logs and tables share it.
type diskOperation struct {
	kind     diskKind
	key, end string
	value    []byte
}

// diskOverhead is what an operation counts in the length of a batch besides its
// keys and its value, in bytes.
const diskOverhead = 8

// diskBatch implements store.Batch. Misuse is a fault of the program: it panics.
type diskBatch struct {
	operations []diskOperation
	length     int
	// taken says that it was appended or applied, which is done once.
	taken, released bool
}

var _ store.Batch = (*diskBatch)(nil)

func (b *diskBatch) add(o diskOperation) {
	if b.taken || b.released {
		panic("sim: misused batch: it was appended, applied or released before")
	}
	b.operations = append(b.operations, o)
	b.length += diskOverhead + len(o.key) + len(o.end) + len(o.value)
}

// Set implements store.Batch.
func (b *diskBatch) Set(key, value []byte) {
	b.add(diskOperation{kind: diskSet, key: string(key), value: slices.Clone(value)})
}

// Delete implements store.Batch.
func (b *diskBatch) Delete(key []byte) { b.add(diskOperation{kind: diskDelete, key: string(key)}) }

// DeleteRange implements store.Batch.
func (b *diskBatch) DeleteRange(lo, hi []byte) {
	b.add(diskOperation{kind: diskDeleteRange, key: string(lo), end: string(hi)})
}

// Len implements store.Batch.
func (b *diskBatch) Len() int { return b.length }

// Release implements store.Batch.
func (b *diskBatch) Release() { b.released, b.operations = true, nil }

// take gives the operations to a log.
func (b *diskBatch) take() []diskOperation {
	if b.taken || b.released {
		panic("sim: misused batch: it was appended, applied or released before")
	}
	b.taken = true
	return b.operations
}

// diskEntry is a key and its value, which nobody changes.
type diskEntry struct {
	key   string
	value []byte
}

// maxDiskChunk bounds a chunk of a table, so that an insertion moves little.
const maxDiskChunk = 256

// diskTable is a sorted map: chunks of entries, in order, none of them empty. The
// zero value is empty.
type diskTable struct{ chunks [][]diskEntry }

func (t *diskTable) clone() diskTable {
	all := make([][]diskEntry, len(t.chunks))
	for i, c := range t.chunks {
		all[i] = slices.Clone(c)
	}
	return diskTable{all}
}

// seek finds the place of key: the chunk that has it or would, and where in it.
// The place may be behind the chunk's last entry, and is 0, 0 in an empty table.
func (t *diskTable) seek(key string) (chunk, at int, found bool) {
	chunk, found = slices.BinarySearchFunc(t.chunks, key, func(c []diskEntry, key string) int { return strings.Compare(c[0].key, key) })
	if found || len(t.chunks) == 0 {
		return chunk, 0, found
	}
	chunk = max(chunk-1, 0)
	at, found = slices.BinarySearchFunc(t.chunks[chunk], key, func(e diskEntry, key string) int { return strings.Compare(e.key, key) })
	return chunk, at, found
}

func (t *diskTable) get(key string) ([]byte, bool) {
	chunk, at, found := t.seek(key)
	if !found {
		return nil, false
	}
	return t.chunks[chunk][at].value, true
}

func (t *diskTable) set(e diskEntry) {
	chunk, at, found := t.seek(e.key)
	switch {
	case found:
		t.chunks[chunk][at].value = e.value
		return
	case len(t.chunks) == 0:
		t.chunks = [][]diskEntry{{e}}
		return
	}
	c := slices.Insert(t.chunks[chunk], at, e)
	t.chunks[chunk] = c
	if len(c) > maxDiskChunk {
		half := len(c) / 2
		t.chunks = slices.Insert(t.chunks, chunk+1, slices.Clone(c[half:]))
		clear(c[half:])
		t.chunks[chunk] = c[:half]
	}
}

// remove removes the entries of one chunk from at to end.
func (t *diskTable) remove(chunk, at, end int) {
	t.chunks[chunk] = slices.Delete(t.chunks[chunk], at, end)
	if len(t.chunks[chunk]) == 0 {
		t.chunks = slices.Delete(t.chunks, chunk, chunk+1)
	}
}

// removeRange removes the keys in [lo, hi).
func (t *diskTable) removeRange(lo, hi string) {
	for lo < hi && len(t.chunks) > 0 {
		chunk, at, _ := t.seek(lo)
		if at == len(t.chunks[chunk]) {
			if chunk++; chunk == len(t.chunks) {
				return
			}
			at = 0
		}
		c := t.chunks[chunk]
		end := at
		for end < len(c) && c[end].key < hi {
			end++
		}
		if end == at {
			return
		}
		t.remove(chunk, at, end)
	}
}

// page appends up to n entries in [lo, hi) to dst; an empty hi is no bound.
func (t *diskTable) page(dst []diskEntry, lo, hi string, n int) []diskEntry {
	chunk, at, _ := t.seek(lo)
	for ; chunk < len(t.chunks); chunk, at = chunk+1, 0 {
		for _, e := range t.chunks[chunk][at:] {
			if n == 0 || hi != "" && e.key >= hi {
				return dst
			}
			dst = append(dst, e)
			n--
		}
	}
	return dst
}

// apply applies the operations of a batch in order.
func (t *diskTable) apply(operations []diskOperation) {
	for i := range operations {
		switch o := &operations[i]; o.kind {
		case diskSet:
			t.set(diskEntry{o.key, o.value})
		case diskDelete:
			if chunk, at, found := t.seek(o.key); found {
				t.remove(chunk, at, at+1)
			}
		case diskDeleteRange:
			t.removeRange(o.key, o.end)
		}
	}
}
