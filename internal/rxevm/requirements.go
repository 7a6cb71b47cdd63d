package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// host is what of this machine goes into the nodes or runs them: paths.
type host struct {
	qemu    string
	busybox string
	// providers are the libraries by which libibverbs speaks to SoftRoCE.
	providers []string
	// programs are those of the guest that busybox does not have, by name.
	programs map[string]string
	// loader finds their libraries.
	loader loader
}

// packages names the Debian packages of programs that people want in a node.
// Others can be taken along, but their package is not known here.
var packages = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86",
	"busybox":            "busybox-static",
	"xz":                 "xz-utils",
	"zstd":               "zstd",
	"rdma":               "iproute2", "ip": "iproute2", "tc": "iproute2", "ss": "iproute2",
	"ibv_devices": "ibverbs-utils", "ibv_devinfo": "ibverbs-utils", "ibv_rc_pingpong": "ibverbs-utils",
	"ibv_uc_pingpong": "ibverbs-utils", "ibv_ud_pingpong": "ibverbs-utils", "ibv_srq_pingpong": "ibverbs-utils",
	"ib_read_lat": "perftest", "ib_write_lat": "perftest", "ib_atomic_lat": "perftest", "ib_send_lat": "perftest",
	"ib_read_bw": "perftest", "ib_write_bw": "perftest", "ib_atomic_bw": "perftest", "ib_send_bw": "perftest",
	"rping": "rdmacm-utils", "strace": "strace", "tcpdump": "tcpdump", "gdb": "gdb", "bash": "bash", "perf": "linux-perf",
}

// providerPackage has librxe, and depends on libibverbs.
const providerPackage = "ibverbs-providers"

// programDirs are searched after the PATH: that of a user may lack those of the
// administrator.
var programDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}

// findHost looks for everything that a run with the given programs needs. What
// is missing is installed if o says so; otherwise the error names the command
// that does.
func findHost(ctx context.Context, o Options, d debian) (host, error) {
	h, missing, err := look(o.Programs)
	if err != nil || len(missing) == 0 {
		return h, err
	}
	wanted, unknown := missingPackages(missing)
	switch {
	case len(unknown) > 0:
		return host{}, fmt.Errorf("this machine has no %s, and which package does is not known", strings.Join(unknown, ", "))
	case !o.Install:
		return host{}, fmt.Errorf("this machine has no %s; give --install as root, or: %s", strings.Join(missing, ", "), installCommand(wanted))
	}
	if err := d.installPackages(ctx, wanted); err != nil {
		return host{}, err
	}
	if h, missing, err = look(o.Programs); err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s installed, but there is still no %s", strings.Join(wanted, ", "), strings.Join(missing, ", "))
	}
	return h, err
}

// look returns what there is, and the names of what is missing.
func look(programs []string) (h host, missing []string, err error) {
	h.programs = map[string]string{}
	program := func(name string) string {
		p, err := lookPath(name)
		if err != nil {
			missing = append(missing, name)
		}
		return p
	}
	h.qemu = program("qemu-system-x86_64")
	h.busybox = program("busybox")
	for _, name := range []string{"xz", "zstd"} {
		program(name) // unpacks kernels, and the modules of newer ones
	}
	for _, name := range append([]string{"ip", "rdma"}, programs...) {
		h.programs[name] = program(name)
	}
	if h.loader, err = newLoader("/etc/ld.so.conf"); err != nil {
		return host{}, nil, err
	}
	if h.providers = providers(h.loader.dirs); len(h.providers) == 0 {
		missing = append(missing, providerPackage)
	}
	return h, missing, nil
}

// providers returns the provider library of rxe, and that of siw where there is
// one: a kernel with the module can be tried too.
func providers(dirs []string) (files []string) {
	for _, name := range []string{"rxe", "siw"} {
		for _, dir := range dirs {
			// The pattern has no fault that Glob could find.
			if m, _ := filepath.Glob(filepath.Join(dir, "libibverbs", "lib"+name+"-rdmav*.so")); len(m) > 0 {
				files = append(files, m...)
				break // the same directory may be listed under two names
			}
		}
		if name == "rxe" && len(files) == 0 {
			return nil
		}
	}
	return files
}

// missingPackages returns the packages of what is missing, each once, and what
// is in no package that is known.
func missingPackages(missing []string) (wanted, unknown []string) {
	for _, name := range missing {
		pkg, ok := packages[name]
		switch {
		case name == providerPackage:
			wanted = append(wanted, name)
		case ok:
			wanted = append(wanted, pkg)
		default:
			unknown = append(unknown, name)
		}
	}
	slices.Sort(wanted)
	return slices.Compact(wanted), unknown
}

// lookPath finds a program; its path is absolute.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	for _, dir := range programDirs {
		if err == nil {
			break
		}
		p, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		return "", errors.Join(exec.ErrNotFound, err)
	}
	return filepath.Abs(p)
}
