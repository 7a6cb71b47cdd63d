package main

import "syscall"

// confine makes a machine die with this process, even if that is killed, and
// keeps the terminal's Ctrl-C from it: this process ends it in its own way. The
// kernel watches the thread that starts the machine, so that thread must last.
func confine() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
