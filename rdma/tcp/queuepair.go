package tcp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// phase is where a queue pair is in its life. It only goes forward.
type phase uint8

const (
	// phaseIdle: made.
	phaseIdle phase = iota
	// phaseAccepted: the peer may connect; requests wait for it.
	phaseAccepted
	// phaseConnecting: Connect runs.
	phaseConnecting
	phaseConnected
	// phaseBroken: for ever.
	phaseBroken
)

var (
	errRevoked  = errors.New("it was revoked")
	errIsClosed = fmt.Errorf("it was closed: %w", rdma.ErrClosed)
)

// queuePair implements rdma.QueuePair.
//
// What is posted is remembered in sends and encoded into out at once, so that
// Post waits for nothing; requests behind a Fence that must wait are kept in
// held. The numbers of requests count from 0 in the order of Post:
//
//	finished ≤ (answered by the peer next)  encoded ≤ (held, or after a bad one)  posted
//
// Locks, outermost first: link.writing, mu, then leaves (the latches of
// completion queues, regions, the ledger).
type queuePair struct {
	p             *Provider
	self          address
	peer          string
	send, receive *completionQueue
	// sendPlaces and receivePlaces are its share of them.
	sendPlaces, receivePlaces *queue.Places
	depth                     int
	timeout                   time.Duration
	handle                    *handle.Handle
	tally                     rdma.Tally
	// places for doorbells of the peer. Poll adds, the executor subtracts.
	places atomic.Int64
	// progress counts everything that shows that the peer lives.
	progress atomic.Uint64
	// broken is phase == phaseBroken, for the executor. done ends with it.
	broken atomic.Bool
	done   chan struct{}
	// quiet ends when the queue pair is broken and no link is left.
	quiet chan struct{}
	wg    sync.WaitGroup // reader and writer of each link, and the watchdog
	once  sync.Once      // of Close

	mu    sync.Mutex // a latch: nothing waits under it
	phase phase
	// remote is whom Accept or Connect named.
	remote address
	// joining says that a connection was admitted, or is there, on the passive end.
	joining bool
	// cancel ends the Connect that runs; else nil.
	cancel context.CancelFunc
	// links are the connections whose readers run: one, or two if the queue pair is
	// connected to itself. lead is the one for our requests.
	links []*link
	lead  *link
	// cause is why it broke, and flush the status of the oldest request then.
	cause error
	flush rdma.Status
	// interrupted says that the links are not to linger.
	interrupted bool

	sends             *queue.Sends
	out               outbox
	encoded, finished uint64
	// slow is how many READs longer than copyMax are outstanding: those that a
	// Fence waits for, because the peer does everything else in order.
	slow int
	held []heldRequest
	// spoilt says that request number encoded has no local memory: it fails when
	// its turn comes, and nothing more is encoded.
	spoilt bool
	// news says that completions were pushed, of which unlock tells the sleeper.
	news bool

	watch watchdog
}

// newQueuePair makes a queue pair without number, which open completes.
func newQueuePair(p *Provider, o *rdma.QueuePairOptions, send, receive *completionQueue) *queuePair {
	q := &queuePair{
		p: p, peer: o.Peer, send: send, receive: receive, depth: o.SendDepth, timeout: o.Timeout,
		done: make(chan struct{}), quiet: make(chan struct{}),
	}
	q.self.host = p.advertise
	q.places.Store(int64(o.ReceiveDepth))
	return q
}

func (q *queuePair) open() {
	q.sends = queue.NewSends(q.sendPlaces, &q.tally, q.self.number, q.depth)
	q.p.ledger.Open(&q.tally, q.peer)
	q.handle = handle.Open(q, name+" queue pair")
}

// Number implements rdma.QueuePair.
func (q *queuePair) Number() uint32 { return q.self.number }

// Address implements rdma.QueuePair.
func (q *queuePair) Address() []byte { return q.self.append(nil) }

// Counters implements rdma.QueuePair.
func (q *queuePair) Counters() rdma.Counters { return q.tally.Counters() }

// Err implements rdma.QueuePair.
func (q *queuePair) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.phase != phaseBroken {
		return nil
	}
	return fmt.Errorf("queue pair %d to %q broke: %w", q.self.number, q.peer, q.cause)
}

// unlock gives up the latch and wakes whoever waits for what happened under it.
func (q *queuePair) unlock() {
	news := q.news
	q.news = false
	q.mu.Unlock()
	if news {
		q.send.notify()
	}
}

// unusableLocked is why nothing can be posted, or nil.
func (q *queuePair) unusableLocked() error {
	switch q.phase {
	case phaseAccepted, phaseConnected:
		return nil
	case phaseBroken:
		return fmt.Errorf("%w: queue pair %d to %q: %w", rdma.ErrBroken, q.self.number, q.peer, q.cause)
	default:
		return fmt.Errorf("%w: queue pair %d to %q: call Accept or Connect before", rdma.ErrBroken, q.self.number, q.peer)
	}
}

// markBrokenLocked refuses all that comes and leaves the links running for as
// long as they like. Later causes than the first are dropped.
func (q *queuePair) markBrokenLocked(status rdma.Status, cause error) {
	if q.phase == phaseBroken {
		return
	}
	q.phase, q.flush, q.cause = phaseBroken, status, cause
	q.broken.Store(true)
	close(q.done)
	q.held = nil
	if q.cancel != nil {
		q.cancel()
	}
	q.settleLocked()
}

// breakLocked breaks the queue pair and ends its links. The oldest outstanding
// request gets status, the others are flushed.
func (q *queuePair) breakLocked(status rdma.Status, cause error) {
	q.markBrokenLocked(status, cause)
	q.interrupted = true
	for _, l := range q.links {
		_ = l.conn.SetDeadline(time.Unix(1, 0)) // fails if its reader has closed it
	}
}

// settleLocked completes what is outstanding once nothing more can happen to it.
func (q *queuePair) settleLocked() {
	if q.phase != phaseBroken {
		return
	}
	if q.lead == nil && q.sends.Len() > 0 {
		q.sends.Flush(q.flush)
		q.news = true
	}
	if len(q.links) == 0 {
		select {
		case <-q.quiet:
		default:
			close(q.quiet)
		}
	}
}

// linkEnded strikes out a link whose reader has closed the connection.
func (q *queuePair) linkEnded(l *link) {
	q.mu.Lock()
	defer q.unlock()
	for i := range q.links {
		if q.links[i] == l {
			q.links = append(q.links[:i], q.links[i+1:]...)
			break
		}
	}
	if q.lead == l {
		q.lead = nil
	}
	q.settleLocked()
}

// oldestLocked is the oldest outstanding request, which the next response is
// about, or nil. It was encoded: what is held waits for a READ, which is older,
// and what is spoilt fails as soon as it is the oldest.
func (q *queuePair) oldestLocked() *queue.Request {
	if q.sends.Len() == 0 {
		return nil
	}
	return q.sends.Front()
}

// finishLocked completes the oldest outstanding request. A failure breaks the
// queue pair.
func (q *queuePair) finishLocked(status rdma.Status) step {
	f := q.sends.Front()
	op, id := f.Op, f.ID
	q.news = q.news || f.Signaled || status != rdma.StatusOK
	if isSlow(op, f.Local.Length) {
		q.slow--
	}
	q.sends.Finish(status)
	q.finished++
	if status != rdma.StatusOK {
		q.breakLocked(rdma.StatusFlushed, fmt.Errorf("%v, request %d: %w", op, id, status))
		return stepEnd
	}
	if len(q.held) > 0 {
		q.releaseHeld()
	}
	return q.failSpoilt()
}

// failSpoilt fails the request without local memory if its turn has come.
func (q *queuePair) failSpoilt() step {
	if !q.spoilt || q.finished != q.encoded {
		return stepNext
	}
	q.spoilt = false
	return q.finishLocked(rdma.StatusLocal)
}

// bodyLost notes that a payload cannot be written any more. The requests before
// it may still complete, it and those after it cannot. The writer calls it, and
// writes nothing afterwards.
func (q *queuePair) bodyLost(b *body) {
	q.mu.Lock()
	defer q.unlock()
	if !b.ours {
		q.breakLocked(rdma.StatusFlushed, errors.New("a region was closed while the peer was reading it"))
		return
	}
	if q.phase != phaseBroken {
		q.spoilt, q.encoded, q.held = true, b.seq, nil
		q.failSpoilt()
	}
}

// Revoke implements rdma.QueuePair. The readers of the links execute the frames
// of the peer; when they are gone, nothing does.
func (q *queuePair) Revoke(ctx context.Context) error {
	q.mu.Lock()
	q.breakLocked(rdma.StatusFlushed, errRevoked)
	q.unlock()
	select {
	case <-q.quiet:
		return nil
	default:
	}
	select {
	case <-q.quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("revoke queue pair %d to %q: %w", q.self.number, q.peer, ctx.Err())
	}
}

// Close implements rdma.QueuePair.
func (q *queuePair) Close() error {
	q.once.Do(func() {
		q.mu.Lock()
		q.breakLocked(rdma.StatusFlushed, errIsClosed)
		q.unlock()
		q.wg.Wait()
		q.p.forget(q.self.number)
		q.sendPlaces.Release()
		q.receivePlaces.Release()
		q.p.ledger.Close(&q.tally)
		q.handle.Close()
	})
	return nil
}
