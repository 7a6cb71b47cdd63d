package node_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is a bridge, in a network namespace of its own, that joins hosts, each in
// its own, too. The test is one of the hosts. All ends with the test's process.
//
// Every host has a fixed table of its neighbours' hardware addresses. A link is cut
// by writing an address there that nobody has: what one host sends to the other is
// lost on the bridge, silently, while the other way still works.
type network struct {
	t     *testing.T
	own   *os.File // the namespace of the test
	hub   *os.File // that of the bridge
	hosts map[string]*host
	cuts  map[link]bool
}

// host is one place on a network.
type host struct {
	namespace *os.File
	address   net.IP
	hardware  net.HardwareAddr
	index     int // of its interface
}

// link is one direction between two hosts.
type link struct{ from, to string }

// nobody is a hardware address that no host has.
var nobody = net.HardwareAddr{2, 0, 0, 0, 0, 0xff}

// ownNamespace opens the network namespace of the calling thread.
func ownNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// newNetwork joins hosts; the first is the test itself. The test must be in a
// network namespace that nobody else uses, and be allowed to make others.
func newNetwork(t *testing.T, names ...string) (*network, error) {
	n := &network{t: t, hosts: map[string]*host{}, cuts: map[link]bool{}}
	t.Cleanup(n.close)
	var err error
	if n.own, err = ownNamespace(); err != nil {
		return nil, err
	}
	if n.hub, err = n.newNamespace(); err != nil {
		return nil, err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
	err = n.in(n.hub, func() error {
		return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge))
	})
	if err != nil {
		return nil, fmt.Errorf("make a bridge: %w", err)
	}
	for i, name := range names {
		h := &host{namespace: n.own, address: net.IPv4(10, 77, 0, byte(i+1)).To4(), hardware: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}}
		if i > 0 {
			if h.namespace, err = n.newNamespace(); err != nil {
				return nil, err
			}
		}
		n.hosts[name] = h
		if err := n.plug(bridge, name, h); err != nil {
			return nil, fmt.Errorf("join %s to the bridge: %w", name, err)
		}
	}
	for from := range n.hosts {
		for to := range n.hosts {
			if err := n.set(link{from, to}, false); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// plug gives a host its interface, the other end of which is at the bridge.
func (n *network) plug(bridge netlink.Link, name string, h *host) error {
	err := n.in(n.hub, func() error {
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerHardwareAddr: h.hardware,
			PeerNamespace: netlink.NsFd(int(h.namespace.Fd()))}
		if err := netlink.LinkAdd(port); err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(port, bridge), netlink.LinkSetUp(port))
	})
	if err != nil {
		return err
	}
	return n.in(h.namespace, func() error {
		loopback, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		h.index = eth.Attrs().Index
		address := &netlink.Addr{IPNet: &net.IPNet{IP: h.address, Mask: net.CIDRMask(24, 32)}}
		return errors.Join(netlink.LinkSetUp(loopback), netlink.LinkSetUp(eth), netlink.AddrAdd(eth, address))
	})
}

// newNamespace makes a network namespace, which lives as long as the file is open
// or somebody is in it.
func (n *network) newNamespace() (made *os.File, err error) {
	err = n.in(nil, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		made, err = ownNamespace()
		return err
	})
	return made, err
}

// in calls f in a namespace; nil is the test's. A thread that does not come back
// is never used again.
func (n *network) in(namespace *os.File, f func() error) error {
	runtime.LockOSThread()
	enter := func(file *os.File) error {
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return nil
	}
	if namespace != nil {
		if err := enter(namespace); err != nil {
			runtime.UnlockOSThread()
			return err
		}
	}
	err := f()
	if back := enter(n.own); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// launch starts a command at a host. It ends with the test's process at the latest.
func (n *network) launch(name string, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return n.in(n.hosts[name].namespace, cmd.Start)
}

// set makes one direction of a link work, or lose everything.
func (n *network) set(l link, cut bool) error {
	from, to := n.hosts[l.from], n.hosts[l.to]
	if from == to {
		return nil
	}
	hardware := to.hardware
	if cut {
		hardware = nobody
	}
	return n.in(from.namespace, func() error {
		err := netlink.NeighSet(&netlink.Neigh{LinkIndex: from.index, IP: to.address, HardwareAddr: hardware, State: netlink.NUD_PERMANENT, Family: netlink.FAMILY_V4})
		if err != nil {
			return fmt.Errorf("the link from %s to %s: %w", l.from, l.to, err)
		}
		return nil
	})
}

// cut cuts directions of links, until mend.
func (n *network) cut(links ...link) {
	n.t.Helper()
	for _, l := range links {
		if err := n.set(l, true); err != nil {
			n.t.Error(err)
		}
		n.cuts[l] = true
	}
}

// mend makes all links work again.
func (n *network) mend() {
	n.t.Helper()
	for l := range n.cuts {
		if err := n.set(l, false); err != nil {
			n.t.Error(err)
		}
	}
	clear(n.cuts)
}

// close closes what holds the namespaces; they end with the processes in them.
func (n *network) close() {
	for _, h := range n.hosts {
		if h.namespace != n.own {
			h.namespace.Close()
		}
	}
	for _, file := range []*os.File{n.own, n.hub} {
		if file != nil {
			file.Close()
		}
	}
}
