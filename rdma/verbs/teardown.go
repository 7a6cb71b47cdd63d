//go:build linux && cgo && rdma

package verbs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

const (
	// slow is after how long a call that takes a queue pair away is logged: some
	// kernels hang there.
	slow = 5 * time.Second
	// closeLimit is how long Close waits for such a call.
	closeLimit = 30 * time.Second
)

// errRevoked is the error of a queue pair after Revoke.
var errRevoked = errors.New("rdma: the queue pair was revoked")

// fail breaks the queue pair, once, and starts its teardown. It takes no lock and
// does not wait. A failure without a status means StatusFlushed.
func (q *queuePair) fail(f *failure) {
	if f.status == rdma.StatusOK {
		f.status = rdma.StatusFlushed
	}
	if q.broken.CompareAndSwap(nil, f) {
		q.provider.running.Go(q.teardown)
	}
}

// teardown takes the queue pair away from the device. Afterwards nothing of the
// peer lands, the device writes to no memory of outstanding requests, and these
// are complete.
func (q *queuePair) teardown() {
	defer close(q.torn)
	q.mu.Lock()   // a Post or Connect that has begun ends first
	q.mu.Unlock() //nolint:staticcheck // a barrier: later ones see that the queue pair is broken
	q.receiveCQ.mu.Lock()
	q.receiving = false
	q.receiveCQ.mu.Unlock()
	q.stall.timer.Stop()
	fails := q.watched("move to ERR", q.qp.Fail)
	// Collect before the end, at which a driver may throw completions away.
	q.reap()
	err := q.destroy()
	q.reap()
	if err != nil {
		q.tearError = errors.Join(fails, err)
		q.provider.log.Error("rdma verbs: a queue pair cannot be revoked", "peer", q.options.Peer, "qp", q.here.qpn, "error", q.tearError)
	}
	q.flush()
}

// destroy frees the queue pair on the device. Its number may be another's then.
func (q *queuePair) destroy() error {
	if err := q.watched("destroy", q.qp.Close); err != nil {
		return fmt.Errorf("rdma verbs: queue pair %d to %q: %w", q.here.qpn, q.options.Peer, err)
	}
	p := q.provider
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pairs[q.here.qpn] == q {
		delete(p.pairs, q.here.qpn)
	}
	return nil
}

// reap collects what the device completed.
func (q *queuePair) reap() {
	q.sendCQ.reap()
	if q.receiveCQ != q.sendCQ {
		q.receiveCQ.reap()
	}
}

// flush completes what the device did not. Nothing is posted any more.
func (q *queuePair) flush() {
	q.sendCQ.mu.Lock()
	defer q.sendCQ.mu.Unlock()
	for ; q.head != q.tail.Load(); q.head++ {
		r := q.ring[q.head&uint32(len(q.ring)-1)]
		q.tally.Failed(r.op)
		q.sendCQ.push(entry{Completion: rdma.Completion{ID: r.id, QP: q.here.qpn, Op: r.op, Status: q.flushed(q.head)}, pair: q})
	}
}

// flushed is the status of a request that was flushed by the device or by us,
// after the queue pair broke: see failure. The caller holds sendCQ.mu.
func (q *queuePair) flushed(sequence uint32) rdma.Status {
	f := q.broken.Load()
	if f.exact && sequence == f.sequence || !f.exact && !q.told {
		q.told = true
		return f.status
	}
	return rdma.StatusFlushed
}

// watched runs a call of the device and raises an alarm if it takes long.
func (q *queuePair) watched(what string, call func() error) error {
	alarm := time.AfterFunc(slow, func() {
		q.provider.log.Error("rdma verbs: the kernel takes long over a queue pair; it may be stuck", "call", what, "peer", q.options.Peer, "qp", q.here.qpn, "for", slow)
	})
	defer alarm.Stop()
	return call()
}

// Revoke implements rdma.QueuePair.
func (q *queuePair) Revoke(ctx context.Context) error {
	q.fail(&failure{cause: errRevoked})
	select {
	case <-q.torn:
		q.closing.Lock()
		defer q.closing.Unlock()
		return q.tearAgain()
	case <-ctx.Done():
		return fmt.Errorf("rdma verbs: revoke queue pair %d to %q: %w", q.here.qpn, q.options.Peer, ctx.Err())
	}
}

// tearAgain tries what the teardown could not do. The caller holds closing, after
// torn.
func (q *queuePair) tearAgain() error {
	if q.tearError != nil {
		q.tearError = q.destroy()
	}
	return q.tearError
}

// awaitTeardown waits until the queue pair is gone from the device, or the limit
// has passed.
func (q *queuePair) awaitTeardown() error {
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-q.torn:
		return nil
	case <-limit.C:
		return fmt.Errorf("rdma verbs: queue pair %d to %q: the kernel is stuck over it; it stays open", q.here.qpn, q.options.Peer)
	}
}

// Close implements rdma.QueuePair. If the kernel is stuck it gives up after half
// a minute, with an error, and may be called again.
func (q *queuePair) Close() error {
	q.closing.Lock()
	defer q.closing.Unlock()
	if q.closed {
		return nil
	}
	q.fail(&failure{cause: rdma.ErrClosed})
	if err := q.awaitTeardown(); err != nil {
		return err
	}
	if err := q.tearAgain(); err != nil {
		return err
	}
	p := q.provider
	q.closed = true
	q.detach()
	p.ledger.Close(&q.tally)
	q.handle.Close()
	p.leave(&p.open.pairs)
	return nil
}
