//go:build !linux

package main

import "syscall"

// confine keeps the terminal's Ctrl-C from a machine: this process ends it in
// its own way.
func confine() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
