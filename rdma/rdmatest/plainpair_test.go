package rdmatest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	queues "github.com/tenure-faas/tenure/rdma/internal/queue"
	regions "github.com/tenure-faas/tenure/rdma/internal/region"
)

// plainPair is a queue pair of the plain provider.
type plainPair struct {
	provider      *plain
	options       rdma.QueuePairOptions
	number        uint32
	handle        *handle.Handle
	tally         rdma.Tally
	send, receive *queues.Places
	// bells is how many more doorbells of the peer fit.
	bells atomic.Int64
	// kick has a token when there may be something to execute.
	kick chan struct{}
	// stop is closed when the queue pair breaks, connected when both ends are.
	stop, connected chan struct{}
	runner          sync.WaitGroup
	executed        int // requests, by the runner

	// effect is held by the peer while it changes our memory, and by Revoke.
	effect  sync.Mutex
	revoked bool // guarded by effect

	mu      sync.Mutex // taken after effect
	sends   *queues.Sends
	waiting []job
	peer    *plainPair
	broken  error
	closed  bool
	posted  int // requests that were taken
}

// job is a posted request, with its payload if that was inline.
type job struct {
	rdma.WorkRequest
	inline []byte
	lost   bool // by a fault
}

func (q *plainPair) fault(name string) bool { return q.provider.world.faults[name] }

func (q *plainPair) Post(requests []rdma.WorkRequest) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fault("checks the batch first") {
		for i := range requests {
			if err := requests[i].Check(&plainLimits); err != nil {
				return 0, err
			}
		}
	}
	for i := range requests {
		if err := q.take(&requests[i]); err != nil {
			if q.fault("malformed requests break") && errors.Is(err, rdma.ErrInvalid) {
				q.failLocked(rdma.StatusFatal, err)
			}
			return i, err
		}
		if q.fault("batches interleave") {
			q.mu.Unlock()
			runtime.Gosched()
			q.mu.Lock()
		}
	}
	return len(requests), nil
}

func (q *plainPair) take(r *rdma.WorkRequest) error {
	switch {
	case q.closed:
		return rdma.ErrClosed
	case q.broken != nil && q.fault("counts what it refuses"):
		q.tally.Posted(r.Op, r.Local.Length)
		return rdma.ErrBroken
	case q.peer == nil || q.broken != nil:
		return rdma.ErrBroken
	}
	if err := r.Check(&plainLimits); err != nil && !(r.Op.Atomic() && r.RemoteAddr%8 != 0 && q.fault("takes misaligned atomics")) {
		return err
	}
	free := q.sends.Free()
	if q.fault("queue too short") {
		free--
	} else if q.fault("queue too long") {
		free -= q.options.SendDepth
	}
	if free <= 0 {
		if n := len(q.waiting); n > 0 && q.fault("full queues lose a request") {
			q.waiting[n-1].lost = true
		}
		return rdma.ErrQueueFull
	}
	j := job{WorkRequest: *r}
	if r.Flags&rdma.Inline != 0 && !q.fault("inline read late") {
		j.inline = q.copyInline(r)
	}
	added := *r
	switch q.posted++; {
	case q.fault("completes unsignaled"):
		added.Flags |= rdma.Signaled
	case q.posted%50 == 0 && q.fault("loses completions"):
		added.Flags &^= rdma.Signaled
	case q.posted%50 == 0 && q.fault("wrong IDs"):
		added.ID ^= 1
	}
	q.sends.Add(&added)
	q.waiting = append(q.waiting, j)
	select {
	case q.kick <- struct{}{}:
	default:
	}
	return nil
}

func (q *plainPair) copyInline(r *rdma.WorkRequest) []byte {
	s, ok := q.provider.regions.Acquire(r.Local.LKey, r.Local.Addr, r.Local.Length)
	if !ok {
		return nil
	}
	defer s.Release()
	return append([]byte{}, s.Bytes...)
}

// serve executes requests until the queue pair breaks.
func (q *plainPair) serve() {
	for {
		select {
		case <-q.stop:
			return
		case <-q.kick:
		}
		for {
			jobs := q.next()
			if jobs == nil {
				break
			}
			status := rdma.StatusUnreachable
			if q.reachable() {
				for i := range jobs {
					status = q.execute(&jobs[i])
					runtime.Gosched()
				}
			}
			if status != rdma.StatusOK && !q.fault("goes on after a failure") {
				q.fail(status, errPlain)
				return
			}
			q.finish(len(jobs), status)
		}
	}
}

// next takes the oldest request, or, with some faults, two in the wrong order.
func (q *plainPair) next() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 || q.broken != nil {
		return nil
	}
	n := 1
	if len(q.waiting) > 1 {
		a, b := &q.waiting[0], &q.waiting[1]
		if a.Op == rdma.OpWrite && b.Op == rdma.OpWrite && a.Flags == 0 && q.fault("WRITE overtakes WRITE") ||
			a.Op == rdma.OpWrite && (b.Op.Atomic() || b.Op == rdma.OpRead) && q.fault("atomics overtake WRITE") ||
			b.Flags&rdma.Fence != 0 && q.fault("ignores Fence") {
			*a, *b = *b, *a
			n = 2
		}
	}
	jobs := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return jobs
}

func (q *plainPair) finish(n int, status rdma.Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range n {
		if q.broken != nil {
			return
		}
		if f := *q.sends.Front(); f.Signaled && f.ID%50 == 7 && q.fault("completes twice") {
			q.send.Push(rdma.Completion{ID: f.ID, QP: q.number, Op: f.Op}, nil)
		}
		q.sends.Finish(status)
	}
}

// reachable waits until the peer has connected.
func (q *plainPair) reachable() bool {
	timer := time.NewTimer(q.timeout())
	defer timer.Stop()
	select {
	case <-q.connected:
		return true
	case <-q.stop:
	case <-timer.C:
	}
	return false
}

// room waits for room for a doorbell.
func (q *plainPair) room() rdma.Status {
	for start := time.Now(); q.peer.bells.Add(-1) < 0; {
		q.peer.bells.Add(1)
		if time.Since(start) > q.timeout() {
			return rdma.StatusReceiverNotReady
		}
		select {
		case <-q.stop:
			return rdma.StatusFlushed
		case <-time.After(time.Millisecond):
		}
	}
	return rdma.StatusOK
}

// execute does one request.
func (q *plainPair) execute(j *job) rdma.Status {
	if j.lost {
		return rdma.StatusOK
	}
	local, ok := q.provider.regions.Acquire(j.Local.LKey, j.Local.Addr, j.Local.Length)
	if j.inline != nil {
		local.Release()
		local = regions.Span{Bytes: j.inline}
	} else if !ok && q.fault("local keys unchecked") {
		return rdma.StatusOK
	} else if !ok {
		return rdma.StatusLocal
	}
	defer local.Release()
	if j.Op == rdma.OpWriteImm && !q.fault("drops doorbells") {
		if status := q.room(); status != rdma.StatusOK {
			return status
		}
	}
	q.peer.effect.Lock()
	defer q.peer.effect.Unlock()
	if q.peer.revoked {
		return q.refused(j, local.Bytes)
	}
	remote, ok := q.peer.provider.regions.Acquire(j.RKey, j.RemoteAddr, j.Local.Length)
	if !ok {
		return q.outside(j)
	}
	if half := len(local.Bytes) / 2; j.Op == rdma.OpWrite && half > 4096 && q.fault("half a WRITE is not done") {
		memory.Copy(remote.Bytes[:half], local.Bytes[:half])
		remote.Release()
		time.Sleep(time.Millisecond)
		if remote, ok = q.peer.provider.regions.Acquire(j.RKey, j.RemoteAddr, j.Local.Length); !ok {
			return q.outside(j)
		}
	}
	defer remote.Release()
	if j.Op == rdma.OpWriteImm && q.fault("doorbell before data") {
		q.peer.ring(j)
		time.Sleep(100 * time.Microsecond)
	}
	if q.executed++; q.executed > 8 && q.fault("revokes in the middle") {
		q.peer.effect.Unlock()
		time.Sleep(50 * time.Millisecond)
		q.touch(j, local.Bytes, &remote)
		q.peer.effect.Lock()
	} else {
		q.touch(j, local.Bytes, &remote)
	}
	if j.Op == rdma.OpWriteImm && !q.fault("doorbell before data") {
		q.peer.ring(j)
	}
	return rdma.StatusOK
}

// refused is what becomes of a request that meets a revoked end.
func (q *plainPair) refused(j *job, local []byte) rdma.Status {
	switch {
	case q.fault("goes well after revocation"):
		return rdma.StatusOK
	case q.fault("lands after revocation"):
		time.Sleep(2 * time.Millisecond)
		if remote, ok := q.peer.provider.regions.Acquire(j.RKey, j.RemoteAddr, j.Local.Length); ok {
			q.touch(j, local, &remote)
			remote.Release()
		}
	case q.fault("never gives up"):
		q.peer.effect.Unlock()
		<-q.stop
		q.peer.effect.Lock()
	}
	return rdma.StatusUnreachable
}

// outside is what becomes of a request that goes beyond the bounds.
func (q *plainPair) outside(j *job) rdma.Status {
	switch {
	case q.fault("wrong status"):
		return rdma.StatusUnreachable
	case q.fault("bounds unchecked"):
		return rdma.StatusOK
	case q.fault("writes what is inside"):
		for n := j.Local.Length; n > 0; n-- {
			if remote, ok := q.peer.provider.regions.Acquire(j.RKey, j.RemoteAddr, n); ok {
				remote.Bytes[0]++
				remote.Release()
				break
			}
		}
	case j.Op == rdma.OpWriteImm && q.fault("rings all the same"):
		q.peer.ring(j)
	case q.fault("failures break all"):
		w := q.provider.world
		w.mu.Lock()
		all := append([]*plainPair{}, w.pairs[1:]...)
		w.mu.Unlock()
		for _, p := range all {
			if p != q {
				p.fail(rdma.StatusFatal, errPlain)
			}
		}
	}
	return rdma.StatusRemoteAccess
}

func (q *plainPair) ring(j *job) {
	c := rdma.Completion{QP: q.number, Op: rdma.OpReceive, Imm: j.Imm, Length: j.Local.Length}
	if q.fault("loses Imm") {
		c.Imm = 0
	}
	if q.fault("loses Length") {
		c.Length = 0
	}
	if q.fault("drops doorbells") && q.bells.Add(-1) < 0 {
		q.bells.Add(1)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed { // some faults let requests through to one that is
		q.tally.Posted(rdma.OpReceive, c.Length)
		q.receive.Push(c, &q.bells)
	}
}

// fail breaks the queue pair: the oldest request completes with status.
func (q *plainPair) fail(status rdma.Status, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failLocked(status, why)
}

func (q *plainPair) failLocked(status rdma.Status, why error) {
	if q.broken != nil {
		return
	}
	q.broken = why
	close(q.stop)
	q.waiting = nil
	switch {
	case q.sends.Len() > 0 && q.fault("flushes one only"):
		q.sends.Finish(status)
	case q.fault("flushes as done"):
		for ; q.sends.Len() > 0; status = rdma.StatusOK {
			q.sends.Finish(status)
		}
	default:
		q.sends.Flush(status)
	}
}

func (q *plainPair) Revoke(context.Context) error {
	return q.revoke(!q.fault("Revoke revokes nothing"))
}

func (q *plainPair) revoke(really bool) error {
	if q.fault("revokes late") {
		q.runner.Go(func() { time.Sleep(3 * time.Millisecond); q.effect.Lock(); q.revoked = really; q.effect.Unlock() })
		q.fail(rdma.StatusFlushed, errPlain)
		return nil
	}
	q.effect.Lock()
	q.revoked = q.revoked || really
	q.effect.Unlock()
	if q.fault("own requests outlive Revoke") {
		q.mu.Lock()
		if q.broken == nil {
			q.broken = errPlain
			close(q.stop)
		}
		q.mu.Unlock()
	}
	q.fail(rdma.StatusFlushed, errPlain)
	q.runner.Wait()
	return nil
}

func (q *plainPair) Close() error {
	if err := q.revoke(!q.fault("Close revokes nothing")); err != nil {
		return err
	}
	q.runner.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed && q.fault("Close once only") {
		return rdma.ErrClosed
	} else if q.closed {
		return nil
	}
	q.closed = true
	q.send.Release()
	q.receive.Release()
	q.provider.ledger.Close(&q.tally)
	if q.fault("leaks a handle") {
		q.provider.world.leak(q)
	} else {
		q.handle.Close()
	}
	q.provider.mu.Lock()
	delete(q.provider.pairs, q)
	q.provider.mu.Unlock()
	return nil
}
