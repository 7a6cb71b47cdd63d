package sim

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// parkedEvent is an event without a time: it waits for a link, a node, a peer or
// a Release.
type parkedEvent struct {
	r    *request
	gen  uint32
	kind kind
}

func (p parkedEvent) stale() bool {
	if p.kind == kindReply {
		return p.gen != p.r.replyGen
	}
	return p.gen != p.r.gen
}

// minRemember is the shortest list that remember looks through.
const minRemember = 64

// remember appends to a list of parked events. When the list must grow it drops
// what is stale, so that it stays within twice the requests in flight.
func remember(list []parkedEvent, p parkedEvent) []parkedEvent {
	if len(list) == cap(list) && len(list) >= minRemember {
		live := list[:0]
		for _, old := range list {
			if !old.stale() {
				live = append(live, old)
			}
		}
		clear(list[len(live):])
		if list = live; len(list) > cap(list)/2 { // or it would be looked through too often
			list = append(make([]parkedEvent, 0, 2*cap(list)), list...)
		}
	}
	return append(list, p)
}

func (f *Fabric) park(r *request, k kind) {
	f.note(notePark, r)
	gen := r.gen
	if k == kindReply {
		gen = r.replyGen
	} else {
		r.stage = k
	}
	f.parked = remember(f.parked, parkedEvent{r, gen, k})
}

// unpark sends everything that is parked on its way again, in the old order;
// what still cannot go on is parked again.
func (f *Fabric) unpark() {
	list := f.parked
	f.parked = nil
	for _, p := range list {
		switch {
		case p.stale():
		case p.r.unsent && p.r.qp.provider.node.paused:
			f.parked = append(f.parked, p)
		case p.kind == kindReply:
			f.schedule(event{at: f.now + f.dice.within(streamReplyDelay, f.faults.ReplyDelay), r: p.r, gen: p.gen, kind: kindReply})
		default:
			q := p.r.qp
			p.r.unsent = false
			q.lastArrival = max(q.lastArrival, f.now+f.dice.within(streamDelay, f.faults.Delay))
			f.then(p.r, p.kind, q.lastArrival)
		}
	}
}

// breakDown is the end of a queue pair that was in use: the oldest outstanding
// request ends with this status, the others are flushed. The request r, which
// may be nil, is for the text of the error.
func (f *Fabric) breakDown(q *queuePair, status rdma.Status, r *request) {
	if q.state >= stateBroken {
		return
	}
	if r != nil {
		q.why = fmt.Errorf("sim: queue pair %d of %s to %s: %v %d: %w", q.number, q.provider.node.name, q.remote.name, r.wr.Op, r.wr.ID, status)
	}
	q.state = stateBroken
	f.noteEnd(noteBroken, q)
	f.abandon(q)
	q.sends.Flush(status)
}

// abandon gives up all requests of q. What has not taken effect yet may do so
// late, or never. It leaves no request that uses local memory.
func (f *Fabric) abandon(q *queuePair) {
	q.timerGen++
	q.timerArmed = false
	for r := q.front; r != nil; r = r.next {
		f.scribble(r)
		r.completed = true
		r.replyGen++
	}
	q.front = nil
	for r := q.head; r != nil; r = r.next {
		switch {
		case r.settled || r.acked:
		case q.peer == nil || !f.own(r) || !f.takesLate(r):
			f.drop(r)
		default:
			r.late = true
			// What is on hold, waits for its turn, or is half done goes on as it is.
			if r.fate.Hold == "" && !r.gated && r.stage != kindStore {
				f.then(r, r.stage, f.now+f.dice.within(streamLate, f.faults.LateDelay))
			}
		}
	}
}

func (f *Fabric) takesLate(r *request) bool {
	if r.fate.scripted {
		return r.fate.Late || r.fate.Hold != ""
	}
	return f.dice.chance(streamLate, f.faults.Late)
}

// scribble leaves a part of what a READ has read in its local memory, which is
// the device's until the completion that is about to come.
func (f *Fabric) scribble(r *request) {
	if r.wr.Op != rdma.OpRead || len(r.data) < 2 || !r.settled || r.fate.scripted || !f.dice.chance(streamScribble, f.faults.Tear) {
		return
	}
	w := &r.wr.Local
	if local, ok := r.qp.provider.bytes(w.LKey, w.Addr, w.Length, localKey); ok {
		copy(local, r.data[:1+f.dice.below(streamScribble, uint64(len(r.data)-1))])
	}
}

// forbid revokes q: from now on nothing takes effect that its peer has posted,
// but for what the peer was already told is done, which is put in place first.
func (f *Fabric) forbid(q *queuePair) {
	if q.revoked {
		return
	}
	q.revoked = true
	if q.peer == nil {
		return
	}
	f.noteEnd(noteRevoke, q)
	for r := q.peer.head; r != nil; r = r.next {
		for r.acked && !r.settled && r.part < r.parts && f.copyPart(r) == rdma.StatusOK {
		}
		if r.acked && !r.settled && r.part == r.parts {
			f.settle(r)
		}
		f.drop(r)
	}
	f.retire(q.peer)
}

// vanish is the death of the owner of q: its memory is gone, nobody polls.
func (f *Fabric) vanish(q *queuePair) {
	if q.state == stateClosed {
		return
	}
	q.state = stateClosed
	f.abandon(q)
	if q.peer != nil {
		q.revoked = true
		for r := q.peer.head; r != nil; r = r.next {
			f.drop(r)
		}
		f.retire(q.peer)
	}
	f.retire(q)
}
