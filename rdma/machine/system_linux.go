package machine

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/Mellanox/rdmamap"
	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma/verbs"
)

// host returns this machine.
func host() *system {
	return &system{
		root: "/", goos: runtime.GOOS, goarch: runtime.GOARCH, uid: os.Geteuid(),
		rdmaDevices: rdmamap.GetRdmaDeviceList,
		deviceOf: func(netdev string) string {
			// It fails for what can have no device, such as lo.
			name, err := rdmamap.GetRdmaDeviceForNetdevice(netdev)
			if err != nil {
				return ""
			}
			return name
		},
		charDevices: rdmamap.GetRdmaCharDevices,
		links:       links,
		askRDMA: func() error {
			_, err := netlink.RdmaLinkList()
			return err
		},
		addRXE:  func(name, netdev string) error { return netlink.RdmaLinkAdd(name, "rxe", netdev) },
		open:    openAndClose,
		memlock: memlock,
		memfd:   memfd,
		built:   verbs.Built,
		verbs:   verbsDevices,
	}
}

// links reads the interfaces and their addresses.
func links() (all []Link, err error) {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("route netlink: %w", err)
	}
	defer func() { err = cmp.Or(err, conn.Close()) }()
	messages, err := conn.Link.List()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addresses, err := conn.Address.List()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	slices.SortFunc(messages, func(a, b rtnetlink.LinkMessage) int { return cmp.Compare(a.Index, b.Index) })
	for _, m := range messages {
		if m.Attributes == nil {
			continue
		}
		l := Link{
			Name: m.Attributes.Name, MTU: int(m.Attributes.MTU),
			Up: m.Flags&unix.IFF_UP != 0, Carrier: m.Flags&unix.IFF_LOWER_UP != 0,
			Loopback: m.Flags&unix.IFF_LOOPBACK != 0, Ethernet: m.Type == unix.ARPHRD_ETHER,
			Addresses: []netip.Prefix{},
		}
		if m.Attributes.Info != nil {
			l.Kind = m.Attributes.Info.Kind
		}
		for _, a := range addresses {
			if prefix, ok := prefixOf(a); ok && a.Index == m.Index {
				l.Addresses = append(l.Addresses, prefix)
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// prefixOf returns the address that an interface has: Local, where the other
// end of a point-to-point link is Address.
func prefixOf(m rtnetlink.AddressMessage) (netip.Prefix, bool) {
	if m.Attributes == nil {
		return netip.Prefix{}, false
	}
	bytes := m.Attributes.Local
	if bytes == nil {
		bytes = m.Attributes.Address
	}
	addr, ok := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(addr.Unmap(), int(m.PrefixLength)), ok
}

func openAndClose(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

func memlock() (Memlock, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return Memlock{}, err
	}
	return Memlock{Soft: bytesOf(limit.Cur), Hard: bytesOf(limit.Max)}, nil
}

// bytesOf returns a limit of the kernel, which has its own word for none.
func bytesOf(limit uint64) int64 {
	if limit >= 1<<62 {
		return Unlimited
	}
	return int64(limit)
}

func memfd() error {
	fd, err := unix.MemfdCreate("tenure-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close a memfd: %w", err)
	}
	return nil
}

// verbsDevices asks libibverbs.
func verbsDevices() ([]verbsDevice, error) {
	devices, err := verbs.Devices()
	if err != nil {
		return nil, err
	}
	all := make([]verbsDevice, len(devices))
	for i, d := range devices {
		all[i] = verbsDevice{name: d.Name, err: d.Err, atomics: d.HasAtomics(), ports: []Port{}}
		for _, p := range d.Ports {
			port := Port{Number: p.Number, State: p.State, LinkLayer: p.LinkLayer, MTU: p.ActiveMTU, GIDs: []GID{}}
			for _, g := range p.GIDs {
				port.GIDs = append(port.GIDs, GID{Index: g.Index, Addr: g.Addr, Type: g.Type})
				port.Netdev = cmp.Or(port.Netdev, g.Netdev)
			}
			all[i].ports = append(all[i].ports, port)
		}
	}
	return all, nil
}
