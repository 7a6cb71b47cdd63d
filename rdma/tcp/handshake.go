package tcp

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// Accept implements rdma.QueuePair.
func (q *queuePair) Accept(remote []byte) error {
	a, err := parseAddress(remote)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.unconnectedLocked(); err != nil {
		return err
	}
	q.remote, q.phase = a, phaseAccepted
	q.startWatchLocked()
	return nil
}

// unconnectedLocked is why the queue pair cannot be connected, or nil.
func (q *queuePair) unconnectedLocked() error {
	switch q.phase {
	case phaseIdle:
		return nil
	case phaseBroken:
		return q.unusableLocked()
	default:
		return fmt.Errorf("%w: queue pair %d to %q is connected already; make a new one for each connection", rdma.ErrInvalid, q.self.number, q.peer)
	}
}

// Connect implements rdma.QueuePair.
func (q *queuePair) Connect(ctx context.Context, remote []byte) error {
	a, err := parseAddress(remote)
	ctx, cancel := context.WithTimeout(ctx, q.p.options.HandshakeTimeout)
	defer cancel()
	q.mu.Lock()
	// A queue pair connected to itself is both ends, so it may have accepted.
	if itself := err == nil && a == q.self && q.phase == phaseAccepted && q.remote == a; !itself {
		if err := q.unconnectedLocked(); err != nil {
			q.mu.Unlock()
			return err
		}
	}
	q.remote, q.phase, q.cancel = a, phaseConnecting, cancel
	q.startWatchLocked()
	q.mu.Unlock()

	var l *link
	if err == nil {
		l, err = q.dial(ctx, a)
	}
	q.mu.Lock()
	defer q.unlock()
	q.cancel = nil
	if q.phase == phaseBroken {
		err = q.unusableLocked() // what err says comes of that
	}
	if err != nil {
		if l != nil {
			_ = l.conn.Close() // the peer sees that
		}
		err = fmt.Errorf("connect to %q at %s: %w", q.peer, a.host, err)
		q.breakLocked(rdma.StatusFlushed, err)
		return err
	}
	q.phase = phaseConnected
	q.startLinkLocked(l)
	return nil
}

// startLinkLocked lets a link run.
func (q *queuePair) startLinkLocked(l *link) {
	q.links = append(q.links, l)
	if l.lead {
		q.lead = l
	}
	q.wg.Go(l.read)
	q.wg.Go(l.write)
}

// dial connects to a and shakes hands.
func (q *queuePair) dial(ctx context.Context, a address) (*link, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, endOf(ctx, err)
	}
	conn := c.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	g, err := q.introduce(conn, a)
	if !stop() && err == nil {
		err = ctx.Err() // conn has a deadline in the past, or will have
	}
	if err == nil {
		var l *link
		if l, err = newLink(q, conn, g.terms, true); err == nil {
			return l, nil
		}
	}
	_ = conn.Close() // nothing was posted on it
	return nil, endOf(ctx, err)
}

// endOf adds to err that the context has ended, if it has.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w (%w)", ctx.Err(), err)
}

// introduce says hello.
func (q *queuePair) introduce(conn net.Conn, a address) (greeting, error) {
	h := hello{version: wireVersion, to: a.number, from: q.self.number, token: a.token, terms: q.terms()}
	if _, err := conn.Write(h.append(nil)); err != nil {
		return greeting{}, err
	}
	answer := make([]byte, helloSize)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return greeting{}, fmt.Errorf("waiting for the peer's welcome: %w", err)
	}
	g, err := parseGreeting(answer)
	switch {
	case err != nil:
		return g, err
	case g.verdict != verdictWelcome:
		return g, errors.New(g.verdict.String())
	case subtle.ConstantTimeCompare(g.token[:], q.self.token[:]) == 0:
		return g, errors.New("the peer does not know this queue pair")
	}
	return g, nil
}

func (q *queuePair) terms() terms { return terms{depth: uint32(q.depth), timeout: q.timeout} }

// accept is the acceptor: it gives every new connection a goroutine for its
// handshake, as many as the options allow.
func (p *Provider) accept() {
	for {
		select {
		case p.handshakes <- struct{}{}:
		case <-p.closing:
			return
		}
		conn, err := p.listener.AcceptTCP()
		if err != nil {
			<-p.handshakes
			if errors.Is(err, net.ErrClosed) || !p.pause() {
				return
			}
			continue
		}
		p.wg.Go(func() {
			defer func() { <-p.handshakes }()
			p.welcome(conn)
		})
	}
}

// acceptPause is how long the acceptor waits after an error: there may be too
// many open files.
const acceptPause = 20 * time.Millisecond

// pause is false if the provider was closed meanwhile.
func (p *Provider) pause() bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.closing:
		return false
	}
}

// welcome is the passive end of a handshake. What does not know a token gets no
// further than its hello.
func (p *Provider) welcome(conn *net.TCPConn) {
	if !p.greet(conn) {
		_ = conn.Close() // the provider closes
		return
	}
	defer p.greeted(conn)
	b := make([]byte, helloSize)
	var h hello
	_, err := io.ReadFull(conn, b)
	if err == nil {
		h, err = parseHello(b)
	}
	if err != nil {
		_ = conn.Close() // it is none of ours
		return
	}
	q, g := p.admit(&h)
	_, err = conn.Write(g.append(nil))
	if q != nil && err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if q == nil || !q.join(conn, h.terms, err) {
		_ = conn.Close() // the peer was told, or sees it
	}
}

// greet gives a new connection its deadline. It is false when the provider
// closes.
func (p *Provider) greet(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed || conn.SetDeadline(time.Now().Add(p.options.HandshakeTimeout)) != nil {
		return false
	}
	p.greeting[conn] = struct{}{}
	return true
}

func (p *Provider) greeted(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.greeting, conn)
}

// admit finds the queue pair that is greeted and keeps it for this connection.
// It is nil unless the verdict is welcome.
func (p *Provider) admit(h *hello) (*queuePair, greeting) {
	g := greeting{version: wireVersion, verdict: verdictVersion}
	if h.version != wireVersion {
		return nil, g
	}
	q := p.find(h.to)
	if q == nil || subtle.ConstantTimeCompare(h.token[:], q.self.token[:]) == 0 {
		g.verdict = verdictUnknown
		return nil, g
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	passive := q.phase == phaseAccepted || q.phase == phaseConnecting && q.remote == q.self
	if !passive || q.joining || h.from != q.remote.number {
		g.verdict = verdictNotAccepted
		return nil, g
	}
	q.joining = true
	g.verdict, g.token, g.terms = verdictWelcome, q.remote.token, q.terms()
	return q, g
}

// join makes conn the link of an admitted queue pair, unless the handshake has
// failed with err or the queue pair broke meanwhile.
func (q *queuePair) join(conn *net.TCPConn, peer terms, err error) bool {
	q.mu.Lock()
	defer q.unlock()
	itself := q.remote == q.self
	var l *link
	if err == nil {
		l, err = newLink(q, conn, peer, !itself)
	}
	if err != nil {
		q.breakLocked(rdma.StatusUnreachable, fmt.Errorf("the peer was welcomed: %w", err))
	}
	if q.phase == phaseBroken {
		return false
	}
	if !itself {
		q.phase = phaseConnected
	}
	q.startLinkLocked(l)
	return true
}
