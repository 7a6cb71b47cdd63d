package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestNeededOfThisProgram holds what is found against what the file says, with
// the configuration of this machine. Without cgo that is nothing.
func TestNeededOfThisProgram(t *testing.T) {
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	named, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLoader("/etc/ld.so.conf")
	if err != nil {
		t.Fatal(err)
	}
	found, err := l.needed(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(named) == 0 && len(found) != 0 {
		t.Errorf("the program is static, and %v was found", found)
	}
	for _, n := range named {
		if !slices.ContainsFunc(found, func(file string) bool { return filepath.Base(file) == n }) {
			t.Errorf("%s is not among %v", n, found)
		}
	}
	for _, file := range found {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}
