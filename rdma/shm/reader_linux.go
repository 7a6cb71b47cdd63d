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
// connection.
func (q *queuePair) read(l *link) {
	for {
		m, files, err := receive(l.conn)
		if err == nil {
			err = q.handleMessage(l, &m, files)
		}
		if err != nil {
			q.lost(l, err)
			return
		}
	}
}

// handleMessage handles a message of the peer. It takes over the files.
func (q *queuePair) handleMessage(l *link, m *message, files []int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.handleMessageLocked(l, m, files)
}

func (q *queuePair) handleMessageLocked(l *link, m *message, files []int) error {
	switch m.kind {
	case want:
		found, err := q.provider.exports.with(m.key, func(x *export) error { return x.announce(l) })
		if !found {
			err = send(l.conn, &message{kind: unknown, key: m.key})
		}
		return err
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

// readReadyLocked handles what has come from the peer without waiting for
// reader, which may not have had the processor yet.
func (q *queuePair) readReadyLocked() {
	l := q.link
	for range maxAnnounced {
		m, files, err := receiveReady(l.conn)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err == nil {
			err = q.handleMessageLocked(l, &m, files)
		}
		if err != nil {
			l.hangUp() // reader finds out
			return
		}
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

// lost notes that the peer has closed its end or died, or talks nonsense, which
// is as bad, and breaks the pair.
func (q *queuePair) lost(l *link, err error) {
	l.gone.Store(true)
	l.hangUp()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.breakLocked(fmt.Errorf("shm queue pair %d to %q: the peer has gone: %w", q.number, q.options.Peer, err), rdma.StatusUnreachable)
	// The peer may have died between putting a doorbell and ringing the bell.
	_, _ = unix.Write(q.bellFile, one[:]) // a full counter has rung it already
}
