package machine

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// distribution reads /etc/os-release.
func (s *system) distribution() (d Distribution) {
	for line := range strings.Lines(s.line("etc/os-release")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch name {
		case "ID":
			d.ID = value
		case "ID_LIKE":
			d.Like = value
		case "PRETTY_NAME":
			d.Name = value
		}
	}
	return d
}

// container guesses from what runtimes leave behind.
func (s *system) container() string {
	exists := func(elements ...string) bool {
		_, err := os.Stat(s.path(elements...))
		return err == nil
	}
	switch {
	case exists("run/secrets/kubernetes.io"), exists("var/run/secrets/kubernetes.io"):
		return "kubernetes"
	case exists(".dockerenv"):
		return "docker"
	case exists("run/.containerenv"):
		return "podman"
	}
	return s.line("run/systemd/container")
}

// The bits of capabilities(7).
const (
	capNetAdmin = 12
	capIPCLock  = 14
)

// capabilities reads the effective ones. The kernel asks for them in its first
// user namespace only, where this process is iff all users are mapped to
// themselves.
func (s *system) capabilities() (netAdmin, ipcLock bool, err error) {
	if fields := strings.Fields(s.line("proc/self/uid_map")); len(fields) != 3 || fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295" {
		return false, false, nil
	}
	for line := range strings.Lines(s.line("proc/self/status")) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return bits>>capNetAdmin&1 == 1, bits>>capIPCLock&1 == 1, err
		}
	}
	return false, false, fmt.Errorf("no line CapEff in %s", s.path("proc/self/status"))
}

// modules says where each module is for this kernel.
func (s *system) modules(kernel string) map[string]ModuleState {
	states := map[string]ModuleState{}
	onDisk, builtIn, known := s.moduleFiles(kernel)
	for _, name := range []string{moduleCore, moduleUverbs, moduleRXE} {
		_, err := os.Stat(s.path("sys/module", name))
		switch {
		case err == nil, builtIn[name]:
			states[name] = ModuleLoaded
		case onDisk[name]:
			states[name] = ModuleAvailable
		case known:
			states[name] = ModuleAbsent
		default:
			states[name] = ModuleUnknown
		}
	}
	return states
}

// moduleFiles reads the lists of depmod. known says that there are any.
func (s *system) moduleFiles(kernel string) (onDisk, builtIn map[string]bool, known bool) {
	onDisk, builtIn = map[string]bool{}, map[string]bool{}
	if kernel == "" {
		return onDisk, builtIn, false
	}
	for file, set := range map[string]map[string]bool{"modules.dep": onDisk, "modules.builtin": builtIn} {
		text := s.line("lib/modules", kernel, file)
		known = known || text != ""
		for line := range strings.Lines(text) {
			// "kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko.xz: kernel/..."
			module, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			name, _, _ := strings.Cut(path.Base(module), ".")
			set[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	return onDisk, builtIn, known
}

// libraryName is what programs with verbs load.
const libraryName = "libibverbs.so.1"

// library looks for libibverbs where the loader does: in its cache, which glibc
// has, and in the directories that it knows.
func (s *system) library() Answer {
	if cache, err := os.ReadFile(s.path("etc/ld.so.cache")); err == nil && bytes.Contains(cache, []byte(libraryName+"\x00")) {
		return Yes
	}
	for _, pattern := range []string{"lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "lib/*-linux-*", "usr/lib/*-linux-*"} {
		found, err := filepath.Glob(s.path(pattern, libraryName))
		if err == nil && len(found) > 0 {
			return Yes
		}
	}
	return No
}
