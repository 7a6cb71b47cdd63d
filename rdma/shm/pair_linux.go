package shm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// state of a queue pair. It only moves down.
type state uint8

const (
	idle state = iota
	// accepting: Accept was called, the peer has not come.
	accepting
	// connecting: Connect is under way, or has failed before it broke the pair.
	connecting
	connected
	broken
	closed
)

// queuePair implements rdma.QueuePair.
type queuePair struct {
	rdma.Tally
	provider *Provider
	options  rdma.QueuePairOptions
	number   uint32
	token    token
	handle   *handle.Handle
	// sendPlaces and receivePlaces are its share of the completion queues.
	sendPlaces, receivePlaces *queue.Places

	// control is our control memory: what the peer may do to us. Close unmaps it.
	control *memory.Mapping
	// bell is our eventfd, with its number: the peer rings it.
	bell     *os.File
	bellFile int
	// polled counts the doorbells that were polled.
	polled atomic.Int64

	// stopping ends a request in progress after the piece that it copies.
	stopping atomic.Bool
	// announced is link once the pair is connected, for those without mu, who tell
	// the peer of regions that come and go.
	announced atomic.Pointer[link]
	// cause says why the pair broke; nil before.
	cause atomic.Pointer[error]
	// wake has a token when the obstacle of the oldest request may be gone.
	wake chan struct{}

	// collector is the goroutine that takes doorbells; others are progress and
	// reader. None is started once the pair is broken.
	collector, others sync.WaitGroup

	// ending serialises Revoke and Close. It is locked before mu.
	ending sync.Mutex

	// mu is held while requests execute, so that nothing they use goes away. It
	// is locked before a region's and the provider's.
	mu          sync.Mutex
	state       state
	controlFile int     // of control; -1 when it is not needed any more
	accepted    address // of the peer that may connect
	peer        process
	link        *link // from connected on
	sends       *queue.Sends
	waiting     waiting
	remotes     remotes
}

var _ rdma.QueuePair = (*queuePair)(nil)

// NewQueuePair implements rdma.Provider.
func (p *Provider) NewQueuePair(options rdma.QueuePairOptions) (rdma.QueuePair, error) {
	options.EnsureDefaults()
	sendCQ, ok1 := options.SendCQ.(*completionQueue)
	receiveCQ, ok2 := options.ReceiveCQ.(*completionQueue)
	switch {
	case !ok1 || !ok2 || sendCQ.provider != p || receiveCQ.provider != p:
		return nil, fmt.Errorf("%w queue pair: its completion queues are not of this shm provider", rdma.ErrInvalid)
	case len(options.Peer) > 64:
		return nil, fmt.Errorf("%w queue pair: the name of the peer has %d bytes, the limit is 64", rdma.ErrInvalid, len(options.Peer))
	case options.SendDepth < 0 || options.SendDepth > maxDepth || options.ReceiveDepth < 0 || options.ReceiveDepth > maxDepth:
		return nil, fmt.Errorf("%w queue pair: depths %d and %d (1..%d)", rdma.ErrInvalid, options.SendDepth, options.ReceiveDepth, maxDepth)
	case options.Timeout < 0:
		return nil, fmt.Errorf("%w queue pair: timeout %v", rdma.ErrInvalid, options.Timeout)
	}
	q := &queuePair{provider: p, options: options, wake: make(chan struct{}, 1), peer: process{fd: -1}, controlFile: -1}
	_, _ = rand.Read(q.token[:]) // never fails
	var err error
	if q.sendPlaces, err = sendCQ.Reserve(options.SendDepth); err != nil {
		return nil, fmt.Errorf("new queue pair: %w", err)
	}
	if q.receivePlaces, err = receiveCQ.Reserve(options.ReceiveDepth); err != nil {
		q.sendPlaces.Release()
		return nil, fmt.Errorf("new queue pair: %w", err)
	}
	if err = q.allocate(); err == nil {
		err = p.enter(q)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new queue pair: %w", err), q.free())
	}
	q.sends = queue.NewSends(q.sendPlaces, &q.Tally, q.number, options.SendDepth)
	q.handle = handle.Open(q, "shm queue pair")
	p.ledger.Open(&q.Tally, options.Peer)
	return q, nil
}

// allocate makes what the peer will get of us.
func (q *queuePair) allocate() (err error) {
	size := controlSize(q.options.ReceiveDepth)
	if q.controlFile, err = memory.NewFile("tenure-control", size); err != nil {
		return err
	}
	if q.control, err = memory.MapFile(q.controlFile, size); err != nil {
		return err
	}
	if q.bellFile, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	q.bell = os.NewFile(uintptr(q.bellFile), "bell")
	return nil
}

// enter gives a queue pair its number and makes it known to peers.
func (p *Provider) enter(q *queuePair) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("shm provider: %w", rdma.ErrClosed)
	}
	p.last++
	q.number = p.last
	p.pairs[q.number] = q
	return nil
}

// Number implements rdma.QueuePair.
func (q *queuePair) Number() uint32 { return q.number }

// Address implements rdma.QueuePair.
func (q *queuePair) Address() []byte {
	a := address{q.number, q.token, q.provider.path}
	return a.encode()
}

// Err implements rdma.QueuePair.
func (q *queuePair) Err() error {
	if err := q.cause.Load(); err != nil {
		return *err
	}
	return nil
}

// Accept implements rdma.QueuePair.
func (q *queuePair) Accept(remote []byte) error {
	a, err := decodeAddress(remote)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.unusedLocked(); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	if q.token.is(a.token) {
		return q.connectSelfLocked()
	}
	q.accepted, q.state = a, accepting
	return nil
}

// unusedLocked says why the pair cannot be connected any more.
func (q *queuePair) unusedLocked() error {
	switch {
	case q.state >= broken:
		return q.brokenError()
	case q.state != idle:
		return fmt.Errorf("%w: queue pair %d was connected or accepted before", rdma.ErrInvalid, q.number)
	}
	return nil
}

// admit makes an accepting queue pair connected to the peer that says hello, or
// says why not. It takes over conn, l and peer if it returns noReason.
func (q *queuePair) admit(conn *net.UnixConn, l *link, peer process, m *message) reason {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.state != accepting:
		return notAccepted
	case !q.accepted.token.is(m.fromToken) || q.accepted.number != m.fromNumber:
		return otherPeer
	}
	// The peer touches our memory as soon as it has this: under mu, so that Revoke
	// comes before, and it gets nothing, or after, and knows whom to wait for.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return malformed
	}
	if err := send(conn, q.introduction(welcome), q.files()...); err != nil {
		return malformed
	}
	l.conn = conn
	q.peer = peer
	q.connectedLocked(l)
	return noReason
}

// introduction is what hello and welcome have in common, to go with files.
func (q *queuePair) introduction(k kind) *message {
	return &message{kind: k, fromNumber: q.number, fromToken: q.token, depth: uint32(q.options.ReceiveDepth)}
}

// files are the files of hello and welcome. Valid until the pair is connected.
func (q *queuePair) files() []int {
	return []int{controlFile: q.controlFile, bellFile: q.bellFile, directoryFile: q.provider.exports.file}
}

// connectedLocked starts what a connected pair needs.
func (q *queuePair) connectedLocked(l *link) {
	q.state, q.link = connected, l
	q.announced.Store(l)
	_ = unix.Close(q.controlFile) // the peer has its own
	q.controlFile = -1
	q.collector.Go(func() { q.collect(l) })
	if l.conn != nil {
		q.provider.exports.announceAll(l)
		q.others.Go(func() { q.read(l) })
	}
	q.nudge()
}

// connectSelfLocked makes the pair its own peer: all as with another, but
// without a socket, and the files need not travel.
func (q *queuePair) connectSelfLocked() error {
	bell, err := unix.FcntlInt(uintptr(q.bellFile), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("connect queue pair %d to itself: %w", q.number, err)
	}
	q.peer = self()
	q.connectedLocked(&link{control: q.control, directory: q.provider.exports.directory, bell: bell,
		outbox: outbox{control: q.control, depth: uint64(q.options.ReceiveDepth)}})
	return nil
}

// Connect implements rdma.QueuePair. It waits for a peer that is alive and does
// not answer until ctx ends, at most for Options.HandshakeTimeout.
func (q *queuePair) Connect(ctx context.Context, remote []byte) error {
	a, err := decodeAddress(remote)
	q.mu.Lock()
	itself := err == nil && q.token.is(a.token)
	if itself && q.state == connected && q.link.conn == nil {
		q.mu.Unlock()
		return nil // Accept has done it
	}
	if usedErr := q.unusedLocked(); usedErr != nil {
		q.mu.Unlock()
		return fmt.Errorf("connect: %w", usedErr)
	}
	if itself {
		defer q.mu.Unlock()
		return q.connectSelfLocked()
	}
	q.state = connecting
	q.mu.Unlock()
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, q.provider.options.HandshakeTimeout)
		err = q.dial(limited, &a)
		cancel()
	}
	if err != nil {
		err = fmt.Errorf("connect queue pair %d to %q: %w", q.number, q.options.Peer, err)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.breakLocked(err, rdma.StatusFlushed)
		return err
	}
	return nil
}

// dial connects to the queue pair with this address.
func (q *queuePair) dial(ctx context.Context, a *address) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", a.path)
	if err != nil {
		return fmt.Errorf("the peer's provider is closed or its process has ended: %w", err)
	}
	conn := c.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends receive
	l, err := q.greet(conn, a)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = q.established(conn, l)
	}
	if err != nil {
		_ = conn.Close() // the peer notices
		if l != nil {
			err = errors.Join(err, l.close())
		}
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
	}
	return err
}

// established makes the pair connected, unless it was revoked meanwhile.
func (q *queuePair) established(conn *net.UnixConn, l *link) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != connecting {
		return q.brokenError()
	}
	l.conn = conn
	q.connectedLocked(l)
	return nil
}

// greet says hello and waits for the answer.
func (q *queuePair) greet(conn *net.UnixConn, a *address) (*link, error) {
	peer, err := peerProcess(conn)
	if err != nil {
		return nil, err
	}
	hello := q.introduction(hello)
	hello.number, hello.token = a.number, a.token
	// The peer touches our memory as soon as it has this: see admit.
	if err := q.sendHello(conn, peer, hello); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	m, files, err := receive(conn)
	switch {
	case err != nil:
		return nil, fmt.Errorf("no welcome from the peer: %w", err)
	case m.kind == refusal:
		return nil, fmt.Errorf("the peer refused: %s", reasons[m.reason])
	case m.kind != welcome || m.fromNumber != a.number || !a.token.is(m.fromToken):
		closeAll(files)
		return nil, errors.New("somebody else answered in the place of the peer")
	}
	return newLink(m.depth, files)
}

// sendHello hands our memory to the peer, unless the pair was revoked meanwhile.
// It takes over peer.
func (q *queuePair) sendHello(conn *net.UnixConn, peer process, hello *message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != connecting {
		return errors.Join(q.brokenError(), peer.close())
	}
	q.peer = peer
	return send(conn, hello, q.files()...)
}
