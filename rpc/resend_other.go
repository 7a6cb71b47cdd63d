//go:build !linux

package rpc

import "syscall"

// resendSoon has nothing to set: only Linux can bound the pauses of TCP.
func resendSoon(_, _ string, _ syscall.RawConn) error { return nil }
