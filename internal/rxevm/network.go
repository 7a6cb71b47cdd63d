package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// network is the cable of the nodes: a socket pair between node 1 and each of
// the others, which QEMU inherits. It sends and takes Ethernet frames on them;
// in node 1 a hub inside of QEMU joins the sockets and the node's own card, so
// that all hear all:
//
//	node 1  card ─ hub ─┬─ socket ═══ socket ─ card  node 2
//	                    └─ socket ═══ socket ─ card  node 3
//
// A bridge with taps would do the same, but needs root, a kernel of the host
// with both, and somebody to take them down; sockets go away with the machines.
type network struct {
	// ends are, by node (from 0), the sockets that its QEMU inherits.
	ends [][]*os.File
}

// newNetwork connects the nodes. The caller closes it when all have started. A
// single node has a cable too, or QEMU would warn of a card without one; nobody
// is at its other end.
func newNetwork(nodes int) (w network, err error) {
	nodes = max(nodes, 2)
	w.ends = make([][]*os.File, nodes)
	for n := 1; n < nodes; n++ {
		first, other, err := socketPair()
		if err != nil {
			return network{}, errors.Join(fmt.Errorf("network: %w", err), w.close())
		}
		w.ends[0] = append(w.ends[0], first)
		w.ends[n] = append(w.ends[n], other)
	}
	return w, nil
}

// close closes this process's copies of the sockets.
func (w network) close() (err error) {
	for _, ends := range w.ends {
		for _, e := range ends {
			err = errors.Join(err, e.Close())
		}
	}
	return err
}

func socketPair() (a, b *os.File, err error) {
	// Without the lock, a process that starts meanwhile could inherit both.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "cable"), os.NewFile(uintptr(fds[1]), "cable"), nil
}

// hardwareAddress is that of a node's card (from 1).
func hardwareAddress(node int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0x00, 0x77, 0x00, byte(node)}
}

// networkArguments returns QEMU's arguments for a node (from 1) that inherits
// its sockets as the descriptors fds.
func networkArguments(node int, fds []int) []string {
	args := []string{
		"-netdev", "hubport,id=card,hubid=0",
		// 4096 bytes of RDMA in a packet, and its headers.
		"-device", fmt.Sprintf("virtio-net-pci,netdev=card,mac=%s,host_mtu=4200,romfile=", hardwareAddress(node)),
	}
	for i, fd := range fds {
		args = append(args,
			"-netdev", fmt.Sprintf("socket,id=cable%d,fd=%d", i, fd),
			"-netdev", fmt.Sprintf("hubport,id=plug%d,hubid=0,netdev=cable%d", i, i))
	}
	return args
}
