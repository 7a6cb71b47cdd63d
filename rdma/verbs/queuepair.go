//go:build linux && cgo && rdma

package verbs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// maxPeerName bounds QueuePairOptions.Peer, in bytes.
const maxPeerName = 64

// sent is what the ring remembers of a request.
type sent struct {
	id uint64
	// lkey is that of the memory that the device uses, or 0 if it uses none.
	lkey     uint32
	length   uint32 // of the payload, in bytes
	op       rdma.Opcode
	signaled bool // by the caller, not by us
}

// failure is why a queue pair broke.
type failure struct {
	cause error
	// status is that of one request if the device has not completed it: the one
	// with this sequence number if exact, otherwise the oldest. All others are
	// flushed.
	status   rdma.Status
	exact    bool
	sequence uint32
}

// signalBytes is after how much payload a request is signaled whether the caller
// wants it or not: it bounds the time without progress, see stall.go.
const signalBytes = 16 << 20

// queuePair implements rdma.QueuePair.
//
// The ring has a place for each slot of the send queue. Post fills it at tail,
// and whoever polls the completion queue retires it at head. Sequence numbers
// wrap at 2^32; the ring is a power of two, so that they index it.
type queuePair struct {
	provider          *Provider
	qp                *ibverbs.QP
	here              endpoint
	options           rdma.QueuePairOptions
	sendCQ, receiveCQ *completionQueue
	sendID, receiveID requestID
	tally             rdma.Tally
	handle            *handle.Handle

	// free slots of the send queue. Post takes, delivery gives back.
	free atomic.Int64
	ring []sent
	tail atomic.Uint32 // advanced under mu
	head uint32        // guarded by sendCQ.mu
	// told is whether a flushed request got the status of the failure; guarded by
	// sendCQ.mu.
	told bool

	// receiving allows to post receives, owed are those that lack; both guarded
	// by receiveCQ.mu.
	receiving bool
	owed      int

	connected atomic.Bool
	// mtu is the payload of a packet in bytes; set before connected.
	mtu    int
	broken atomic.Pointer[failure]
	// poison is a failure to come: the queue pair takes no more requests, and
	// breaks when those before the faulty one have ended. Set under mu.
	poison atomic.Pointer[failure]
	// torn is closed when the teardown is over; tearError is set before.
	torn      chan struct{}
	tearError error

	mu sync.Mutex // posts and transitions
	// unsignaled requests since the last signaled one, and their payload.
	unsignaled, unsignaledBytes int
	scratch                     []ibverbs.Descriptor // grows to the longest batch
	stall                       stall

	closing sync.Mutex // serialises Close
	closed  bool
}

// NewQueuePair implements rdma.Provider.
func (p *Provider) NewQueuePair(o rdma.QueuePairOptions) (rdma.QueuePair, error) {
	o.EnsureDefaults()
	sendCQ, sendOK := o.SendCQ.(*completionQueue)
	receiveCQ, receiveOK := o.ReceiveCQ.(*completionQueue)
	switch {
	case !sendOK || !receiveOK || sendCQ == nil || receiveCQ == nil || sendCQ.provider != p || receiveCQ.provider != p:
		return nil, fmt.Errorf("%w queue pair: its completion queues must be of this provider", rdma.ErrInvalid)
	case len(o.Peer) > maxPeerName:
		return nil, fmt.Errorf("%w queue pair: the name of the peer has %d bytes, the limit is %d", rdma.ErrInvalid, len(o.Peer), maxPeerName)
	case o.SendDepth < 1 || o.SendDepth > p.limits.MaxSendDepth || o.ReceiveDepth < 1 || o.ReceiveDepth > p.limits.MaxReceiveDepth:
		return nil, fmt.Errorf("%w queue pair: depths %d (1..%d) and %d (1..%d)", rdma.ErrInvalid,
			o.SendDepth, p.limits.MaxSendDepth, o.ReceiveDepth, p.limits.MaxReceiveDepth)
	case o.Timeout < 0:
		return nil, fmt.Errorf("%w queue pair: timeout %v", rdma.ErrInvalid, o.Timeout)
	}
	if err := p.enter(&p.open.pairs); err != nil {
		return nil, err
	}
	q := &queuePair{provider: p, here: p.here, options: o, sendCQ: sendCQ, receiveCQ: receiveCQ, receiving: true,
		ring: make([]sent, 1<<bits.Len(uint(o.SendDepth-1))), torn: make(chan struct{})}
	q.free.Store(int64(o.SendDepth))
	q.stall.limit, q.stall.timer = stallLimit(o.Timeout), time.AfterFunc(math.MaxInt64, q.look)
	if err := q.create(); err != nil {
		q.stall.timer.Stop()
		p.leave(&p.open.pairs)
		return nil, fmt.Errorf("rdma verbs: queue pair to %q: %w", o.Peer, err)
	}
	q.handle = handle.Open(q, "verbs queue pair")
	p.ledger.Open(&q.tally, o.Peer)
	p.mu.Lock()
	p.pairs[q.here.qpn] = q
	p.mu.Unlock()
	return q, nil
}

// create attaches the queue pair to its completion queues and makes it on the
// device, up to INIT with all receives posted.
func (q *queuePair) create() (err error) {
	p, o := q.provider, &q.options
	if q.sendID, err = q.sendCQ.attach(q, false, o.SendDepth); err != nil {
		return err
	}
	if q.receiveID, err = q.receiveCQ.attach(q, true, o.ReceiveDepth); err != nil {
		q.sendCQ.detach(q, q.sendID, o.SendDepth)
		return err
	}
	defer func() {
		if err != nil {
			q.detach()
		}
	}()
	q.qp, err = p.pd.CreateQP(ibverbs.QPOptions{SendCQ: q.sendCQ.cq, ReceiveCQ: q.receiveCQ.cq,
		SendDepth: o.SendDepth, ReceiveDepth: o.ReceiveDepth, MaxInline: p.limits.MaxInline})
	if err != nil {
		return err
	}
	q.here.qpn, q.here.psn = q.qp.Number, rand.N(uint32(maxNumber+1))
	if err = q.qp.Init(int(q.here.port)); err == nil {
		_, err = q.qp.PostReceives(q.receiveID.at(0), o.ReceiveDepth)
	}
	if err != nil {
		return errors.Join(err, q.qp.Close())
	}
	return nil
}

func (q *queuePair) detach() {
	q.sendCQ.detach(q, q.sendID, q.options.SendDepth)
	q.receiveCQ.detach(q, q.receiveID, q.options.ReceiveDepth)
}

// Number implements rdma.QueuePair.
func (q *queuePair) Number() uint32 { return q.here.qpn }

// Address implements rdma.QueuePair.
func (q *queuePair) Address() []byte { return q.here.encode() }

// Accept implements rdma.QueuePair. It may ask the network for the peer's
// hardware address, which takes up to seconds if nobody answers.
func (q *queuePair) Accept(remote []byte) error { return q.connect(remote) }

// Connect implements rdma.QueuePair. Like Accept it does not talk to the peer's
// provider: a peer that is gone shows at the first request.
func (q *queuePair) Connect(ctx context.Context, remote []byte) error {
	err := ctx.Err()
	if err == nil {
		err = q.connect(remote)
	}
	if err != nil && !q.connected.Load() {
		q.fail(&failure{cause: err})
	}
	return err
}

func (q *queuePair) connect(remote []byte) error {
	there, err := decodeEndpoint(remote)
	if err != nil {
		return err
	}
	how, err := pathBetween(&q.here, &there, q.provider.gidIndex, q.options.Timeout)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.Err(); err != nil {
		return fmt.Errorf("%w: %w", rdma.ErrBroken, err)
	}
	if q.connected.Load() && there == q.here {
		return nil // a queue pair that is its own peer has accepted before it connects
	}
	if q.connected.Load() {
		return fmt.Errorf("%w: the queue pair to %q is connected already", rdma.ErrInvalid, q.options.Peer)
	}
	q.mtu = how.MTU.Bytes()
	if err := q.qp.Connect(&how); err != nil {
		err = fmt.Errorf("rdma verbs: connect to %q: %w", q.options.Peer, err)
		q.fail(&failure{cause: err})
		return err
	}
	q.connected.Store(true)
	return nil
}

// Post implements rdma.QueuePair. It checks local memory itself: the CPU copies
// inline payloads without asking for a key, and rxe of Linux 6.1 may complete
// nothing any more when it finds fault with local memory while other requests are
// under way. So a request with wrong local memory, and those behind it, are taken
// but not given to the device, and the queue pair breaks.
func (q *queuePair) Post(requests []rdma.WorkRequest) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.refusal(); err != nil {
		return 0, err
	}
	if len(requests) == 0 {
		return 0, nil
	}
	room := int(q.free.Load())
	if room < len(requests) {
		q.sendCQ.reap()
		room = int(q.free.Load())
	}
	n, tail, mask := 0, q.tail.Load(), uint32(len(q.ring)-1)
	valid := len(requests) // how many go to the device
	var refused error
	var of *region // the last one found
	for ; n < len(requests); n++ {
		w := &requests[n]
		if refused = w.Check(&q.provider.limits); refused != nil {
			break
		}
		if n == room {
			refused = rdma.ErrQueueFull
			break
		}
		lkey := uint32(0)
		if w.Local.Length > 0 {
			if of == nil || of.mr.LKey != w.Local.LKey {
				of = q.provider.regions.find(w.Local.LKey)
			}
			if of == nil || !of.covers(&w.Local) {
				valid = min(valid, n)
			}
			if w.Flags&rdma.Inline == 0 {
				lkey = w.Local.LKey
			}
		}
		q.ring[(tail+uint32(n))&mask] = sent{w.ID, lkey, w.Local.Length, w.Op, w.Flags&rdma.Signaled != 0}
		if n < valid {
			q.describe(n, w, q.sendID.at(tail+uint32(n)))
		}
	}
	taken, err := q.hand(n, min(n, valid), tail)
	for i := range taken {
		q.tally.Posted(requests[i].Op, requests[i].Local.Length)
	}
	if err != nil {
		return taken, err
	}
	return taken, refused
}

// describe writes the descriptor of the n-th request of a batch. The caller
// holds mu.
func (q *queuePair) describe(n int, w *rdma.WorkRequest, id uint64) {
	if n == len(q.scratch) {
		q.scratch = append(q.scratch, ibverbs.Descriptor{})
		q.scratch = q.scratch[:cap(q.scratch)]
	}
	flags := ibverbs.Flag(w.Flags)
	q.unsignaled++
	q.unsignaledBytes += int(w.Local.Length)
	if q.unsignaled >= (q.options.SendDepth+1)/2 || q.unsignaledBytes >= signalBytes {
		flags |= ibverbs.FlagSignaled
	}
	if flags&ibverbs.FlagSignaled != 0 {
		q.unsignaled, q.unsignaledBytes = 0, 0
	}
	q.scratch[n] = ibverbs.Descriptor{
		ID:         id,
		LocalAddr:  w.Local.Addr,
		Length:     w.Local.Length,
		LKey:       w.Local.LKey,
		RemoteAddr: w.RemoteAddr,
		CompareAdd: w.CompareAdd,
		Swap:       w.Swap,
		RKey:       w.RKey,
		Imm:        w.Imm,
		Op:         ibverbs.Op(w.Op),
		Flags:      flags,
	}
}

// hand takes n requests, and gives the first valid ones of them to the device.
// The one after those is not fit for it: the queue pair breaks there. The caller
// holds mu.
func (q *queuePair) hand(n, valid int, tail uint32) (taken int, err error) {
	if n == 0 {
		return 0, nil
	}
	// Before the device has them: their completions may come at once.
	q.free.Add(int64(-n))
	q.tail.Store(tail + uint32(n))
	q.watch()
	if valid > 0 {
		if valid < n {
			q.scratch[valid-1].Flags |= ibverbs.FlagSignaled // failAt waits for it
			q.unsignaled = 0
		}
		taken, err = q.qp.PostSend(q.scratch[:valid])
	}
	if taken == valid && err == nil {
		if valid < n {
			q.failAt(tail+uint32(valid), rdma.StatusLocal)
		}
		return n, nil
	}
	q.tail.Store(tail + uint32(taken))
	q.free.Add(int64(n - taken))
	// The next one is signaled: nobody knows which of these were.
	q.unsignaled = q.options.SendDepth
	switch {
	case taken < valid && errors.Is(err, syscall.ENOMEM):
		return taken, fmt.Errorf("%w: the device says so: %w", rdma.ErrQueueFull, err)
	case taken < valid && errors.Is(err, syscall.EINVAL):
		return taken, fmt.Errorf("%w request %d: the device refuses it: %w", rdma.ErrInvalid, q.ring[(tail+uint32(taken))&uint32(len(q.ring)-1)].id, err)
	default:
		q.fail(&failure{cause: err, status: rdma.StatusFatal})
		return taken, fmt.Errorf("%w: %w", rdma.ErrBroken, err)
	}
}

// failAt breaks the queue pair on account of a request that the device did not
// get, as the device would have: when those before it have ended. If no completion
// will tell when, it does so at once. The caller holds mu.
func (q *queuePair) failAt(sequence uint32, status rdma.Status) {
	r := &q.ring[sequence&uint32(len(q.ring)-1)]
	f := &failure{cause: fmt.Errorf("%v to %q, request %d: %w", r.op, q.options.Peer, r.id, status), status: status, exact: true, sequence: sequence}
	q.poison.Store(f)
	q.sendCQ.mu.Lock()
	last := q.head == sequence
	q.sendCQ.mu.Unlock()
	if last || q.unsignaled > 0 {
		q.fail(f)
	}
}

// failure is why the queue pair is broken or about to be, or nil.
func (q *queuePair) failure() *failure {
	if f := q.broken.Load(); f != nil {
		return f
	}
	return q.poison.Load()
}

// refusal is why nothing can be posted, or nil.
func (q *queuePair) refusal() error {
	if f := q.failure(); f != nil {
		return fmt.Errorf("%w: %w", rdma.ErrBroken, f.cause)
	}
	if !q.connected.Load() {
		return rdma.ErrBroken
	}
	return nil
}

// completed retires the ring up to a completion of the device, and says what the
// caller sees of it. The caller holds sendCQ.mu.
func (q *queuePair) completed(c *ibverbs.Completion, sequence uint32) (entry, bool) {
	if sequence-q.head >= q.tail.Load()-q.head {
		return entry{}, false // a second one
	}
	mask := uint32(len(q.ring) - 1)
	// Those before it were not signaled and succeeded, or they would have
	// completions of their own.
	q.free.Add(int64(sequence - q.head))
	r := q.ring[sequence&mask]
	q.head = sequence + 1
	if f := q.poison.Load(); f != nil && f.sequence == q.head {
		q.fail(f)
	}
	status := statusOfRequest(c.Status, r.op, r.length, q.mtu)
	switch {
	case status == rdma.StatusOK && !r.signaled:
		q.free.Add(1)
		return entry{}, false
	case status == rdma.StatusOK:
	case status == rdma.StatusFlushed && q.broken.Load() != nil:
		q.tally.Failed(r.op)
		status = q.flushed(sequence)
	default:
		q.tally.Failed(r.op)
		q.fail(&failure{cause: fmt.Errorf("%v to %q, request %d: %w (%v, vendor's code %#x)", r.op, q.options.Peer, r.id, status, c.Status, c.Vendor)})
	}
	return entry{Completion: rdma.Completion{ID: r.id, QP: q.here.qpn, Op: r.op, Status: status}, pair: q}, true
}

// received makes a doorbell of a completion of the device. The caller holds
// receiveCQ.mu.
func (q *queuePair) received(c *ibverbs.Completion) (entry, bool) {
	if c.Status != ibverbs.Success {
		// The device flushes receives when the peer did what it may not, and when we
		// take the queue pair away; the latter has its cause already.
		q.fail(&failure{cause: fmt.Errorf("the device broke the connection with %q: a request from there was refused (receives: %v)", q.options.Peer, c.Status)})
		return entry{}, false
	}
	q.tally.Posted(rdma.OpReceive, c.Length)
	return entry{Completion: rdma.Completion{QP: q.here.qpn, Imm: c.Imm, Length: c.Length, Op: rdma.OpReceive}, pair: q}, true
}

// postReceives replaces n receives. The caller holds receiveCQ.mu.
func (q *queuePair) postReceives(n int) {
	if !q.receiving {
		return
	}
	if _, err := q.qp.PostReceives(q.receiveID.at(0), n); err != nil {
		q.fail(&failure{cause: fmt.Errorf("the device takes no receives for doorbells of %q: %w", q.options.Peer, err)})
	}
}

// uses says whether the device may use the region with this key for a request
// that is not known to be done. Post takes no more of those.
func (q *queuePair) uses(lkey uint32) bool {
	q.mu.Lock()
	defer q.mu.Unlock() // a Post that has begun ends first
	q.sendCQ.reap()
	q.sendCQ.mu.Lock()
	defer q.sendCQ.mu.Unlock()
	for i := q.head; i != q.tail.Load(); i++ {
		if q.ring[i&uint32(len(q.ring)-1)].lkey == lkey {
			return true
		}
	}
	return false
}

// Err implements rdma.QueuePair. It looks at the completion queues first.
func (q *queuePair) Err() error {
	if q.broken.Load() == nil {
		q.reap()
	}
	if f := q.failure(); f != nil {
		return f.cause
	}
	return nil
}

// Counters implements rdma.QueuePair.
func (q *queuePair) Counters() rdma.Counters { return q.tally.Counters() }
