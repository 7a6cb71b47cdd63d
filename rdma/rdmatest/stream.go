package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// step is one request of a round. Round n of a stream posts it with n times the
// steps added, where n begins anew after Wrap rounds for the addresses.
type step struct {
	Request               rdma.WorkRequest
	LocalStep, RemoteStep uint64
	CompareStep, SwapStep uint64
	ImmStep               uint32
}

// endless is how many rounds a stream has that goes on until its queue pair
// breaks.
const endless = 1 << 30

// doStream posts rounds of steps until there were Rounds of them or the queue
// pair breaks, and waits for all completions. The request at place i of all has
// the ID i+1. It has the completion queue for itself.
type doStream struct {
	Pair, Queue int
	Steps       []step
	Rounds      int
	// Wrap is after how many rounds the addresses begin anew; 0 means never.
	Wrap int
	// Batch is how many rounds are posted in one call; 0 means 1.
	Batch int
	// Window is how many rounds may be outstanding; 0 means what fits.
	Window int
	Bound  time.Duration
}

// streamed is how a stream ended.
type streamed struct {
	// Posted requests, and how many of them are known to be done: those up to the
	// last good completion.
	Posted, Done int
	// Status is that of the first request that failed; Failed how many did.
	Status rdma.Status
	Failed int
	// Bells is how many doorbells of the peer came meanwhile.
	Bells int
	// Refused is why Post took no more, if it did not take all.
	Refused *fault
	// Cuts is how often Post took a part of a batch.
	Cuts int
	// Wrong is "" if every request ended as the contract says.
	Wrong string
}

// streamer is a stream under way.
type streamer struct {
	doStream
	streamed
	pair     rdma.QueuePair
	queue    rdma.CompletionQueue
	ctx      context.Context //nolint:containedctx // a streamer lives within one call
	next     int             // place of the first request whose end is not known
	signaled int             // place after the last signaled request that was posted
	failing  bool
	batch    []rdma.WorkRequest
	polled   []rdma.Completion
}

func (o doStream) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	o.Batch = max(o.Batch, 1)
	s := &streamer{doStream: o, pair: a.pair(o.Pair), queue: a.queue(o.Queue), ctx: ctx, polled: make([]rdma.Completion, 64)}
	total := o.Rounds * len(o.Steps)
	for s.Wrong == "" {
		more := s.Refused == nil && s.Posted < total
		if more && s.room() {
			s.post(total)
			s.collect(s.queue.Poll(s.polled))
			continue
		}
		if !more && s.next >= s.signaled && (!s.failing || s.next >= s.Posted) {
			break
		}
		n, err := s.queue.Wait(ctx, s.polled)
		s.collect(n)
		if err != nil && s.Wrong == "" {
			s.Wrong = fmt.Sprintf("%d requests were posted, the end of %d is known, then Wait ended with: %v", s.Posted, s.next, err)
		}
	}
	return s.streamed, nil
}

// room says whether the next batch may be posted; the queue pair may see it
// otherwise.
func (s *streamer) room() bool {
	return s.Window == 0 || s.Posted+s.Batch*len(s.Steps) <= s.next+s.Window*len(s.Steps)
}

// post posts the next batch, or the rest of one.
func (s *streamer) post(total int) {
	s.batch = s.batch[:0]
	for i := s.Posted; i < min(total, s.Posted+s.Batch*len(s.Steps)-s.Posted%len(s.Steps)); i++ {
		s.batch = append(s.batch, s.request(i))
	}
	n, err := s.pair.Post(s.batch)
	for i := range n {
		if s.batch[i].Flags&rdma.Signaled != 0 {
			s.signaled = s.Posted + i + 1
		}
	}
	s.Posted += n
	full := errors.Is(err, rdma.ErrQueueFull)
	switch {
	case n < 0 || n > len(s.batch) || (n < len(s.batch)) != (err != nil):
		s.Wrong = fmt.Sprintf("post of %d requests returned %d and error %v", len(s.batch), n, err)
	case full && s.next >= s.signaled:
		s.Wrong = fmt.Sprintf("the queue is full although all %d signaled requests are complete", s.signaled)
	case full:
		s.Cuts++
		k, err := s.queue.Wait(s.ctx, s.polled)
		s.collect(k)
		if err != nil && s.Wrong == "" {
			s.Wrong = fmt.Sprintf("the queue is full, then Wait ended with: %v", err)
		}
	case err != nil:
		s.Refused = faultOf(err)
	}
}

// request returns the request at a place of the stream.
func (s *streamer) request(place int) rdma.WorkRequest {
	round := uint64(place / len(s.Steps))
	position := round
	if s.Wrap > 0 {
		position %= uint64(s.Wrap)
	}
	p := &s.Steps[place%len(s.Steps)]
	r := p.Request
	r.ID = uint64(place + 1)
	r.Local.Addr += position * p.LocalStep
	r.RemoteAddr += position * p.RemoteStep
	r.CompareAdd += round * p.CompareStep
	r.Swap += round * p.SwapStep
	r.Imm += uint32(round) * p.ImmStep
	return r
}

// collect checks n completions.
func (s *streamer) collect(n int) {
	for i := range n {
		c := s.polled[i]
		if c.Op == rdma.OpReceive {
			s.Bells++
			continue
		}
		place := int(c.ID) - 1
		if s.Wrong = s.check(place, &c); s.Wrong != "" {
			return
		}
		s.next = place + 1
		switch {
		case c.Status == rdma.StatusOK:
			s.Done = s.next
		case !s.failing:
			s.failing, s.Status, s.Failed = true, c.Status, 1
			s.Done = place // what was skipped had no completion and so was done
		default:
			s.Failed++
		}
	}
}

// check says what is wrong with a completion that comes after those before
// s.next.
func (s *streamer) check(place int, c *rdma.Completion) string {
	if place < s.next || place >= s.Posted {
		return fmt.Sprintf("a completion of request %d came after that of %d of %d: %+v", place, s.next-1, s.Posted, *c)
	}
	want := s.request(place)
	if c.QP != s.pair.Number() || c.Op != want.Op || c.Imm != 0 || c.Length != 0 {
		return fmt.Sprintf("the completion %+v is not that of request %+v", *c, want)
	}
	if c.Status == rdma.StatusOK && want.Flags&rdma.Signaled == 0 {
		return fmt.Sprintf("request %d is not signaled and went well, and has a completion", place)
	}
	if c.Status == rdma.StatusOK && s.failing {
		return fmt.Sprintf("request %d is done although an earlier one failed (%v)", place, s.Status)
	}
	if s.failing && c.Status.Outcome() != rdma.Unknown {
		return fmt.Sprintf("request %d ended as %v after an earlier one had failed (%v): it must be unknown", place, c.Status, s.Status)
	}
	for i := s.next; i < place; i++ {
		if skipped := s.request(i); skipped.Flags&rdma.Signaled != 0 || s.failing {
			return fmt.Sprintf("request %d has completed (%v), request %d before it has not", place, c.Status, i)
		}
	}
	return ""
}
