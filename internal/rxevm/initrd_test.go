package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGuest builds the file system of a node from a small machine: a directory
// that stands for the root is not possible, so all its paths are in there.
func TestGuest(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	libs := filepath.Join(root, "usr/lib")
	writeFile(t, elfFile{machine: amd64}.bytes(), libs, "libc.so")
	writeFile(t, elfFile{machine: amd64, needed: []string{"libc.so"}}.bytes(), libs, "libibverbs.so")
	rxe := writeFile(t, elfFile{machine: amd64, needed: []string{"libibverbs.so"}}.bytes(), libs, "libibverbs/librxe-rdmav34.so")
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	busybox := writeFile(t, []byte("busybox"), root, "bin/busybox")
	rdma := writeFile(t, elfFile{machine: amd64, needed: []string{"libc.so"}}.bytes(), root, "bin/rdma")
	payload := filepath.Join(root, "payload")
	writeFile(t, []byte("#!/bin/sh\n"), payload, "run")
	writeFile(t, elfFile{machine: amd64, needed: []string{"libibverbs.so"}}.bytes(), payload, "sub/verbs.test")
	if err := os.Symlink("run", filepath.Join(payload, "link")); err != nil {
		t.Fatal(err)
	}

	h := host{
		busybox: busybox, programs: map[string]string{"rdma": rdma}, providers: []string{rxe},
		// The library is found by its second name, which must work in the node.
		loader: loader{[]string{filepath.Join(root, "lib")}},
	}
	got, err := guest(Options{Payload: payload, Env: []string{"A=1"}}, h, []module{{"first", []byte("1")}, {"second", []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/rxevm/modules":                 "first\nsecond\n",
		"/etc/rxevm/second.ko":               "2",
		"/etc/rxevm/environment":             "export A='1'\n",
		"/etc/rxevm/libraries":               filepath.Join(root, "lib") + "\n",
		"/etc/libibverbs.d/rxe.driver":       "driver rxe\n",
		"/payload/link":                      "run",
		filepath.Join(root, "lib"):           libs,
		"/init":                              guestInit,
		filepath.Join(libs, "libc.so"):       "",
		filepath.Join(libs, "libibverbs.so"): "",
		rxe:                                  "",
		"/payload/sub/verbs.test":            "",
		"/usr/local/bin/rdma":                "",
		"/bin/busybox":                       "",
	} {
		e, ok := got[name]
		switch {
		case !ok:
			t.Errorf("there is no %s among %v", name, slices.Sorted(maps.Keys(got)))
		case e.content != want:
			t.Errorf("%s has %q, want %q", name, e.content, want)
		case want == "" && e.source == "":
			t.Errorf("%s is of no file", name)
		}
	}
	if got["/payload/run"].mode != 0o755 || got["/payload"].mode.IsDir() == false {
		t.Errorf("modes of the payload: %v, %v", got["/payload/run"].mode, got["/payload"].mode)
	}

	if err := os.Remove(filepath.Join(libs, "libibverbs.so")); err != nil {
		t.Fatal(err)
	}
	if _, err := guest(Options{Payload: payload}, h, nil); err == nil || !strings.Contains(err.Error(), "libibverbs.so") {
		t.Errorf("without a library: %v", err)
	}
}

// TestExports has a shell read what the nodes' shell will.
func TestExports(t *testing.T) {
	values := []string{"A=plain", "B=with space and 'quotes' and \"more\"", "C=", "D=$HOME `id` \\ = !", "E=two\nlines"}
	script := exports(values) + `printf '%s|' "$A" "$B" "$C" "$D" "$E"`
	out, err := exec.Command("sh", "-c", script).Output()
	var want strings.Builder
	for _, v := range values {
		_, value, _ := strings.Cut(v, "=")
		want.WriteString(value + "|")
	}
	if err != nil || string(out) != want.String() {
		t.Errorf("a shell reads %q, %v; want %q", out, err, want.String())
	}
}

func TestInitrd(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	content := bytes.Repeat([]byte("x"), 2<<20)
	tr := tree{}
	tr.text("/file", string(content), 0o644)
	disk, err := newInitrd(tr)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.file.Close()
	if disk.size < 2<<20 {
		t.Errorf("%d bytes", disk.size)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the disk has a name: %v, %v", left, err)
	}
	tr.file("/absent", filepath.Join(dir, "absent"), 0o644)
	if _, err := newInitrd(tr); err == nil {
		t.Error("a disk without one of its files")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("what failed has a name: %v, %v", left, err)
	}
}

func TestInitrdMemory(t *testing.T) {
	for _, c := range []struct {
		sizeMiB      int64
		wanted, want int // want 0: refused
	}{
		{10, 0, leastMemory}, {200, 0, 1056}, {200, 1056, 1056}, {200, 1055, 0}, {10, 4096, 4096},
	} {
		got, err := initrd{size: c.sizeMiB << 20}.memory(c.wanted)
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%d MiB, --memory %d: %d, %v; want %d", c.sizeMiB, c.wanted, got, err, c.want)
		}
	}
}
