package tcp

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
	"github.com/tenure-faas/tenure/rdma/internal/region"
)

const name = "tcp"

// Provider implements rdma.Provider.
type Provider struct {
	options  Options
	limits   rdma.Limits
	listener *net.TCPListener
	// advertise is the host:port in the addresses of queue pairs.
	advertise string
	regions   region.Table
	ledger    rdma.Ledger
	handle    *handle.Handle

	// closing ends when Close was called.
	closing chan struct{}
	// handshakes has a token for every connection that is about to say hello.
	handshakes chan struct{}
	wg         sync.WaitGroup // the acceptor, and the handshakes

	mu       sync.Mutex // a latch; a queue pair's latch is never taken inside
	isClosed bool
	last     uint32 // the last number given to a queue pair
	pairs    map[uint32]*queuePair
	queues   int // open completion queues
	// greeting are the connections that are about to say hello.
	greeting map[net.Conn]struct{}
}

// Open listens for the queue pairs of peers.
func Open(options Options) (*Provider, error) {
	options.EnsureDefaults()
	if err := options.Validate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", options.Listen)
	if err != nil {
		return nil, fmt.Errorf("rdma/tcp: %w", err)
	}
	p := &Provider{
		options: options, limits: limits(), listener: l.(*net.TCPListener), advertise: options.Advertise,
		closing: make(chan struct{}), handshakes: make(chan struct{}, options.Handshakes),
		pairs: map[uint32]*queuePair{}, greeting: map[net.Conn]struct{}{},
	}
	if at := l.Addr().(*net.TCPAddr); p.advertise == "" {
		if at.IP.IsUnspecified() {
			_ = l.Close() // nothing was accepted
			return nil, fmt.Errorf("%w option of rdma/tcp: Listen %q is a wildcard, so Advertise must say how peers reach it", rdma.ErrInvalid, options.Listen)
		}
		p.advertise = at.String()
	}
	p.handle = handle.Open(p, name+" provider")
	p.wg.Go(p.accept)
	return p, nil
}

// Name implements rdma.Provider.
func (p *Provider) Name() string { return name }

// Limits implements rdma.Provider.
func (p *Provider) Limits() rdma.Limits { return p.limits }

// Register implements rdma.Provider.
func (p *Provider) Register(size int) (rdma.Region, error) {
	if size <= 0 || size > p.limits.MaxRegion {
		return nil, fmt.Errorf("%w region of %d bytes, want 1..%d", rdma.ErrInvalid, size, p.limits.MaxRegion)
	}
	p.mu.Lock()
	defer p.mu.Unlock() // so that Close cannot miss the region
	if p.isClosed {
		return nil, rdma.ErrClosed
	}
	m, err := memory.Map(size)
	if err != nil {
		return nil, fmt.Errorf("rdma/tcp: %w", err)
	}
	r, err := p.regions.Register(name, m, nil)
	if err != nil {
		return nil, errors.Join(err, m.Unmap())
	}
	return r, nil
}

// NewCompletionQueue implements rdma.Provider.
func (p *Provider) NewCompletionQueue(options rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		return nil, rdma.ErrClosed
	}
	inner, err := queue.NewCompletions(name, options, &p.limits)
	if err != nil {
		return nil, err
	}
	q := &completionQueue{Completions: inner, provider: p, spin: options.Spin}
	if err := q.bell.open(); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	p.queues++
	return q, nil
}

// NewQueuePair implements rdma.Provider.
func (p *Provider) NewQueuePair(options rdma.QueuePairOptions) (rdma.QueuePair, error) {
	options.EnsureDefaults()
	send, receive, err := p.check(&options)
	if err != nil {
		return nil, err
	}
	q := newQueuePair(p, &options, send, receive)
	if _, err := rand.Read(q.self.token[:]); err != nil {
		return nil, fmt.Errorf("rdma/tcp: token of a queue pair: %w", err)
	}
	if q.sendPlaces, err = send.Reserve(options.SendDepth); err != nil {
		return nil, err
	}
	if q.receivePlaces, err = receive.Reserve(options.ReceiveDepth); err != nil {
		q.sendPlaces.Release()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		q.sendPlaces.Release()
		q.receivePlaces.Release()
		return nil, rdma.ErrClosed
	}
	p.last++
	q.self.number = p.last
	q.open()
	p.pairs[q.self.number] = q
	return q, nil
}

// check says what is wrong with the options, and returns their queues.
func (p *Provider) check(o *rdma.QueuePairOptions) (send, receive *completionQueue, err error) {
	send, ok := o.SendCQ.(*completionQueue)
	receive, ok2 := o.ReceiveCQ.(*completionQueue)
	switch {
	case !ok || !ok2 || send.provider != p || receive.provider != p:
		return nil, nil, fmt.Errorf("%w queue pair: SendCQ and ReceiveCQ must be completion queues of this provider", rdma.ErrInvalid)
	case o.SendDepth < 1 || o.SendDepth > p.limits.MaxSendDepth || o.ReceiveDepth < 1 || o.ReceiveDepth > p.limits.MaxReceiveDepth:
		return nil, nil, fmt.Errorf("%w queue pair: depths %d and %d, want 1..%d and 1..%d", rdma.ErrInvalid, o.SendDepth, o.ReceiveDepth, p.limits.MaxSendDepth, p.limits.MaxReceiveDepth)
	case o.Timeout < 0:
		return nil, nil, fmt.Errorf("%w queue pair: timeout %v", rdma.ErrInvalid, o.Timeout)
	case len(o.Peer) > maxName:
		return nil, nil, fmt.Errorf("%w queue pair: the name of the peer has %d bytes, the limit is %d", rdma.ErrInvalid, len(o.Peer), maxName)
	}
	return send, receive, nil
}

// find returns the open queue pair with this number, or nil.
func (p *Provider) find(number uint32) *queuePair {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairs[number]
}

// forget strikes out a closed queue pair.
func (p *Provider) forget(number uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, number)
}

// Counters implements rdma.Provider.
func (p *Provider) Counters() []rdma.PeerCounters { return p.ledger.Counters() }

// Close implements rdma.Provider. It waits for its goroutines, which takes a
// moment.
func (p *Provider) Close() error {
	p.mu.Lock()
	if p.isClosed {
		p.mu.Unlock()
		return nil
	}
	if open := p.openLocked(); open != "" {
		p.mu.Unlock()
		return fmt.Errorf("%w: provider tcp has open %s", rdma.ErrInUse, open)
	}
	p.isClosed = true
	close(p.closing)
	for conn := range p.greeting {
		_ = conn.SetDeadline(time.Unix(1, 0)) // its handshake closes it
	}
	p.mu.Unlock()
	err := p.listener.Close()
	p.wg.Wait()
	p.handle.Close()
	return err
}

// namedPairs is how many queue pairs an error names.
const namedPairs = 8

// openLocked names the handles that are open, or is empty.
func (p *Provider) openLocked() string {
	var open []string
	for _, number := range slices.Sorted(maps.Keys(p.pairs)) {
		if len(open) == namedPairs {
			open = append(open, fmt.Sprintf("%d more queue pairs", len(p.pairs)-namedPairs))
			break
		}
		open = append(open, fmt.Sprintf("queue pair %d to %s", number, cmp.Or(p.pairs[number].peer, "an unnamed peer")))
	}
	if p.queues > 0 {
		open = append(open, fmt.Sprintf("%d completion queues", p.queues))
	}
	if n := p.regions.Len(); n > 0 {
		open = append(open, fmt.Sprintf("%d regions", n))
	}
	return strings.Join(open, ", ")
}
