package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// files is a tree of files, by path; a path that ends in a slash is an empty
// directory.
type files map[string]string

// write writes the tree below root.
func (f files) write(t *testing.T, root string) {
	t.Helper()
	for path, text := range f {
		directory := strings.HasSuffix(path, "/")
		path = filepath.Join(root, path)
		if directory {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// baseFiles is a Debian machine with its modules on disk, RDMA loaded, and
// without devices.
func baseFiles() files {
	return files{
		"proc/sys/kernel/osrelease":               "6.1.0-9-amd64\n",
		"etc/os-release":                          "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
		"proc/self/uid_map":                       "         0          0 4294967295\n",
		"sys/class/infiniband/":                   "",
		"proc/self/status":                        "Name:\ttest\nCapEff:\t000001ffffffffff\n",
		"lib/modules/6.1.0-9-amd64/modules.dep":   "kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko: kernel/x.ko\nkernel/drivers/infiniband/core/ib-core.ko.xz:\n",
		"usr/lib/x86_64-linux-gnu/" + libraryName: "",
	}
}

// rxeFiles is what sysfs has about a software device on an interface.
func rxeFiles(device, netdev, state string) files {
	dir := "sys/class/infiniband/" + device
	f := files{
		dir + "/node_type": "1: CA\n", dir + "/parent": netdev + "\n",
		dir + "/ports/1/state": state + "\n", dir + "/ports/1/link_layer": "Ethernet\n",
		"sys/class/net/" + netdev + "/mtu":         "1500\n",
		"sys/class/infiniband_verbs/uverbs0/ibdev": device + "\n",
		"sys/module/rdma_rxe/srcversion":           "X\n",
		"sys/module/ib_uverbs/srcversion":          "X\n",
		"dev/infiniband/uverbs0":                   "",
	}
	for i, gid := range []string{"fe80:0000:0000:0000:5054:00ff:fe77:0001", "0000:0000:0000:0000:0000:ffff:0a4d:0001", "0000:0000:0000:0000:0000:0000:0000:0000", "2001:0db8:0000:0000:0000:0000:0000:0009"} {
		index := fmt.Sprint(i)
		f[dir+"/ports/1/gids/"+index] = gid + "\n"
		if i < 2 { // the kernel has no type for an empty place, or one that goes away
			f[dir+"/ports/1/gid_attrs/types/"+index] = "RoCE v2\n"
			f[dir+"/ports/1/gid_attrs/ndevs/"+index] = netdev + "\n"
		}
	}
	return f
}

// fake returns a system with files below a temporary root, as sysfs would have
// them, and answers of a machine with eth0.
func fake(t *testing.T, trees ...files) *system {
	t.Helper()
	root := t.TempDir()
	for _, tree := range trees {
		tree.write(t, root)
	}
	s := &system{root: root, goos: "linux", goarch: "amd64"}
	s.rdmaDevices = func() (names []string) {
		entries, err := os.ReadDir(s.path("sys/class/infiniband"))
		if err != nil {
			return nil
		}
		for _, e := range slices.Backward(entries) {
			names = append(names, e.Name())
		}
		return names
	}
	s.deviceOf = func(netdev string) string {
		for _, name := range s.rdmaDevices() {
			if s.line("sys/class/infiniband", name, "parent") == netdev {
				return name
			}
		}
		return ""
	}
	s.charDevices = func(device string) []string {
		if s.line("sys/class/infiniband_verbs/uverbs0/ibdev") == device {
			return []string{"/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"}
		}
		return nil
	}
	s.links = func() ([]Link, error) { return slices.Clone(good().Links[:2]), nil }
	s.askRDMA = func() error { return nil }
	s.addRXE = func(string, string) error { return syscall.EPERM }
	s.open = func(path string) error { _, err := os.Stat(path); return err }
	s.memlock = func() (Memlock, error) { return Memlock{8 << 20, Unlimited}, nil }
	s.memfd = func() error { return nil }
	s.built, s.verbs = true, func() ([]verbsDevice, error) {
		d := s.device("rxe0")
		if len(d.Ports) == 0 {
			return nil, nil
		}
		s.readGIDs(&d)
		d.Ports[0].MTU, d.Ports[0].Netdev = 2048, ""
		return []verbsDevice{{name: d.Name, atomics: true, ports: d.Ports}}, nil
	}
	return s
}

func TestProbe(t *testing.T) {
	s := fake(t, baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE"))
	f := probe(s)
	want := Facts{
		OS: "linux", Arch: "amd64", Kernel: "6.1.0-9-amd64", Distribution: Distribution{ID: "debian", Name: "Debian GNU/Linux 12 (bookworm)"},
		NetAdmin: true, IPCLock: true, Memlock: Memlock{8 << 20, Unlimited}, RDMA: Yes,
		Modules: map[string]ModuleState{moduleCore: ModuleAvailable, moduleUverbs: ModuleLoaded, moduleRXE: ModuleLoaded},
		Verbs:   Verbs{Built: true, Library: Yes}, Links: good().Links, Devices: []Device{device("rxe0", "eth0")},
	}
	want.Devices[0].Ports[0].MTU = 2048 // libibverbs says so
	if !reflect.DeepEqual(f, want) {
		t.Errorf("facts\n%+v\nwant\n%+v", f, want)
	}
	if v := Judge(f, Demand{Scope: ScopeCluster}); v.Choices[0].Provider != ProviderVerbs {
		t.Errorf("verdict %+v", v)
	}
}

// asksNobody makes a system on which a question would load RDMA into the kernel.
func asksNobody(t *testing.T) func(*system) {
	return func(s *system) {
		s.askRDMA = func() error { t.Error("RDMA netlink was asked"); return nil }
		s.verbs = func() ([]verbsDevice, error) { t.Error("libibverbs was asked"); return nil, nil }
	}
}

// TestProbeBad has machines on which something is missing, and what Probe must
// find.
func TestProbeBad(t *testing.T) {
	boom := errors.New("boom")
	for _, test := range []struct {
		name   string
		trees  []files
		change func(*system)
		check  func(f Facts) bool
	}{
		{"nothing at all", []files{{"sys/class/net/": ""}}, func(s *system) { s.built = false }, func(f Facts) bool {
			return f.RDMA == No && len(f.Devices) == 0 && !f.Verbs.Built && f.Verbs.Error == "" && f.Modules[moduleRXE] == ModuleUnknown && f.Verbs.Library == No
		}},
		{"netlink fails in another way", []files{baseFiles()}, func(s *system) { s.askRDMA = func() error { return boom } }, func(f Facts) bool {
			return f.RDMA == Unknown && slices.Equal(f.Unread, []string{"RDMA netlink: boom"})
		}},
		{"netlink has no RDMA", []files{baseFiles()}, func(s *system) { s.askRDMA = func() error { return syscall.EPROTONOSUPPORT } }, func(f Facts) bool {
			return f.RDMA == No && f.Unread == nil
		}},
		{"RDMA not loaded", []files{without(baseFiles(), classRDMA), {"sys/class/net/": ""}}, asksNobody(t), func(f Facts) bool {
			return f.RDMA == No && f.Verbs.Built && f.Verbs.Error == "" && f.Unread == nil && f.Modules[moduleCore] == ModuleAvailable
		}},
		{"no sysfs", []files{without(baseFiles(), classRDMA)}, asksNobody(t), func(f Facts) bool {
			return f.RDMA == Unknown && len(f.Unread) == 1 && strings.HasPrefix(f.Unread[0], "sysfs: ")
		}},
		{"nothing can be asked", []files{{}}, func(s *system) {
			s.links = func() ([]Link, error) { return nil, boom }
			s.memlock = func() (Memlock, error) { return Memlock{}, boom }
			s.memfd = func() error { return boom }
			os.RemoveAll(s.root)
			(files{"proc/self/uid_map": "0 0 4294967295"}).write(t, s.root)
		}, func(f Facts) bool {
			return len(f.Unread) == 4 && f.Memfd == "boom" && strings.HasPrefix(f.Unread[2], "capabilities: no line CapEff")
		}},
		{"module absent", []files{baseFiles()}, nil, func(f Facts) bool {
			return f.Modules[moduleUverbs] == ModuleAbsent && f.Modules[moduleRXE] == ModuleAvailable && f.Modules[moduleCore] == ModuleAvailable
		}},
		{"module built in", []files{baseFiles(), {"lib/modules/6.1.0-9-amd64/modules.builtin": "kernel/drivers/infiniband/core/ib_uverbs.ko\n"}}, nil, func(f Facts) bool {
			return f.Modules[moduleUverbs] == ModuleLoaded
		}},
		{"port down", []files{baseFiles(), rxeFiles("rxe0", "eth0", "1: DOWN")}, nil, func(f Facts) bool {
			return f.Devices[0].Ports[0].State == "DOWN" && f.Devices[0].Ports[0].Netdev == "eth0"
		}},
		{"libibverbs not asked: the MTU of the link", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			s.built = false
		}, func(f Facts) bool {
			return f.Devices[0].Ports[0].MTU == 1024 && f.Devices[0].Atomics == Yes && f.Devices[0].Library == Unknown
		}},
		{"libibverbs does not offer it", []files{baseFiles(), rxeFiles("rxe1", "eth0", "4: ACTIVE")}, nil, func(f Facts) bool {
			return f.Devices[0].Library == No
		}},
		{"libibverbs fails", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			s.verbs = func() ([]verbsDevice, error) { return nil, boom }
		}, func(f Facts) bool { return f.Verbs.Built && f.Verbs.Error == "boom" && f.Devices[0].Library == Unknown }},
		{"libibverbs cannot open it", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			s.verbs = func() ([]verbsDevice, error) { return []verbsDevice{{name: "rxe0", err: boom}}, nil }
		}, func(f Facts) bool {
			return f.Devices[0].Library == Yes && f.Devices[0].LibraryError == "boom" && f.Devices[0].Atomics == Yes
		}},
		{"device without atomics", []files{baseFiles(), {
			"sys/class/infiniband/siw0/node_type": "4: RNIC\n", "sys/class/infiniband/siw0/ports/1/state": "4: ACTIVE\n",
		}}, nil, func(f Facts) bool { return f.Devices[0].Atomics == No && f.Devices[0].CharDevice == "" }},
		{"libibverbs says that there are no atomics", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			s.verbs = func() ([]verbsDevice, error) { return []verbsDevice{{name: "rxe0"}}, nil }
		}, func(f Facts) bool { return f.Devices[0].Atomics == No && len(f.Devices[0].Ports) == 0 }},
		{"permission", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			s.open = func(path string) error { return &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES} }
		}, func(f Facts) bool { return f.Devices[0].Denied && f.Devices[0].OpenError != "" }},
		{"no device file", []files{baseFiles(), rxeFiles("rxe0", "eth0", "4: ACTIVE")}, func(s *system) {
			os.Remove(s.path("dev/infiniband/uverbs0"))
		}, func(f Facts) bool { return !f.Devices[0].Denied && f.Devices[0].OpenError != "" }},
		{"user namespace", []files{baseFiles(), {"proc/self/uid_map": "0 100000 65536\n"}}, nil, func(f Facts) bool {
			return !f.NetAdmin && !f.IPCLock
		}},
		{"user namespace with the machine's root only", []files{baseFiles(), {"proc/self/uid_map": "0 0 1\n"}}, nil, func(f Facts) bool {
			return !f.NetAdmin && !f.IPCLock
		}},
		{"one capability", []files{baseFiles(), {"proc/self/status": "CapEff:\t0000000000001000\n"}}, nil, func(f Facts) bool {
			return f.NetAdmin && !f.IPCLock
		}},
		{"docker", []files{baseFiles(), {".dockerenv": ""}}, nil, func(f Facts) bool { return f.Container == "docker" }},
		{"podman", []files{baseFiles(), {"run/.containerenv": ""}}, nil, func(f Facts) bool { return f.Container == "podman" }},
		{"kubernetes", []files{baseFiles(), {".dockerenv": "", "var/run/secrets/kubernetes.io/serviceaccount/token": ""}}, nil, func(f Facts) bool { return f.Container == "kubernetes" }},
		{"systemd-nspawn", []files{baseFiles(), {"run/systemd/container": "systemd-nspawn\n"}}, nil, func(f Facts) bool { return f.Container == "systemd-nspawn" }},
		{"library in the loader's cache", []files{{"etc/ld.so.cache": "x\x00" + libraryName + "\x00y"}}, nil, func(f Facts) bool { return f.Verbs.Library == Yes }},
		{"another library in the loader's cache", []files{{"etc/ld.so.cache": "x\x00" + libraryName + ".2\x00y"}}, nil, func(f Facts) bool { return f.Verbs.Library == No }},
		{"not Linux", []files{{}}, func(s *system) { s.goos = "darwin" }, func(f Facts) bool { return f.RDMA == No && len(f.Links) == 2 && f.Kernel == "" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := fake(t, test.trees...)
			if test.change != nil {
				test.change(s)
			}
			if f := probe(s); !test.check(f) {
				t.Errorf("facts %+v", f)
			}
		})
	}
}

func TestHardware(t *testing.T) {
	tree := rxeFiles("mlx5_0", "eth1", "4: ACTIVE")
	maps.DeleteFunc(tree, func(path, _ string) bool { return strings.HasSuffix(path, "/parent") })
	s := fake(t, baseFiles(), tree)
	dir := s.path("sys/class/infiniband/mlx5_0/device")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../bus/pci/drivers/mlx5_core", filepath.Join(dir, "driver")); err != nil {
		t.Fatal(err)
	}
	d := s.device("mlx5_0")
	s.readGIDs(&d)
	if d.Driver != "mlx5_core" || d.Atomics != Unknown || d.Ports[0].Netdev != "eth1" || d.Ports[0].MTU != 1024 {
		t.Errorf("device %+v", d)
	}
}

func TestRoCEMTU(t *testing.T) {
	for _, test := range []struct {
		link   int
		driver string
		want   int
	}{
		{1500, DriverRXE, 1024}, {4175, DriverRXE, 2048}, {4176, DriverRXE, 4096}, {roceLinkMTU, DriverRXE, 4096},
		{4176, "mlx5_core", 2048}, {4192, "mlx5_core", 4096}, {roceLinkMTU, "mlx5_core", 4096}, {9000, "", 4096}, {576, "", 256}, {68, "", 256},
	} {
		if got := roceMTU(test.link, test.driver); got != test.want {
			t.Errorf("link %d, driver %q: %d, want %d", test.link, test.driver, got, test.want)
		}
	}
}

// TestThisMachine reads the real one: whatever it is, there is a loopback
// interface and something to choose.
func TestThisMachine(t *testing.T) {
	f := Probe()
	lo := slices.IndexFunc(f.Links, func(l Link) bool { return l.Loopback })
	if lo < 0 || !slices.ContainsFunc(f.Links[lo].Addresses, func(p netip.Prefix) bool { return p.Addr().IsLoopback() }) {
		t.Errorf("no loopback interface in %+v", f.Links)
	}
	if f.OS == "linux" && (f.Kernel == "" || f.RDMA == Unknown || f.Memfd != "") {
		t.Errorf("facts %+v", f)
	}
	v := Judge(f, Demand{})
	if v.Err != nil || len(v.Choices) == 0 {
		t.Fatalf("verdict %+v", v)
	}
	if _, err := os.Stat("/sys/class/infiniband"); errors.Is(err, fs.ErrNotExist) && f.OS == "linux" {
		// No RDMA, or nobody has loaded it: shared memory is next, and a demand
		// for verbs fails with a line about the kernel, or that it is not built.
		if v.Choices[0].Provider != ProviderSHM || f.RDMA == No && !strings.Contains(fmt.Sprint(v.Findings), "no RDMA in the kernel: "+f.Kernel) {
			t.Errorf("verdict %+v", v)
		}
		if v := Judge(f, Demand{Provider: ProviderVerbs}); v.Err == nil || len(v.Choices) > 0 || strings.Contains(v.Err.Error(), "\n") {
			t.Errorf("verbs on demand: %+v", v)
		}
		if v := Judge(f, Demand{Scope: ScopeCluster, Advertise: netip.MustParseAddr("192.0.2.1")}); v.Choices[0].Provider != ProviderTCP {
			t.Errorf("in a cluster: %+v", v)
		}
	}
}
