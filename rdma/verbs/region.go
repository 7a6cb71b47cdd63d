//go:build linux && cgo && rdma

package verbs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// grace is how long requests may take to end when their region is closed.
const grace = 100 * time.Millisecond

// regions are the open regions of a provider by local key. The map is replaced,
// never changed, so that Post reads it without a lock.
type regions struct {
	mu    sync.Mutex // of those who replace it
	byKey atomic.Pointer[map[uint32]*region]
}

func (r *regions) find(key uint32) *region {
	if m := r.byKey.Load(); m != nil {
		return (*m)[key]
	}
	return nil
}

// update replaces the map by a copy that change has changed.
func (r *regions) update(change func(map[uint32]*region)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := map[uint32]*region{}
	if old := r.byKey.Load(); old != nil {
		m = maps.Clone(*old)
	}
	change(m)
	r.byKey.Store(&m)
}

// region implements rdma.Region. What peers may reach is checked by the device;
// what our own requests may use is checked by Post, see there.
type region struct {
	provider *Provider
	handle   *handle.Handle
	addr     uint64
	size     int
	mr       *ibverbs.MR

	mu      sync.Mutex      // serialises Close
	mapping *memory.Mapping // empty after Close
	closed  bool
}

// Register implements rdma.Provider. The memory is locked: RLIMIT_MEMLOCK must
// allow it.
func (p *Provider) Register(size int) (rdma.Region, error) {
	if size <= 0 || size > p.limits.MaxRegion {
		return nil, fmt.Errorf("%w region of %d bytes: 1 to %d", rdma.ErrInvalid, size, p.limits.MaxRegion)
	}
	if err := p.enter(&p.open.regions); err != nil {
		return nil, err
	}
	r, err := p.register(size)
	if err != nil {
		p.leave(&p.open.regions)
		return nil, fmt.Errorf("rdma verbs: register %d bytes: %w", size, err)
	}
	return r, nil
}

func (p *Provider) register(size int) (*region, error) {
	m, err := memory.Map(size)
	if err != nil {
		return nil, err
	}
	// A child of a fork must not cause pinned pages to be copied.
	if err := unix.Madvise(m.Bytes(), unix.MADV_DONTFORK); err != nil {
		return nil, errors.Join(fmt.Errorf("madvise: %w", err), m.Unmap())
	}
	r := &region{provider: p, mapping: m, addr: m.Addr(), size: size}
	if r.mr, err = p.pd.Register(r.addr, uint64(size)); err != nil {
		return nil, errors.Join(err, m.Unmap())
	}
	p.regions.update(func(m map[uint32]*region) { m[r.mr.LKey] = r })
	r.handle = handle.Open(r, "verbs region")
	return r, nil
}

// covers says whether local memory lies within the region.
func (r *region) covers(l *rdma.Local) bool {
	offset := l.Addr - r.addr // wraps for an address below, and is then too large
	return offset <= uint64(r.size) && uint64(r.size)-offset >= uint64(l.Length)
}

// Bytes implements rdma.Region.
func (r *region) Bytes() []byte { return r.mapping.Bytes() }

// Load implements rdma.Region.
func (r *region) Load(offset int) uint64 { return r.mapping.Load(offset) }

// Store implements rdma.Region.
func (r *region) Store(offset int, v uint64) { r.mapping.Store(offset, v) }

// Local implements rdma.Region.
func (r *region) Local(offset, length int) rdma.Local {
	return rdma.Local{Addr: r.addr + uint64(offset), Length: uint32(length), LKey: r.mr.LKey}
}

// Remote implements rdma.Region.
func (r *region) Remote() rdma.RemoteRegion {
	return rdma.RemoteRegion{Addr: r.addr, Size: uint64(r.size), RKey: r.mr.RKey}
}

// Close implements rdma.Region. Requests that use the region have a moment to
// end; then their queue pairs are broken. A request that is not Signaled has not
// ended as long as no later one has. If the device does not let go, the memory
// stays mapped, because the device may still write to it.
func (r *region) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	p := r.provider
	p.regions.update(func(m map[uint32]*region) { delete(m, r.mr.LKey) })
	if err := p.endUsers(r); err != nil {
		return err
	}
	if err := r.mr.Close(); err != nil {
		return fmt.Errorf("rdma verbs: the region of %d bytes stays registered: %w", r.size, err)
	}
	r.closed = true
	r.handle.Close()
	p.leave(&p.open.regions)
	return r.mapping.Unmap()
}

// users are the queue pairs with requests that have not ended and use a region.
func (p *Provider) users(r *region) []*queuePair {
	p.mu.Lock()
	pairs := slices.Collect(maps.Values(p.pairs))
	p.mu.Unlock()
	return slices.DeleteFunc(pairs, func(q *queuePair) bool { return !q.uses(r.mr.LKey) })
}

// endUsers returns when no request uses a region that Post does not know any
// more. The device would notice by itself when the region is gone, but rxe of
// Linux 6.1 then sometimes completes nothing any more.
func (p *Provider) endUsers(r *region) error {
	users := p.users(r)
	tick := time.NewTicker(grace / 100)
	defer tick.Stop()
	for start := time.Now(); len(users) > 0 && time.Since(start) < grace; users = p.users(r) {
		<-tick.C
	}
	for _, q := range users {
		q.fail(&failure{cause: fmt.Errorf("a region of %d bytes was closed while requests to %q used it", r.size, q.options.Peer), status: rdma.StatusLocal})
	}
	for _, q := range users {
		if err := q.awaitTeardown(); err != nil {
			return err
		}
	}
	return nil
}
