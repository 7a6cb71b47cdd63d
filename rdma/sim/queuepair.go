package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// state is that of a queue pair.
type state uint8

const (
	stateNew state = iota
	// stateAccepted: it waits for its peer; requests may be posted.
	stateAccepted
	stateConnected
	// stateBroken: it failed or was revoked.
	stateBroken
	// stateClosed: closed by its owner, or its node has crashed.
	stateClosed
)

// queuePair implements rdma.QueuePair.
type queuePair struct {
	provider *Provider
	handle   *handle.Handle
	number   uint32
	timeout  time.Duration
	// sendPlaces and receivePlaces are its share of the completion queues.
	sendPlaces, receivePlaces *queue.Places
	tally                     rdma.Tally
	// receiveFree is the room for doorbells of the peer. Poll adds, bell subtracts.
	receiveFree atomic.Int64

	// All below is guarded by fabric.mu.
	sends *queue.Sends
	state state
	// revoked: nothing that the peer has posted takes effect any more.
	revoked bool
	why     error
	remote  address
	peer    *queuePair // nil until connected; never changes then

	// The requests, oldest first: of all that are not retired, the first and last;
	// the first without completion; the first whose effect is not settled. gated
	// counts those that wait for their turn.
	head, tail, front, unsettled *request
	gated                        int
	// lostWrite and lostRead say that a WRITE, or another request, came to nothing.
	lostWrite, lostRead bool
	// lastArrival is when the last request reaches the peer.
	lastArrival time.Duration

	// progress is when the peer last gave a sign of life, or had no reason to.
	progress time.Duration
	// stretched is the time-out as it is counted now.
	stretched  time.Duration
	timerArmed bool
	timerGen   uint32
}

func newQueuePair(p *Provider, options *rdma.QueuePairOptions, send, receive *queue.Places) *queuePair {
	p.node.queuePairs++
	q := &queuePair{
		provider: p, number: p.node.queuePairs, timeout: options.Timeout, sendPlaces: send, receivePlaces: receive,
	}
	q.remote.name = options.Peer
	q.receiveFree.Store(int64(options.ReceiveDepth))
	q.sends = queue.NewSends(send, &q.tally, q.number, options.SendDepth)
	q.handle = handle.Open(q, "sim queue pair")
	p.ledger.Open(&q.tally, options.Peer)
	p.queuePairs = append(p.queuePairs, q)
	return q
}

// arm makes sure that silence of the peer will be noticed.
func (f *Fabric) arm(q *queuePair) {
	if q.timerArmed || q.state >= stateBroken || q.sends.Len() == 0 {
		return
	}
	q.timerArmed = true
	q.stretched = q.timeout
	if f.faults.TimeoutStretch > 0 {
		q.stretched += time.Duration(f.dice.unit(streamTimeout) * f.faults.TimeoutStretch * float64(q.timeout))
	}
	f.schedule(event{at: max(q.due(), f.now), q: q, gen: q.timerGen, kind: kindTimer})
}

// due is when the silence of the peer will have been too long.
func (q *queuePair) due() time.Duration { return q.progress + q.stretched }

func (q *queuePair) local() address { return address{q.provider.node.name, q.number} }

// Number implements rdma.QueuePair.
func (q *queuePair) Number() uint32 { return q.number }

// Address implements rdma.QueuePair.
func (q *queuePair) Address() []byte { return q.local().encode() }

// attach begins to connect to a remote address.
func (q *queuePair) attach(remote []byte) error {
	switch q.state {
	case stateClosed:
		return rdma.ErrClosed
	case stateBroken:
		return rdma.ErrBroken
	}
	to, err := decodeAddress(remote)
	if err != nil {
		return err
	}
	// A queue pair may be connected to itself; then it has accepted itself.
	if q.state == stateNew || q.state == stateAccepted && to == q.local() && q.remote == to {
		q.remote = to
		return nil
	}
	return fmt.Errorf("%w queue pair %d of %s: it is connected, or about to be, to queue pair %d of %s", rdma.ErrInvalid, q.number, q.provider.node.name, q.remote.number, q.remote.name)
}

// Accept implements rdma.QueuePair.
func (q *queuePair) Accept(remote []byte) error {
	f := q.provider.fabric
	f.lock()
	defer f.mu.Unlock()
	if err := q.attach(remote); err != nil {
		return err
	}
	q.state = stateAccepted
	f.noteEnd(noteAccept, q)
	return nil
}

// Connect implements rdma.QueuePair. It does not wait: a peer that cannot be
// reached now is an error.
func (q *queuePair) Connect(ctx context.Context, remote []byte) error {
	f := q.provider.fabric
	f.lock()
	defer f.mu.Unlock()
	if q.state >= stateConnected {
		return q.attach(remote) // says what is wrong, and changes nothing
	}
	err := q.attach(remote)
	var peer *queuePair
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		peer, err = f.reachable(q, q.remote)
	}
	if err == nil && f.dice.chance(streamControl, f.faults.FailConnect) {
		err = fmt.Errorf("connect to %s: no answer: %w", q.remote.name, rdma.StatusUnreachable)
		if f.dice.below(streamControl, 2) == 0 && peer != q { // the answer was lost
			f.connect(q, peer)
			peer.state = stateConnected
		}
	}
	if err != nil {
		q.why = fmt.Errorf("sim: queue pair %d of %s: %w", q.number, q.provider.node.name, err)
		f.breakDown(q, rdma.StatusFlushed, nil)
		f.notify()
		return err
	}
	f.connect(q, peer)
	q.state, peer.state = stateConnected, stateConnected
	f.notify()
	return nil
}

// Post implements rdma.QueuePair.
func (q *queuePair) Post(requests []rdma.WorkRequest) (int, error) {
	f := q.provider.fabric
	f.lock()
	defer f.mu.Unlock()
	for i := range requests {
		if err := q.post(&requests[i]); err != nil {
			if i > 0 {
				f.notify()
			}
			return i, err
		}
	}
	f.notify()
	return len(requests), nil
}

func (q *queuePair) post(w *rdma.WorkRequest) error {
	f := q.provider.fabric
	switch q.state {
	case stateClosed:
		return rdma.ErrClosed
	case stateNew, stateBroken:
		return rdma.ErrBroken
	}
	if err := w.Check(&limits); err != nil {
		return err
	}
	if q.sends.Free() <= 0 || f.flight >= f.options.MaxInFlight {
		return rdma.ErrQueueFull
	}
	r := f.newRequest(q, w)
	inline := w.Flags&rdma.Inline == 0 || f.own(r)
	f.admit(q, r)
	if !inline {
		r.fate.Status, r.fate.Effect = rdma.StatusLocal, EffectNone
	}
	return nil
}

// Revoke implements rdma.QueuePair. It does not wait.
func (q *queuePair) Revoke(ctx context.Context) error {
	f := q.provider.fabric
	f.lock()
	defer f.mu.Unlock()
	if q.state == stateClosed {
		return rdma.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if !q.revoked && f.dice.chance(streamControl, f.faults.FailRevoke) {
		err = errors.New("sim: revoke: the device failed, nothing is certain")
		if f.dice.below(streamControl, 2) == 0 {
			return err
		}
	}
	q.revoke("revoked")
	f.notify()
	return err
}

func (q *queuePair) revoke(why string) {
	f := q.provider.fabric
	f.forbid(q)
	if q.state < stateBroken {
		q.why = fmt.Errorf("%w: queue pair %d of %s to %s: %s", rdma.ErrBroken, q.number, q.provider.node.name, q.remote.name, why)
		f.breakDown(q, rdma.StatusFlushed, nil)
	}
	f.retire(q)
}

// Err implements rdma.QueuePair.
func (q *queuePair) Err() error {
	f := q.provider.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.why == nil && q.state == stateClosed {
		return rdma.ErrClosed
	}
	return q.why
}

// Counters implements rdma.QueuePair.
func (q *queuePair) Counters() rdma.Counters { return q.tally.Counters() }

// Close implements rdma.QueuePair.
func (q *queuePair) Close() error {
	f := q.provider.fabric
	f.lock()
	defer f.mu.Unlock()
	if q.state == stateClosed {
		return nil
	}
	q.revoke("closed")
	q.state = stateClosed
	p := q.provider
	p.queuePairs = slices.DeleteFunc(p.queuePairs, func(o *queuePair) bool { return o == q })
	q.release()
	f.noteEnd(noteClose, q)
	f.notify()
	return nil
}

// release gives back what a closed queue pair had of its provider.
func (q *queuePair) release() {
	q.sendPlaces.Release()
	q.receivePlaces.Release()
	q.provider.ledger.Close(&q.tally)
	q.handle.Close()
}
