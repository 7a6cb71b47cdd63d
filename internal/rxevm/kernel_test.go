package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestChooseKernel(t *testing.T) {
	for _, c := range []struct{ name, depends, want string }{
		{"Debian 12", "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n", "linux-image-6.1.0-56-amd64"},
		{"with alternatives", "linux-image-amd64\n |Depends: linux-image-6.12.5-amd64\n  Depends: linux-image-6.12.5-amd64-unsigned\n", "linux-image-6.12.5-amd64"},
		{"behind other packages", "linux-image-amd64\n  PreDepends: linux-image-old\n  Depends: kmod\n  Depends: <linux-image-virtual>\n  Depends: linux-image-6.9-amd64\n  Suggests: linux-image-dbg\n", "linux-image-6.9-amd64"},
		{"none", "linux-image-amd64\n", ""},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := chooseKernel(c.depends)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// fetcher makes a kernel as the package has it, and counts how often.
type fetcher struct {
	fetched atomic.Int64
	fail    error
}

func (f *fetcher) fetch(_ context.Context, work, root string) (kernel, error) {
	f.fetched.Add(1)
	if err := os.MkdirAll(filepath.Join(root, "boot"), 0o755); err != nil {
		return kernel{}, err
	}
	if f.fail != nil {
		return kernel{}, f.fail
	}
	return kernel{Package: "linux-image-1", Version: "1-1"}, errors.Join(
		os.WriteFile(filepath.Join(root, "boot/vmlinuz-1"), []byte("image"), 0o644),
		os.MkdirAll(filepath.Join(root, "lib/modules/1"), 0o755),
	)
}

func (f *fetcher) cache(dir string) kernelCache {
	return kernelCache{dir: dir, fetch: f.fetch, progress: io.Discard}
}

func TestKernelCache(t *testing.T) {
	var f fetcher
	dir := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			k, err := f.cache(dir).get(t.Context())
			if err != nil {
				t.Error(err)
			} else if raw, err := os.ReadFile(k.imagePath()); err != nil || string(raw) != "image" || k.Version != "1-1" {
				t.Errorf("kernel %+v with image %q, %v", k, raw, err)
			}
		})
	}
	wg.Wait()
	if n := f.fetched.Load(); n != 1 {
		t.Errorf("eight runs at once fetched the kernel %d times", n)
	}
}

func TestKernelCacheMends(t *testing.T) {
	for name, damage := range map[string]func(kernel) error{
		"no mark":         func(k kernel) error { return os.Remove(filepath.Join(k.dir, completeMark)) },
		"broken mark":     func(k kernel) error { return os.WriteFile(filepath.Join(k.dir, completeMark), []byte("{"), 0o644) },
		"truncated image": func(k kernel) error { return os.Truncate(k.imagePath(), 2) },
		"no image":        func(k kernel) error { return os.Remove(k.imagePath()) },
		"no modules":      func(k kernel) error { return os.Remove(k.modulesPath()) },
		"left half unpacked": func(k kernel) error {
			return os.Rename(k.dir, filepath.Join(filepath.Dir(k.dir), "unpacking"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f fetcher
			c := f.cache(t.TempDir())
			k, err := c.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(k); err != nil {
				t.Fatal(err)
			}
			if k, err = c.get(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := openKernel(k.dir); err != nil || f.fetched.Load() != 2 {
				t.Errorf("fetched %d times, then %v", f.fetched.Load(), err)
			}
		})
	}
}

func TestKernelCacheFails(t *testing.T) {
	f := fetcher{fail: errors.New("no network")}
	dir := t.TempDir()
	if _, err := f.cache(dir).get(t.Context()); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("the error is %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("it left %v, %v", entries, err)
	}
	// Another process that does not end holds nobody up for ever.
	unlock, err := lockFile(t.Context(), filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("over"))
	if _, err := f.cache(dir).get(ctx); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("while the cache is locked: %v", err)
	}
}

func TestLocate(t *testing.T) {
	for _, c := range []struct {
		name, want string
		files      []string
	}{
		{"modules below lib", "lib/modules/6.1", []string{"boot/vmlinuz-6.1", "lib/modules/6.1/modules.builtin"}},
		{"modules below usr", "usr/lib/modules/6.12", []string{"boot/vmlinuz-6.12", "usr/lib/modules/6.12/modules.builtin"}},
		{"no image", "", []string{"lib/modules/6.1/modules.builtin"}},
		{"two kernels", "", []string{"boot/vmlinuz-6.1", "lib/modules/6.1/modules.builtin", "lib/modules/6.2/modules.builtin"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range c.files {
				writeFile(t, nil, root, f)
			}
			var k kernel
			err := k.locate(t.Context(), root, io.Discard)
			if (err == nil) != (c.want != "") || err == nil && k.Modules != c.want {
				t.Errorf("modules %q, %v; want %q", k.Modules, err, c.want)
			}
		})
	}
}
