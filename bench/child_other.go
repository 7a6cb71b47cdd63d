//go:build !linux

package bench

import "syscall"

// childAttributes has no way to tie a child to this process here.
func childAttributes() *syscall.SysProcAttr { return nil }
