package rdmatest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	queues "github.com/tenure-faas/tenure/rdma/internal/queue"
	regions "github.com/tenure-faas/tenure/rdma/internal/region"
)

// world is all that the nodes of the plain provider share. The plain provider is
// as simple as the contract allows: every queue pair has one goroutine, which
// executes its requests one by one in the memory of the peer. Its faults are
// what the suite must find.
type world struct {
	faults map[string]bool

	mu     sync.Mutex
	pairs  []*plainPair // by number
	leaked []*plainPair
	opened []*plain
}

// leak keeps a queue pair whose handle stays open, until mend.
func (w *world) leak(q *plainPair) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaked = append(w.leaked, q)
}

// mend closes what a fault has left open, so that this process leaks nothing.
func (w *world) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.leaked {
		q.handle.Close()
	}
	for _, p := range w.opened {
		p.handle.Close()
	}
}

func newWorld(faults ...string) *world {
	w := &world{faults: map[string]bool{}, pairs: []*plainPair{nil}}
	for _, f := range faults {
		w.faults[f] = true
	}
	return w
}

func (w *world) open(name string) (rdma.Provider, error) {
	p := &plain{world: w, name: name, pairs: map[*plainPair]bool{}}
	p.handle = handle.Open(p, "plain provider")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened = append(w.opened, p)
	return p, nil
}

var plainLimits = rdma.Limits{MaxMessage: 2 << 20, MaxInline: 256, MaxSendDepth: 1024, MaxReceiveDepth: 1024, MaxCompletions: 8192, MaxRegion: 64 << 20}

type plain struct {
	world   *world
	name    string
	handle  *handle.Handle
	regions regions.Table
	ledger  rdma.Ledger

	mu     sync.Mutex
	pairs  map[*plainPair]bool
	queues int
	closed bool
}

func (p *plain) fault(name string) bool { return p.world.faults[name] }
func (p *plain) Name() string           { return "plain" }
func (p *plain) Limits() rdma.Limits    { return plainLimits }
func (p *plain) Counters() []rdma.PeerCounters {
	if p.fault("forgets the counters of closed queue pairs") {
		p.mu.Lock()
		defer p.mu.Unlock()
		var open rdma.Ledger
		for q := range p.pairs {
			open.Open(&q.tally, q.options.Peer)
		}
		return open.Counters()
	}
	return p.ledger.Counters()
}

func (p *plain) use() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return rdma.ErrClosed
	}
	return nil
}

func (p *plain) Register(size int) (rdma.Region, error) {
	if err := p.use(); err != nil {
		return nil, err
	}
	if size <= 0 || size > plainLimits.MaxRegion {
		return nil, fmt.Errorf("%w: region of %d bytes", rdma.ErrInvalid, size)
	}
	m, err := memory.Map(size)
	if err != nil {
		return nil, err
	}
	if p.fault("memory is not zeroed") {
		m.Bytes()[size-1] = 1
	}
	return p.regions.Register("plain", m, nil)
}

// plainQueue tells its provider when it goes.
type plainQueue struct {
	*queues.Completions
	provider *plain
	once     sync.Once
}

func (q *plainQueue) Wait(ctx context.Context, dst []rdma.Completion) (int, error) {
	switch {
	case q.provider.fault("Wait spins"):
		for ctx.Err() == nil {
			if n := q.Poll(dst); n > 0 {
				return n, nil
			}
			runtime.Gosched()
		}
	case q.provider.fault("Wait ignores its context"):
		ctx = context.WithoutCancel(ctx)
	case q.provider.fault("Wait looks once"):
		if n := q.Poll(dst); n > 0 {
			return n, nil
		}
		<-ctx.Done()
	case q.provider.fault("Wait ends early"):
		if n := q.Poll(dst); n > 0 {
			return n, nil
		}
		return 0, nil
	}
	return q.Completions.Wait(ctx, dst)
}

func (q *plainQueue) Close() error {
	err := q.Completions.Close()
	if errors.Is(err, rdma.ErrInUse) && q.provider.fault("queues close in use") {
		return nil
	}
	if err == nil {
		q.once.Do(func() {
			q.provider.mu.Lock()
			q.provider.queues--
			q.provider.mu.Unlock()
		})
	}
	return err
}

func (p *plain) NewCompletionQueue(o rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	if err := p.use(); err != nil {
		return nil, err
	}
	if p.fault("completions of closed queue pairs pile up") && o.Depth > 0 {
		o.Depth *= 100
	}
	q, err := queues.NewCompletions("plain", o, &plainLimits)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.queues++
	p.mu.Unlock()
	return &plainQueue{Completions: q, provider: p}, nil
}

func (p *plain) NewQueuePair(o rdma.QueuePairOptions) (rdma.QueuePair, error) {
	if err := p.use(); err != nil {
		return nil, err
	}
	o.EnsureDefaults()
	send, _ := o.SendCQ.(*plainQueue)
	receive, _ := o.ReceiveCQ.(*plainQueue)
	if send == nil || receive == nil || len(o.Peer) > 64 || o.SendDepth < 0 || o.SendDepth > plainLimits.MaxSendDepth ||
		o.ReceiveDepth < 0 || o.ReceiveDepth > plainLimits.MaxReceiveDepth || o.Timeout < 0 {
		return nil, fmt.Errorf("%w: options %+v", rdma.ErrInvalid, o)
	}
	sendPlaces, err := send.Reserve(o.SendDepth)
	if err != nil {
		return nil, err
	}
	receivePlaces, err := receive.Reserve(o.ReceiveDepth)
	if err != nil {
		sendPlaces.Release()
		return nil, err
	}
	q := &plainPair{provider: p, options: o, send: sendPlaces, receive: receivePlaces, kick: make(chan struct{}, 1), stop: make(chan struct{}), connected: make(chan struct{})}
	q.bells.Store(int64(o.ReceiveDepth))
	p.world.mu.Lock()
	q.number = uint32(len(p.world.pairs))
	p.world.pairs = append(p.world.pairs, q)
	p.world.mu.Unlock()
	slots := o.SendDepth
	if p.fault("queue too long") {
		slots = 2*o.SendDepth + 1
	}
	q.sends = queues.NewSends(sendPlaces, &q.tally, q.number, slots)
	q.handle = handle.Open(q, "plain queue pair")
	p.ledger.Open(&q.tally, o.Peer)
	p.mu.Lock()
	p.pairs[q] = true
	p.mu.Unlock()
	return q, nil
}

func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.regions.Len(); !p.fault("closes in use") && (len(p.pairs) > 0 || p.queues > 0 || n > 0) {
		return fmt.Errorf("%w: %d queue pairs, %d completion queues, %d regions", rdma.ErrInUse, len(p.pairs), p.queues, n)
	}
	p.closed = true
	p.handle.Close()
	return nil
}

var errPlain = errors.New("plain: broken")

func (q *plainPair) Number() uint32 { return q.number }
func (q *plainPair) Address() []byte {
	return binary.LittleEndian.AppendUint32([]byte("plain"), q.number)
}

func (q *plainPair) find(remote []byte) (*plainPair, error) {
	if len(remote) != 9 && q.fault("addresses unchecked") {
		return q, nil
	}
	if len(remote) != 9 || string(remote[:5]) != "plain" {
		return nil, fmt.Errorf("%w: address %x", rdma.ErrInvalid, remote)
	}
	w := q.provider.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := binary.LittleEndian.Uint32(remote[5:]); n > 0 && int(n) < len(w.pairs) {
		return w.pairs[n], nil
	}
	return nil, fmt.Errorf("%w: address %x", rdma.ErrInvalid, remote)
}

func (q *plainPair) Accept(remote []byte) error {
	peer, err := q.find(remote)
	if err != nil {
		return err
	}
	return q.begin(peer)
}

func (q *plainPair) Connect(_ context.Context, remote []byte) error {
	peer, err := q.find(remote)
	if err == nil {
		peer.mu.Lock()
		if peer.peer != q || peer.broken != nil || peer.closed {
			err = fmt.Errorf("plain: queue pair %d does not accept %d", peer.number, q.number)
		}
		peer.mu.Unlock()
	}
	if err == nil && peer != q {
		err = q.begin(peer)
	}
	if err != nil {
		q.fail(rdma.StatusFatal, err)
		return err
	}
	close(q.connected)
	if peer != q {
		close(peer.connected)
	}
	return nil
}

func (q *plainPair) begin(peer *plainPair) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return rdma.ErrClosed
	}
	if q.peer != nil || q.broken != nil {
		return fmt.Errorf("%w: queue pair %d is connected or broken", rdma.ErrInvalid, q.number)
	}
	q.peer = peer
	q.runner.Go(q.serve)
	return nil
}

func (q *plainPair) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.broken
}

func (q *plainPair) Counters() rdma.Counters { return q.tally.Counters() }

func (q *plainPair) timeout() time.Duration { return q.options.Timeout }
