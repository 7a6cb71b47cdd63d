package rpc

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longestResend is the longest pause before TCP sends again what was not
// acknowledged; the kernel allows no less.
const longestResend = time.Second

// resendSoon is the Control of sockets of the control plane; those that a listener
// accepts do not inherit it. TCP doubles its pause with every loss, and after a link
// was cut for some seconds it would be silent for as long again: longer than a
// membership lasts. Kernels before 6.15 cannot bound the pause, and do without.
func resendSoon(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(longestResend.Milliseconds()))
	})
}
