package shm

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// process is the process at the other end of a connection.
type process struct {
	pid int
	// fd is a pidfd: it means this process even after its number went to another.
	// -1 for our own process.
	fd int
}

// self is this process.
func self() process { return process{os.Getpid(), -1} }

// peerProcess finds out who is at the other end of a socket. A process that
// could not be stopped, or that belongs to another user, is refused: it must not
// get a mapping that nobody can take back.
func peerProcess(conn *net.UnixConn) (p process, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return p, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { p, inner = peerOf(int(fd)) })
	return p, errors.Join(err, inner)
}

func peerOf(socket int) (process, error) {
	cred, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return process{}, fmt.Errorf("credentials of the peer: %w", err)
	}
	switch {
	case cred.Uid != 0 && cred.Uid != uint32(os.Geteuid()):
		return process{}, fmt.Errorf("the peer is process %d of user %d, neither ours (%d) nor root's", cred.Pid, cred.Uid, os.Geteuid())
	case cred.Pid == int32(os.Getpid()):
		return self(), nil
	case cred.Pid <= 0:
		return process{}, errors.New("the peer's process cannot be seen from here (another pid namespace), so it could not be stopped")
	}
	// The kernel knows the process that made the socket since Linux 6.5. Before,
	// its number might have gone to another process by now; the messages that
	// follow on the socket then do not come, because it died.
	fd, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		fd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		return process{}, fmt.Errorf("pidfd of the peer's process %d: %w", cred.Pid, err)
	}
	return process{int(cred.Pid), fd}, nil
}

// dead says whether no thread of the process can run any more.
func (p process) dead() bool {
	if p.fd < 0 {
		return false
	}
	polled := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n == 1 && polled[0].Revents&unix.POLLIN != 0
}

// stop sends SIGKILL, but never to this process.
func (p process) stop() error {
	if p.fd < 0 {
		return fmt.Errorf("process %d is this one", p.pid)
	}
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop process %d: %w", p.pid, err)
	}
	return nil
}

func (p process) close() error {
	if p.fd < 0 {
		return nil
	}
	return unix.Close(p.fd)
}
