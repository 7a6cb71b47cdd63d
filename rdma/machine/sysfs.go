package machine

import (
	"cmp"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The limits of what is read from sysfs: more ports and GIDs than this are not
// looked at.
const (
	maxPorts = 64
	maxGIDs  = 1024
)

// device reads what sysfs has about a device, but for the GIDs of its ports.
func (s *system) device(name string) Device {
	dir := filepath.Join(classRDMA, name)
	d := Device{Name: name, Driver: s.driver(dir), Atomics: Unknown, Library: Unknown, Ports: []Port{}}
	switch nodeType := s.line(dir, "node_type"); {
	case strings.HasPrefix(nodeType, "4:"):
		d.Atomics = No // iWARP: its verbs have none
	case d.Driver == DriverRXE:
		d.Atomics = Yes
	}
	for _, number := range s.numbers(maxPorts, dir, "ports") {
		p := Port{Number: number, LinkLayer: s.line(dir, "ports", strconv.Itoa(number), "link_layer"), GIDs: []GID{}}
		_, p.State, _ = strings.Cut(s.line(dir, "ports", strconv.Itoa(number), "state"), ": ") // "4: ACTIVE"
		p.Netdev = s.line(dir, "parent")                                                       // rxe has it, also while it has no GID
		d.Ports = append(d.Ports, p)
	}
	return d
}

// driver returns the kernel's name of a device's driver. Software devices have
// none, or that of the card below: rxe is known by a file that only it has.
func (s *system) driver(dir string) string {
	if s.line(dir, "parent") != "" {
		return DriverRXE
	}
	if target, err := os.Readlink(s.path(dir, "device/driver")); err == nil {
		return filepath.Base(target)
	}
	return ""
}

// readGIDs completes the ports of a device of which libibverbs said nothing.
func (s *system) readGIDs(d *Device) {
	for i := range d.Ports {
		p := &d.Ports[i]
		for gid, netdev := range s.gids(d.Name, p.Number) {
			p.GIDs = append(p.GIDs, gid)
			p.Netdev = cmp.Or(p.Netdev, netdev)
		}
		if p.Netdev == "" || p.LinkLayer != layerEthernet {
			continue
		}
		if mtu, err := strconv.Atoi(s.line("sys/class/net", p.Netdev, "mtu")); err == nil {
			p.MTU = roceMTU(mtu, d.Driver)
		}
	}
}

// gids yields the GIDs of a port with their interfaces. It opens a file for each
// of up to maxGIDs places, which takes long enough to stop as soon as possible.
func (s *system) gids(device string, port int) iter.Seq2[GID, string] {
	dir := filepath.Join(classRDMA, device, "ports", strconv.Itoa(port))
	return func(yield func(GID, string) bool) {
		for _, index := range s.numbers(maxGIDs, dir, "gids") {
			file := strconv.Itoa(index)
			addr, err := netip.ParseAddr(s.line(dir, "gids", file))
			if err != nil || addr.IsUnspecified() {
				continue
			}
			kind := s.line(dir, "gid_attrs/types", file) // no answer for an empty place
			if kind != "" && !yield(GID{Index: index, Addr: addr, Type: kind}, s.line(dir, "gid_attrs/ndevs", file)) {
				return
			}
		}
	}
}

// The sizes of RoCE packets, in bytes.
const (
	minRoCEMTU, maxRoCEMTU = 256, 4096
	// rxeHeaders is what rxe sets aside of a frame, hardwareHeaders what drivers
	// of hardware do.
	rxeHeaders, hardwareHeaders = 80, 96
	// roceLinkMTU is what a link needs to carry maxRoCEMTU; rounded up.
	roceLinkMTU = 4200
)

// roceMTU is the payload of RoCE packets on a link with this MTU: the largest of
// the sizes of InfiniBand that fits. libibverbs knows better, but sysfs has
// nothing else.
func roceMTU(link int, driver string) int {
	headers := hardwareHeaders
	if driver == DriverRXE {
		headers = rxeHeaders
	}
	size := maxRoCEMTU
	for size > minRoCEMTU && size > link-headers {
		size /= 2
	}
	return size
}

// numbers returns the names in a directory that are numbers, in order; none if
// it cannot be read.
func (s *system) numbers(limit int, elements ...string) []int {
	entries, err := os.ReadDir(s.path(elements...))
	if err != nil {
		return nil
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all[:min(len(all), limit)]
}

// line returns a file's text without the white space around it; empty if it
// cannot be read.
func (s *system) line(elements ...string) string {
	text, err := os.ReadFile(s.path(elements...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
