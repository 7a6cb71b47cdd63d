package machine

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// good is a machine with a software device that works, as root.
func good() Facts {
	return Facts{
		OS: "linux", Arch: "amd64", Kernel: "6.1.0-9-amd64", Distribution: Distribution{ID: "debian", Name: "Debian GNU/Linux 12"},
		NetAdmin: true, IPCLock: true, Memlock: Memlock{8 << 20, 8 << 20}, RDMA: Yes,
		Modules: map[string]ModuleState{moduleCore: ModuleLoaded, moduleUverbs: ModuleLoaded, moduleRXE: ModuleLoaded},
		Verbs:   Verbs{Built: true, Library: Yes},
		Links: []Link{
			{Name: "lo", Up: true, Carrier: true, Loopback: true, MTU: 65536, Addresses: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Up: true, Carrier: true, Ethernet: true, MTU: 4200, Addresses: prefixes("10.77.0.1/24", "fe80::5054:ff:fe77:1/64"), Device: "rxe0"},
		},
		Devices: []Device{device("rxe0", "eth0")},
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// device is a software device that works.
func device(name, netdev string) Device {
	return Device{
		Name: name, Driver: DriverRXE, Atomics: Yes, CharDevice: "/dev/infiniband/uverbs0", Library: Yes,
		Ports: []Port{{Number: 1, State: stateActive, LinkLayer: layerEthernet, MTU: 4096, Netdev: netdev, GIDs: []GID{
			{0, netip.MustParseAddr("fe80::5054:ff:fe77:1"), typeRoCEv2},
			{1, netip.MustParseAddr("::ffff:10.77.0.1"), typeRoCEv2},
		}}},
	}
}

// none takes the devices away, and the interface is free.
func none(f *Facts) {
	f.Devices = nil
	for i := range f.Links {
		f.Links[i].Device = ""
	}
}

const (
	whyRXE  = "rxe0 on eth0 has atomics, its port 1 is ACTIVE, and peers reach its GID 1 = 10.77.0.1 (RoCE v2)"
	faster  = "all workers are on this machine: verbs was chosen because there is a device, but shared memory is faster; run: tenure doctor --provider shm"
	several = "workers are on several machines: shm reaches only those of one"
)

// judgeRow is one machine: what is done to the good one, what is demanded, and
// what must come out.
type judgeRow struct {
	name   string
	change func(*Facts)
	demand Demand
	// chosen is the provider, or the whole error behind "error: ".
	chosen string
	// lines are all findings, in order.
	lines []string
}

// badMachines has each bad machine with the line that it gets.
var badMachines = []judgeRow{
	{"nothing wrong", nil, Demand{}, "verbs", []string{faster}},
	{"no RDMA in the kernel", func(f *Facts) {
		none(f)
		f.RDMA, f.Modules = No, map[string]ModuleState{moduleCore: ModuleUnknown}
	}, Demand{}, "shm", []string{
		"no RDMA in the kernel: 6.1.0-9-amd64 has not loaded it, or was built without it; run: modprobe ib_uverbs; if there is no such module, run: apt-get install linux-image-amd64 and boot that kernel",
	}},
	{"no RDMA in the kernel, modules known", func(f *Facts) {
		none(f)
		f.RDMA, f.Modules = No, map[string]ModuleState{moduleCore: ModuleAbsent}
	}, Demand{}, "shm", []string{
		"no RDMA in the kernel: 6.1.0-9-amd64 was built without it, so there can be no RDMA device; run: apt-get install linux-image-amd64 and boot that kernel",
	}},
	{"no RDMA in the kernel, Ubuntu, not root", func(f *Facts) {
		none(f)
		f.RDMA, f.UID, f.Distribution = No, 1000, Distribution{ID: "ubuntu", Like: "debian"}
	}, Demand{}, "shm", []string{
		"no RDMA in the kernel: 6.1.0-9-amd64 was built without it, so there can be no RDMA device; run: sudo apt-get install linux-image-generic linux-modules-extra-generic and boot that kernel",
	}},
	{"no RDMA in the kernel, in a container", func(f *Facts) { none(f); f.RDMA, f.Container = No, "docker" }, Demand{}, "shm", []string{
		"no RDMA in the kernel: 6.1.0-9-amd64 was built without it, so there can be no RDMA device; boot the host with a kernel that has RDMA (CONFIG_INFINIBAND)",
	}},
	{"RDMA not loaded", func(f *Facts) { none(f); f.RDMA, f.Modules[moduleCore] = No, ModuleAvailable }, Demand{}, "shm", []string{
		"RDMA is not loaded: kernel 6.1.0-9-amd64 has it as modules; run: modprobe ib_uverbs",
	}},
	{"no module rdma_rxe", func(f *Facts) { none(f); f.Modules[moduleRXE] = ModuleAbsent }, Demand{}, "shm", []string{
		"no RDMA device: there is no RDMA adapter, and kernel 6.1.0-9-amd64 has no module rdma_rxe to make a software device; run: apt-get install linux-image-amd64 and boot that kernel",
	}},
	{"no module rdma_rxe, Ubuntu", func(f *Facts) {
		none(f)
		f.Modules[moduleRXE], f.Distribution.ID = ModuleAbsent, "ubuntu"
	}, Demand{}, "shm", []string{
		"no RDMA device: there is no RDMA adapter, and kernel 6.1.0-9-amd64 has no module rdma_rxe to make a software device; run: apt-get install linux-modules-extra-6.1.0-9-amd64",
	}},
	{"no device", none, Demand{}, "shm", []string{
		"no RDMA device: there is no RDMA adapter, and no software device (rxe) was made; run: rdma link add rxe0 type rxe netdev eth0",
	}},
	{"no device, module not loaded, not root", func(f *Facts) { none(f); f.Modules[moduleRXE], f.UID = ModuleAvailable, 1000 }, Demand{Scope: ScopeCluster}, "tcp", []string{
		"no RDMA device: there is no RDMA adapter, and no software device (rxe) was made; run: sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev eth0",
		several,
	}},
	{"no device, in a container", func(f *Facts) { none(f); f.Modules[moduleRXE], f.Container = ModuleUnknown, "podman" }, Demand{}, "shm", []string{
		"no RDMA device: there is no RDMA adapter, and no software device (rxe) was made; on the host, as root, run: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0",
	}},
	{"the demanded device is missing", nil, Demand{Device: "mlx5_0"}, "shm", []string{
		`no RDMA device "mlx5_0": there is rxe0; run: tenure doctor --device rxe0`,
	}},
	{"no atomics", func(f *Facts) {
		f.Devices[0].Name, f.Devices[0].Atomics, f.Links[1].Device = "siw0", No, "siw0"
	}, Demand{}, "shm", []string{
		"siw0: it has no atomics (CAS, FAA), which leases need; run: rdma link add rxe0 type rxe netdev eth0",
	}},
	{"link down", func(f *Facts) {
		f.Devices[0].Ports[0].State, f.Links[1].Up, f.Links[1].Carrier = "DOWN", false, false
	}, Demand{Scope: ScopeCluster}, "error: no provider works here: " +
		"verbs: rxe0 port 1 is DOWN: the interface eth0 is down / " + "shm: " + several + " / " +
		"tcp: no address that other machines can reach: every interface is down or has a local address only", []string{
		"rxe0 port 1 is DOWN: the interface eth0 is down; run: ip link set dev eth0 up",
		"no address that other machines can reach: every interface is down or has a local address only; run: ip addr add ADDRESS/24 dev INTERFACE",
		several,
	}},
	{"no carrier", func(f *Facts) { f.Devices[0].Ports[0].State, f.Links[1].Carrier = "DOWN", false }, Demand{}, "shm", []string{
		"rxe0 port 1 is DOWN: the interface eth0 has no carrier; connect its cable, then run: ip link show dev eth0",
	}},
	{"InfiniBand without a subnet manager", func(f *Facts) {
		f.Devices[0].Ports[0] = Port{Number: 1, State: "INIT", LinkLayer: layerInfiniBand, MTU: 4096}
	}, Demand{}, "shm", []string{"rxe0 port 1 is INIT: no subnet manager has set it up; run: systemctl start opensm"}},
	{"port down for no reason", func(f *Facts) { f.Devices[0].Ports[0].State = "DOWN" }, Demand{}, "shm", []string{
		"rxe0 port 1 is DOWN: it does not move data; run: rdma link show rxe0/1",
	}},
	{"memlock too small", func(f *Facts) { f.IPCLock, f.UID, f.Memlock = false, 1000, Memlock{64 << 10, 64 << 10} }, Demand{}, "shm", []string{
		"memlock is 64 KiB: verbs must lock 64 MiB of memory or more; run: sudo prlimit --pid $$ --memlock=unlimited (for a service: LimitMEMLOCK=infinity)",
	}},
	{"memlock too small, may be raised", func(f *Facts) { f.IPCLock, f.Memlock = false, Memlock{64<<10 + 1, Unlimited} }, Demand{MinRegionBytes: 1<<20 + 1}, "shm", []string{
		"memlock is 65537 bytes: verbs must lock 1048577 bytes of memory or more; run: ulimit -l 1025",
	}},
	{"memlock too small, in a container", func(f *Facts) { f.IPCLock, f.Container = false, "docker" }, Demand{}, "shm", []string{
		"memlock is 8 MiB: verbs must lock 64 MiB of memory or more; run: docker run --ulimit memlock=-1",
	}},
	{"memlock enough", func(f *Facts) { f.IPCLock = false }, Demand{MinRegionBytes: 8 << 20}, "verbs", []string{faster}},
	{"no permission", func(f *Facts) {
		f.UID, f.Devices[0].Denied, f.Devices[0].OpenError, f.Devices[0].Library = 65534, true, "permission denied", No
	}, Demand{}, "shm", []string{
		"rxe0: user 65534 has no permission for /dev/infiniband/uverbs0; run: sudo chmod a+rw /dev/infiniband/uverbs0",
	}},
	{"no permission, in a container", func(f *Facts) {
		f.Container, f.UID, f.Devices[0].Denied, f.Devices[0].OpenError = "docker", 1000, true, "permission denied"
	}, Demand{}, "shm", []string{
		"rxe0: user 1000 has no permission for /dev/infiniband/uverbs0; run: sudo chmod a+rw /dev/infiniband/uverbs0",
	}},
	{"device file denied to the container", func(f *Facts) {
		f.Container, f.Devices[0].Denied, f.Devices[0].OpenError = "docker", true, "operation not permitted"
	}, Demand{}, "shm", []string{
		"rxe0: user 0 has no permission for /dev/infiniband/uverbs0; run: docker run --device /dev/infiniband",
	}},
	{"device file not in the container", func(f *Facts) {
		f.Container, f.Devices[0].OpenError = "docker", "open /dev/infiniband/uverbs0: no such file or directory"
	}, Demand{}, "shm", []string{
		"rxe0: its device file cannot be opened (open /dev/infiniband/uverbs0: no such file or directory); run: docker run --device /dev/infiniband",
	}},
	{"no ib_uverbs", func(f *Facts) { f.Modules[moduleUverbs], f.Devices[0].CharDevice = ModuleAvailable, "" }, Demand{}, "shm", []string{
		"rxe0: programs cannot open it, because the module ib_uverbs is not loaded; run: modprobe ib_uverbs",
	}},
	{"no device file", func(f *Facts) { f.Devices[0].CharDevice = "" }, Demand{}, "shm", []string{
		"rxe0: it has no device file in /dev/infiniband; run: udevadm trigger --subsystem-match=infiniband_verbs",
	}},
	{"only a link-local GID", func(f *Facts) { f.Devices[0].Ports[0].GIDs = f.Devices[0].Ports[0].GIDs[:1] }, Demand{}, "shm", []string{
		"rxe0 port 1: other machines reach none of its GIDs: 0 = fe80::5054:ff:fe77:1 (RoCE v2); give the interface an address, run: ip addr add ADDRESS/24 dev eth0",
	}},
	{"no GID", func(f *Facts) { f.Devices[0].Ports[0].GIDs, f.Devices[0].Ports[0].Netdev = nil, "" }, Demand{}, "shm", []string{
		"rxe0 port 1: it has no GID; give the interface an address, run: ip addr add ADDRESS/24 dev INTERFACE",
	}},
	{"wrong GID", nil, Demand{GID: "10.77.0.9"}, "shm", []string{
		"rxe0 port 1: it has no GID 10.77.0.9, only 0 = fe80::5054:ff:fe77:1 (RoCE v2), 1 = 10.77.0.1 (RoCE v2); run: tenure doctor --gid 10.77.0.1",
	}},
	{"wrong GID, by number", nil, Demand{GID: "7", Provider: "verbs"},
		"error: verbs was demanded and does not work here: rxe0 port 1: it has no GID 7, only 0 = fe80::5054:ff:fe77:1 (RoCE v2), 1 = 10.77.0.1 (RoCE v2); run: tenure doctor --gid 10.77.0.1", []string{
			"rxe0 port 1: it has no GID 7, only 0 = fe80::5054:ff:fe77:1 (RoCE v2), 1 = 10.77.0.1 (RoCE v2); run: tenure doctor --gid 10.77.0.1",
		}},
	{"GID of the wrong type", func(f *Facts) { f.Devices[0].Ports[0].GIDs[1].Type = typeIB }, Demand{GID: "::ffff:10.77.0.1"}, "shm", []string{
		"rxe0 port 1: its GID 1 = 10.77.0.1 (IB/RoCE v1) is not of type RoCE v2",
	}},
	{"link-local GID on demand", nil, Demand{GID: "0", Scope: ScopeCluster}, "verbs", []string{
		"GID 0 = fe80::5054:ff:fe77:1 (RoCE v2) was demanded: machines behind a router cannot reach it",
		several,
	}},
	{"small MTU", func(f *Facts) { f.Links[1].MTU, f.Devices[0].Ports[0].MTU = 1500, 1024 }, Demand{}, "verbs", []string{
		"eth0 has MTU 1500: packets of rxe0 carry 1024 bytes, where 4096 are possible; run: ip link set dev eth0 mtu 4200 (on every machine and switch)",
		faster,
	}},
	{"packets are small, and the link is not why", func(f *Facts) { f.Devices[0].Ports[0].MTU = 2048 }, Demand{}, "verbs", []string{faster}},
	{"the peer's MTU is smaller", nil, Demand{Scope: ScopeCluster, PeerMTU: 1024}, "verbs", []string{
		"RDMA packets carry 4096 bytes here and 1024 at the peer: both use 1024; at the peer, run: ip link set dev INTERFACE mtu 4200",
		several,
	}},
	{"the peer's MTU is larger", func(f *Facts) { f.Links[1].MTU, f.Devices[0].Ports[0].MTU = 2200, 2048 }, Demand{Scope: ScopeCluster, PeerMTU: 4096}, "verbs", []string{
		"eth0 has MTU 2200: packets of rxe0 carry 2048 bytes, where 4096 are possible; run: ip link set dev eth0 mtu 4200 (on every machine and switch)",
		"RDMA packets carry 2048 bytes here and 4096 at the peer: both use 2048; run: ip link set dev eth0 mtu 4200",
		several,
	}},
	{"no libibverbs", func(f *Facts) { f.Verbs = Verbs{Built: false, Library: No}; f.Devices[0].Library = Unknown }, Demand{}, "shm", []string{
		"this program was built without verbs: it cannot use RDMA devices; run: CGO_ENABLED=1 go build -tags rdma ./cmd/tenure",
		"no libibverbs: libibverbs.so.1, through which programs use RDMA devices, is not installed; run: apt-get install libibverbs1 ibverbs-providers",
	}},
	{"no libibverbs, Fedora", func(f *Facts) {
		f.Verbs.Library, f.Distribution = No, Distribution{ID: "rocky", Like: "rhel centos fedora"}
	}, Demand{}, "shm", []string{
		"no libibverbs: libibverbs.so.1, through which programs use RDMA devices, is not installed; run: dnf install libibverbs",
	}},
	{"libibverbs without the driver", func(f *Facts) { f.Devices[0].Library = No }, Demand{}, "shm", []string{
		"rxe0: libibverbs has no driver for it; run: apt-get install libibverbs1 ibverbs-providers",
	}},
	{"libibverbs cannot open the device", func(f *Facts) { f.Devices[0].LibraryError = "ibv_open_device: input/output error (errno 5)" }, Demand{}, "shm", []string{
		"rxe0: libibverbs cannot open it (ibv_open_device: input/output error (errno 5))",
	}},
	{"libibverbs fails", func(f *Facts) { f.Verbs.Error, f.Distribution = "cannot allocate memory", Distribution{ID: "nixos"} }, Demand{}, "shm", []string{
		"libibverbs: it cannot list the devices (cannot allocate memory); install the package of rdma-core that has libibverbs.so.1",
	}},
	{"built without verbs", func(f *Facts) { f.Verbs.Built, f.Devices[0].Library = false, Unknown }, Demand{Provider: "verbs"},
		"error: verbs was demanded and does not work here: this program was built without verbs: it cannot use RDMA devices; run: CGO_ENABLED=1 go build -tags rdma ./cmd/tenure", []string{
			"this program was built without verbs: it cannot use RDMA devices; run: CGO_ENABLED=1 go build -tags rdma ./cmd/tenure",
		}},
	{"not Linux", func(f *Facts) { *f = Facts{OS: "darwin", Memfd: "only Linux has it", RDMA: No, Links: f.Links} }, Demand{}, "tcp", []string{
		"the system is darwin: RDMA devices can be used on Linux only",
		"no memory that processes can share: only Linux has it",
	}},
	{"unknown provider", nil, Demand{Provider: "roce"}, `error: there is no provider "roce": demand verbs, shm or tcp, or nothing for the best that works`, nil},
	{"shm for a cluster", nil, Demand{Provider: "shm", Scope: ScopeCluster}, "error: shm was demanded and does not work here: " + several, []string{several}},
	{"tcp on demand", nil, Demand{Provider: "tcp"}, "tcp", nil},
	{"rxe could not be made", func(f *Facts) {
		none(f)
		f.Created = &Created{Device: "rxe0", Netdev: "eth0", Error: "it needs the capability CAP_NET_ADMIN", Mend: "as root, run: tenure doctor --rxe create"}
	}, Demand{RXE: "create"}, "shm", []string{
		"no software device (rxe) could be made on eth0: it needs the capability CAP_NET_ADMIN; as root, run: tenure doctor --rxe create",
	}},
	{"rxe was made", func(f *Facts) { f.Created = &Created{Device: "rxe0", Netdev: "eth0"} }, Demand{RXE: "create", Scope: ScopeCluster}, "verbs", []string{
		"rxe0 was made on eth0: it stays until it is removed or the machine starts anew; to remove it, run: rdma link delete rxe0",
		several,
	}},
	{"another device is down", func(f *Facts) {
		other := device("mlx5_0", "eth1")
		other.Ports[0].State = "DOWN"
		f.Devices = append(f.Devices, other)
		f.Links = append(f.Links, Link{Name: "eth1", Ethernet: true})
	}, Demand{Scope: ScopeCluster}, "verbs", []string{
		"mlx5_0 port 1 is DOWN: the interface eth1 is down; run: ip link set dev eth1 up",
		several,
	}},
	{"advertised address elsewhere", none, Demand{Scope: ScopeCluster, Provider: "tcp", Advertise: netip.MustParseAddr("192.0.2.1")}, "tcp", []string{
		"no RDMA device: there is no RDMA adapter, and no software device (rxe) was made; run: rdma link add rxe0 type rxe netdev eth0",
		"192.0.2.1 is advertised: no interface of this machine has it, so it must be forwarded here; run: ip -brief address",
		several,
	}},
	{"advertised address is local", func(f *Facts) { none(f); f.RDMA = No }, Demand{Scope: ScopeCluster, Provider: "tcp", Advertise: netip.MustParseAddr("127.0.0.1")},
		"error: tcp was demanded and does not work here: 127.0.0.1 is advertised: other machines cannot reach it; run: tenure doctor --advertise 10.77.0.1", []string{
			"no RDMA in the kernel: 6.1.0-9-amd64 was built without it, so there can be no RDMA device; run: apt-get install linux-image-amd64 and boot that kernel",
			"127.0.0.1 is advertised: other machines cannot reach it; run: tenure doctor --advertise 10.77.0.1",
			several,
		}},
	{"advertised address without a GID", func(f *Facts) {
		f.Links = append(f.Links, Link{Name: "eth1", Up: true, Carrier: true, Ethernet: true, Addresses: prefixes("192.0.2.1/24")})
	}, Demand{Scope: ScopeCluster, Advertise: netip.MustParseAddr("192.0.2.1")}, "verbs", []string{
		"192.0.2.1 is advertised: no GID has it, so RDMA goes over 10.77.0.1 on rxe0",
		several,
	}},
}

// TestJudge has each bad machine, and what must be said of it.
func TestJudge(t *testing.T) {
	for _, row := range badMachines {
		t.Run(row.name, func(t *testing.T) {
			f := good()
			if row.change != nil {
				row.change(&f)
			}
			v := Judge(f, row.demand)
			var lines []string
			for _, finding := range v.Findings {
				lines = append(lines, finding.String())
			}
			if !slices.Equal(lines, row.lines) {
				t.Errorf("findings\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(row.lines, "\n"))
			}
			chosen := ""
			if v.Err != nil {
				chosen = "error: " + v.Err.Error()
			}
			if len(v.Choices) > 0 {
				chosen += v.Choices[0].Provider
			}
			if chosen != row.chosen {
				t.Errorf("chosen %q, want %q", chosen, row.chosen)
			}
			if n := len(v.Choices) + len(v.Refused); n != len(providers) && row.demand.Validate() == nil {
				t.Errorf("%d choices and refusals: %+v", n, v)
			}
			if strings.Contains(strings.Join(lines, ""), "\n") {
				t.Error("a finding has more than one line")
			}
		})
	}
}

// TestNextBest goes down the order as one thing after another breaks.
func TestNextBest(t *testing.T) {
	f := good()
	var order []string
	for _, c := range Judge(f, Demand{}).Choices {
		order = append(order, c.Provider)
	}
	if !slices.Equal(order, []string{"verbs", "shm", "tcp"}) {
		t.Errorf("order %v", order)
	}
	none(&f)
	if v := Judge(f, Demand{}); v.Choices[0].Provider != "shm" || v.Choices[0].Why != "all workers are on this machine and can share memory" {
		t.Errorf("without a device: %+v", v.Choices)
	}
	f.Memfd = "memfd_create: function not implemented"
	if v := Judge(f, Demand{}); v.Choices[0].Why != "it works anywhere; peers on this machine reach 127.0.0.1" || len(v.Choices) != 1 {
		t.Errorf("without shared memory: %+v", v.Choices)
	}
	v := Judge(f, Demand{Scope: ScopeCluster})
	if c := v.Choices[0]; c.Why != "it works anywhere; peers reach 10.77.0.1 on eth0" || c.Advertise != netip.MustParseAddr("10.77.0.1") {
		t.Errorf("in a cluster: %+v", v.Choices)
	}
}

// TestGID chooses among GIDs by what they are.
func TestGID(t *testing.T) {
	gids := func(texts ...string) (all []GID) {
		for i, text := range texts {
			kind := typeRoCEv2
			if v1, ok := strings.CutPrefix(text, "v1 "); ok {
				text, kind = v1, typeIB
			}
			all = append(all, GID{i, netip.MustParseAddr(text), kind})
		}
		return all
	}
	for _, test := range []struct {
		name      string
		gids      []GID
		advertise string
		gid       string
		want      int // index; -1 for none
	}{
		{"IPv4 before IPv6", gids("fe80::1", "2001:db8::1", "::ffff:10.0.0.1"), "", "", 2},
		{"RoCE v2 only", gids("v1 ::ffff:10.0.0.1", "::ffff:10.0.0.1"), "", "", 1},
		{"IPv6 if there is nothing else", gids("v1 fe80::1", "fe80::1", "fd00::1"), "", "", 2},
		{"advertised IPv4", gids("::ffff:10.0.0.1", "::ffff:10.0.0.2"), "10.0.0.2", "", 1},
		{"advertised IPv6", gids("::ffff:10.0.0.1", "2001:db8::1"), "2001:db8::1", "", 1},
		{"advertised link-local", gids("::ffff:10.0.0.1", "fe80::1"), "fe80::1", "", 1},
		{"advertised elsewhere", gids("fe80::1", "::ffff:10.0.0.1"), "192.0.2.1", "", 1},
		{"advertised in RoCE v1 only", gids("v1 ::ffff:10.0.0.2", "::ffff:10.0.0.1"), "10.0.0.2", "", 1},
		{"demanded by index", gids("fe80::1", "::ffff:10.0.0.1", "::ffff:10.0.0.2"), "10.0.0.1", "2", 2},
		{"demanded by address", gids("fe80::1", "::ffff:10.0.0.1", "2001:db8::1"), "", "2001:0db8:0::1", 2},
		{"demanded by mapped address", gids("::ffff:10.0.0.1", "::ffff:10.0.0.2"), "", "::ffff:10.0.0.2", 1},
		{"demanded by full form", gids("::ffff:10.0.0.1", "::ffff:10.0.0.2"), "", "0000:0000:0000:0000:0000:ffff:0a00:0002", 1},
		{"demanded RoCE v2 behind the same in v1", gids("v1 ::ffff:10.0.0.1", "::ffff:10.0.0.1"), "", "10.0.0.1", 1},
		{"demanded nonsense", gids("::ffff:10.0.0.1"), "", "first", -1},
		{"IPv4 link-local", gids("::ffff:169.254.1.1", "::ffff:127.0.0.1"), "", "", -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := good()
			f.Devices[0].Ports[0].GIDs = test.gids
			d := Demand{GID: test.gid}
			if test.advertise != "" {
				d.Advertise = netip.MustParseAddr(test.advertise)
			}
			v := Judge(f, d)
			got := -1
			if v.Choices[0].Provider == ProviderVerbs {
				got = v.Choices[0].GID.Index
			}
			if got != test.want {
				t.Errorf("GID %d, want %d; %v", got, test.want, v.Findings)
			}
		})
	}
}

// TestDevice chooses among devices and ports.
func TestDevice(t *testing.T) {
	hardware := device("mlx5_0", "eth1")
	hardware.Driver = "mlx5_core"
	infiniband := device("ib0", "")
	infiniband.Driver = "mlx4_core"
	infiniband.Ports[0].LinkLayer, infiniband.Ports[0].GIDs = layerInfiniBand, []GID{{0, netip.MustParseAddr("fe80::2"), typeIB}}
	second := device("rxe0", "eth0")
	second.Ports = append(second.Ports, second.Ports[0])
	second.Ports[0].State, second.Ports[1].Number = "DOWN", 2
	for _, test := range []struct {
		name    string
		devices []Device
		demand  Demand
		want    string
		port    int
	}{
		{"hardware before software", []Device{device("rxe0", "eth0"), hardware}, Demand{}, "mlx5_0", 1},
		{"what is demanded", []Device{device("rxe0", "eth0"), hardware}, Demand{Device: "rxe0"}, "rxe0", 1},
		{"InfiniBand before software", []Device{device("rxe0", "eth0"), infiniband}, Demand{}, "ib0", 1},
		{"hardware before the advertised address", []Device{device("rxe0", "eth0"), infiniband}, Demand{Advertise: netip.MustParseAddr("10.77.0.1")}, "ib0", 1},
		{"InfiniBand", []Device{infiniband}, Demand{}, "ib0", 1},
		{"second port", []Device{second}, Demand{}, "rxe0", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := good()
			f.Devices = test.devices
			v := Judge(f, test.demand)
			if c := v.Choices[0]; c.Device != test.want || c.Port != test.port {
				t.Errorf("chosen %+v, want %s port %d; %v", c, test.want, test.port, v.Findings)
			}
		})
	}
	f := good()
	f.Devices = append(f.Devices, second)
	f.Devices[1].Name, f.Devices[1].Ports = "mlx5_1", second.Ports[:1]
	if v := Judge(f, Demand{}); slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Level != Note }) {
		t.Errorf("a device that is not needed makes faults: %+v", v.Findings)
	}
	f = good()
	f.Devices, f.Links[1].MTU = []Device{infiniband}, 2044
	f.Devices[0].Ports[0].Netdev, f.Devices[0].Ports[0].MTU = "eth0", 2048
	if v := Judge(f, Demand{Scope: ScopeCluster}); v.Provider != ProviderVerbs || len(v.Findings) != 1 {
		t.Errorf("the MTU of InfiniBand is not that of its link: %+v", v.Findings)
	}
	if c := Judge(good(), Demand{}).Choices[0]; c.Why != whyRXE || c.MTU != 4096 || c.Netdev != "eth0" {
		t.Errorf("choice %+v", c)
	}
	if c := Judge(good(), Demand{PeerMTU: 1024}).Choices[0]; c.MTU != 1024 {
		t.Errorf("MTU %d beside a peer with 1024", c.MTU)
	}
}

func TestValidate(t *testing.T) {
	if v := Judge(good(), Demand{Provider: "p", Scope: "s"}); v.Err == nil || strings.Contains(v.Err.Error(), "\n") || len(v.Choices) > 0 {
		t.Errorf("verdict %+v", v)
	}
	err := (&Demand{Provider: "p", Scope: "s", RXE: "r", MinRegionBytes: -1}).Validate()
	for _, want := range []string{`"p"`, `"s"`, `"r"`, "-1 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %s", err, want)
		}
	}
}
