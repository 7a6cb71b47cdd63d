package shm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// listen makes the socket, in a directory that only this user can enter.
func (p *Provider) listen() error {
	parent := p.options.Directory
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return err
	}
	directory, err := os.MkdirTemp(parent, "tenure-shm-")
	if err != nil {
		return err
	}
	p.path = filepath.Join(directory, "socket")
	if len(p.path) > maxPath {
		return errors.Join(fmt.Errorf("%w option Directory of shm: the socket %s would have a path of %d bytes, the limit is %d: choose a shorter directory",
			rdma.ErrInvalid, p.path, len(p.path), maxPath), os.Remove(directory))
	}
	p.listener, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: p.path, Net: "unixpacket"})
	if err != nil {
		return errors.Join(err, os.Remove(directory))
	}
	return nil
}

// The limits of what strangers can make us do.
const (
	maxGreetings = 64
	acceptPause  = 10 * time.Millisecond
)

// accept hands every connection to a goroutine of its own, until Close.
func (p *Provider) accept() {
	for {
		conn, err := p.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause) // no file is free, so give others time to close some
			continue
		}
		p.greetings <- struct{}{}
		p.wg.Go(func() {
			p.greet(conn)
			<-p.greetings
		})
	}
}

// greet answers the hello of a connection. From then on the connection belongs
// to its queue pair; without one it is closed.
func (p *Provider) greet(conn *net.UnixConn) {
	if !p.greets(conn) {
		_ = conn.Close() // it was never used
		return
	}
	why := stranger
	if peer, err := peerProcess(conn); err == nil {
		if why = p.introduce(conn, peer); why != noReason {
			_ = peer.close() // it was never used
		}
	}
	p.mu.Lock()
	delete(p.greeting, conn)
	p.mu.Unlock()
	if why != noReason {
		_ = send(conn, &message{kind: refusal, reason: why}) // a peer that has gone needs no reason
		_ = conn.Close()                                     // it was never used
	}
}

// greets enters a connection among those whose hello is under way, unless the
// provider is closed.
func (p *Provider) greets(conn *net.UnixConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.greeting[conn] = struct{}{}
	}
	return !p.closed
}

// introduce gives the connection to the queue pair that it is for, or says why
// not.
func (p *Provider) introduce(conn *net.UnixConn, peer process) reason {
	if err := conn.SetDeadline(time.Now().Add(p.options.HandshakeTimeout)); err != nil {
		return malformed
	}
	m, files, err := receive(conn)
	if err != nil {
		return malformed
	}
	if m.kind != hello {
		closeAll(files)
		return malformed
	}
	p.mu.Lock()
	q := p.pairs[m.number]
	p.mu.Unlock()
	if q == nil || !q.token.is(m.token) {
		closeAll(files)
		return noPair
	}
	l, err := newLink(m.depth, files)
	if err != nil {
		return malformed
	}
	why := q.admit(conn, l, peer, &m)
	if why != noReason {
		_ = l.close() // it was never used
	}
	return why
}
