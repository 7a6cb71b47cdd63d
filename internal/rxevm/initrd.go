package main

import (
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// subnet has the nodes: node n is subnet.n.
	subnet = "10.77.0."
	// leastMemory is what a node needs beside its payload, in MiB.
	leastMemory = 512
	// driverDir is where libibverbs reads which providers it may load.
	driverDir = "/etc/libibverbs.d"
)

//go:embed guest/init
var guestInit string

// guest returns what is in the initial RAM disk, which is the whole file system
// of a node: busybox, the modules in the order to load them, the verbs
// providers, the programs that were asked for, the payload, and the libraries of
// all of these at the paths where this machine has them.
func guest(o Options, h host, modules []module) (tree, error) {
	t := tree{}
	for _, dir := range []string{"/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/var/tmp"} {
		t.directory(dir)
	}
	t.text("/init", guestInit, 0o755)
	t.file("/bin/busybox", h.busybox, 0o755)
	t.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
	t.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
	t.text("/etc/hosts", hosts(), 0o644)
	t.text("/etc/rxevm/environment", exports(o.Env), 0o644)
	var order strings.Builder
	for _, m := range modules {
		fmt.Fprintln(&order, m.name)
		t.text("/etc/rxevm/"+m.name+".ko", string(m.raw), 0o644)
	}
	t.text("/etc/rxevm/modules", order.String(), 0o644)

	linked := []string{h.busybox}
	for name, file := range h.programs {
		t.file("/usr/local/bin/"+name, file, 0o755)
		linked = append(linked, file)
	}
	for _, file := range h.providers {
		if err := t.samePlace(file); err != nil {
			return nil, err
		}
		linked = append(linked, file)
		name, _, _ := strings.Cut(strings.TrimPrefix(path.Base(file), "lib"), "-")
		t.text(path.Join(driverDir, name+".driver"), "driver "+name+"\n", 0o644)
	}
	if err := addPayload(t, o.Payload, &linked); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return t, addLibraries(t, h.loader, linked)
}

// addLibraries adds what the given files need. The loader of a node finds it by
// a list of directories: there is no cache of its own.
func addLibraries(t tree, l loader, linked []string) error {
	slices.Sort(linked)
	needed, err := l.needed(linked...)
	if err != nil {
		return err
	}
	// The C library loads this one by name when a thread is cancelled.
	if unwinder, err := find("libgcc_s.so.1", l.dirs, elf.ELFCLASS64, elf.EM_X86_64); err == nil && len(needed) > 0 {
		needed = append(needed, unwinder)
	}
	var dirs []string
	for _, file := range needed {
		if err := t.samePlace(file); err != nil {
			return err
		}
		if dir := path.Dir(file); slices.Contains(l.dirs, dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	t.text("/etc/rxevm/libraries", strings.Join(dirs, ":")+"\n", 0o644)
	return nil
}

// samePlace adds a file of this machine where it is, with the links that lead
// there: one program looks for a library in /lib, another in /usr/lib, and they
// may be one directory.
func (t tree) samePlace(file string) error {
	dir := "/"
	for name := range strings.SplitSeq(strings.Trim(path.Dir(file), "/"), "/") {
		dir = path.Join(dir, name)
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		t.link(dir, real)
		t.directory(real)
		dir = real
	}
	t.file(path.Join(dir, path.Base(file)), file, 0o755)
	return nil
}

// addPayload adds the directory as /payload, and every file of it to linked.
func addPayload(t tree, dir string, linked *[]string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name := path.Join("/payload", filepath.ToSlash(relative))
		info, err := os.Lstat(file)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			t.directory(name)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			t.link(name, target)
		case info.Mode().IsRegular():
			t.file(name, file, info.Mode())
			absolute, err := filepath.Abs(file)
			if err != nil {
				return err
			}
			*linked = append(*linked, absolute)
		default:
			return fmt.Errorf("%s is neither a file, a directory nor a link", file)
		}
		return nil
	})
}

func hosts() string {
	var b strings.Builder
	fmt.Fprintln(&b, "127.0.0.1 localhost")
	for n := 1; n <= maxNodes; n++ {
		fmt.Fprintf(&b, "%s%d node%d\n", subnet, n, n)
	}
	return b.String()
}

// exports returns the variables as lines that a shell reads.
func exports(env []string) string {
	var b strings.Builder
	for _, v := range env {
		key, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", key, strings.ReplaceAll(value, "'", `'\''`))
	}
	return b.String()
}

// initrd is an archive that has no name in the file system any more: it goes
// away with the last process that has it open.
type initrd struct {
	file *os.File
	size int64
}

// newInitrd writes the tree. It is not compressed: QEMU loads it faster than the
// processor of a node, which is emulated, unpacks it.
func newInitrd(t tree) (_ initrd, err error) {
	file, err := os.CreateTemp("", "rxevm-initrd-")
	if err != nil {
		return initrd{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return initrd{}, err
	}
	if err := t.writeTo(file); err != nil {
		return initrd{}, err
	}
	info, err := file.Stat()
	return initrd{file, info.Size()}, err
}

// memory returns how much memory a node with this RAM disk gets, in MiB: the
// kernel holds the archive and what it unpacks at the same time, and gives a
// file system in memory half of it.
func (r initrd) memory(wanted int) (int, error) {
	need := 256 + int(4*r.size>>20)
	switch {
	case wanted == 0:
		return max(need, leastMemory), nil
	case wanted < need:
		return 0, fmt.Errorf("--memory %d is too little: with this payload of %d MiB a node needs %d", wanted, r.size>>20, need)
	}
	return wanted, nil
}
