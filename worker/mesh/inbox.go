package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/ring"
)

// inbox is the passive end of the link of a peer to this worker.
type inbox struct {
	peer *peer
	// control has a token while somebody makes or takes down the end: a lock that
	// can be waited for with a context.
	control chan struct{}
	// generation is that of the last offer; guarded by control.
	generation uint64
	stream     uint64 // guarded by control

	mu sync.Mutex // a leaf
	// end is the queue pair whose doorbells count, revoking one that is on its way
	// out; its doorbells are dropped, because the messages are repeated on the next.
	end, revoking *end
	// receiver is nil before the first offer.
	receiver *ring.Receiver
	// owed is a credit that could not be posted yet.
	owed   rdma.WorkRequest
	isOwed bool
	gone   bool

	// paying is for Post; the poller's.
	paying [1]rdma.WorkRequest
}

func (b *inbox) init(p *peer) {
	b.peer, b.control = p, make(chan struct{}, 1)
}

// accept makes the passive end for an offer of the peer.
func (b *inbox) accept(ctx context.Context, offer *Offer) (Offer, error) {
	select {
	case b.control <- struct{}{}:
	case <-ctx.Done():
		return Offer{}, ctx.Err()
	}
	defer func() { <-b.control }()
	p := b.peer
	m := p.mesh
	b.mu.Lock()
	gone := b.gone // who sets it later waits for control
	b.mu.Unlock()
	known := b.receiver != nil && b.stream == offer.Stream
	switch {
	case gone:
		return Offer{}, ErrNotMember
	case known && offer.Generation <= b.generation:
		return Offer{}, fmt.Errorf("%w offer of worker %d: generation %d comes after %d", rdma.ErrInvalid, offer.From.Worker, offer.Generation, b.generation)
	case !known && offer.Resumes:
		return Offer{}, fmt.Errorf("%w offer of worker %d: it resumes a history of messages that is not known here", rdma.ErrInvalid, offer.From.Worker)
	}
	if err := b.takeDown(ctx); err != nil {
		return Offer{}, err
	}
	if !known {
		clear(p.region.Bytes()[:m.options.RingBytes]) // nobody else writes there now
		receiver, err := ring.NewReceiver(p.region, 0, m.options.RingBytes)
		if err != nil {
			return Offer{}, err
		}
		b.mu.Lock()
		b.receiver = receiver
		b.mu.Unlock()
		b.stream = offer.Stream
	}
	b.generation = offer.Generation
	e, err := m.newEnd(p, true, creditDepth, p.units)
	if err != nil {
		return Offer{}, err
	}
	if err := e.qp.Accept(offer.QueuePair); err != nil {
		return Offer{}, errors.Join(fmt.Errorf("mesh: accept worker %d: %w", offer.From.Worker, err), m.closeEnd(e))
	}
	b.mu.Lock()
	b.end, b.isOwed = e, false
	b.receiver.Resume()
	consumed := b.receiver.Consumed()
	b.mu.Unlock()
	return Offer{
		From: m.options.Me, To: offer.From, Provider: offer.Provider, Slots: offer.Slots, RingBytes: offer.RingBytes,
		QueuePair: e.qp.Address(), Stream: offer.Stream, Generation: offer.Generation,
		Words: m.words.Remote(), Ring: p.region.Remote(), Consumed: consumed,
	}, nil
}

// takeDown revokes and closes the end, if there is one. After an error nothing is
// certain, and it can be called again. The caller holds control.
func (b *inbox) takeDown(ctx context.Context) error {
	b.mu.Lock()
	if b.end != nil {
		b.revoking, b.end = b.end, nil
	}
	e := b.revoking
	b.mu.Unlock()
	if e == nil {
		return nil
	}
	if err := b.peer.mesh.revokeEnd(ctx, e); err != nil {
		return err
	}
	b.mu.Lock()
	b.revoking = nil
	b.mu.Unlock()
	return nil
}

// leave refuses all later offers and takes the end down.
func (b *inbox) leave(ctx context.Context) error {
	b.mu.Lock()
	b.gone = true
	b.mu.Unlock()
	select {
	case b.control <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.control }()
	return b.takeDown(ctx)
}

// sweep takes down an end that failed, so that the peer notices: its next proof
// fails. If that does not work now, the keeper tries again, or the next offer does
// it.
func (b *inbox) sweep(ctx context.Context) {
	select {
	case b.control <- struct{}{}:
	default:
		return // an offer is being accepted
	}
	defer func() { <-b.control }()
	b.mu.Lock()
	failed := b.revoking != nil
	b.mu.Unlock()
	if !failed {
		return
	}
	if err := b.takeDown(ctx); err != nil {
		b.peer.log().Warn("mesh: the failed end of a link cannot be revoked", "error", err)
	}
}

// fail drops what comes from an end from now on, and has its keeper revoke it.
func (b *inbox) fail(e *end, cause error) {
	b.mu.Lock()
	failed := b.end == e
	if failed {
		b.end, b.revoking = nil, e
	}
	b.mu.Unlock()
	if failed {
		b.peer.log().Warn("mesh: the link from a member is broken", "error", cause)
		b.peer.wakeKeeper()
	}
}

// next returns the message of a doorbell; false if there is none to deliver.
func (b *inbox) next(e *end, imm uint32) (kind uint8, payload []byte, ok bool) {
	b.mu.Lock()
	if b.end != e {
		b.mu.Unlock()
		return 0, nil, false
	}
	kind, payload, err := b.receiver.Next(imm)
	if err == nil {
		if w, due := b.receiver.Credit(); due {
			w.Flags = rdma.Signaled
			b.owed, b.isOwed = w, true
		}
	}
	b.mu.Unlock()
	if err != nil {
		b.fail(e, err)
	}
	return kind, payload, err == nil
}

// pay posts the credit that is owed, if any. Only the poller calls it.
func (b *inbox) pay(e *end) {
	b.mu.Lock()
	b.paying[0] = b.owed
	owed := b.isOwed && b.end == e
	b.mu.Unlock()
	if !owed {
		return
	}
	_, err := e.qp.Post(b.paying[:])
	if errors.Is(err, rdma.ErrQueueFull) {
		return // a completion will come, and then it is tried again
	}
	if err != nil {
		b.fail(e, err)
		return
	}
	b.peer.tally.verbs.Posted(rdma.OpWriteImm, 0)
	b.mu.Lock()
	if b.end == e {
		b.isOwed = false
	}
	b.mu.Unlock()
}
