package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// Counter counts the packets of one interface until it is closed. Its methods
// are safe for concurrent use.
type Counter struct {
	name    string
	mode    Mode
	options Options
	handle  *handle.Handle

	mu     sync.Mutex // guards what follows, also against Close
	loaded *loaded
	hooks  []func() error // each undoes a step of attaching
}

// Attach starts to count what passes the interface, from zero. Whoever calls it
// closes the Counter. It needs CAP_BPF and CAP_NET_ADMIN (root has them; Linux
// before 5.8 wants root). Errors: rdma.ErrInvalid for the options and for an
// interface that does not exist, os.ErrPermission, rdma.ErrInUse if the hook is
// taken by somebody else, rdma.ErrNotSupported if this kernel does not have the
// hook or no eBPF.
func Attach(interfaceName string, options Options) (*Counter, error) {
	iface, err := net.InterfaceByName(interfaceName)
	if err != nil {
		return nil, fmt.Errorf("%w: wire counter: no network interface %q: %w", rdma.ErrInvalid, interfaceName, err)
	}
	options.ensureDefaults(iface.MTU)
	if err := options.validate(); err != nil {
		return nil, err
	}
	maps, err := load(&options)
	if err != nil {
		return nil, fmt.Errorf("wire counter: %w", explain(err))
	}
	c := &Counter{name: interfaceName, options: options, loaded: maps}
	if err := c.attach(iface.Index); err != nil {
		return nil, errors.Join(fmt.Errorf("wire counter on %s: %w", interfaceName, explain(err)), maps.close())
	}
	c.handle = handle.Open(c, "wire counter")
	return c, nil
}

// Mode is the hook that is in use; never ModeAuto.
func (c *Counter) Mode() Mode { return c.mode }

// Read returns the counts so far. Each flow is consistent in itself; flows are
// read one after the other.
func (c *Counter) Read() (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded == nil {
		return Snapshot{}, fmt.Errorf("wire counter on %s: %w", c.name, rdma.ErrClosed)
	}
	s, err := c.loaded.read()
	if err != nil {
		return Snapshot{}, fmt.Errorf("wire counter on %s: %w", c.name, err)
	}
	s.Interface, s.Mode = c.name, c.mode
	return s, nil
}

// Close detaches the programs and frees them. Idempotent.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded == nil {
		return nil
	}
	err := errors.Join(c.detach(), c.loaded.close())
	c.loaded = nil
	c.handle.Close()
	if err != nil {
		return fmt.Errorf("close the wire counter on %s: %w", c.name, err)
	}
	return nil
}

// explain adds to an error of the kernel what can be done about it.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		return fmt.Errorf("not allowed to use eBPF: needs CAP_BPF and CAP_NET_ADMIN (run as root), before Linux 5.11 also memlock (ulimit -l): %w", err)
	case errors.Is(err, syscall.ENOSYS):
		return fmt.Errorf("%w: this kernel has no eBPF: %w", rdma.ErrNotSupported, err)
	case errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, rdma.ErrNotSupported):
		return fmt.Errorf("%w: this kernel is too old or lacks an option: %w", rdma.ErrNotSupported, err)
	}
	return err
}

// loaded are the maps and programs of a counter in the kernel.
type loaded struct {
	options            *Options
	flows, zero, stats *ebpf.Map
	programs           []*ebpf.Program
}

// load makes the maps; programs follow when it is known which hook there is.
func load(options *Options) (*loaded, error) {
	l := &loaded{options: options}
	specs := []struct {
		to   **ebpf.Map
		spec *ebpf.MapSpec
	}{
		{&l.flows, flowsSpec(options.Flows)},
		{&l.zero, &ebpf.MapSpec{Name: "wire_zero", Type: ebpf.Array, KeySize: 4, ValueSize: flowSize, MaxEntries: 1}},
		{&l.stats, &ebpf.MapSpec{Name: "wire_stats", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: statCount}},
	}
	for _, m := range specs {
		made, err := ebpf.NewMap(m.spec)
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		*m.to = made
	}
	return l, nil
}

// program assembles, verifies and loads one program. It belongs to l.
func (l *loaded) program(kind ebpf.ProgramType, direction Direction) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "wire_" + direction.String(), Type: kind, License: "Apache-2.0", Instructions: l.assemble(kind, direction),
	})
	if err != nil {
		return nil, err
	}
	l.programs = append(l.programs, p)
	return p, nil
}

func (l *loaded) assemble(kind ebpf.ProgramType, direction Direction) asm.Instructions {
	p := &program{options: l.options, direction: direction, kind: kind, flows: l.flows, zero: l.zero, stats: l.stats}
	return p.assemble()
}

// read reads all counters.
func (l *loaded) read() (Snapshot, error) {
	var s Snapshot
	for stat, to := range []*uint64{statMalformed: &s.Malformed, statUntracked: &s.Untracked} {
		var perCPU []uint64
		if err := l.stats.Lookup(uint32(stat), &perCPU); err != nil {
			return s, err
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	value := make([]byte, flowSize)
	// Flows are never removed, so the walk sees each once, and those that come
	// meanwhile perhaps. The bound only stops a kernel that disagrees.
	key, err := l.flows.NextKeyBytes(nil)
	for range l.options.Flows {
		if err != nil || key == nil {
			break
		}
		if err = l.flows.LookupWithFlags(key, value, ebpf.LookupLock); err != nil {
			break
		}
		s.Flows = append(s.Flows, parseFlow(key, value))
		key, err = l.flows.NextKeyBytes(key)
	}
	sortFlows(s.Flows)
	return s, err
}

func (l *loaded) close() error {
	var errs []error
	for _, p := range l.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range []*ebpf.Map{l.flows, l.zero, l.stats} {
		errs = append(errs, m.Close()) // nil is fine
	}
	return errors.Join(errs...)
}
