package verbs

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenure-faas/tenure/rdma"
)

// The types of GIDs, as the kernel writes them.
const (
	// TypeRoCEv2 travels in UDP over IP, through routers.
	TypeRoCEv2 = "RoCE v2"
	// TypeIB is InfiniBand, or RoCE v1, which stays within an Ethernet.
	TypeIB = "IB/RoCE v1"
)

// The link layers of ports.
const (
	LinkEthernet   = "Ethernet"
	LinkInfiniBand = "InfiniBand"
)

// Device describes an RDMA device of this machine.
type Device struct {
	// Name is libibverbs', like mlx5_0 or rxe0.
	Name string
	// Transport is "InfiniBand" (also for RoCE) or "iWARP".
	Transport string
	// Firmware is its version, if it has one.
	Firmware string
	// Atomics is "none", "HCA" (atomic among the queue pairs of the device) or
	// "global".
	Atomics string
	// MaxQPRdAtom is how many READs and atomics of a peer may be in flight.
	MaxQPRdAtom int
	// Ports are in the order of their numbers.
	Ports []Port
	// Err says why the device could not be opened; the rest but the name and the
	// transport is unknown then.
	Err error
}

// HasAtomics says whether the device has CAS and FAA.
func (d *Device) HasAtomics() bool { return d.Atomics != "" && d.Atomics != "none" }

// Port is a port of a device.
type Port struct {
	// Number counts from 1.
	Number int
	// State is "ACTIVE" for a port that carries traffic, otherwise like "DOWN".
	State string
	// LinkLayer is LinkEthernet or LinkInfiniBand.
	LinkLayer string
	// ActiveMTU and MaxMTU are payloads of a packet, in bytes.
	ActiveMTU, MaxMTU int
	// LID is the local address on InfiniBand, 0 on Ethernet.
	LID uint16
	// GIDs are its addresses, in the order of their indices, without empty ones.
	GIDs []GID
}

// GID is an address of a port.
type GID struct {
	// Index is its place in the table of the port. It may change when addresses
	// of the interface do.
	Index int
	// Addr is its content; IPv4 is mapped into IPv6.
	Addr netip.Addr
	// Type is TypeRoCEv2 or TypeIB, or empty if the kernel does not say.
	Type string
	// Netdev is the network interface that has the address, if any.
	Netdev string
}

// String returns address, type and index.
func (g GID) String() string {
	return fmt.Sprintf("%v (%s, index %d)", g.Addr.Unmap(), cmp.Or(g.Type, "unknown type"), g.Index)
}

// rank says how good a GID is on its link layer, 0 the best; negative if it is
// of no use.
func (g GID) rank(linkLayer string) int {
	a := g.Addr.Unmap()
	if linkLayer == LinkInfiniBand {
		return 0
	}
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
		return -1
	}
	rank := 0
	if g.Type != TypeRoCEv2 {
		rank = 4
	}
	switch {
	case a.IsLinkLocalUnicast() && a.Is6():
		return rank + 3
	case a.IsLinkLocalUnicast():
		return rank + 2
	case a.Is6():
		return rank + 1
	default:
		return rank
	}
}

// chooseGID picks a GID by content: the one that is wanted, if want is valid,
// otherwise the best one; of equals the first.
func chooseGID(p *Port, want netip.Addr) (GID, error) {
	var usable []GID
	for _, g := range p.GIDs {
		if want.IsValid() && g.Addr == want || !want.IsValid() && g.rank(p.LinkLayer) >= 0 {
			usable = append(usable, g)
		}
	}
	if len(usable) == 0 {
		var have []string
		for _, g := range p.GIDs {
			have = append(have, g.String())
		}
		all := cmp.Or(strings.Join(have, ", "), "none")
		if want.IsValid() {
			return GID{}, fmt.Errorf("port %d has no GID %v; it has %s", p.Number, want.Unmap(), all)
		}
		return GID{}, fmt.Errorf("port %d has no usable GID, it has %s; give its interface an IP address: ip addr add ADDRESS/LENGTH dev INTERFACE", p.Number, all)
	}
	return slices.MinFunc(usable, func(a, b GID) int {
		return cmp.Or(cmp.Compare(a.rank(p.LinkLayer), b.rank(p.LinkLayer)), cmp.Compare(a.Index, b.Index))
	}), nil
}

// choice is what Open opens.
type choice struct {
	device Device
	port   Port
	gid    GID
}

// choose picks device, port and GID. The error says of each device that was
// considered why it cannot be used.
func choose(devices []Device, o *Options) (choice, error) {
	if len(devices) == 0 {
		return choice{}, fmt.Errorf("%w: there is no RDMA device; make a software one with: rdma link add rxe0 type rxe netdev INTERFACE", rdma.ErrNotSupported)
	}
	var faults []error
	for _, d := range devices {
		if o.Device != "" && d.Name != o.Device {
			continue
		}
		c, err := chooseOn(d, o)
		if err == nil {
			return c, nil
		}
		faults = append(faults, fmt.Errorf("device %s: %w", d.Name, err))
	}
	if len(faults) == 0 {
		names := make([]string, len(devices))
		for i, d := range devices {
			names[i] = d.Name
		}
		return choice{}, fmt.Errorf("there is no RDMA device %q; there are %s", o.Device, strings.Join(names, ", "))
	}
	return choice{}, errors.Join(faults...)
}

func chooseOn(d Device, o *Options) (choice, error) {
	switch {
	case d.Err != nil:
		return choice{}, d.Err
	case !d.HasAtomics():
		return choice{}, fmt.Errorf("%w: it has no atomics (CAS, FAA), which leases need; siw and other iWARP devices never have them", rdma.ErrNotSupported)
	}
	var want netip.Addr
	if o.GID != "" {
		var err error
		if want, err = parseGID(o.GID); err != nil {
			return choice{}, err
		}
	}
	var faults []error
	for i := range d.Ports {
		p := &d.Ports[i]
		if o.Port != 0 && p.Number != o.Port {
			continue
		}
		if p.State != "ACTIVE" {
			faults = append(faults, fmt.Errorf("port %d is %s; bring its link up: ip link set INTERFACE up", p.Number, p.State))
			continue
		}
		gid, err := chooseGID(p, want)
		if err == nil {
			return choice{d, *p, gid}, nil
		}
		faults = append(faults, err)
	}
	if len(faults) == 0 {
		return choice{}, fmt.Errorf("it has no port %d, but %d ports", o.Port, len(d.Ports))
	}
	return choice{}, errors.Join(faults...)
}
