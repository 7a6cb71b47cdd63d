package tcp

import (
	"errors"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// input is what was read and is not consumed yet.
type input struct {
	bytes []byte
	// first and next are where the unconsumed bytes begin and end.
	first, next int
}

func (in *input) unread() []byte { return in.bytes[in.first:in.next] }

func (in *input) skip(n int) { in.first += n }

// space is where to read to; filled says how much was.
func (in *input) space() []byte {
	if in.first > 0 {
		in.next = copy(in.bytes, in.unread())
		in.first = 0
	}
	return in.bytes[in.next:]
}

func (in *input) filled(n int) { in.next += n }

// sink is a payload longer than copyMax that is being received.
type sink struct {
	key  uint32
	left uint32 // 0: there is none
	addr uint64
	// ours says that it is what our oldest READ has read; else it is what the peer
	// writes.
	ours bool
}

// doorbell is one of the peer that has its payload in place and rings next.
type doorbell struct {
	waits  bool
	imm    uint32
	length uint32
}

// step says why executor.step returned.
type step uint8

const (
	// stepStarved: the next frame is not complete.
	stepStarved step = iota
	// stepFull: the answers must be taken away first.
	stepFull
	// stepCrowded: a doorbell waits for a place in the receive queue.
	stepCrowded
	// stepEnd: nothing is to be executed any more; see end and refused.
	stepEnd
	// stepNext: nothing hinders the next frame.
	stepNext
)

// executor takes in the frames of a peer, in order: it executes requests on the
// regions of its provider and collects the answers, and completes our requests
// by the responses. It does no input or output of its own. One goroutine, the
// reader of the link, uses it.
type executor struct {
	q *queuePair
	// lead says that our requests leave by this link and their responses arrive. It
	// is true but for the passive end of a queue pair connected to itself.
	lead bool
	in   input
	sink sink
	bell doorbell
	// answers are the responses to be sent; then come acks requests that are done.
	answers batch
	acks    uint32
	// end is why the link must end, if the executor found that; refused says that
	// the last of the answers must reach the peer before.
	end     error
	refused bool
}

// step executes what there is. It returns after every change that somebody else
// must see to.
func (x *executor) step() step {
	for {
		s := stepNext
		b := x.in.unread()
		switch {
		case x.end != nil || x.q.broken.Load():
			return stepEnd
		case x.bell.waits:
			s = x.ring()
		case x.sink.left > 0 && len(b) > 0:
			s = x.pour(b)
		case x.sink.left > 0 || len(b) == 0:
			return stepStarved
		case len(x.answers.bytes) >= answerAt:
			return stepFull
		case isRequest(b[0]):
			s = x.execute(b)
		case isResponse(b[0]):
			s = x.complete()
		default:
			s = x.malformed(fmt.Errorf("frame of kind %#x", b[0]))
		}
		if s != stepNext {
			return s
		}
	}
}

// malformed ends the link without a word: what comes next is unintelligible.
func (x *executor) malformed(err error) step {
	x.end = fmt.Errorf("protocol: %w", err)
	return stepEnd
}

// refuse answers that the next request failed, and executes nothing further.
// The queue pair breaks, without ending the connection at once: see linger. If
// it is connected to itself, the response will break it.
func (x *executor) refuse(status rdma.Status) step {
	x.flushAcks()
	x.answers.bytes = appendResponse(x.answers.bytes, response{kind: kindError, status: status})
	x.answers.answers++
	x.refused = true
	x.end = fmt.Errorf("a request of the peer: %w", status)
	if x.lead {
		x.q.mu.Lock()
		x.q.markBrokenLocked(rdma.StatusFlushed, x.end)
		x.q.unlock()
	}
	return stepEnd
}

// flushAcks ends a run of requests that were done without data.
func (x *executor) flushAcks() {
	if x.acks > 0 {
		x.answers.bytes = appendResponse(x.answers.bytes, response{kind: kindAck, n: x.acks})
		x.acks = 0
	}
}

// done answers one request without data.
func (x *executor) done() step {
	x.acks++
	x.answers.answers++
	return stepNext
}

// execute executes the request at the beginning of b.
func (x *executor) execute(b []byte) step {
	head := headOf(rdma.Opcode(b[0]))
	if len(b) < head {
		return stepStarved
	}
	r, err := parseRequest(b)
	if err != nil {
		return x.malformed(err)
	}
	if status := r.refusal(); status != rdma.StatusOK {
		return x.refuse(status)
	}
	switch r.op {
	case rdma.OpRead:
		x.in.skip(head)
		return x.doRead(&r)
	case rdma.OpWrite, rdma.OpWriteImm:
		return x.doWrite(&r, b[head:])
	default:
		x.in.skip(head)
		return x.doAtomic(&r)
	}
}

// doRead answers a READ: at once if it is short, else it is read when its turn to
// be written comes. Requests that follow and want to see that done carry Fence,
// and their side holds them back.
func (x *executor) doRead(r *request) step {
	span, ok := x.q.p.regions.Acquire(r.rkey, r.addr, r.length)
	if !ok {
		return x.refuse(rdma.StatusRemoteAccess)
	}
	x.flushAcks()
	x.answers.answers++
	out := appendResponse(x.answers.bytes, response{kind: kindData, n: r.length})
	if r.length > copyMax {
		span.Release()
		x.answers.bytes = out
		x.answers.bodies = append(x.answers.bodies, body{at: len(out), key: r.rkey, addr: r.addr, length: r.length})
		return stepNext
	}
	x.answers.bytes = appendCopy(out, span.Bytes)
	span.Release()
	return stepNext
}

// appendCopy appends src, a word as one load.
func appendCopy(b, src []byte) []byte {
	n := len(b)
	b = append(b, make([]byte, len(src))...)
	memory.Copy(b[n:], src)
	return b
}

// doWrite executes a WRITE or WRITE_IMM whose payload begins with b.
func (x *executor) doWrite(r *request, b []byte) step {
	short := r.length <= copyMax
	if short && len(b) < int(r.length) {
		return stepStarved
	}
	span, ok := x.q.p.regions.Acquire(r.rkey, r.addr, r.length)
	if !ok {
		return x.refuse(rdma.StatusRemoteAccess)
	}
	if short {
		memory.Copy(span.Bytes, b[:r.length])
	}
	span.Release()
	x.in.skip(requestHeader)
	if r.op == rdma.OpWriteImm {
		x.bell = doorbell{waits: true, imm: r.imm, length: r.length}
	}
	if !short {
		x.bell.waits = false // until all is in place
		x.sink = sink{key: r.rkey, addr: r.addr, left: r.length}
		return stepNext
	}
	x.in.skip(int(r.length))
	if r.op == rdma.OpWriteImm {
		return stepNext
	}
	return x.done()
}

// doAtomic executes a CAS or FAA.
func (x *executor) doAtomic(r *request) step {
	span, ok := x.q.p.regions.Acquire(r.rkey, r.addr, r.length)
	if !ok {
		return x.refuse(rdma.StatusRemoteAccess)
	}
	var old uint64
	if r.op == rdma.OpCAS {
		old = span.Mapping.CompareSwap(span.Offset, r.compareAdd, r.swap)
	} else {
		old = span.Mapping.FetchAdd(span.Offset, r.compareAdd)
	}
	span.Release()
	x.flushAcks()
	x.answers.answers++
	x.answers.bytes = appendData64(x.answers.bytes, old)
	return stepNext
}

// pour moves what b has of a long payload to where it belongs.
func (x *executor) pour(b []byte) step {
	to := &x.sink
	span, ok := x.q.p.regions.Acquire(to.key, to.addr, to.left)
	if !ok {
		return x.lost()
	}
	n := copy(span.Bytes, b)
	span.Release()
	x.in.skip(n)
	return x.poured(n)
}

// poured notes that n bytes of a long payload are where they belong.
func (x *executor) poured(n int) step {
	to := &x.sink
	to.addr += uint64(n)
	to.left -= uint32(n)
	switch {
	case to.left > 0:
		return stepNext
	case to.ours:
		x.q.mu.Lock()
		defer x.q.unlock()
		return x.q.finishLocked(rdma.StatusOK)
	case x.bell.length > 0:
		x.bell.waits = true
		return stepNext
	default:
		return x.done()
	}
}

// lost ends a transfer whose region was closed in its middle. What has arrived
// of a WRITE by then has happened, and its owner may have seen it.
func (x *executor) lost() step {
	ours := x.sink.ours
	x.sink = sink{}
	if !ours {
		return x.refuse(rdma.StatusRemoteOperation)
	}
	x.q.mu.Lock()
	defer x.q.unlock()
	return x.q.finishLocked(rdma.StatusLocal)
}

// ring puts the doorbell that waits into the receive queue, if there is a place.
func (x *executor) ring() step {
	q, bell := x.q, x.bell
	if q.places.Load() == 0 {
		return stepCrowded
	}
	x.bell = doorbell{}
	q.places.Add(-1)
	q.tally.Posted(rdma.OpReceive, bell.length)
	c := rdma.Completion{QP: q.self.number, Imm: bell.imm, Length: bell.length, Op: rdma.OpReceive, Status: rdma.StatusOK}
	q.receivePlaces.Push(c, &q.places)
	q.receive.notify()
	return x.done()
}

var errUnasked = errors.New("a response to nothing, or of the wrong form")

// complete completes our requests by the run of responses at hand.
func (x *executor) complete() step {
	q := x.q
	q.mu.Lock()
	defer q.unlock()
	for {
		b := x.in.unread()
		if len(b) == 0 || !isResponse(b[0]) {
			return stepNext
		}
		if len(b) < responseHeader {
			return stepStarved
		}
		r, err := parseResponse(b)
		if err == nil && !x.lead {
			err = errUnasked
		}
		if err != nil {
			return x.malformed(err)
		}
		s := stepNext
		switch r.kind {
		case kindAck:
			s = x.acked(r.n)
		case kindData:
			s = x.data(r.n, b[responseHeader:])
		default:
			if q.oldestLocked() == nil {
				return x.malformed(errUnasked)
			}
			q.finishLocked(r.status)
			return stepEnd
		}
		if s != stepNext || x.sink.left > 0 {
			return s
		}
	}
}

// acked completes n WRITEs. The caller holds the latch.
func (x *executor) acked(n uint32) step {
	for range n {
		f := x.q.oldestLocked()
		if f == nil || f.Op != rdma.OpWrite && f.Op != rdma.OpWriteImm {
			return x.malformed(errUnasked)
		}
		if s := x.q.finishLocked(rdma.StatusOK); s != stepNext {
			return s
		}
	}
	x.in.skip(responseHeader)
	return stepNext
}

// data completes a READ, CAS or FAA with n bytes that begin with b. The caller
// holds the latch.
func (x *executor) data(n uint32, b []byte) step {
	q := x.q
	f := q.oldestLocked()
	if f == nil || f.Op == rdma.OpWrite || f.Op == rdma.OpWriteImm || f.Local.Length != n {
		return x.malformed(errUnasked)
	}
	if n > copyMax {
		x.in.skip(responseHeader)
		x.sink = sink{key: f.Local.LKey, addr: f.Local.Addr, left: n, ours: true}
		return stepNext
	}
	if len(b) < int(n) {
		return stepStarved
	}
	span, ok := q.p.regions.Acquire(f.Local.LKey, f.Local.Addr, n)
	if !ok {
		return q.finishLocked(rdma.StatusLocal)
	}
	if f.Op == rdma.OpRead {
		memory.Copy(span.Bytes, b[:n])
	} else {
		memory.PutWord(span.Bytes, word(b))
	}
	span.Release()
	x.in.skip(responseHeader + int(n))
	return q.finishLocked(rdma.StatusOK)
}
