package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// metapackage depends on the package of Debian's current kernel.
	metapackage = "linux-image-amd64"
	// downloadTimeout bounds the download and the unpacking of the kernel.
	downloadTimeout = 10 * time.Minute
	// lockPoll is how often a run asks whether another one is done with
	// unpacking the kernel; a blocking lock could not be interrupted.
	lockPoll = 200 * time.Millisecond
	// completeMark is the file of a cached kernel that is written last.
	completeMark = "complete.json"
)

// kernel is an unpacked kernel package in the cache. Its fields are in the file
// that is written last, so that a kernel with this file is whole.
type kernel struct {
	// Package and Version are those of Debian.
	Package string `json:"package"`
	Version string `json:"version"`
	// Image is what QEMU starts, and Modules its lib/modules/RELEASE, relative to
	// the directory of the kernel.
	Image   string `json:"image"`
	Modules string `json:"modules"`
	// ImageSize tells a truncated image, in bytes.
	ImageSize int64 `json:"image_size"`

	dir string
}

func (k kernel) imagePath() string   { return filepath.Join(k.dir, k.Image) }
func (k kernel) modulesPath() string { return filepath.Join(k.dir, k.Modules) }

// kernelCache keeps one kernel in a directory that runs of several processes
// share.
type kernelCache struct {
	dir string
	// fetch downloads the kernel package into the directory work and unpacks it
	// to root.
	fetch func(ctx context.Context, work, root string) (kernel, error)
	// progress gets a line when something takes long.
	progress io.Writer
}

// get returns the kernel of the cache; without a whole one it is downloaded
// first. One process does that, the others wait for it, until ctx ends.
func (c kernelCache) get(ctx context.Context) (kernel, error) {
	if k, err := openKernel(c.path()); err == nil {
		return k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return kernel{}, fmt.Errorf("kernel cache: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(c.dir, "lock"))
	if err != nil {
		return kernel{}, fmt.Errorf("kernel cache: %w", err)
	}
	defer unlock()
	k, err := openKernel(c.path())
	if err == nil {
		return k, nil // of the process that had the lock before
	}
	if !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(c.progress, "rxevm: the cached kernel is not whole and is made anew: %v\n", err)
	}
	if err := c.fill(ctx); err != nil {
		return kernel{}, err
	}
	return openKernel(c.path())
}

func (c kernelCache) path() string { return filepath.Join(c.dir, "kernel") }

// fill unpacks the package beside the cache's kernel and puts it in its place
// when it is whole. The caller holds the lock.
func (c kernelCache) fill(ctx context.Context) (err error) {
	// What an earlier process left when it was killed is not worth keeping.
	work := filepath.Join(c.dir, "unpacking")
	if err := errors.Join(os.RemoveAll(work), os.RemoveAll(c.path()), os.MkdirAll(work, 0o755)); err != nil {
		return fmt.Errorf("kernel cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fmt.Fprintf(c.progress, "rxevm: downloading Debian's kernel into %s (once, about 100 MB)\n", c.dir)
	root := filepath.Join(work, "kernel")
	k, err := c.fetch(ctx, work, root)
	if err != nil {
		return err
	}
	if err := k.locate(ctx, root, c.progress); err != nil {
		return fmt.Errorf("package %s: %w", k.Package, err)
	}
	mark, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, completeMark), mark, 0o644); err != nil {
		return fmt.Errorf("kernel cache: %w", err)
	}
	return os.Rename(root, c.path())
}

// locate finds the image and the modules below root, and unpacks the image if
// QEMU can start what is in it. Newer packages have the modules below usr.
func (k *kernel) locate(ctx context.Context, root string, progress io.Writer) (err error) {
	if k.Modules, err = only(root, "lib/modules/*", "usr/lib/modules/*"); err != nil {
		return err
	}
	if k.Image, err = only(root, "boot/vmlinuz-*"); err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(root, k.Image))
	if err != nil {
		return err
	}
	if proper, err := kernelProper(ctx, image); err != nil {
		fmt.Fprintf(progress, "rxevm: nodes will boot some seconds slower than they could: %v\n", err)
	} else {
		image, k.Image = proper, "vmlinux"
		if err := os.WriteFile(filepath.Join(root, k.Image), proper, 0o644); err != nil {
			return err
		}
	}
	k.ImageSize = int64(len(image))
	return nil
}

// only returns the one file that matches a pattern, relative to root.
func only(root string, patterns ...string) (string, error) {
	var found []string
	for _, p := range patterns {
		matches, err := fs.Glob(os.DirFS(root), p)
		if err != nil {
			return "", err
		}
		found = append(found, matches...)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d files match %s, one is expected", len(found), strings.Join(patterns, " or "))
	}
	return found[0], nil
}

// openKernel returns the kernel in dir if it is whole. The error is of the kind
// fs.ErrNotExist where there is none.
func openKernel(dir string) (kernel, error) {
	if _, err := os.Stat(dir); err != nil {
		return kernel{}, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, completeMark))
	if err != nil {
		return kernel{}, errors.New("it was not unpacked to the end")
	}
	k := kernel{dir: dir}
	if err := json.Unmarshal(raw, &k); err != nil {
		return kernel{}, fmt.Errorf("%s: %w", completeMark, err)
	}
	info, err := os.Stat(k.imagePath())
	switch {
	case err != nil:
		return kernel{}, errors.New("its image is missing")
	case info.Size() != k.ImageSize:
		return kernel{}, fmt.Errorf("its image has %d bytes, not %d", info.Size(), k.ImageSize)
	}
	if info, err := os.Stat(k.modulesPath()); err != nil || !info.IsDir() {
		return kernel{}, errors.New("its modules are missing")
	}
	return k, nil
}

// lockFile takes an exclusive lock that ends with the process at the latest.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), file.Close())
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another run holds %s: %w", name, context.Cause(ctx)), file.Close())
		}
	}
}
