package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// rxeModules are what every node loads: a network card with a SoftRoCE device
// on it, and what tests put on the card (a classifier to count packets, a
// discipline to lose them).
var rxeModules = []string{
	"virtio_pci", "virtio_net", "crc32_generic", "ib_uverbs", "rdma_ucm", "rdma_rxe",
	"sch_ingress", "cls_bpf", "sch_netem", "veth",
}

// moduleSet are the modules of one kernel.
type moduleSet struct {
	// files has the path of each by name; builtin are those that the kernel
	// itself has.
	files   map[string]string
	builtin map[string]bool
	// read returns the content of a module's file.
	read func(path string) ([]byte, error)
}

// moduleName returns the name of a module by its file; the kernel does not
// tell - from _.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// newModuleSet lists the modules below dir, which is lib/modules/RELEASE.
func newModuleSet(ctx context.Context, dir string) (moduleSet, error) {
	s := moduleSet{files: map[string]string{}, builtin: map[string]bool{}, read: func(file string) ([]byte, error) { return readModule(ctx, file) }}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			s.files[moduleName(file)] = file
		}
		return err
	})
	if err != nil {
		return moduleSet{}, fmt.Errorf("kernel modules: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return moduleSet{}, fmt.Errorf("kernel modules: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		s.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return s, nil
}

// module is one module to load.
type module struct {
	name string
	raw  []byte
}

// order returns the named modules and all they depend on, each after what it
// needs.
func (s moduleSet) order(names []string) (ordered []module, err error) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name, by string) error
	visit = func(name, by string) error {
		name = strings.ReplaceAll(name, "-", "_")
		switch {
		case state[name] == done || s.builtin[name]:
			return nil
		case state[name] == visiting:
			return fmt.Errorf("the modules %s and %s need each other", name, by)
		case s.files[name] == "":
			return fmt.Errorf("this kernel has no module %s (wanted by %s)", name, by)
		}
		state[name] = visiting
		raw, err := s.read(s.files[name])
		if err != nil {
			return err
		}
		hard, soft, err := dependencies(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", s.files[name], err)
		}
		// A soft dependency is loaded where it is, and may be an alias.
		soft = slices.DeleteFunc(soft, func(n string) bool { return s.files[strings.ReplaceAll(n, "-", "_")] == "" })
		for _, n := range append(hard, soft...) {
			if err := visit(n, name); err != nil {
				return err
			}
		}
		state[name] = done
		ordered = append(ordered, module{name, raw})
		return nil
	}
	for _, name := range names {
		if err := visit(name, "this run"); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// dependencies returns the modules that a module needs, and those that it likes
// to find loaded.
func dependencies(raw []byte) (hard, soft []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, nil, errors.New("not a kernel module: it has no section .modinfo")
	}
	text, err := info.Data()
	if err != nil {
		return nil, nil, err
	}
	hard, soft = modinfo(string(text))
	return hard, soft, nil
}

// modinfo returns the modules of the entries "depends", and of "softdep" those
// to load before. Entries end with a zero byte.
func modinfo(text string) (hard, soft []string) {
	for entry := range strings.SplitSeq(text, "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			hard = append(hard, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			before := false
			for _, word := range strings.Fields(value) {
				if word == "pre:" || word == "post:" {
					before = word == "pre:"
				} else if before {
					soft = append(soft, word)
				}
			}
		}
	}
	return hard, soft
}

// decompressors are the programs for what distributions make of modules.
var decompressors = map[string][]string{".xz": {"xz", "-dc"}, ".zst": {"zstd", "-qdc"}, ".gz": {"gzip", "-dc"}}

// readModule returns the content of a module, decompressed: the loader of a
// node takes no other.
func readModule(ctx context.Context, file string) ([]byte, error) {
	command, compressed := decompressors[path.Ext(file)]
	if !compressed {
		return os.ReadFile(file)
	}
	raw, err := exec.CommandContext(ctx, command[0], append(command[1:], file)...).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", file, commandError(err))
	}
	return raw, nil
}

// commandError adds to the error of a command what it said on its standard
// error.
func commandError(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(bytes.TrimSpace(exit.Stderr)) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
