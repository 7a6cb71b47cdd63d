package load

import (
	"sync"
	"time"
)

// arrivals hands out the times at which requests are due, counted from the
// start of the run.
type arrivals interface {
	// take returns when the next request of the caller is due, or false when
	// there are none left. The caller waits until then if that is later than
	// now, and sends at once if it is earlier. It does not block.
	take(now time.Duration) (due time.Duration, ok bool)
	// settle is called once after the last take and returns how many arrivals
	// inside the measured window were dropped.
	settle() uint64
}

// closedLoop makes a request due as soon as its worker asks for one.
type closedLoop struct{ end time.Duration }

func (c closedLoop) take(now time.Duration) (time.Duration, bool) { return now, now < c.end }
func (closedLoop) settle() uint64                                 { return 0 }

// schedule is the open loop: arrival i is due at i/rate, whatever the server
// does. Arrivals that are due and not yet taken wait in a bounded queue; those
// that find it full are dropped, newest first. Dropping the oldest would make
// the longest waits disappear from the percentiles.
//
// Nobody has to wake up for an arrival: time moves at each take, which is the
// only moment at which something leaves the queue, so admitting all arrivals
// since the last take gives the same queue as a goroutine that admits each one
// when it is due. Its rejected alternative, that goroutine and a channel, costs
// a wake-up per arrival on cores that the server needs.
type schedule struct {
	rate float64 // arrivals per second
	// window is the measured part: arrivals before it are the warm-up.
	window time.Duration
	// total is the number of arrivals of the whole run.
	total int64
	// giveUp is when what still waits is dropped.
	giveUp time.Duration

	mu sync.Mutex // guards what follows; nothing blocks under it
	// next is the first arrival that was neither queued, dropped nor taken.
	next int64
	// queue[head], queue[head+1], ... (modulo length) are the queued arrivals.
	queue   []int64
	head    int
	queued  int
	dropped uint64
}

func newSchedule(o *Options) *schedule {
	end := o.Warmup + o.Duration
	return &schedule{
		rate:   o.Rate,
		window: o.Warmup,
		total:  max(int64(o.Rate*end.Seconds()), 1),
		giveUp: end + o.Timeout,
		queue:  make([]int64, max(o.Queue, 1)),
	}
}

func (s *schedule) due(i int64) time.Duration {
	return time.Duration(float64(i) / s.rate * float64(time.Second))
}

func (s *schedule) take(now time.Duration) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitLocked(now)
	if now >= s.giveUp {
		s.dropQueueLocked()
		return 0, false
	}
	if s.queued > 0 {
		i := s.queue[s.head]
		s.head = (s.head + 1) % len(s.queue)
		s.queued--
		return s.due(i), true
	}
	if s.next == s.total {
		return 0, false
	}
	s.next++
	return s.due(s.next - 1), true
}

// admitLocked queues or drops the arrivals that are due.
func (s *schedule) admitLocked(now time.Duration) {
	for ; s.next < s.total && s.due(s.next) <= now; s.next++ {
		if s.queued == len(s.queue) {
			s.dropLocked(s.next)
			continue
		}
		s.queue[(s.head+s.queued)%len(s.queue)] = s.next
		s.queued++
	}
}

func (s *schedule) dropLocked(i int64) {
	if s.due(i) >= s.window {
		s.dropped++
	}
}

func (s *schedule) dropQueueLocked() {
	for ; s.queued > 0; s.queued-- {
		s.dropLocked(s.queue[s.head])
		s.head = (s.head + 1) % len(s.queue)
	}
}

func (s *schedule) settle() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropQueueLocked()
	return s.dropped
}
