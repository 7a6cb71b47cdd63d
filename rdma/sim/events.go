package sim

import "time"

// kind is what an event does.
type kind uint8

const (
	// kindArrive: a request reaches the peer.
	kindArrive kind = iota + 1
	// kindStart: a request that waited for its turn may go on.
	kindStart
	// kindPart: the next part of a READ or WRITE moves.
	kindPart
	// kindStore: the second half of a split atomic.
	kindStore
	// kindBell: the doorbell of a WRITE_IMM.
	kindBell
	// kindReply: the answer reaches the requester.
	kindReply
	// kindTimer: a queue pair looks whether its peer was silent for too long.
	kindTimer
)

// event is something that will happen. It is stale, and nothing happens, when
// the generation of its request or timer has moved on.
type event struct {
	at   time.Duration
	seq  uint64 // order among events of one time
	r    *request
	q    *queuePair // of kindTimer
	gen  uint32
	kind kind
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// stale says whether the event has been overtaken.
func (e *event) stale() bool {
	switch e.kind {
	case kindTimer:
		return e.gen != e.q.timerGen
	case kindReply:
		return e.gen != e.r.replyGen
	}
	return e.gen != e.r.gen
}

// waits says whether the event happens only because time passes while another
// goroutine could still prevent it: see Options.Patience.
func (e *event) waits() bool {
	return e.kind == kindTimer || e.kind == kindBell && e.r.bellTries > 0
}

// agenda is the events to come: a binary heap of values.
type agenda []event

func (a *agenda) push(e event) {
	h := append(*a, e)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
	*a = h
}

// pop removes the earliest event; there must be one.
func (a *agenda) pop() event {
	h := *a
	first := h[0]
	last := h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	if len(h) > 0 {
		h.sink(0, last)
	}
	*a = h
	return first
}

// sink puts e where place i and its children allow.
func (a agenda) sink(i int, e event) {
	for {
		child := 2*i + 1
		if child >= len(a) {
			break
		}
		if child+1 < len(a) && a[child+1].before(&a[child]) {
			child++
		}
		if !a[child].before(&e) {
			break
		}
		a[i] = a[child]
		i = child
	}
	a[i] = e
}

// compact drops stale events.
func (a *agenda) compact() {
	h := (*a)[:0]
	for _, e := range *a {
		if !e.stale() {
			h = append(h, e)
		}
	}
	clear((*a)[len(h):])
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.sink(i, h[i])
	}
	*a = h
}
