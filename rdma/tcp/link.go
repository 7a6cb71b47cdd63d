package tcp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

const (
	// inputSize is the buffer of a reader, in bytes. It holds several of the
	// longest frames that must be whole before they are executed.
	inputSize = 64 << 10
	// answerAt is how many bytes of responses the reader collects at most before
	// it hands them over.
	answerAt = 32 << 10
	// rounds is how many batches a caller of Post writes at most, of which all but
	// the first are of others. Then the writer goes on.
	rounds = 8
)

// link is one connection of a queue pair.
type link struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	// peer are the terms of the other end.
	peer terms
	out  *outbox

	// short says that the last read got less than it asked for, so that nothing
	// more was there, and idle that nothing of ours was outstanding after it. Both
	// are the reader's.
	short, idle bool

	// full has a token when the socket is full and the writer has the outbox;
	// capacity 1, as only who has the outbox sends.
	full chan struct{}
	// gone ends when the reader has left.
	gone chan struct{}
	// try and persist write the outbox, drop and serve read; made once.
	try                  func(fd uintptr)
	persist, serve, drop func(fd uintptr) bool
	outcome              written // of try

	// writing is held while memory of a region is being written to the socket,
	// and to set silent: afterwards that does not happen any more. The latch of
	// the queue pair is taken inside.
	writing sync.Mutex
	silent  bool

	executor // the reader's
}

func newLink(q *queuePair, conn *net.TCPConn, peer terms, lead bool) (*link, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &link{
		conn: conn, raw: raw, peer: peer, out: &q.out, full: make(chan struct{}, 1), gone: make(chan struct{}),
		executor: executor{q: q, lead: lead, in: input{bytes: make([]byte, inputSize)}},
	}
	if !lead {
		l.out = &outbox{}
	}
	l.try, l.persist, l.serve, l.drop = l.tryOutbox, l.persistOutbox, l.serveSocket, l.dropInput
	return l, nil
}

// read is the reader: it executes the requests of the peer and completes ours,
// until the connection or the queue pair ends.
func (l *link) read() {
	q := l.q
	l.answer() // what was posted before there was a connection
	err := l.raw.Read(l.serve)
	if err != nil && !q.broken.Load() {
		// A write has failed, see writeOutbox. Perhaps there is a last word of the peer.
		_ = l.raw.Control(func(fd uintptr) { l.serve(fd) })
	}
	if l.refused {
		l.linger()
	}
	q.mu.Lock()
	if l.end != nil {
		err = l.end
	}
	q.breakLocked(rdma.StatusUnreachable, fmt.Errorf("the connection ended: %w", err))
	q.unlock()

	// From here on nobody touches the memory of outstanding requests.
	l.writing.Lock()
	l.silent = true
	l.writing.Unlock()
	_ = l.conn.Close() // the queue pair is broken anyway
	close(l.gone)
	q.linkEnded(l)
}

// serveSocket serves what arrives; it runs whenever the socket may have
// something and returns true at the end.
//
// Go's poller tells of each change of the socket once, so it must be read until
// it is empty before this waits. A read that got less than it asked for has
// emptied it; to read once more would cost a system call, a twentieth of a round
// trip, and only show whether the peer has ended the connection in the same
// moment. That is asked where somebody waits for the peer. Where nobody does,
// the next Post fails in the socket and interrupts the reader, see writeOutbox.
func (l *link) serveSocket(fd uintptr) bool {
	for {
		n, err := l.fill(int(fd))
		switch {
		case err == nil && n > 0:
		case err == nil:
			l.end = io.EOF
			return true
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		default:
			l.end = err
			return true
		}
		l.q.progress.Add(1)
		if !l.work() {
			return true
		}
		if l.short && l.idle {
			return false
		}
	}
}

// work executes what has been read, and is false at the end.
func (l *link) work() bool {
	for {
		switch l.step() {
		case stepStarved:
			l.answer()
			return true
		case stepFull:
			l.answer()
		case stepCrowded:
			l.answer()
			l.awaitPlace()
		default:
			l.answer()
			return false
		}
	}
}

// fill reads once: into the buffer, or straight into a region where a payload
// is long.
func (l *link) fill(fd int) (int, error) {
	in, to := &l.in, &l.sink
	if to.left < inputSize {
		space := in.space()
		n, err := unix.Read(fd, space)
		in.filled(max(n, 0))
		l.short = n < len(space)
		return n, err
	}
	// The buffer is empty: step has moved what there was.
	span, ok := l.q.p.regions.Acquire(to.key, to.addr, to.left)
	if !ok {
		l.lost()
		return 1, nil // step goes on with that
	}
	n, err := unix.Read(fd, span.Bytes) // does not wait
	l.short = n < len(span.Bytes)
	span.Release() // before the latch of the queue pair is taken
	if n > 0 {
		l.poured(n)
	}
	return n, err
}

// answer hands the responses over, and writes them if nobody else is writing.
// It also sends requests that responses have set free.
func (l *link) answer() {
	l.flushAcks()
	q := l.q
	q.mu.Lock()
	// What is in next has not left, so the peer still waits for it.
	if l.out.next.answers+l.answers.answers > int(l.peer.depth) {
		q.breakLocked(rdma.StatusUnreachable, fmt.Errorf("protocol: the peer sends more than the %d requests it may have outstanding", l.peer.depth))
	}
	l.out.next.take(&l.answers)
	mine := l.out.begin()
	l.idle = q.sends.Len() == 0
	q.unlock()
	if mine {
		l.drain()
	}
}

// drain writes the outbox, of which the caller has made itself the writer,
// without waiting.
func (l *link) drain() {
	for range rounds {
		// After a failure nobody writes any more: the outbox stays busy.
		if l.raw.Control(l.try) != nil || l.outcome == writtenNone {
			return
		}
		if l.outcome == writtenSome {
			break
		}
		l.q.mu.Lock()
		more := l.out.turn()
		l.q.mu.Unlock()
		if !more {
			return
		}
	}
	l.full <- struct{}{}
}

func (l *link) tryOutbox(fd uintptr) { l.outcome = l.writeOutbox(fd) }

// write is the writer: it has the outbox while the socket is full.
func (l *link) write() {
	for {
		select {
		case <-l.full:
			_ = l.raw.Write(l.persist) // fails when the link ends
		case <-l.gone:
			return
		}
	}
}

// persistOutbox runs whenever the socket may take something, and returns true
// when nothing is left.
func (l *link) persistOutbox(fd uintptr) bool {
	for {
		switch l.writeOutbox(fd) {
		case writtenSome:
			return false
		case writtenNone:
			return true
		default:
		}
		l.q.mu.Lock()
		more := l.out.turn()
		l.q.mu.Unlock()
		if !more {
			return true
		}
	}
}

func (l *link) writeOutbox(fd uintptr) written {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.silent {
		return writtenNone
	}
	progress, outcome, lost := l.out.write(int(fd), &l.q.p.regions)
	if progress {
		l.q.progress.Add(1)
	}
	switch {
	case lost != nil:
		l.q.bodyLost(lost)
	case outcome == writtenNone:
		// The reader shall look what happened, and for what came before.
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return outcome
}

// Doorbells that find no place are tried again after these times.
const (
	retryFirst = 50 * time.Microsecond
	retryMost  = 2 * time.Millisecond
)

// awaitPlace waits until there is a place for the peer's doorbell, or refuses
// it. Poll frees places without telling anybody, so this looks again and again,
// ever more rarely.
func (l *link) awaitPlace() {
	q := l.q
	patience := max(min(q.p.options.DoorbellPatience, l.peer.timeout/2), time.Millisecond)
	wait := retryFirst
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for start := time.Now(); q.places.Load() == 0; {
		if time.Since(start) > patience {
			l.refuse(rdma.StatusReceiverNotReady)
			return
		}
		select {
		case <-timer.C:
		case <-q.done:
			return
		}
		q.progress.Add(1) // the peer is not silent, we do not listen
		wait = min(2*wait, retryMost)
		timer.Reset(wait)
	}
}

// linger waits, a while, for the peer to end the connection, so that the error
// that it was sent arrives: to close a connection with input unread discards
// output. Nothing that the peer sends is executed.
func (l *link) linger() {
	q := l.q
	q.mu.Lock()
	if !q.interrupted {
		_ = l.conn.SetReadDeadline(time.Now().Add(q.timeout)) // fails if it is closed: then Read does too
	}
	q.mu.Unlock()
	if err := l.raw.Read(l.drop); err != nil && !errors.Is(err, net.ErrClosed) && l.end == nil {
		l.end = err
	}
}

func (l *link) dropInput(fd uintptr) bool {
	for {
		n, err := unix.Read(int(fd), l.in.bytes)
		switch {
		case n > 0 || errors.Is(err, unix.EINTR):
		default:
			return !errors.Is(err, unix.EAGAIN)
		}
	}
}
