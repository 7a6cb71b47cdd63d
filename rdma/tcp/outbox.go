package tcp

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma/internal/region"
)

// body is a payload that is written from its region when its turn comes.
type body struct {
	// at is where it belongs: before this byte of the batch.
	at     int
	key    uint32
	length uint32
	addr   uint64
	// ours says that it belongs to request number seq of this queue pair; else it
	// answers a READ of the peer.
	ours bool
	seq  uint64
}

// batch is frames to be written, in order. Its bytes are bounded by the depths
// of the two ends, see copyMax.
type batch struct {
	bytes  []byte
	bodies []body
	// answers is how many requests of the peer are answered.
	answers int
}

func (b *batch) empty() bool { return len(b.bytes) == 0 }

// keepBytes is how much memory an empty batch may keep.
const keepBytes = 256 << 10

func (b *batch) reset() {
	if cap(b.bytes) > keepBytes {
		b.bytes, b.bodies = nil, nil
	}
	b.bytes, b.bodies, b.answers = b.bytes[:0], b.bodies[:0], 0
}

// take moves everything from other to the end of b.
func (b *batch) take(other *batch) {
	for _, x := range other.bodies {
		x.at += len(b.bytes)
		b.bodies = append(b.bodies, x)
	}
	b.bytes = append(b.bytes, other.bytes...)
	b.answers += other.answers
	other.reset()
}

// outbox is what waits to be written to one connection: next collects frames
// while now is being written. Whoever has set busy alone writes now and goes on
// until next is empty too; so nobody waits for a socket under the latch, and
// what comes together meanwhile leaves together.
type outbox struct {
	next batch // guarded by the queue pair's latch
	busy bool  // guarded by it as well

	// The writer's:
	now batch
	// done bytes and bodies of now are written, and sent of the next body.
	done, bodies int
	sent         uint32
	// full says that the socket took no more when it was last written to.
	full bool
	iov  [2][]byte // so that a writev allocates nothing
}

// begin makes the caller the writer, if there is something to write and nobody
// writes. The caller holds the latch.
func (o *outbox) begin() bool { return !o.busy && o.turn() }

// turn makes next the batch to write; now has been written. The caller holds
// the latch.
func (o *outbox) turn() bool {
	o.now.reset()
	o.now, o.next = o.next, o.now
	o.done, o.bodies, o.sent = 0, 0, 0
	o.busy = !o.now.empty()
	return o.busy
}

// written says how far a writer came.
type written uint8

const (
	// writtenAll: nothing is left of the batch.
	writtenAll written = iota
	// writtenSome: the socket is full.
	writtenSome
	// writtenNone: the connection is not to be written to any more.
	writtenNone
)

// write writes what the socket takes. It never waits. Progress says that the
// socket was full before and has taken something: the peer has made room. What a
// socket takes that was not full says nothing of the peer. Lost is the body that
// cannot be written any more; all before its frame has been.
func (o *outbox) write(fd int, regions *region.Table) (progress bool, _ written, lost *body) {
	for o.done < len(o.now.bytes) || o.bodies < len(o.now.bodies) {
		end := len(o.now.bytes)
		var b *body
		if o.bodies < len(o.now.bodies) {
			b = &o.now.bodies[o.bodies]
			end = b.at
		}
		n, err := o.writePiece(fd, regions, o.now.bytes[o.done:end], b)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			o.full = true
			return progress, writtenSome, nil
		case errors.Is(err, errRegionGone):
			return progress, writtenNone, b
		default:
			return progress, writtenNone, nil
		}
		progress, o.full = progress || o.full, false
		fromBytes := min(n, end-o.done)
		o.done += fromBytes
		if o.sent += uint32(n - fromBytes); b != nil && o.sent == b.length && o.done == end {
			o.bodies++
			o.sent = 0
		}
	}
	return progress, writtenAll, nil
}

// errRegionGone means that a payload cannot be written any more.
var errRegionGone = errors.New("the region was closed")

// head is the length of the frame that the body belongs to, without the body.
func (b *body) head() int {
	if b.ours {
		return requestHeader
	}
	return responseHeader
}

// writePiece writes bytes, then what is left of body b, if not nil. If that is
// gone, it writes the frames before the body's own, and fails when there is none.
func (o *outbox) writePiece(fd int, regions *region.Table, bytes []byte, b *body) (int, error) {
	if b == nil {
		return unix.Write(fd, bytes)
	}
	span, ok := regions.Acquire(b.key, b.addr+uint64(o.sent), b.length-o.sent)
	if !ok {
		if n := len(bytes) - b.head(); n > 0 {
			return unix.Write(fd, bytes[:n])
		}
		return 0, errRegionGone
	}
	defer span.Release() // the call does not wait
	if len(bytes) == 0 {
		return unix.Write(fd, span.Bytes)
	}
	o.iov[0], o.iov[1] = bytes, span.Bytes
	n, err := unix.Writev(fd, o.iov[:])
	o.iov[0], o.iov[1] = nil, nil
	return n, err
}
