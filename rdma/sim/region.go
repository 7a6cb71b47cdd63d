package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// rights say what a key is for. A region has one key of each kind, so that code
// which takes one for the other, as most devices let it, is found out.
type rights bool

const (
	localKey  rights = false
	remoteKey rights = true
)

// region implements rdma.Region. It is not internal/region's: addresses and keys
// here come from counters, not from the kernel and from chance, because whoever
// replays a simulation sends them about and hashes them.
type region struct {
	provider *Provider
	handle   *handle.Handle
	number   uint64
	// base is the address of the first byte, which exists in the simulation only.
	base       uint64
	lkey, rkey uint32

	// mapping is nil after Close; f.mu guards the field but for its owner's use.
	mapping *memory.Mapping
	// words are those with a split atomic under way, at most one each.
	words []splitWord
}

// splitWord is a word between the load and the store of an atomic.
type splitWord struct {
	offset int
	until  time.Duration
}

// Keys are the numbers of regions, scattered: a key off by little opens nothing.
// The factor is odd, so no two of 2^31 regions share a key; the last bit tells
// the kinds apart, and number 0 is not used, so that key 0 is never valid.
func keys(number uint64) (lkey, rkey uint32) {
	const factor = 0x9e3779b1
	return uint32(2*number) * factor, uint32(2*number+1) * factor
}

// addressBits leaves each region a place of its own with a gap behind it.
const addressBits = 32

func newRegion(p *Provider, number uint64, m *memory.Mapping) *region {
	r := &region{provider: p, number: number, base: number << addressBits, mapping: m}
	r.lkey, r.rkey = keys(number)
	r.handle = handle.Open(r, "sim region")
	return r
}

// Bytes implements rdma.Region.
func (r *region) Bytes() []byte { return r.mapping.Bytes() }

// Load implements rdma.Region.
func (r *region) Load(offset int) uint64 { return r.mapping.Load(offset) }

// Store implements rdma.Region.
func (r *region) Store(offset int, v uint64) { r.mapping.Store(offset, v) }

// Local implements rdma.Region.
func (r *region) Local(offset, length int) rdma.Local {
	return rdma.Local{Addr: r.base + uint64(offset), Length: uint32(length), LKey: r.lkey}
}

// Remote implements rdma.Region.
func (r *region) Remote() rdma.RemoteRegion {
	return rdma.RemoteRegion{Addr: r.base, Size: uint64(len(r.mapping.Bytes())), RKey: r.rkey}
}

// Close implements rdma.Region.
func (r *region) Close() error {
	f := r.provider.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.mapping == nil {
		return nil
	}
	r.provider.forget(r)
	return r.unmap()
}

func (r *region) unmap() error {
	m := r.mapping
	r.mapping = nil
	r.handle.Close()
	if err := m.Unmap(); err != nil {
		return fmt.Errorf("close region %d of %s: %w", r.number, r.provider.node.name, err)
	}
	return nil
}

// busyUntil says whether a split atomic is under way on a word.
func (r *region) busyUntil(offset int) (time.Duration, bool) {
	for _, w := range r.words {
		if w.offset == offset {
			return w.until, true
		}
	}
	return 0, false
}

func (r *region) split(offset int, until time.Duration) {
	r.words = append(r.words, splitWord{offset, until})
}

func (r *region) release(offset int) {
	r.words = slices.DeleteFunc(r.words, func(w splitWord) bool { return w.offset == offset })
}

// find returns the region and the offset of length bytes at an address under a
// key; false if they do not lie within one. Zero bytes lie within any region,
// and need none.
func (p *Provider) find(key uint32, addr uint64, length uint32, right rights) (*region, int, bool) {
	if length == 0 {
		return nil, 0, true
	}
	r := p.regions[key]
	if r == nil || (key == r.rkey) != bool(right) {
		return nil, 0, false
	}
	size := uint64(len(r.mapping.Bytes()))
	offset := addr - r.base // wraps for an address below, and is then too large
	if offset > size || size-offset < uint64(length) {
		return nil, 0, false
	}
	return r, int(offset), true
}

// bytes is find for those who want the bytes.
func (p *Provider) bytes(key uint32, addr uint64, length uint32, right rights) ([]byte, bool) {
	r, offset, ok := p.find(key, addr, length, right)
	if !ok || length == 0 {
		return nil, ok
	}
	end := offset + int(length)
	return r.mapping.Bytes()[offset:end:end], true
}
