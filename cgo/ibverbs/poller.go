//go:build linux && cgo && rdma

package ibverbs

// #include "shim.h"
import "C"

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
)

// poller is a copy of a non-blocking file descriptor of the library, which Go's
// poller watches. It must be a copy: the library closes its own, and Go this one.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	shut atomic.Bool
}

func newPoller(fd C.int, name string) (*poller, error) {
	copied, err := C.tenure_dup(fd)
	if copied < 0 {
		return nil, failedPointer("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(copied), name)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// await waits until next says something other than EAGAIN, and returns it, or
// os.ErrClosed after close. Next must not block.
func (p *poller) await(call string, next func() C.int) error {
	var r syscall.Errno
	err := p.raw.Read(func(uintptr) bool {
		for r = syscall.EINTR; r == syscall.EINTR; {
			r = syscall.Errno(next())
		}
		return r != syscall.EAGAIN
	})
	switch {
	case err == nil:
		return failed(call, r) // also after close: what next has got must be used
	case p.shut.Load():
		return os.ErrClosed
	default:
		return err
	}
}

// close ends await.
func (p *poller) close() error {
	p.shut.Store(true)
	return p.file.Close()
}
