package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// errNode is the kind of errors that nodes make; others are of this machine.
var errNode = errors.New("failed")

// run does everything: it looks for what it needs, gets the kernel, makes the
// RAM disk, boots the nodes and waits for them. It must be called on a thread
// that lasts (see confine).
func run(ctx context.Context, o Options, out io.Writer) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("nodes run programs and libraries of this machine, which must be Linux on amd64 and is %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	d := debian{install: o.Install, progress: out}
	h, err := findHost(ctx, o, d)
	if err != nil {
		return err
	}
	k, err := kernelCache{dir: o.Cache, fetch: d.unpackKernel, progress: out}.get(ctx)
	if err != nil {
		return err
	}
	set, err := newModuleSet(ctx, k.modulesPath())
	if err != nil {
		return err
	}
	modules, err := set.order(append(rxeModules, o.Modules...))
	if err != nil {
		return err
	}
	t, err := guest(o, h, modules)
	if err != nil {
		return err
	}
	disk, err := newInitrd(t)
	if err != nil {
		return err
	}
	defer disk.file.Close()
	memory, err := disk.memory(o.Memory)
	if err != nil {
		return err
	}
	m := machine{
		qemu: h.qemu, image: k.imagePath(), memory: memory, cpus: o.CPUs, nodes: o.Nodes,
		token: rand.Text(), clock: clockParameters("/proc/cpuinfo"),
	}
	p := &printer{out: out}
	p.note("booting %d of Linux %s (%s) with %d MiB and %d processors each", o.Nodes, filepath.Base(k.Modules), k.Version, memory, o.CPUs)
	return boot(ctx, o, m, disk, p)
}

// boot runs the nodes until all have ended, one has failed, the time is over or
// ctx ends.
func boot(ctx context.Context, o Options, m machine, disk initrd, out *printer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	cables, err := newNetwork(o.Nodes)
	if err != nil {
		return err
	}
	commands := make([][]string, o.Nodes)
	for n := range commands {
		commands[n] = m.command(n+1, len(cables.ends[n]))
	}
	logs, err := openLogs(o.Logs, commands)
	if err != nil {
		return errors.Join(err, cables.close())
	}
	defer func() { err = errors.Join(err, logs.close()) }()
	began := time.Now()
	var nodes []*node
	for n, command := range commands {
		started, startErr := start(n+1, command, append([]*os.File{disk.file}, cables.ends[n]...)...)
		if startErr != nil {
			err = startErr
			break
		}
		started.mortal = slices.Contains(o.Mortal, n+1)
		nodes = append(nodes, started)
	}
	// From here on the end of a machine is the end of its cables.
	if err = errors.Join(err, cables.close()); err != nil {
		for _, n := range nodes {
			n.abort()
		}
	}
	return errors.Join(err, attend(ctx, nodes, m.token, began, out, logs))
}

// attend shows and logs what nodes print, and returns when all are gone: when
// the payloads of all have exited with 0 or their machines have died as they
// should, when one has not succeeded (the others would wait for it), or when ctx
// has ended.
func attend(ctx context.Context, nodes []*node, token string, began time.Time, out *printer, logs logs) error {
	abort := func() {
		for _, n := range nodes {
			n.abort()
		}
	}
	defer context.AfterFunc(ctx, abort)()
	var payloads, machines sync.WaitGroup
	payloads.Add(len(nodes))
	for i, n := range nodes {
		machines.Go(func() {
			n.wait(token, began, out, logs.of(i), payloads.Done)
			if !n.result.ok() {
				abort()
			}
		})
	}
	payloads.Wait()
	for _, n := range nodes {
		n.kill()
	}
	machines.Wait()
	var failures []error
	for _, n := range nodes {
		out.note("node %d: %v", n.number, n.result)
		// A node that was ended because of another says nothing of its own.
		if !n.result.ok() && (!n.result.aborted || ctx.Err() != nil) {
			failures = append(failures, fmt.Errorf("node %d %w: %v", n.number, errNode, n.result))
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && len(failures) > 0 {
		failures = append(failures, errors.New("the time is over (--timeout)"))
	}
	return errors.Join(failures...)
}

// logs are the files of one run, by node (from 0), or none.
type logs []*os.File

// openLogs creates in dir a file for the console of each node, and one with the
// command that starts it.
func openLogs(dir string, commands [][]string) (l logs, err error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("--logs: %w", err)
	}
	for n, command := range commands {
		name := filepath.Join(dir, fmt.Sprintf("node%d", n+1))
		if err := os.WriteFile(name+".command", []byte(strings.Join(command, " ")+"\n"), 0o644); err != nil {
			return nil, errors.Join(fmt.Errorf("--logs: %w", err), l.close())
		}
		file, err := os.Create(name + ".log")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--logs: %w", err), l.close())
		}
		l = append(l, file)
	}
	return l, nil
}

func (l logs) of(n int) io.Writer {
	if l == nil {
		return io.Discard
	}
	return l[n]
}

func (l logs) close() (err error) {
	for _, file := range l {
		err = errors.Join(err, file.Close())
	}
	return err
}
