package shm

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// pieceSize is how much of a request is copied before the poster looks again
// whether it may go on: some ten microseconds.
const pieceSize = 128 << 10

// obstacle is what a request waits for.
type obstacle uint8

const (
	nothing obstacle = iota
	// noPeer: the peer has not connected yet.
	noPeer
	// noRegion: the peer was asked for a region that it had not announced.
	noRegion
	// noRoom: the peer has not polled enough doorbells.
	noRoom
)

// expired is the status of a request that has met an obstacle for too long.
func (o obstacle) expired() rdma.Status {
	if o == noRoom {
		return rdma.StatusReceiverNotReady
	}
	return rdma.StatusUnreachable
}

// Post implements rdma.QueuePair. It executes the requests itself, unless one
// has to wait for the peer: that one and all after it are left to progress.
func (q *queuePair) Post(requests []rdma.WorkRequest) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n < len(requests) {
		w := &requests[n]
		if err = q.refuseLocked(w); err != nil {
			break
		}
		n++
		if q.state == accepting || q.sends.Len() > 0 {
			q.waitLocked(w)
			continue
		}
		status, o := q.executeLocked(w, nil)
		if o != nothing {
			q.waitLocked(w)
			continue
		}
		if status != rdma.StatusOK {
			q.failLocked(w.ID, w.Op, status)
		}
		q.sends.Immediate(w, status)
	}
	return n, err
}

// refuseLocked says why a request cannot be taken.
func (q *queuePair) refuseLocked(w *rdma.WorkRequest) error {
	if q.state != connected && q.state != accepting {
		return q.brokenError()
	}
	if err := w.Check(&q.provider.limits); err != nil {
		return err
	}
	if q.sends.Free() <= 0 {
		return rdma.ErrQueueFull
	}
	return nil
}

// brokenError says why the pair takes no requests. The caller holds mu.
func (q *queuePair) brokenError() error {
	switch {
	case q.state == closed:
		return fmt.Errorf("%w: queue pair %d: %w", rdma.ErrBroken, q.number, rdma.ErrClosed)
	case q.cause.Load() != nil:
		return fmt.Errorf("%w: %w", rdma.ErrBroken, q.Err())
	default:
		return fmt.Errorf("%w: queue pair %d", rdma.ErrBroken, q.number)
	}
}

// failLocked breaks the pair because of the oldest request that is not complete.
// Whoever gets the completion of that one finds the pair broken.
func (q *queuePair) failLocked(id uint64, op rdma.Opcode, status rdma.Status) {
	cause := errRevoked
	if !q.stopping.Load() {
		cause = fmt.Errorf("shm queue pair %d to %q: request %d (%v): %w", q.number, q.options.Peer, id, op, status)
	}
	q.breakLocked(cause, status)
}

// executeLocked executes a request on a connected pair, unless there is an
// obstacle; then nothing has happened. The payload is inline if that is not nil.
//
// The peer is told that we may be in its memory before we look whether it has
// revoked. That is done for each request, not for each batch, although it costs
// some five nanoseconds: whoever has seen the completion of a request must not
// find us still there.
func (q *queuePair) executeLocked(w *rdma.WorkRequest, inline []byte) (rdma.Status, obstacle) {
	q.link.control.Store(busyAt, 1)
	status, o := q.executeBusyLocked(w, inline)
	q.link.control.Store(busyAt, 0)
	return status, o
}

func (q *queuePair) executeBusyLocked(w *rdma.WorkRequest, inline []byte) (rdma.Status, obstacle) {
	if status := q.stopped(); status != rdma.StatusOK {
		return status, nothing
	}
	var r *remoteRegion
	var offset uint64
	var remote []byte
	if w.Local.Length > 0 {
		var status rdma.Status
		var o obstacle
		if r, status, o = q.reachLocked(w); r == nil {
			return status, o
		}
		offset = w.RemoteAddr - r.addr
		remote = r.mapping.Bytes()[offset : offset+uint64(w.Local.Length)]
	}
	if w.Op == rdma.OpWriteImm {
		if room, err := q.link.outbox.room(); err != nil {
			return rdma.StatusRemoteOperation, nothing
		} else if !room {
			return rdma.StatusOK, noRoom
		}
	}
	local := inline
	if inline == nil {
		span, ok := q.provider.regions.Acquire(w.Local.LKey, w.Local.Addr, w.Local.Length)
		if !ok {
			return rdma.StatusLocal, nothing
		}
		defer span.Release()
		local = span.Bytes
	}
	switch w.Op {
	case rdma.OpRead:
		return q.copy(local, remote), nothing
	case rdma.OpWrite:
		return q.copy(remote, local), nothing
	case rdma.OpWriteImm:
		status := q.copy(remote, local)
		if status == rdma.StatusOK && q.link.outbox.put(doorbell{w.Imm, w.Local.Length}) {
			q.link.ring()
		}
		return status, nothing
	case rdma.OpCAS:
		memory.PutWord(local, r.mapping.CompareSwap(int(offset), w.CompareAdd, w.Swap))
	case rdma.OpFAA:
		memory.PutWord(local, r.mapping.FetchAdd(int(offset), w.CompareAdd))
	}
	return rdma.StatusOK, nothing
}

// reachLocked returns the peer's region that a request is for, all of which lies
// within it, or how the request ends, or what it waits for.
func (q *queuePair) reachLocked(w *rdma.WorkRequest) (*remoteRegion, rdma.Status, obstacle) {
	r := q.remotes.find(w.RKey)
	if r == nil {
		var status rdma.Status
		var o obstacle
		if r, status, o = q.fetchLocked(w.RKey); r == nil {
			return nil, status, o
		}
	}
	offset := w.RemoteAddr - r.addr // wraps for an address below, and is then too large
	if !r.open(q.link) || offset > r.size || r.size-offset < uint64(w.Local.Length) {
		return nil, rdma.StatusRemoteAccess, nothing
	}
	return r, rdma.StatusOK, nothing
}

// stopped says how a request ends that may not touch the peer's memory any more:
// because the peer has revoked or gone, or because we end this pair.
func (q *queuePair) stopped() rdma.Status {
	if q.link.revoked() {
		return rdma.StatusUnreachable
	}
	if q.stopping.Load() {
		return rdma.StatusFlushed
	}
	return rdma.StatusOK
}

// copy copies src to dst, which are of the same length, in pieces, so that
// neither a revocation nor the garbage collector has to wait for all of it.
func (q *queuePair) copy(dst, src []byte) rdma.Status {
	for len(src) > pieceSize {
		memory.Copy(dst[:pieceSize], src[:pieceSize])
		dst, src = dst[pieceSize:], src[pieceSize:]
		if status := q.stopped(); status != rdma.StatusOK {
			return status
		}
	}
	memory.Copy(dst, src)
	return rdma.StatusOK
}
