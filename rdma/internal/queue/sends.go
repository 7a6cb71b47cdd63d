package queue

import (
	"sync/atomic"

	"github.com/tenure-faas/tenure/rdma"
)

// Request is what a provider remembers of a request until it completes.
type Request struct {
	ID       uint64
	Local    rdma.Local
	Op       rdma.Opcode
	Signaled bool
}

// Sends is the send queue of one queue pair: the requests that are posted and
// not complete, oldest first, and the count of free slots. A request holds its
// slot until its completion is polled, one without completion until it is done.
// The owner serialises everything but the freeing, which happens in Poll.
type Sends struct {
	places *Places
	tally  *rdma.Tally
	qp     uint32
	// free slots. Poll adds, Add subtracts.
	free atomic.Int64
	ring []Request
	head int // of the oldest
	n    int
}

// NewSends makes a queue of depth requests, for whose completions there are as
// many places, and whose failures go to tally.
func NewSends(places *Places, tally *rdma.Tally, qp uint32, depth int) *Sends {
	s := &Sends{places: places, tally: tally, qp: qp, ring: make([]Request, depth)}
	s.free.Store(int64(depth))
	return s
}

// Free is how many requests can be added now.
func (s *Sends) Free() int { return int(s.free.Load()) }

// Add appends a request and counts it. There must be a free slot.
func (s *Sends) Add(w *rdma.WorkRequest) {
	s.free.Add(-1)
	i := s.head + s.n
	if i >= len(s.ring) {
		i -= len(s.ring)
	}
	s.ring[i] = Request{w.ID, w.Local, w.Op, w.Flags&rdma.Signaled != 0}
	s.n++
	s.tally.Posted(w.Op, w.Local.Length)
}

// Len is the number of outstanding requests.
func (s *Sends) Len() int { return s.n }

// Front is the oldest outstanding request; there must be one. Valid until the
// next Finish.
func (s *Sends) Front() *Request { return &s.ring[s.head] }

// Finish completes the oldest outstanding request.
func (s *Sends) Finish(status rdma.Status) {
	r := &s.ring[s.head]
	if s.head++; s.head == len(s.ring) {
		s.head = 0
	}
	s.n--
	s.complete(r, status)
}

// Immediate counts and completes a request that has been executed without
// having been added; nothing may be outstanding. There must be a free slot.
func (s *Sends) Immediate(w *rdma.WorkRequest, status rdma.Status) {
	s.tally.Posted(w.Op, w.Local.Length)
	s.free.Add(-1)
	s.complete(&Request{ID: w.ID, Op: w.Op, Signaled: w.Flags&rdma.Signaled != 0}, status)
}

func (s *Sends) complete(r *Request, status rdma.Status) {
	if status != rdma.StatusOK {
		s.tally.Failed(r.Op)
	} else if !r.Signaled {
		s.free.Add(1)
		return
	}
	s.places.Push(rdma.Completion{ID: r.ID, QP: s.qp, Op: r.Op, Status: status}, &s.free)
}

// Flush completes all outstanding requests: the first with status, the others
// as flushed.
func (s *Sends) Flush(status rdma.Status) {
	for s.n > 0 {
		s.Finish(status)
		status = rdma.StatusFlushed
	}
}
