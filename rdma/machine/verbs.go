package machine

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// judgeVerbs judges libibverbs and the devices. Faults that concern the process
// come before those of devices: without them no device helps.
func judgeVerbs(f Facts, d Demand) (*Choice, []Finding) {
	found := processFaults(f, d)
	candidates := slices.Clone(f.Devices)
	if d.Device != "" {
		candidates = slices.DeleteFunc(candidates, func(c Device) bool { return c.Name != d.Device })
	}
	var usable []offer
	var faults []Finding
	switch {
	case f.OS != "linux" || f.RDMA == No:
		// There can be no device.
	case f.Created != nil && f.Created.Error != "":
		faults = append(faults, createdFault(f))
	case len(candidates) == 0:
		faults = append(faults, deviceFault(f, d))
	}
	var lacking []Finding // devices that nothing can mend
	for _, c := range candidates {
		if c.Atomics == No {
			lacking = append(lacking, atomicsFault(f, c))
			continue
		}
		offers, inWay := judgeDevice(f, c, d)
		usable, faults = append(usable, offers...), append(faults, inWay...)
	}
	if len(usable) == 0 || len(found) > 0 {
		return nil, slices.Concat(found, faults, lacking)
	}
	choice := slices.MinFunc(usable, offer.compare).choice()
	notes := verbsWarnings(f, d, choice)
	if f.Created != nil && f.Created.Error == "" {
		notes = append(notes, createdNote(f))
	}
	if d.Device == "" && d.GID == "" {
		// What is wrong with other devices is not in the way.
		for _, fault := range faults {
			fault.Level = Note
			notes = append(notes, fault)
		}
	}
	return choice, notes
}

// processFaults are what keeps this process from any device.
func processFaults(f Facts, d Demand) (found []Finding) {
	if f.OS != "linux" {
		return []Finding{linuxFault(f)}
	}
	if !f.Verbs.Built {
		found = append(found, builtFault())
	}
	switch {
	case f.RDMA == No && f.Modules[moduleCore] == ModuleAvailable:
		found = append(found, loadFault(f))
	case f.RDMA == No && f.Modules[moduleCore] == ModuleUnknown:
		found = append(found, unseenFault(f))
	case f.RDMA == No:
		found = append(found, kernelFault(f))
	}
	switch {
	case f.RDMA == No:
	case f.Verbs.Library == No:
		found = append(found, libraryFault(f))
	case f.Verbs.Error != "" && len(f.Devices) > 0:
		found = append(found, verbsFault(f))
	}
	// Without a device memory is locked only if one is to be made.
	if (len(f.Devices) > 0 || d.RXE == RXECreate) && !f.IPCLock && f.Memlock.Soft != Unlimited && f.Memlock.Soft < d.MinRegionBytes {
		found = append(found, memlockFault(f, d))
	}
	return found
}

// offer is a device with a port and a GID that work.
type offer struct {
	device Device
	port   Port
	gid    GID
	// rank of the GID: what was demanded or advertised before what is routable.
	rank int
}

// compare is less than 0 if a is the better one: hardware before software, then
// the better GID, then the larger packets.
func (a offer) compare(b offer) int {
	software := func(o offer) int {
		if o.device.Driver == DriverRXE {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(software(a), software(b)), cmp.Compare(a.rank, b.rank),
		cmp.Compare(b.port.MTU, a.port.MTU), cmp.Compare(a.device.Name, b.device.Name), cmp.Compare(a.gid.Index, b.gid.Index))
}

func (a offer) choice() *Choice {
	gid := a.gid
	c := &Choice{Provider: ProviderVerbs, Device: a.device.Name, Port: a.port.Number, GID: &gid, MTU: a.port.MTU, Netdev: a.port.Netdev}
	on := ""
	if c.Netdev != "" {
		on = " on " + c.Netdev
	}
	c.Why = fmt.Sprintf("%s%s has atomics, its port %d is ACTIVE, and peers reach its GID %v", c.Device, on, c.Port, gid)
	return c
}

// judgeDevice returns what works of a device, or else what is in the way.
func judgeDevice(f Facts, c Device, d Demand) (usable []offer, found []Finding) {
	switch {
	case c.CharDevice == "":
		found = append(found, charDeviceFault(f, c))
	case c.OpenError != "":
		found = append(found, permissionFault(f, c))
	case c.Library == No:
		found = append(found, driverFault(f, c))
	case c.LibraryError != "":
		found = append(found, openFault(c))
	}
	var ports []Finding
	for _, p := range c.Ports {
		if p.State != stateActive {
			ports = append(ports, portFault(f, c, p))
			continue
		}
		offers, fault := judgeGIDs(c, p, d)
		if fault != nil {
			ports = append(ports, *fault)
		}
		usable = append(usable, offers...)
	}
	if len(c.Ports) == 0 {
		ports = append(ports, noPortFault(c))
	}
	if len(usable) == 0 {
		return nil, append(found, ports...)
	}
	if len(found) > 0 {
		return nil, found
	}
	return usable, nil
}

// judgeGIDs returns the offers with the GIDs of a port that are demanded or
// good, or the fault that there is none.
func judgeGIDs(c Device, p Port, d Demand) (offers []offer, fault *Finding) {
	if d.GID != "" {
		demanded := func(g GID) bool { return g.matches(d.GID) }
		// One address may be there as RoCE v1 and as v2.
		at := slices.IndexFunc(p.GIDs, func(g GID) bool { return demanded(g) && g.fits(p) })
		if at < 0 {
			f := demandedGIDFault(c, p, d, slices.IndexFunc(p.GIDs, demanded))
			return nil, &f
		}
		return []offer{{c, p, p.GIDs[at], 0}}, nil
	}
	for _, g := range p.GIDs {
		if rank, ok := g.rank(p, d.Advertise); ok {
			offers = append(offers, offer{c, p, g, rank})
		}
	}
	if len(offers) == 0 {
		f := gidFault(c, p)
		return nil, &f
	}
	return offers, nil
}

// fits says whether the GID is of the type that its port's packets need.
func (g GID) fits(p Port) bool { return p.LinkLayer != layerEthernet || g.Type == typeRoCEv2 }

// rank says whether a GID is good, and how good: 0 is the advertised address, 1
// a routable IPv4 address, 2 a routable IPv6 address, 3 what InfiniBand has,
// whose subnet needs no routing.
func (g GID) rank(p Port, advertise netip.Addr) (int, bool) {
	if p.LinkLayer == layerInfiniBand {
		return 3, true
	}
	switch {
	case !g.fits(p):
		return 0, false
	case advertise.IsValid() && g.Addr.Unmap() == advertise.Unmap():
		return 0, true
	case !routable(g.Addr):
		return 0, false
	case g.Addr.Is4In6():
		return 1, true
	}
	return 2, true
}

// matches says whether the text names this GID: by index or by address.
func (g GID) matches(text string) bool {
	if index, err := strconv.Atoi(text); err == nil {
		return index == g.Index
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(text))
	return err == nil && addr.Unmap() == g.Addr.Unmap()
}

// verbsWarnings are what could be better about the choice.
func verbsWarnings(f Facts, d Demand, c *Choice) (found []Finding) {
	roce := f.ethernet(c)
	if link, ok := f.link(c.Netdev); ok && roce && c.MTU > 0 && c.MTU < maxRoCEMTU && link.MTU < roceLinkMTU {
		found = append(found, mtuWarning(f, c, link))
	}
	if d.PeerMTU > 0 && c.MTU > 0 && d.PeerMTU != c.MTU {
		found = append(found, peerMTUWarning(f, c, d.PeerMTU))
		c.MTU = min(c.MTU, d.PeerMTU)
	}
	if addr := c.GID.Addr; !routable(addr) && d.GID != "" && roce {
		found = append(found, linkLocalWarning(c))
	}
	if d.Advertise.IsValid() && c.GID.Addr.Unmap() != d.Advertise.Unmap() && d.GID == "" && roce {
		found = append(found, otherAddressNote(c, d.Advertise))
	}
	if d.Scope == ScopeHost && d.Provider == "" {
		found = append(found, sharedMemoryNote())
	}
	return found
}

// ethernet says whether the chosen port carries RoCE.
func (f *Facts) ethernet(c *Choice) bool {
	for _, d := range f.Devices {
		for _, p := range d.Ports {
			if d.Name == c.Device && p.Number == c.Port {
				return p.LinkLayer == layerEthernet
			}
		}
	}
	return false
}
