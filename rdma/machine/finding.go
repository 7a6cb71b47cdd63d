package machine

import "strings"

// Level says how bad a finding is.
type Level string

// The levels, the worst first.
const (
	// Fault keeps a provider from working.
	Fault Level = "fault"
	// Warning lets it work, but not as well as it could.
	Warning Level = "warning"
	// Note is worth knowing.
	Note Level = "note"
)

func (l Level) rank() int {
	switch l {
	case Fault:
		return 0
	case Warning:
		return 1
	default:
		return 2
	}
}

// Finding is one thing that was found.
type Finding struct {
	Level Level `json:"level"`
	// Provider is what it concerns.
	Provider string `json:"provider"`
	// Found is what was found, Wrong what is wrong with it.
	Found string `json:"found"`
	Wrong string `json:"wrong"`
	// Mend is what mends it, with the command; empty if nothing does.
	Mend string `json:"mend,omitempty"`
}

// String returns the finding in one line.
func (f Finding) String() string {
	if f.Mend == "" {
		return f.what()
	}
	return f.what() + "; " + f.Mend
}

// what leaves out what mends it.
func (f Finding) what() string { return f.Found + ": " + f.Wrong }

// run returns words that ask for commands which need no rights.
func run(commands ...string) string { return "run: " + strings.Join(commands, " && ") }

// runRoot returns words that ask for commands which only root may run.
func (f *Facts) runRoot(commands ...string) string {
	if f.UID != 0 {
		for i, c := range commands {
			commands[i] = "sudo " + c
		}
	}
	return run(commands...)
}

// runHost is runRoot for what a container cannot change from inside.
func (f *Facts) runHost(commands ...string) string {
	if f.Container == "" {
		return f.runRoot(commands...)
	}
	return "on the host, as root, " + run(commands...)
}

// is says whether the distribution is, or descends from, this one.
func (d Distribution) is(id string) bool {
	return d.ID == id || strings.Contains(" "+d.Like+" ", " "+id+" ")
}

// installVerbs names the packages with libibverbs and its drivers.
func (f *Facts) installVerbs() string {
	switch d := f.Distribution; {
	case d.is("debian"):
		return f.runRoot("apt-get install libibverbs1 ibverbs-providers")
	case d.is("fedora"), d.is("rhel"):
		return f.runRoot("dnf install libibverbs")
	case d.is("suse"):
		return f.runRoot("zypper install libibverbs1 libibverbs")
	case d.is("arch"):
		return f.runRoot("pacman -S rdma-core")
	}
	return "install the package of rdma-core that has " + libraryName
}

// installRXE names the package with the module for this kernel.
func (f *Facts) installRXE() string {
	switch d := f.Distribution; {
	case f.Container != "":
		return "install the module rdma_rxe on the host"
	case d.ID == "ubuntu":
		return f.runRoot("apt-get install linux-modules-extra-" + f.Kernel)
	case d.ID == "debian":
		return f.runRoot("apt-get install linux-image-"+f.Arch) + " and boot that kernel"
	}
	return "install the package of kernel " + f.Kernel + " that has the module rdma_rxe"
}

// installKernel names a kernel with RDMA.
func (f *Facts) installKernel() string {
	switch d := f.Distribution; {
	case f.Container != "":
		return "boot the host with a kernel that has RDMA (CONFIG_INFINIBAND)"
	case d.ID == "ubuntu":
		return f.runRoot("apt-get install linux-image-generic linux-modules-extra-generic") + " and boot that kernel"
	case d.ID == "debian":
		return f.runRoot("apt-get install linux-image-"+f.Arch) + " and boot that kernel"
	}
	return "boot a kernel that has RDMA (CONFIG_INFINIBAND)"
}

// makeRXE is how to make a software device by hand.
func (f *Facts) makeRXE() string {
	commands := []string{"rdma link add " + f.freeRXE() + " type rxe netdev " + f.rxeNetdev()}
	if f.Modules[moduleRXE] != ModuleLoaded {
		commands = append([]string{"modprobe rdma_rxe"}, commands...)
	}
	return f.runHost(commands...)
}

// rxeNetdev names the interface for a software device, or what to put there.
func (f *Facts) rxeNetdev() string {
	if l, ok := f.bestNetdev(Demand{}); ok {
		return l.Name
	}
	return "INTERFACE"
}
