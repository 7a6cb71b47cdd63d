package shm

import (
	"slices"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// remoteRegion is a region of the peer that is mapped here.
type remoteRegion struct {
	key, slot  uint32
	generation uint64
	addr, size uint64
	mapping    *memory.Mapping
}

// open says whether its owner has not closed it.
func (r *remoteRegion) open(l *link) bool {
	return l.directory.Load(generationAt(r.slot)) == r.generation
}

// maxAnnounced is how many regions of the peer a queue pair maps before it is
// asked to, and how many it announces when it is connected. The others are asked
// for.
const maxAnnounced = 64

// remotes are the regions of the peer that the pair has mapped: few, so that a
// list does. Guarded by the pair's mu.
type remotes struct {
	// recent finds most of them at once, by a few bits of the key.
	recent [8]*remoteRegion
	known  []*remoteRegion
	// asked is the key that the peer was asked for, 0 for none: no region has it.
	asked uint32
	// refused is the key that the peer does not have, 0 for none.
	refused uint32
}

// find returns the region with this key, or nil.
func (r *remotes) find(key uint32) *remoteRegion {
	recent := &r.recent[(key>>16^key)%uint32(len(r.recent))]
	if x := *recent; x != nil && x.key == key {
		return x
	}
	for _, x := range r.known {
		if x.key == key {
			*recent = x
			return x
		}
	}
	return nil
}

// drop unmaps the regions that gone says are.
func (r *remotes) drop(gone func(*remoteRegion) bool) {
	r.known = slices.DeleteFunc(r.known, func(x *remoteRegion) bool {
		if !gone(x) {
			return false
		}
		_ = x.mapping.Unmap() // its address space stays in use, which harms nobody
		return true
	})
	clear(r.recent[:])
}

// fetchLocked finds a region that is not among the known ones: the peer has
// announced it, and that lies in the socket, or it must be asked.
func (q *queuePair) fetchLocked(key uint32) (r *remoteRegion, status rdma.Status, o obstacle) {
	switch {
	case key == 0:
		return nil, rdma.StatusRemoteAccess, nothing
	case q.link.conn == nil:
		q.fetchOwnLocked(key)
	default:
		if q.readReadyLocked(); q.state != connected {
			return nil, rdma.StatusUnreachable, nothing
		}
	}
	if r = q.remotes.find(key); r != nil {
		return r, rdma.StatusOK, nothing
	}
	if q.remotes.refused == key {
		return nil, rdma.StatusRemoteAccess, nothing
	}
	if q.remotes.asked != key {
		q.remotes.asked = key
		// If it cannot be sent, the timeout finds out, or the peer has gone, which
		// reader finds out.
		_ = send(q.link.conn, &message{kind: want, key: key})
	}
	return nil, rdma.StatusOK, noRegion
}

// fetchOwnLocked maps our own region as a peer's.
func (q *queuePair) fetchOwnLocked(key uint32) {
	found, err := q.provider.exports.with(key, func(x *export) error {
		m, err := memory.MapFile(x.file, int(x.size))
		if err == nil {
			q.installLocked(&remoteRegion{key: x.key, slot: x.slot, generation: x.generation, addr: x.addr, size: x.size, mapping: m})
		}
		return err
	})
	if !found || err != nil {
		q.refusedLocked(key)
	}
}

// installLocked adds a mapping, in the place of one with the same key, whose
// region must have been closed. If this one was closed meanwhile it unmaps it.
func (q *queuePair) installLocked(r *remoteRegion) {
	if !r.open(q.link) {
		_ = r.mapping.Unmap() // its address space stays in use, which harms nobody
		q.refusedLocked(r.key)
		return
	}
	q.remotes.drop(func(x *remoteRegion) bool { return x.key == r.key })
	q.remotes.known = append(q.remotes.known, r)
	if q.remotes.asked == r.key {
		q.remotes.asked = 0
	}
	q.nudge()
}

// refusedLocked notes that the peer has no such region, if it was asked for it.
func (q *queuePair) refusedLocked(key uint32) {
	if q.link.conn == nil || q.remotes.asked == key {
		q.remotes.asked, q.remotes.refused = 0, key
		q.nudge()
	}
}
