// Package host runs ordinary Go programs so that each run replays from its seed:
// goroutines, mutexes, selects, maps and timers included. Such a program begins
// with inside.Main, does no I/O but its output, and is run under these conditions,
// on Linux and amd64:
//
//   - It is built with the tag faketime, the runtime's support for the Go
//     playground: time stands still while a goroutine can run, and jumps to the next
//     timer when none can.
//   - GOMAXPROCS is 1, so one goroutine runs at a time, on one thread, and no garbage is
//     collected.
//   - The runtime's monitor thread, which preempts goroutines, is stopped for good
//     by ptrace when it first sleeps. So goroutines change only where they wait.
//   - What the kernel gives the runtime as a seed of all its chance (AT_RANDOM: hash
//     seeds, select, addresses of the heap) is overwritten before the program's first
//     instruction with bytes drawn from the seed.
//   - A program that has started with other threads than usual, which depends on
//     which thread was faster, says so and is started again; and a start that was not seen
//     twice does not count (inside.start).
//
// The package knows nothing else of what it runs. Start reading at Runner.Run;
// trace_linux_amd64.go has the ptrace.
package host
