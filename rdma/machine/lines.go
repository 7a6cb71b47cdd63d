package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// This file has the words for everything that can be wrong with a machine, so
// that they can be compared with each other.

func linuxFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "the system is " + f.OS, Wrong: "RDMA devices can be used on Linux only"}
}

func builtFault() Finding {
	return Finding{Level: Fault, Found: "this program was built without verbs", Wrong: "it cannot use RDMA devices",
		Mend: run("CGO_ENABLED=1 go build -tags rdma ./cmd/tenure")}
}

func kernelFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "no RDMA in the kernel", Wrong: f.Kernel + " was built without it, so there can be no RDMA device",
		Mend: f.installKernel()}
}

func loadFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "RDMA is not loaded", Wrong: "kernel " + f.Kernel + " has it as modules",
		Mend: f.runHost("modprobe ib_uverbs")}
}

// unseenFault is for a process that sees neither RDMA nor the kernel's modules.
func unseenFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "no RDMA in the kernel", Wrong: f.Kernel + " has not loaded it, or was built without it",
		Mend: f.runHost("modprobe ib_uverbs") + "; if there is no such module, " + f.installKernel()}
}

// deviceFault is for a machine without a device, or without the demanded one.
func deviceFault(f Facts, d Demand) Finding {
	if len(f.Devices) > 0 {
		var names []string
		for _, c := range f.Devices {
			names = append(names, c.Name)
		}
		return Finding{Level: Fault, Found: fmt.Sprintf("no RDMA device %q", d.Device), Wrong: "there is " + strings.Join(names, ", "),
			Mend: run("tenure doctor --device " + names[0])}
	}
	none := Finding{Level: Fault, Found: "no RDMA device", Wrong: "there is no RDMA adapter, and no software device (rxe) was made"}
	if d.Device != "" {
		none.Found = fmt.Sprintf("no RDMA device %q", d.Device)
	}
	if f.Modules[moduleRXE] == ModuleAbsent {
		none.Wrong = "there is no RDMA adapter, and kernel " + f.Kernel + " has no module rdma_rxe to make a software device"
		none.Mend = f.installRXE()
		return none
	}
	none.Mend = f.makeRXE()
	return none
}

func libraryFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "no libibverbs", Wrong: libraryName + ", through which programs use RDMA devices, is not installed",
		Mend: f.installVerbs()}
}

func verbsFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "libibverbs", Wrong: "it cannot list the devices (" + f.Verbs.Error + ")", Mend: f.installVerbs()}
}

// driverFault is for a device that the kernel has and libibverbs has not.
func driverFault(f Facts, c Device) Finding {
	return Finding{Level: Fault, Found: c.Name, Wrong: "libibverbs has no driver for it", Mend: f.installVerbs()}
}

// openFault is for a device of which libibverbs says itself what is wrong.
func openFault(c Device) Finding {
	return Finding{Level: Fault, Found: c.Name, Wrong: "libibverbs cannot open it (" + c.LibraryError + ")"}
}

func memlockFault(f Facts, d Demand) Finding {
	found := Finding{Level: Fault, Found: "memlock is " + Bytes(f.Memlock.Soft), Wrong: "verbs must lock " + Bytes(d.MinRegionBytes) + " of memory or more"}
	kib := strconv.FormatInt((d.MinRegionBytes+1023)/1024, 10)
	switch {
	case f.Memlock.Hard == Unlimited || f.Memlock.Hard >= d.MinRegionBytes:
		found.Mend = run("ulimit -l " + kib)
	case f.Container == "docker" || f.Container == "podman":
		found.Mend = run(f.Container + " run --ulimit memlock=-1")
	default:
		found.Mend = f.runRoot("prlimit --pid $$ --memlock=unlimited") + " (for a service: LimitMEMLOCK=infinity)"
	}
	return found
}

func atomicsFault(f Facts, c Device) Finding {
	found := Finding{Level: Fault, Found: c.Name, Wrong: "it has no atomics (CAS, FAA), which leases need"}
	switch {
	case slices.ContainsFunc(f.Devices, func(other Device) bool { return other.Atomics != No }):
		// Mending that device is less than making another one.
	case f.Modules[moduleRXE] == ModuleAbsent:
		found.Mend = f.installRXE()
	default:
		found.Mend = f.makeRXE()
	}
	return found
}

func charDeviceFault(f Facts, c Device) Finding {
	found := Finding{Level: Fault, Found: c.Name, Wrong: "programs cannot open it, because the module ib_uverbs is not loaded", Mend: f.runHost("modprobe ib_uverbs")}
	if f.Modules[moduleUverbs] == ModuleLoaded {
		found.Wrong = "it has no device file in /dev/infiniband"
		found.Mend = f.runRoot("udevadm trigger --subsystem-match=infiniband_verbs")
	}
	return found
}

func permissionFault(f Facts, c Device) Finding {
	found := Finding{Level: Fault, Found: c.Name, Wrong: "its device file cannot be opened (" + c.OpenError + ")"}
	if c.Denied {
		found.Wrong = fmt.Sprintf("user %d has no permission for %s", f.UID, c.CharDevice)
	}
	switch {
	case f.Container == "docker", f.Container == "podman":
		if !c.Denied || f.UID == 0 { // root is denied what the container was not given
			found.Mend = run(f.Container + " run --device /dev/infiniband")
			break
		}
		fallthrough
	case c.Denied:
		found.Mend = f.runRoot("chmod a+rw " + c.CharDevice)
	}
	return found
}

func noPortFault(c Device) Finding {
	return Finding{Level: Fault, Found: c.Name, Wrong: "it has no port"}
}

func portFault(f Facts, c Device, p Port) Finding {
	found := Finding{Level: Fault, Found: fmt.Sprintf("%s port %d is %s", c.Name, p.Number, p.State)}
	link, ok := f.link(p.Netdev)
	switch {
	case ok && !link.Up:
		found.Wrong, found.Mend = "the interface "+link.Name+" is down", f.runRoot("ip link set dev "+link.Name+" up")
	case ok && !link.Carrier:
		found.Wrong, found.Mend = "the interface "+link.Name+" has no carrier", "connect its cable, then "+run("ip link show dev "+link.Name)
	case p.LinkLayer == layerInfiniBand:
		found.Wrong, found.Mend = "no subnet manager has set it up", f.runRoot("systemctl start opensm")
	default:
		found.Wrong, found.Mend = "it does not move data", run(fmt.Sprintf("rdma link show %s/%d", c.Name, p.Number))
	}
	return found
}

// gidFault is for a port whose GIDs peers cannot reach.
func gidFault(c Device, p Port) Finding {
	found := Finding{Level: Fault, Found: fmt.Sprintf("%s port %d", c.Name, p.Number), Wrong: "it has no GID"}
	if len(p.GIDs) > 0 {
		found.Wrong = "other machines reach none of its GIDs: " + list(p.GIDs)
	}
	netdev := p.Netdev
	if netdev == "" {
		netdev = "INTERFACE"
	}
	found.Mend = "give the interface an address, run: ip addr add ADDRESS/24 dev " + netdev
	return found
}

// demandedGIDFault is for a demanded GID that is not there (at is less than 0),
// or not of the right type.
func demandedGIDFault(c Device, p Port, d Demand, at int) Finding {
	found := Finding{Level: Fault, Found: fmt.Sprintf("%s port %d", c.Name, p.Number), Wrong: "it has no GID " + d.GID}
	if len(p.GIDs) > 0 {
		found.Wrong += ", only " + list(p.GIDs)
	}
	if at >= 0 {
		found.Wrong = "its GID " + p.GIDs[at].String() + " is not of type " + typeRoCEv2
	}
	for _, g := range p.GIDs {
		if _, good := g.rank(p, d.Advertise); good {
			found.Mend = run("tenure doctor --gid " + g.Addr.Unmap().String())
			return found
		}
	}
	return found
}

// maxListed is how many GIDs a line lists.
const maxListed = 4

func list(gids []GID) string {
	var all []string
	for _, g := range gids[:min(len(gids), maxListed)] {
		all = append(all, g.String())
	}
	if n := len(gids) - len(all); n > 0 {
		all = append(all, fmt.Sprintf("%d more", n))
	}
	return strings.Join(all, ", ")
}

func createdFault(f Facts) Finding {
	found := "no software device (rxe) could be made"
	if f.Created.Netdev != "" {
		found += " on " + f.Created.Netdev
	}
	return Finding{Level: Fault, Found: found, Wrong: f.Created.Error, Mend: f.Created.Mend}
}

func createdNote(f Facts) Finding {
	return Finding{Level: Note, Found: fmt.Sprintf("%s was made on %s", f.Created.Device, f.Created.Netdev), Wrong: "it stays until it is removed or the machine starts anew",
		Mend: "to remove it, " + f.runRoot("rdma link delete "+f.Created.Device)}
}

func mtuWarning(f Facts, c *Choice, link Link) Finding {
	return Finding{Level: Warning, Found: fmt.Sprintf("%s has MTU %d", link.Name, link.MTU),
		Wrong: fmt.Sprintf("packets of %s carry %d bytes, where %d are possible", c.Device, c.MTU, maxRoCEMTU),
		Mend:  f.runRoot(fmt.Sprintf("ip link set dev %s mtu %d", link.Name, roceLinkMTU)) + " (on every machine and switch)"}
}

func peerMTUWarning(f Facts, c *Choice, peer int) Finding {
	found := Finding{Level: Warning, Found: fmt.Sprintf("RDMA packets carry %d bytes here and %d at the peer", c.MTU, peer),
		Wrong: fmt.Sprintf("both use %d", min(c.MTU, peer))}
	switch command := fmt.Sprintf("ip link set dev %s mtu %d", c.Netdev, roceLinkMTU); {
	case c.MTU < peer && c.Netdev != "":
		found.Mend = f.runRoot(command)
	case c.MTU > peer:
		found.Mend = fmt.Sprintf("at the peer, run: ip link set dev INTERFACE mtu %d", roceLinkMTU)
	}
	return found
}

func linkLocalWarning(c *Choice) Finding {
	return Finding{Level: Warning, Found: fmt.Sprintf("GID %v was demanded", c.GID), Wrong: "machines behind a router cannot reach it"}
}

func otherAddressNote(c *Choice, advertised netip.Addr) Finding {
	return Finding{Level: Note, Found: fmt.Sprintf("%v is advertised", advertised.Unmap()), Wrong: fmt.Sprintf("no GID has it, so RDMA goes over %v on %s", c.GID.Addr.Unmap(), c.Device)}
}

func sharedMemoryNote() Finding {
	return Finding{Level: Note, Found: "all workers are on this machine", Wrong: "verbs was chosen because there is a device, but shared memory is faster",
		Mend: run("tenure doctor --provider shm")}
}

func memfdFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "no memory that processes can share", Wrong: f.Memfd}
}

// scopeNote is no fault of the machine.
func scopeNote() Finding {
	return Finding{Level: Note, Found: "workers are on several machines", Wrong: "shm reaches only those of one"}
}

func advertiseFault(f Facts, a netip.Addr) Finding {
	found := Finding{Level: Fault, Found: fmt.Sprintf("%v is advertised", a.Unmap()), Wrong: "other machines cannot reach it"}
	if _, addr, ok := f.outward(); ok {
		found.Mend = run("tenure doctor --advertise " + addr.String())
	}
	return found
}

func advertiseWarning(a netip.Addr) Finding {
	return Finding{Level: Warning, Found: fmt.Sprintf("%v is advertised", a.Unmap()), Wrong: "no interface of this machine has it, so it must be forwarded here",
		Mend: run("ip -brief address")}
}

func addressFault(f Facts) Finding {
	return Finding{Level: Fault, Found: "no address that other machines can reach", Wrong: "every interface is down or has a local address only",
		Mend: f.runRoot("ip addr add ADDRESS/24 dev " + f.rxeNetdev())}
}

// Bytes returns a size for people, in the largest unit that divides it; a limit
// may be unlimited.
func Bytes(n int64) string {
	if n == Unlimited {
		return "unlimited"
	}
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
