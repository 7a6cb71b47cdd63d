package shm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// read is the goroutine reader: it answers what the peer asks, takes its
// answers and announcements, and notices when it has gone. It ends with the
// connection. A message leaves the socket under mu only: whoever holds mu finds
// there all that reader has not handled.
func (q *queuePair) read(l *link) {
	raw, err := l.conn.SyscallConn()
	for err == nil {
		var inner error
		err = raw.Read(func(fd uintptr) bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			inner = q.readOneLocked(l, int(fd))
			return !errors.Is(inner, unix.EAGAIN)
		})
		if err == nil {
			err = inner
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lostLocked(l, err)
}

// readOneLocked handles a message that has come, or fails with EAGAIN.
func (q *queuePair) readOneLocked(l *link, fd int) error {
	m, files, err := receiveReady(fd)
	if err != nil {
		return err
	}
	return q.handleMessageLocked(l, &m, files)
}

// readReadyLocked handles what has come from the peer without waiting for
// reader, which may not have had the processor yet. The pair may be broken
// afterwards.
func (q *queuePair) readReadyLocked() {
	l := q.link
	raw, err := l.conn.SyscallConn()
	for i := 0; err == nil && i < maxAnnounced; i++ {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = q.readOneLocked(l, int(fd)) })
		if errors.Is(inner, unix.EAGAIN) {
			return
		}
		err = errors.Join(err, inner)
	}
	if err != nil {
		q.lostLocked(l, err)
	}
}

// handleMessageLocked handles a message of the peer. It takes over the files.
func (q *queuePair) handleMessageLocked(l *link, m *message, files []int) error {
	switch m.kind {
	case want:
		found, err := q.provider.exports.with(m.key, func(x *export) error { return x.announce(l) })
		if !found {
			err = send(l.conn, &message{kind: unknown, key: m.key})
		}
		_ = err // a peer that does not read what it is sent waits in vain
		return nil
	case grant:
		return q.grantedLocked(m, files[0])
	case unknown:
		q.refusedLocked(m.key)
		return nil
	default:
		closeAll(files)
		return fmt.Errorf("message of kind %d on a connection", m.kind)
	}
}

// grantedLocked maps a region of the peer: one that was asked for, or that the
// peer has announced. It takes over the file.
func (q *queuePair) grantedLocked(m *message, file int) error {
	defer unix.Close(file) //nolint:errcheck // the mapping does not need it
	if q.state != connected || m.key == 0 {
		return nil
	}
	if x := q.remotes.find(m.key); x != nil && x.generation == m.generation {
		return nil
	}
	if q.remotes.asked != m.key && len(q.remotes.known) >= maxAnnounced {
		return nil // when it is needed, it can be asked for
	}
	if err := memory.CheckFile(file, int(m.size)); err != nil {
		return fmt.Errorf("region of the peer: %w", err)
	}
	mapping, err := memory.MapFile(file, int(m.size))
	if err != nil {
		return fmt.Errorf("region of the peer: %w", err)
	}
	q.installLocked(&remoteRegion{key: m.key, slot: m.slot, generation: m.generation, addr: m.addr, size: m.size, mapping: mapping})
	return nil
}

// lostLocked notes that the peer has closed its end or died, or talks nonsense,
// which is as bad, and breaks the pair.
func (q *queuePair) lostLocked(l *link, err error) {
	l.gone.Store(true)
	l.hangUp()
	q.breakLocked(fmt.Errorf("shm queue pair %d to %q: the peer has gone: %w", q.number, q.options.Peer, err), rdma.StatusUnreachable)
	// The peer may have died between putting a doorbell and ringing the bell.
	_, _ = unix.Write(q.bellFile, one[:]) // a full counter has rung it already
}
