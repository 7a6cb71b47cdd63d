package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMissingPackages(t *testing.T) {
	for _, c := range []struct {
		missing, wanted, unknown []string
	}{
		{nil, nil, nil},
		{[]string{"qemu-system-x86_64", "ib_read_lat", "ib_atomic_lat", "rdma", providerPackage}, []string{"ibverbs-providers", "iproute2", "perftest", "qemu-system-x86"}, nil},
		{[]string{"busybox", "no-such-program"}, []string{"busybox-static"}, []string{"no-such-program"}},
	} {
		wanted, unknown := missingPackages(c.missing)
		if !slices.Equal(wanted, c.wanted) || !slices.Equal(unknown, c.unknown) {
			t.Errorf("%q: packages %q and unknown %q, want %q and %q", c.missing, wanted, unknown, c.wanted, c.unknown)
		}
	}
	if got, want := installCommand([]string{"a", "b"}), "apt-get install -y --no-install-recommends a b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	program := writeFile(t, []byte("#!/bin/sh\n"), dir, "some-program")
	t.Setenv("PATH", dir)
	if got, err := lookPath("some-program"); err != nil || got != program {
		t.Errorf("%q, %v; want %q", got, err, program)
	}
	if got, err := lookPath("sh"); err != nil || !filepath.IsAbs(got) {
		t.Errorf("what is not in the PATH of a user: %q, %v", got, err)
	}
	if got, err := lookPath("no-such-program"); err == nil {
		t.Errorf("%q was found", got)
	}
}

func TestProviders(t *testing.T) {
	root := t.TempDir()
	first, second := filepath.Join(root, "lib"), filepath.Join(root, "usr/lib")
	if got := providers([]string{first, second}); len(got) != 0 {
		t.Errorf("%q of nothing", got)
	}
	siw := writeFile(t, nil, second, "libibverbs/libsiw-rdmav34.so")
	if got := providers([]string{first, second}); len(got) != 0 {
		t.Errorf("%q without rxe", got)
	}
	rxe := writeFile(t, nil, second, "libibverbs/librxe-rdmav34.so")
	if got := providers([]string{first, second}); !slices.Equal(got, []string{rxe, siw}) {
		t.Errorf("%q, want rxe and siw", got)
	}
	// On most systems one directory is a link to the other.
	if err := os.Symlink(second, first); err != nil {
		t.Fatal(err)
	}
	if got := providers([]string{first, second}); len(got) != 2 || filepath.Dir(filepath.Dir(got[0])) != first {
		t.Errorf("%q, want each once", got)
	}
}
