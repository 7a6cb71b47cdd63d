package shm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// link is what a connected queue pair has of its peer.
type link struct {
	// conn is the socket; nil if the queue pair is its own peer, and then control
	// and directory are its own too.
	conn *net.UnixConn
	// control is the peer's control memory, directory its directory of regions,
	// for reading.
	control, directory *memory.Mapping
	outbox             outbox
	// gone is set when the other end of the socket was closed.
	gone atomic.Bool

	mu   sync.Mutex // a leaf
	bell int        // the peer's eventfd, -1 after close
}

// newLink maps what came with hello or welcome, for a link that has no conn yet.
// It takes over the files, also when it fails.
func newLink(depth uint32, files []int) (*link, error) {
	l := &link{bell: files[bellFile]}
	size := controlSize(int(depth))
	err := errors.Join(memory.CheckFile(files[controlFile], size), memory.CheckFile(files[directoryFile], directorySize))
	if err == nil {
		l.control, err = memory.MapFile(files[controlFile], size)
	}
	if err == nil {
		l.directory, err = memory.MapFileReadOnly(files[directoryFile], directorySize)
	}
	if err = errors.Join(err, unix.Close(files[controlFile]), unix.Close(files[directoryFile])); err != nil {
		return nil, errors.Join(err, l.close())
	}
	l.outbox = outbox{control: l.control, depth: uint64(depth)}
	return l, nil
}

// one is what an eventfd takes.
var one = [8]byte{1}

// ring wakes the peer: it takes its doorbells, says which were polled, and drops
// its mappings of closed regions. It does not block.
func (l *link) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bell >= 0 {
		_, _ = unix.Write(l.bell, one[:]) // a full counter has woken it already
	}
}

// revoked says whether the peer takes nothing from us any more.
func (l *link) revoked() bool { return l.gone.Load() || l.control.Load(revokedAt) != 0 }

// hangUp ends the connection, if there is one, so that the peer and reader
// notice. It does not block; more than once is harmless.
func (l *link) hangUp() {
	if l.conn == nil {
		return
	}
	if raw, err := l.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // fails if the peer was first
	}
}

// close frees everything. Nothing may use the link any more but ring.
func (l *link) close() error {
	err := l.closeBell()
	if l.conn != nil {
		err = errors.Join(err, l.conn.Close())
	}
	for _, m := range []*memory.Mapping{l.control, l.directory} {
		if m != nil {
			err = errors.Join(err, m.Unmap())
		}
	}
	return err
}

func (l *link) closeBell() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := l.bell
	l.bell = -1
	return unix.Close(fd)
}

// send sends a message with its files, which stay ours. It does not block: the
// peer reads what it asked for, so a socket that is full is an error.
func send(conn *net.UnixConn, m *message, files ...int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	var inner error
	err = raw.Write(func(fd uintptr) bool {
		for {
			inner = unix.Sendmsg(int(fd), m.encode(), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(inner, unix.EINTR) {
				return true
			}
		}
	})
	return errors.Join(err, inner)
}

// A message that is longer, or has more files, than any may have shows in what
// does not fit.
const (
	messageRoom = messageSize + 1
	rightsRoom  = 4 * (connectionFiles + 1)
)

// receive waits for a message. The caller owns its files.
func receive(conn *net.UnixConn) (m message, files []int, err error) {
	buf, oob := make([]byte, messageRoom), make([]byte, unix.CmsgSpace(rightsRoom))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return m, nil, err
	}
	return unpack(buf[:n], oob[:oobn], flags)
}

// receiveReady is receive on the socket fd, but fails with EAGAIN if there is no
// message.
func receiveReady(fd int) (m message, files []int, err error) {
	buf, oob := make([]byte, messageRoom), make([]byte, unix.CmsgSpace(rightsRoom))
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return m, nil, err
		case n == 0:
			return m, nil, io.EOF
		default:
			return unpack(buf[:n], oob[:oobn], flags)
		}
	}
}

// unpack decodes a message and what came with it.
func unpack(b, oob []byte, flags int) (m message, files []int, err error) {
	files, err = rights(oob)
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("message with too many files")
	}
	if err == nil {
		m, err = decodeMessage(b, len(files))
	}
	if err != nil {
		closeAll(files)
		return m, nil, err
	}
	return m, files, nil
}

// rights returns the files in a control message.
func rights(oob []byte) (files []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	parts, err := unix.ParseSocketControlMessage(oob)
	for i := range parts {
		got, partErr := unix.ParseUnixRights(&parts[i])
		files, err = append(files, got...), errors.Join(err, partErr)
	}
	if err != nil {
		return files, fmt.Errorf("files of a message: %w", err)
	}
	return files, nil
}

// closeAll closes files that nobody wants.
func closeAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd) // they were never used
	}
}
