// Package region holds the registered memory of a provider written in Go: keys,
// bounds, and the promise that nothing touches a region after it was closed.
package region

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// A key is an index into the table, and a tag so that the key of a closed region
// does not open the next one in its place.
const (
	tagBits = 16
	// maxRegions bounds a table: regions are arenas, few and large.
	maxRegions = 4096
)

// Table is the regions of one provider. The zero value is ready. Safe for
// concurrent use.
type Table struct {
	mu sync.RWMutex
	// slots may have free places (nil).
	slots []*Region
}

// Region implements rdma.Region over a mapping.
type Region struct {
	table  *Table
	name   string
	handle *handle.Handle
	key    uint32
	addr   uint64
	size   uint64

	// mu is held for reading while anything touches the memory through the table,
	// and for writing to close it. A leaf: nothing is locked inside.
	mu      sync.RWMutex
	mapping *memory.Mapping // nil after Close
	onClose func() error
}

// Register enters a mapping, which the region owns from now on, under a fresh
// key. Provider names it in alarms. onClose, if not nil, runs after the region
// has left the table and before the memory is unmapped; nothing can touch the
// region through the table then.
func (t *Table) Register(provider string, m *memory.Mapping, onClose func() error) (*Region, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := 0
	for i < len(t.slots) && t.slots[i] != nil {
		i++
	}
	if i == maxRegions {
		return nil, fmt.Errorf("%w: %d regions are registered, which is the limit", rdma.ErrInUse, maxRegions)
	}
	if i == len(t.slots) {
		t.slots = append(t.slots, nil)
	}
	tag := rand.N(uint32(1<<tagBits-1)) + 1 // never 0, so that key 0 is never valid
	r := &Region{table: t, name: provider, key: uint32(i)<<tagBits | tag, mapping: m, addr: m.Addr(), size: uint64(len(m.Bytes())), onClose: onClose}
	r.handle = handle.Open(r, provider+" region")
	t.slots[i] = r
	return r, nil
}

// Len is the number of open regions.
func (t *Table) Len() (n int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.slots {
		if r != nil {
			n++
		}
	}
	return n
}

// Find returns the region with this key, or nil.
func (t *Table) Find(key uint32) *Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i := int(key >> tagBits); i < len(t.slots) && t.slots[i] != nil && t.slots[i].key == key {
		return t.slots[i]
	}
	return nil
}

// Span is memory that cannot be unmapped until Release.
type Span struct {
	region *Region
	// Mapping and Offset are for atomics.
	Mapping *memory.Mapping
	Offset  int
	// Bytes is the span.
	Bytes []byte
}

// Release lets go of the memory; once, and before anything blocks for long.
func (s *Span) Release() {
	if s.region != nil {
		s.region.mu.RUnlock()
	}
}

// Acquire returns the length bytes at addr of the region with this key. It is
// false, and there is nothing to release, if they do not lie within such a
// region. Zero bytes lie within any region, and need none.
func (t *Table) Acquire(key uint32, addr uint64, length uint32) (Span, bool) {
	if length == 0 {
		return Span{}, true
	}
	r := t.Find(key)
	if r == nil {
		return Span{}, false
	}
	r.mu.RLock()
	offset := addr - r.addr // wraps for an address below, and is then too large
	if r.mapping == nil || offset > uint64(len(r.mapping.Bytes())) || uint64(len(r.mapping.Bytes()))-offset < uint64(length) {
		r.mu.RUnlock()
		return Span{}, false
	}
	return Span{r, r.mapping, int(offset), r.mapping.Bytes()[offset : offset+uint64(length) : offset+uint64(length)]}, true
}

// Bytes implements rdma.Region.
func (r *Region) Bytes() []byte { return r.mapping.Bytes() }

// Load implements rdma.Region.
func (r *Region) Load(offset int) uint64 { return r.mapping.Load(offset) }

// Store implements rdma.Region.
func (r *Region) Store(offset int, v uint64) { r.mapping.Store(offset, v) }

// Local implements rdma.Region.
func (r *Region) Local(offset, length int) rdma.Local {
	return rdma.Local{Addr: r.addr + uint64(offset), Length: uint32(length), LKey: r.key}
}

// Remote implements rdma.Region.
func (r *Region) Remote() rdma.RemoteRegion {
	return rdma.RemoteRegion{Addr: r.addr, Size: r.size, RKey: r.key}
}

// Close implements rdma.Region. It waits for accesses that have begun.
func (r *Region) Close() error {
	r.table.mu.Lock()
	if i := int(r.key >> tagBits); r.table.slots[i] == r {
		r.table.slots[i] = nil
	}
	r.table.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mapping == nil {
		return nil
	}
	var err error
	if r.onClose != nil {
		err = r.onClose()
	}
	m := r.mapping
	r.mapping = nil
	r.handle.Close()
	if unmapErr := m.Unmap(); err == nil {
		err = unmapErr
	}
	return err
}
