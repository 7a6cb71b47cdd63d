package main

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// loader finds the shared libraries that programs of this machine need, as its
// dynamic loader would: by the search path in the file, then by the directories
// of ld.so.conf, then by the built-in ones. It does not run the programs, which
// ldd may do.
type loader struct {
	// dirs are the directories of ld.so.conf and the built-in ones.
	dirs []string
}

// builtinDirs are where the loaders of the distributions look without being
// told.
var builtinDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// newLoader reads the configuration of the loader; a machine without one has
// the built-in directories.
func newLoader(conf string) (loader, error) {
	dirs, err := confDirs(conf, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return loader{}, err
	}
	for _, dir := range builtinDirs {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return loader{dirs}, nil
}

// maxIncludes bounds how deep configurations include each other.
const maxIncludes = 8

// confDirs returns the directories that a configuration names, with those of
// the files that it includes.
func confDirs(name string, depth int) (dirs []string, err error) {
	if depth > maxIncludes {
		return nil, fmt.Errorf("%s: configurations include each other", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "include":
			pattern := fields[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(name), pattern)
			}
			included, err := filepath.Glob(pattern)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, pattern, err)
			}
			for _, i := range included {
				more, err := confDirs(i, depth+1)
				if err != nil {
					return nil, err
				}
				dirs = append(dirs, more...)
			}
		case len(fields) == 1 && filepath.IsAbs(fields[0]):
			dirs = append(dirs, filepath.Clean(fields[0]))
		}
	}
	return dirs, lines.Err()
}

// needed returns the files that the given programs and libraries need, theirs
// included: interpreters and libraries, sorted. What is not an ELF file needs
// nothing.
func (l loader) needed(names ...string) ([]string, error) {
	found := map[string]bool{}
	for queue := names; len(queue) > 0; queue = queue[1:] {
		direct, err := l.direct(queue[0])
		if err != nil {
			return nil, err
		}
		for _, d := range direct {
			if !found[d] {
				found[d] = true
				queue = append(slices.Clip(queue), d)
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// direct returns the interpreter and the libraries that one file names.
func (l loader) direct(name string) (files []string, err error) {
	isELF, err := startsWith(name, elf.ELFMAG)
	if err != nil || !isELF {
		return nil, err
	}
	f, err := elf.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			raw, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return nil, fmt.Errorf("%s: interpreter: %w", name, err)
			}
			files = append(files, strings.TrimRight(string(raw), "\x00"))
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: libraries: %w", name, err)
	}
	dirs, err := l.searchPath(name, f)
	if err != nil {
		return nil, err
	}
	for _, library := range libraries {
		file, err := find(library, dirs, f.Class, f.Machine)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// searchPath returns where the libraries of f are looked for. DT_RPATH counts
// only where there is no DT_RUNPATH.
func (l loader) searchPath(name string, f *elf.File) ([]string, error) {
	var own []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			return nil, fmt.Errorf("%s: %v: %w", name, tag, err)
		}
		for _, v := range values {
			own = append(own, strings.Split(v, ":")...)
		}
		if len(own) > 0 {
			break
		}
	}
	origin := path.Dir(name)
	for i, dir := range own {
		own[i] = path.Clean(strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir))
	}
	return append(own, l.dirs...), nil
}

// find returns the file of a library for a processor: a directory may have one
// for another under the same name.
func find(library string, dirs []string, class elf.Class, machine elf.Machine) (string, error) {
	if strings.Contains(library, "/") {
		return library, nil
	}
	for _, dir := range dirs {
		candidate := path.Join(dir, library)
		f, err := elf.Open(candidate)
		if err != nil {
			continue
		}
		fits := f.Class == class && f.Machine == machine
		if err := f.Close(); err == nil && fits {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("the library %s is in none of %s", library, strings.Join(dirs, ", "))
}

// startsWith reports whether the file begins with the given bytes.
func startsWith(name, magic string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return string(head) == magic, err
}
