package bench

import "syscall"

// childAttributes puts a child into a process group of its own, so that ^C at
// the terminal reaches it only through this process and does not cut off its
// answers under a measurement, and lets it die with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
