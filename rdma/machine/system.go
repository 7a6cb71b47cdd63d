package machine

import "path/filepath"

// system is where Probe and CreateRXE look and what they do: files below root,
// and what has to be asked for in other ways. Tests put trees of files and
// answers of their own here.
type system struct {
	root         string
	goos, goarch string
	uid          int

	// rdmaDevices returns their names, deviceOf the one on an interface or "",
	// and charDevices the paths of a device's character devices.
	rdmaDevices func() []string
	deviceOf    func(netdev string) string
	charDevices func(device string) []string
	// links reads the network interfaces without their RDMA devices.
	links func() ([]Link, error)
	// askRDMA asks the kernel's RDMA netlink anything.
	askRDMA func() error
	// addRXE asks it for a software device.
	addRXE func(name, netdev string) error
	// open opens a path for reading and writing and closes it again.
	open func(path string) error
	// memlock reads RLIMIT_MEMLOCK.
	memlock func() (Memlock, error)
	// memfd makes shareable memory and drops it again.
	memfd func() error
	// built says that the provider verbs is compiled in, and verbs lists what
	// libibverbs offers it.
	built bool
	verbs func() ([]verbsDevice, error)
}

// verbsDevice is what libibverbs tells about a device.
type verbsDevice struct {
	name string
	// err is why libibverbs cannot open it, and the rest is unknown; or nil.
	err     error
	atomics bool
	ports   []Port
}

// path returns where an absolute path is below the root.
func (s *system) path(elements ...string) string {
	return filepath.Join(append([]string{s.root}, elements...)...)
}
