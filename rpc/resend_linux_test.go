package rpc

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestResendSoon looks at what a server accepts and at what a client dials: both
// send again after a second at the latest.
func TestResendSoon(t *testing.T) {
	l, err := Listen("127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialer := net.Dialer{Control: resendSoon}
	dialed, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for end, conn := range map[string]net.Conn{"dialed": dialed, "accepted": accepted} {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var pause int
		var failure error
		if err := raw.Control(func(fd uintptr) { pause, failure = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS) }); err != nil {
			t.Fatal(err)
		}
		switch {
		case errors.Is(failure, unix.ENOPROTOOPT):
			t.Skip("the kernel cannot bound the pauses of TCP: that begins with Linux 6.15")
		case failure != nil || pause != int(longestResend.Milliseconds()):
			t.Errorf("%s: %d ms, %v", end, pause, failure)
		}
	}
}
