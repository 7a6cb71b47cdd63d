package shm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// errRevoked is the cause of a pair that Revoke broke.
var errRevoked = errors.New("revoked")

// errStuck: a process could not be got out of our memory.
var errStuck = errors.New("a request of the peer is still in our memory")

// Revoke implements rdma.QueuePair. It first takes the right to begin a request
// from the peer, then waits until none is in progress. A peer that stays in one
// for longer than Options.StopAfter does not run, or does not keep to the
// protocol: there is no way to take its mapping back, so its process is stopped
// with SIGKILL, which breaks all that it is connected to. An error means that
// this was not permitted or took too long, or that the peer is in this process.
func (q *queuePair) Revoke(ctx context.Context) error {
	q.stopping.Store(true) // a long request of ours ends soon, and lets go of mu
	q.ending.Lock()
	defer q.ending.Unlock()
	return q.revoke(ctx)
}

// revoke is Revoke; the caller holds ending.
func (q *queuePair) revoke(ctx context.Context) error {
	q.mu.Lock()
	if q.state == closed {
		q.mu.Unlock()
		return nil
	}
	q.breakLocked(errRevoked, rdma.StatusFlushed)
	peer, l := q.peer, q.link
	q.mu.Unlock()
	if err := q.fence(ctx, peer); err != nil {
		return fmt.Errorf("revoke shm queue pair %d of %q: %w", q.number, q.options.Peer, err)
	}
	// Every doorbell that the peer put has its completion now, and none comes
	// later.
	q.stopCollecting()
	if l != nil {
		l.hangUp()
	}
	return nil
}

// killWait is how long the death of a process may take that was sent SIGKILL.
const killWait = 5 * time.Second

// fence waits until the peer is out of our memory, see Revoke. The word revoked
// is stored: whoever finds busy cleared afterwards knows that no request begins.
func (q *queuePair) fence(ctx context.Context, peer process) error {
	out := func() bool { return q.control.Load(busyAt) == 0 || peer.dead() }
	left, err := waitFor(ctx, q.provider.options.StopAfter, out)
	if left || err != nil {
		return err
	}
	if err := peer.stop(); err != nil {
		return fmt.Errorf("%w: %w", errStuck, err)
	}
	left, err = waitFor(ctx, killWait, out)
	if !left && err == nil {
		err = fmt.Errorf("%w: process %d was sent SIGKILL and has not died after %v", errStuck, peer.pid, killWait)
	}
	return err
}

// waitFor waits until a condition holds, at most for limit or until ctx ends.
func waitFor(ctx context.Context, limit time.Duration, holds func() bool) (bool, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		if holds() {
			return true, nil
		}
		if time.Since(start) > limit {
			return false, nil
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", errStuck, ctx.Err())
		}
	}
}

// Close implements rdma.QueuePair. Like Revoke it may stop the peer's process.
// It frees the pair in any case; an error means that Revoke failed.
func (q *queuePair) Close() error {
	q.stopping.Store(true)
	q.ending.Lock()
	defer q.ending.Unlock()
	err := q.revoke(context.Background())
	q.mu.Lock()
	was := q.state
	q.state = closed
	q.mu.Unlock()
	if was == closed {
		return nil
	}
	q.provider.mu.Lock()
	delete(q.provider.pairs, q.number)
	q.provider.mu.Unlock()
	q.stopCollecting()
	if q.link != nil {
		q.link.hangUp()
	}
	q.others.Wait()
	q.provider.ledger.Close(&q.Tally)
	q.handle.Close()
	return errors.Join(err, q.free())
}

// free gives back what NewQueuePair and the connection took. Nothing uses the
// pair any more.
func (q *queuePair) free() error {
	q.sendPlaces.Release()
	q.receivePlaces.Release()
	var errs []error
	if q.link != nil && q.link.conn == nil {
		errs = append(errs, q.link.closeBell()) // the rest is ours
	} else if q.link != nil {
		errs = append(errs, q.link.close())
	}
	if q.control != nil {
		errs = append(errs, q.control.Unmap())
	}
	if q.bell != nil {
		errs = append(errs, q.bell.Close())
	}
	if q.controlFile >= 0 {
		errs = append(errs, unix.Close(q.controlFile))
	}
	return errors.Join(append(errs, q.peer.close())...)
}
