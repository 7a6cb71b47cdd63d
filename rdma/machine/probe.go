package machine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Probe reads the machine. It takes milliseconds, changes nothing and needs no
// rights; with fewer rights it sees less.
func Probe() Facts { return probe(host()) }

func probe(s *system) Facts {
	f := Facts{OS: s.goos, Arch: s.goarch, UID: s.uid, RDMA: Unknown, Verbs: Verbs{Library: Unknown}, Devices: []Device{}}
	var err error
	if f.Links, err = s.links(); err != nil {
		f.unread("network interfaces", err)
	}
	if f.Memlock, err = s.memlock(); err != nil {
		f.unread("limit on locked memory", err)
	}
	if err = s.memfd(); err != nil {
		f.Memfd = err.Error()
	}
	if f.OS != "linux" {
		f.RDMA, f.Verbs.Library = No, No
		return f
	}
	f.Kernel = s.line("proc/sys/kernel/osrelease")
	f.Distribution = s.distribution()
	f.Container = s.container()
	if f.NetAdmin, f.IPCLock, err = s.capabilities(); err != nil {
		f.unread("capabilities", err)
	}
	f.Modules = s.modules(f.Kernel)
	f.Verbs.Library = s.library()
	s.probeRDMA(&f)
	s.probeDevices(&f)
	return f
}

// classRDMA is in sysfs while RDMA is in the kernel.
const classRDMA = "sys/class/infiniband"

// probeRDMA finds out whether RDMA is in the kernel. To open a socket of RDMA
// netlink makes the kernel load ib_core, whoever asks; so does libibverbs. Both
// are only asked when sysfs shows that it is there already.
func (s *system) probeRDMA(f *Facts) {
	if _, err := os.Stat(s.path(classRDMA)); errors.Is(err, fs.ErrNotExist) {
		if _, err = os.Stat(s.path("sys/class")); err != nil {
			f.unread("sysfs", err)
			return
		}
		f.RDMA = No
		return
	}
	switch err := s.askRDMA(); {
	case err == nil:
		f.RDMA = Yes
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		f.RDMA = No
	default:
		f.unread("RDMA netlink", err)
	}
}

// probeDevices reads the RDMA devices: names and interfaces by rdmamap, ports
// from libibverbs, or else from sysfs.
func (s *system) probeDevices(f *Facts) {
	for _, name := range slices.Sorted(slices.Values(s.rdmaDevices())) {
		d := s.device(name)
		for _, path := range s.charDevices(name) {
			if strings.Contains(path, "/uverbs") {
				d.CharDevice = path
			}
		}
		if d.CharDevice != "" {
			if err := s.open(s.path(d.CharDevice)); err != nil {
				d.OpenError, d.Denied = err.Error(), errors.Is(err, fs.ErrPermission)
			}
		}
		f.Devices = append(f.Devices, d)
	}
	s.askLibrary(f)
	for i := range f.Devices {
		if d := &f.Devices[i]; d.Library != Yes || d.LibraryError != "" {
			s.readGIDs(d)
		}
	}
	for i := range f.Links {
		// To find that an interface has no device takes a look at every GID of all
		// devices, of which rxe has 1024. What their ports name is enough for Ethernet.
		if l := &f.Links[i]; len(f.Devices) > 0 && !l.Loopback && (!l.Ethernet || f.carries(l.Name)) {
			l.Device = s.deviceOf(l.Name)
		}
	}
}

// askLibrary adds what libibverbs knows.
func (s *system) askLibrary(f *Facts) {
	f.Verbs.Built = s.built
	if _, err := os.Stat(s.path(classRDMA)); err != nil || !s.built {
		return // see probeRDMA
	}
	offered, err := s.verbs()
	if err != nil {
		f.Verbs.Error = err.Error()
		return
	}
	for i := range f.Devices {
		d := &f.Devices[i]
		at := slices.IndexFunc(offered, func(v verbsDevice) bool { return v.name == d.Name })
		if d.Library = No; at < 0 {
			continue
		}
		d.Library = Yes
		if err := offered[at].err; err != nil {
			d.LibraryError = err.Error()
			continue
		}
		if d.Atomics = No; offered[at].atomics {
			d.Atomics = Yes
		}
		parent := ""
		if len(d.Ports) > 0 {
			parent = d.Ports[0].Netdev
		}
		d.Ports = offered[at].ports
		for j := range d.Ports {
			d.Ports[j].Netdev = cmp.Or(d.Ports[j].Netdev, parent)
		}
	}
}

// carries says whether a port is on this interface.
func (f *Facts) carries(netdev string) bool {
	return slices.ContainsFunc(f.Devices, func(d Device) bool {
		return slices.ContainsFunc(d.Ports, func(p Port) bool { return p.Netdev == netdev })
	})
}

func (f *Facts) unread(what string, err error) {
	f.Unread = append(f.Unread, fmt.Sprintf("%s: %v", what, err))
}
