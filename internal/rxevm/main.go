// Command rxevm runs programs on small virtual machines that have a real
// SoftRoCE device. It boots the kernel of Debian's package, which has rdma_rxe,
// under QEMU's software emulation: no RDMA hardware, no KVM, no kernel module of
// the host and no privilege is needed, so that tests of one-sided verbs run
// wherever QEMU and Debian's packages are.
//
//	rxevm --nodes 2 PAYLOAD_DIR
//
//	    node 1                                  node 2
//	/payload/run                            /payload/run
//	rxe0 on eth0, 10.77.0.1 ═══ frames ═══ rxe0 on eth0, 10.77.0.2
//	     │                                       │
//	     │ console                               │ console
//	     ▼                                       ▼
//	"node1| ..."          rxevm             "node2| ..."
//
// Invariants: a run ends, by itself or by --timeout. Its exit status is 0 only
// if every node said that its payload exited with 0, or died as --dies wants.
// Whatever way it ends, nothing of it stays but the cache: the machines die with
// this process, the network are sockets between the machines, and the initial RAM
// disk has no name in the file system.
//
// It does not emulate an RDMA card, and says nothing of how fast one is. It
// knows nothing of what it runs; test-rxe.sh does.
//
// Start reading at run in run.go; README.md has the user's side.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	// The machines die with the thread that started them (see confine), and
	// this one lasts as long as the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(exitStatus(ctx, os.Args[1:]))
}

// exitStatus runs the program: 0 is success, 1 a node that failed or did not
// end in time, 2 wrong usage or something missing on this machine, 130 an
// interruption.
func exitStatus(ctx context.Context, args []string) int {
	o, err := parseOptions(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "rxevm: interrupted")
		return 130
	}
	fmt.Fprintln(os.Stderr, "rxevm:", err)
	if errors.Is(err, errNode) {
		return 1
	}
	return 2
}
