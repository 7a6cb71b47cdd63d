package tcp

import "github.com/tenure-faas/tenure/rdma"

// heldRequest is a posted request that is not encoded yet.
type heldRequest struct {
	rdma.WorkRequest
	// inline is the payload if it was posted Inline.
	inline []byte
}

// isSlow says whether a request may take effect after later ones.
func isSlow(op rdma.Opcode, length uint32) bool { return op == rdma.OpRead && length > copyMax }

// Post implements rdma.QueuePair.
func (q *queuePair) Post(requests []rdma.WorkRequest) (int, error) {
	if len(requests) == 0 {
		return 0, nil
	}
	q.mu.Lock()
	n, err := q.enqueueLocked(requests)
	l := q.lead
	mine := l != nil && q.out.begin()
	q.unlock()
	if mine {
		l.drain()
	}
	return n, err
}

func (q *queuePair) enqueueLocked(requests []rdma.WorkRequest) (n int, err error) {
	if err := q.unusableLocked(); err != nil {
		return 0, err
	}
	free := q.sends.Free()
	for ; n < len(requests); n++ {
		w := &requests[n]
		if err = w.Check(&q.p.limits); err != nil {
			break
		}
		if n == free {
			err = rdma.ErrQueueFull
			break
		}
		if q.sends.Len() == 0 {
			q.progress.Add(1) // the silence of the peer begins now
		}
		q.sends.Add(w)
		switch {
		case q.spoilt: // it will be flushed
		case len(q.held) > 0 || q.mustHold(w):
			q.hold(w)
		default:
			q.encode(w, nil)
		}
	}
	if n > 0 {
		q.watch.arm()
		q.failSpoilt()
	}
	return n, err
}

func (q *queuePair) mustHold(w *rdma.WorkRequest) bool { return w.Flags&rdma.Fence != 0 && q.slow > 0 }

// hold keeps a request until releaseHeld.
func (q *queuePair) hold(w *rdma.WorkRequest) {
	h := heldRequest{WorkRequest: *w}
	if w.Flags&rdma.Inline != 0 && w.Local.Length > 0 {
		span, ok := q.p.regions.Acquire(w.Local.LKey, w.Local.Addr, w.Local.Length)
		if ok {
			h.inline = append(h.inline, span.Bytes...)
			span.Release()
		}
	}
	q.held = append(q.held, h)
}

// releaseHeld encodes the requests that need not wait any more.
func (q *queuePair) releaseHeld() {
	n := 0
	for n < len(q.held) && !q.spoilt && !q.mustHold(&q.held[n].WorkRequest) {
		q.encode(&q.held[n].WorkRequest, q.held[n].inline)
		n++
	}
	if q.held = q.held[n:]; len(q.held) == 0 || q.spoilt {
		q.held = nil
	}
}

// encode puts a request into the outbox, with its payload or a mark where that
// belongs. The payload of a held Inline request is in inline.
func (q *queuePair) encode(w *rdma.WorkRequest, inline []byte) {
	out := &q.out.next
	length := w.Local.Length
	switch {
	case w.Op != rdma.OpWrite && w.Op != rdma.OpWriteImm:
		if isSlow(w.Op, length) {
			q.slow++
		}
		out.bytes = appendRequest(out.bytes, w)
	case inline != nil:
		out.bytes = append(appendRequest(out.bytes, w), inline...)
	default:
		span, ok := q.p.regions.Acquire(w.Local.LKey, w.Local.Addr, length)
		if !ok {
			q.spoilt = true
			return
		}
		out.bytes = appendRequest(out.bytes, w)
		if length <= copyMax {
			out.bytes = appendCopy(out.bytes, span.Bytes)
		} else {
			out.bodies = append(out.bodies, body{at: len(out.bytes), key: w.Local.LKey, addr: w.Local.Addr, length: length, ours: true, seq: q.encoded})
		}
		span.Release()
	}
	q.encoded++
}
