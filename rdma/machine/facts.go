package machine

import (
	"fmt"
	"net/netip"
)

// Facts is what was found on a machine: plain data, nothing judged.
type Facts struct {
	// OS and Arch are Go's names, like linux and amd64.
	OS   string `json:"os"`
	Arch string `json:"arch"`
	// Kernel is its release, like 6.1.0-40-amd64; empty if not known.
	Kernel string `json:"kernel,omitempty"`
	// Distribution is what /etc/os-release says.
	Distribution Distribution `json:"distribution"`
	// Container is what kind this process runs in, like docker; empty for none
	// that could be seen.
	Container string `json:"container,omitempty"`
	// UID is the user of this process.
	UID int `json:"uid"`
	// NetAdmin and IPCLock are effective capabilities, with regard to the whole
	// machine: those of a user namespace do not count.
	NetAdmin bool `json:"net_admin"`
	IPCLock  bool `json:"ipc_lock"`
	// Memlock is how much memory this process may pin.
	Memlock Memlock `json:"memlock"`
	// Memfd is why memory cannot be shared between processes; empty if it can.
	Memfd string `json:"memfd_error,omitempty"`
	// RDMA says whether RDMA is in the kernel now, as sysfs shows and its netlink
	// answers. A module that is not loaded is not in it: see Modules.
	RDMA Answer `json:"kernel_rdma"`
	// Modules are the kernel modules that matter, by name.
	Modules map[string]ModuleState `json:"modules"`
	// Verbs is about the way to devices through libibverbs.
	Verbs Verbs `json:"verbs"`
	// Links are the network interfaces, in the order of their indices.
	Links []Link `json:"links"`
	// Devices are the RDMA devices, by name.
	Devices []Device `json:"devices"`
	// Created is the attempt to make a software device, if there was one.
	Created *Created `json:"created,omitempty"`
	// Unread is what could not be found out, one message each.
	Unread []string `json:"unread,omitempty"`
}

// Distribution is an operating system's name for itself.
type Distribution struct {
	// ID and Like are for programs: debian; "rhel fedora".
	ID   string `json:"id,omitempty"`
	Like string `json:"like,omitempty"`
	// Name is for people.
	Name string `json:"name,omitempty"`
}

// Unlimited is a limit that does not limit.
const Unlimited int64 = -1

// Memlock is RLIMIT_MEMLOCK, in bytes; Unlimited is possible.
type Memlock struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// Answer is yes, no, or not known.
type Answer string

// The answers. The zero value is no answer either.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// ModuleState says where a kernel module is.
type ModuleState string

// The states of a module.
const (
	// ModuleLoaded is in the kernel, loaded or built in.
	ModuleLoaded ModuleState = "loaded"
	// ModuleAvailable is on disk for this kernel.
	ModuleAvailable ModuleState = "available"
	// ModuleAbsent is not there for this kernel.
	ModuleAbsent ModuleState = "absent"
	// ModuleUnknown is not loaded, and this process does not see the directory
	// of modules; containers usually do not.
	ModuleUnknown ModuleState = "unknown"
)

// The modules that Probe looks for.
const (
	moduleCore   = "ib_core"
	moduleUverbs = "ib_uverbs"
	moduleRXE    = "rdma_rxe"
)

// Verbs is how far this process can get with libibverbs.
type Verbs struct {
	// Built says that the provider verbs is compiled into this program.
	Built bool `json:"built"`
	// Library says whether libibverbs.so.1 is installed.
	Library Answer `json:"library"`
	// Error is why libibverbs could not list devices; empty if it did or was
	// not asked.
	Error string `json:"error,omitempty"`
}

// Link is a network interface.
type Link struct {
	Name string `json:"name"`
	// Kind is empty for hardware, otherwise like veth or bridge.
	Kind string `json:"kind,omitempty"`
	// Up is what somebody wants it to be, Carrier whether it has a connection.
	Up      bool `json:"up"`
	Carrier bool `json:"carrier"`
	// Loopback is lo. Ethernet has frames that RoCE can travel in.
	Loopback bool `json:"loopback,omitempty"`
	Ethernet bool `json:"ethernet"`
	// MTU is in bytes.
	MTU int `json:"mtu"`
	// Addresses are those of the interface with the lengths of their networks.
	Addresses []netip.Prefix `json:"addresses"`
	// Device is the RDMA device on it; empty for none.
	Device string `json:"rdma_device,omitempty"`
}

// Device is an RDMA device.
type Device struct {
	Name string `json:"name"`
	// Driver is rxe or the kernel's module; empty if not known.
	Driver string `json:"driver,omitempty"`
	// Atomics says whether it has CAS and FAA that are atomic among its users.
	Atomics Answer `json:"atomics"`
	// CharDevice is how programs open it; empty if it has none.
	CharDevice string `json:"char_device,omitempty"`
	// OpenError is why this process cannot open CharDevice; empty if it can.
	OpenError string `json:"open_error,omitempty"`
	// Denied says that OpenError is a lack of permission.
	Denied bool `json:"denied,omitempty"`
	// Library says whether libibverbs offers the device; unknown if it was not
	// or could not be asked.
	Library Answer `json:"library"`
	// LibraryError is why libibverbs cannot open it; empty if it can or was not
	// asked.
	LibraryError string `json:"library_error,omitempty"`
	// Ports are in the order of their numbers.
	Ports []Port `json:"ports"`
}

// DriverRXE is the driver of the software device that has atomics.
const DriverRXE = "rxe"

// The link layers of ports.
const (
	layerEthernet   = "Ethernet"
	layerInfiniBand = "InfiniBand"
)

// stateActive is the state of a port that moves data.
const stateActive = "ACTIVE"

// Port is a port of an RDMA device.
type Port struct {
	// Number counts from 1.
	Number int `json:"number"`
	// State is ACTIVE, DOWN, INIT or ARMED.
	State string `json:"state"`
	// LinkLayer is Ethernet or InfiniBand.
	LinkLayer string `json:"link_layer"`
	// MTU is how many bytes of payload a packet carries; 0 if not known.
	MTU int `json:"mtu"`
	// Netdev is the network interface below it; empty for none.
	Netdev string `json:"netdev,omitempty"`
	// GIDs are its addresses.
	GIDs []GID `json:"gids"`
}

// The types of GIDs, as the kernel writes them.
const (
	typeRoCEv2 = "RoCE v2"
	typeIB     = "IB/RoCE v1"
)

// GID is an address of a port.
type GID struct {
	// Index is its place in the table of the port. It may change.
	Index int `json:"index"`
	// Addr is its 16 bytes; IPv4 is mapped into IPv6.
	Addr netip.Addr `json:"addr"`
	// Type is "RoCE v2" or "IB/RoCE v1".
	Type string `json:"type"`
}

// String returns index, address and type.
func (g GID) String() string { return fmt.Sprintf("%d = %v (%s)", g.Index, g.Addr.Unmap(), g.Type) }

// Created is an attempt to make a software device.
type Created struct {
	// Device is its name and Netdev the interface below it; both are empty if
	// no interface was fit for it.
	Device string `json:"device,omitempty"`
	Netdev string `json:"netdev,omitempty"`
	// Error is why it does not exist or is not ACTIVE; empty for success.
	Error string `json:"error,omitempty"`
	// Mend is what mends it, if that is known.
	Mend string `json:"mend,omitempty"`
}

// link returns the interface of this name.
func (f *Facts) link(name string) (Link, bool) {
	for _, l := range f.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// linkOf returns the interface that has this address.
func (f *Facts) linkOf(addr netip.Addr) (Link, bool) {
	for _, l := range f.Links {
		for _, p := range l.Addresses {
			if p.Addr() == addr.Unmap() {
				return l, true
			}
		}
	}
	return Link{}, false
}

// routable says whether other machines can reach an address by routing.
func routable(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() && !a.IsLoopback()
}
