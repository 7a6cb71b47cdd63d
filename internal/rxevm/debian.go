package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// installTimeout bounds the installation of missing packages.
const installTimeout = 10 * time.Minute

// debian is the package management of this machine.
type debian struct {
	// install says that packages may be installed and lists fetched.
	install bool
	// progress gets what apt-get says while it changes the machine.
	progress io.Writer
}

// unpackKernel downloads the current kernel package into the directory work and
// unpacks it, without installing it, to root.
func (d debian) unpackKernel(ctx context.Context, work, root string) (kernel, error) {
	name, err := d.kernelPackage(ctx)
	if err != nil && d.install {
		// Lists that are empty know no kernel.
		if err = d.update(ctx); err == nil {
			name, err = d.kernelPackage(ctx)
		}
	}
	if err != nil {
		return kernel{}, err
	}
	_, err = d.output(ctx, work, "apt-get", "download", "-q", name)
	if err != nil && d.install {
		// Lists that are old name a file that the mirror has no more.
		if err = d.update(ctx); err != nil {
			return kernel{}, err
		}
		if name, err = d.kernelPackage(ctx); err == nil {
			_, err = d.output(ctx, work, "apt-get", "download", "-q", name)
		}
	}
	if err != nil {
		return kernel{}, fmt.Errorf("download of %s: %w (are the lists old? apt-get update)", name, err)
	}
	files, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(files) != 1 {
		return kernel{}, fmt.Errorf("download of %s: %d packages came, one is expected", name, len(files))
	}
	version, err := d.output(ctx, work, "dpkg-deb", "-f", files[0], "Version")
	if err != nil {
		return kernel{}, err
	}
	if _, err := d.output(ctx, work, "dpkg-deb", "-x", files[0], root); err != nil {
		return kernel{}, err
	}
	return kernel{Package: name, Version: strings.TrimSpace(version)}, nil
}

// kernelPackage asks which package has the current kernel.
func (d debian) kernelPackage(ctx context.Context) (string, error) {
	out, err := d.output(ctx, "", "apt-cache", "depends", metapackage)
	if err != nil {
		return "", fmt.Errorf("no kernel is known (apt-get update): %w", err)
	}
	return chooseKernel(out)
}

// chooseKernel returns the kernel package among the dependencies of the
// metapackage, as apt-cache prints them.
func chooseKernel(depends string) (string, error) {
	for line := range strings.Lines(depends) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), ": ")
		// An alternative begins with |, a virtual package is in brackets.
		if strings.TrimPrefix(kind, "|") == "Depends" && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s depends on no kernel; is this Debian, and does apt-get update work?", metapackage)
}

// update fetches the lists of packages.
func (d debian) update(ctx context.Context) error {
	return d.change(ctx, "update", "-q")
}

// installPackages installs packages without asking.
func (d debian) installPackages(ctx context.Context, packages []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("--install takes root: %s", installCommand(packages))
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	fmt.Fprintf(d.progress, "rxevm: %s\n", installCommand(packages))
	args := append([]string{"install", "-qy", "--no-install-recommends"}, packages...)
	if d.change(ctx, args...) == nil {
		return nil
	}
	// The lists may be empty or old.
	if err := d.update(ctx); err != nil {
		return err
	}
	return d.change(ctx, args...)
}

// installCommand is what a person types.
func installCommand(packages []string) string {
	return "apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
}

// change runs apt-get where it changes the machine. When ctx ends it is asked to
// stop, so that dpkg leaves no package half installed.
func (d debian) change(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = d.progress, d.progress
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w", args[0], err)
	}
	return nil
}

// output runs a command in dir and returns what it printed.
func (d debian) output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%s is not here, and rxevm takes its kernel from Debian's packages", name)
		}
		return "", fmt.Errorf("%s %s: %w", name, args[0], commandError(err))
	}
	return string(bytes.TrimSpace(out)), nil
}
