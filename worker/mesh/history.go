package mesh

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// resumes says whether the peer must know the history.
func (l *link) resumes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wasUp
}

// rise begins to post on a connected end, with the messages that the peer has not
// consumed.
func (l *link) rise(e *end, answer *Offer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return ErrNotMember
	}
	l.queue.reset()
	l.words = l.peer.mesh.words.Remote()
	if answer != nil {
		l.words = answer.Words
		if err := l.sender.Target(answer.Ring, 0); err != nil {
			return err
		}
		again, err := l.sender.Resume(answer.Consumed, l.queue.all)
		if err != nil {
			return err
		}
		l.queue.all = again
	}
	if l.wasUp {
		l.peer.tally.reconnects.Add(1)
	}
	l.posts, l.freed, l.loose, l.looseUnits = 0, 0, 0, 0
	if l.sender != nil {
		l.posted = l.sender.Consumed()
	}
	// Whatever was posted before is done, or can never be.
	l.proven = l.asked
	l.state, l.cause, l.silent, l.wasUp = stateUp, nil, false, true
	l.down.Store(false)
	l.dirty.Store(true)
	l.notifyLocked()
	return nil
}

// probe READs over an end that is connected, before anything else is posted: some
// devices connect without asking the peer, and a link that carries nothing must not
// look as if it were up now and then.
func (l *link) probe(ctx context.Context, e *end, words rdma.RemoteRegion) error {
	l.mu.Lock()
	l.words, l.posts, l.freed = words, 0, 0
	l.asked++
	number := l.asked
	batch := []rdma.WorkRequest{l.readLocked(number)}
	l.prepareLocked(&batch[0])
	l.mu.Unlock()
	if _, err := e.qp.Post(batch); err != nil {
		l.mu.Lock()
		l.releaseLocked(uint32(batch[0].ID))
		l.mu.Unlock()
		return fmt.Errorf("mesh: the first READ from worker %d: %w", l.peer.member.Worker, err)
	}
	l.peer.tally.verbs.Posted(rdma.OpRead, batch[0].Local.Length)
	for {
		l.mu.Lock()
		proven, ended, changed := l.proven >= number, l.inUse == 0, l.changed
		l.mu.Unlock()
		switch {
		case proven:
			return nil
		case ended:
			return fmt.Errorf("mesh: the first READ from worker %d failed: %w", l.peer.member.Worker, errors.Join(rdma.ErrBroken, e.qp.Err()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("mesh: the first READ from worker %d: %w", l.peer.member.Worker, ctx.Err())
		}
	}
}

// prove posts a READ behind all messages, unless the peer is known to have consumed
// them or the READ before is on its way.
func (l *link) prove() {
	l.mu.Lock()
	if l.sender != nil && l.sender.Consumed() != l.sender.Sent() && l.asked == l.proven {
		l.proofLocked()
	}
	l.mu.Unlock()
	l.flush()
}

// takeDown revokes and closes the end, if there is one, and waits until its
// completions were seen. It can be called again after an error.
func (l *link) takeDown(ctx context.Context) error {
	l.mu.Lock()
	e := l.end
	l.mu.Unlock()
	if e == nil {
		return nil
	}
	if err := l.peer.mesh.revokeEnd(ctx, e); err != nil {
		return err
	}
	return l.settle(ctx)
}

// settle waits until the completions of a closed end were seen.
func (l *link) settle(ctx context.Context) error {
	for {
		l.mu.Lock()
		if l.inUse == 0 && !l.posting {
			l.end = nil
			if l.state == stateBroken {
				l.state = stateDown
			}
			l.mu.Unlock()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
