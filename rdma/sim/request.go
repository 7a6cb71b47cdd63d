package sim

import (
	"slices"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// maxParts is the most parts of a torn request.
const maxParts = 8

// request is one request, from Post until both its effect is settled and its
// completion given.
//
//	Post ── arrive ── (its turn) ── start ── part, part ... ── bell ── settled
//	 │        │                       └ split atomic ── store ──┘        │
//	 │        └ parked: link cut, node paused, peer not connected      reply ── completed
//	 └ held: until Release
//
// Its turn comes when no WRITE that was posted before it on the queue pair is
// unsettled, and, with Fence, nothing at all. When a WRITE comes to nothing, so
// does everything behind it.
//
// Requests are pooled. Whoever remembers one remembers a generation too, which
// moves on whenever the next thing to happen to the request is replaced.
type request struct {
	qp     *queuePair
	next   *request // posted after it on this queue pair
	number uint64   // for the trace
	wr     rdma.WorkRequest
	fate   lot

	// stage is the kind of the next event of its effect, gen its generation, and
	// replyGen that of its reply. They only grow.
	stage         kind
	gen, replyGen uint32

	unsent    bool        // its own device is paused
	gated     bool        // waits for its turn
	running   bool        // has begun to take effect
	settled   bool        // has taken effect, or never will any more
	acked     bool        // has been answered early: it must take effect
	late      bool        // its requester has given it up
	answered  bool        // the reply is here
	completed bool        // the requester has had its completion, or needs none
	owned     bool        // data is the payload, not the local memory
	status    rdma.Status // what the reply says
	bellTries int

	// cut has the bounds of the parts, order the order in which they move.
	cut         [maxParts + 1]uint32
	order       [maxParts]uint8
	parts, part int
	// data is the payload of a WRITE once it is owned, and what a READ has read.
	data []byte
	// old is what an atomic has found; region and offset are its word while split.
	old    uint64
	region *region
	offset int
}

// writes says whether the request is a WRITE in the sense of the order.
func (r *request) writes() bool { return r.wr.Op == rdma.OpWrite || r.wr.Op == rdma.OpWriteImm }

func (r *request) fenced() bool { return r.wr.Flags&rdma.Fence != 0 }

// grow makes data n bytes long.
func (r *request) grow(n uint32) {
	r.data = slices.Grow(r.data[:0], int(n))[:n]
}

// keepData bounds the buffer that a pooled request keeps, in bytes.
const keepData = 4096

func (f *Fabric) newRequest(q *queuePair, w *rdma.WorkRequest) *request {
	var r *request
	if n := len(f.pool); n > 0 {
		r, f.pool = f.pool[n-1], f.pool[:n-1]
	} else {
		r = &request{}
	}
	f.requests++
	f.flight++
	*r = request{qp: q, number: f.requests, wr: *w, gen: r.gen + 1, replyGen: r.replyGen + 1, data: r.data[:0]}
	return r
}

// admit appends a request to its queue pair and sends it on its way.
func (f *Fabric) admit(q *queuePair, r *request) {
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
	if q.front == nil {
		q.front = r
		q.progress = f.now
	}
	if q.unsettled == nil {
		q.unsettled = r
	}
	q.sends.Add(&r.wr)
	f.arm(q)
	f.cast(r)
	// The way is in order but for what is held back.
	arrives := max(f.now+f.dice.within(streamDelay, f.faults.Delay)+r.fate.Delay, q.lastArrival)
	q.lastArrival = arrives
	if !r.writes() && f.dice.chance(streamReorder, f.faults.Reorder) && !r.fate.scripted {
		arrives += f.dice.within(streamReorder, f.faults.HoldBack)
	}
	f.note(notePost, r)
	switch {
	case q.blocks(r):
		f.drop(r)
	case r.fate.Hold != "":
		r.stage = kindArrive
		f.held = remember(f.held, parkedEvent{r, r.gen, kindArrive})
	case q.provider.node.paused:
		r.unsent = true
		f.park(r, kindArrive)
	default:
		f.then(r, kindArrive, arrives)
	}
}

// then makes this the next event of the effect of a request.
func (f *Fabric) then(r *request, k kind, at time.Duration) {
	r.gen++
	r.stage = k
	f.schedule(event{at: at, r: r, gen: r.gen, kind: k})
}

// mayStart says whether it is the turn of r, which is not settled.
func (q *queuePair) mayStart(r *request) bool {
	for s := q.unsettled; s != r; s = s.next {
		if !s.settled && (s.writes() || r.fenced()) {
			return false
		}
	}
	return true
}

// settle notes that r has taken effect and lets those go on that waited for it.
func (f *Fabric) settle(r *request) {
	f.close(r)
	f.advance(r.qp)
}

// close takes r out of the order.
func (f *Fabric) close(r *request) {
	r.settled = true
	r.gen++
	if r.gated {
		r.gated = false
		r.qp.gated--
	}
	if r.region != nil {
		r.region.release(r.offset)
		r.region = nil
	}
}

// advance starts the requests whose turn has come.
func (f *Fabric) advance(q *queuePair) {
	for q.unsettled != nil && q.unsettled.settled {
		q.unsettled = q.unsettled.next
	}
	alone := true
	for s := q.unsettled; s != nil && q.gated > 0; s = s.next {
		if s.settled {
			continue
		}
		if s.gated && (alone || !s.fenced()) {
			s.gated = false
			q.gated--
			f.then(s, kindStart, f.now)
		}
		if s.writes() {
			break
		}
		alone = false
	}
}

// drop settles r without (more) effect, and with it those that may not take
// effect unless r has: all behind a WRITE, the fenced ones behind another; also
// those that will be posted yet.
func (f *Fabric) drop(r *request) {
	if r.settled {
		return
	}
	f.shed(r)
	for s := r.next; s != nil; s = s.next {
		if !s.settled && !s.running && r.qp.blocks(s) {
			f.shed(s)
		}
	}
	f.advance(r.qp)
}

func (f *Fabric) shed(r *request) {
	f.note(noteDrop, r)
	f.close(r)
	if r.writes() {
		r.qp.lostWrite = true
	} else {
		r.qp.lostRead = true
	}
}

// blocks says whether r can never take effect because of what came to nothing
// before it.
func (q *queuePair) blocks(r *request) bool { return q.lostWrite || q.lostRead && r.fenced() }

// retire frees the oldest requests of a queue pair that are over.
func (f *Fabric) retire(q *queuePair) {
	for r := q.head; r != nil && r.settled && r.completed; r = q.head {
		q.head = r.next
		if q.head == nil {
			q.tail = nil
		}
		if q.unsettled == r {
			q.unsettled = r.next
		}
		f.flight--
		r.gen++
		r.replyGen++
		r.qp, r.next, r.region = nil, nil, nil
		if cap(r.data) > keepData {
			r.data = nil
		}
		if len(f.pool) < maxPool {
			f.pool = append(f.pool, r)
		}
	}
}

// maxPool bounds the retired requests that are kept.
const maxPool = 4096
