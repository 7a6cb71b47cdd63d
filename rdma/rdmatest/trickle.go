package rdmatest

import (
	"errors"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doTrickle posts one request after the other, at a pace, until Enough are done,
// the queue pair breaks or Bound has passed. If it breaks, all that were posted
// must complete.
type doTrickle struct {
	Pair, Queue int
	Request     rdma.WorkRequest
	Pace        time.Duration
	Enough      int
	Bound       time.Duration
}

// trickled is how many requests were posted, done and failed, and the status of
// the first that failed.
type trickled struct {
	Posted, Done, Failed int
	Status               rdma.Status
}

func (o doTrickle) run(a *agent) (any, error) {
	p, q := a.pair(o.Pair), a.queue(o.Queue)
	var s trickled
	polled := make([]rdma.Completion, 64)
	pace := time.NewTicker(o.Pace)
	defer pace.Stop()
	broken := false
	for start := time.Now(); time.Since(start) < o.Bound; <-pace.C {
		if !broken {
			o.Request.ID = uint64(s.Posted)
			n, err := p.Post([]rdma.WorkRequest{o.Request})
			if s.Posted += n; err != nil && !errors.Is(err, rdma.ErrQueueFull) {
				broken = true
			}
		}
		for n := q.Poll(polled); n > 0; n = q.Poll(polled) {
			for i := range polled[:n] {
				s.count(&polled[i])
			}
		}
		if s.Done >= o.Enough || broken && s.Done+s.Failed == s.Posted {
			break
		}
	}
	return s, nil
}

// count notes how a request ended.
func (s *trickled) count(c *rdma.Completion) {
	switch {
	case c.Status == rdma.StatusOK:
		s.Done++
	case s.Failed == 0:
		s.Status, s.Failed = c.Status, 1
	default:
		s.Failed++
	}
}
