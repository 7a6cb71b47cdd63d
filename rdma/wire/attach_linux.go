package wire

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// attach hooks the programs to the interface by the mode of the options.
func (c *Counter) attach(index int) error {
	switch c.options.Mode {
	case ModeAuto:
		modes := []Mode{ModeTCX, ModeTC, ModeXDPGeneric}
		if c.options.Drop.Every > 0 {
			modes = []Mode{ModeTCX, ModeXDPGeneric}
		}
		var errs []error
		for _, mode := range modes {
			err := c.attachAs(mode, index)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	case ModeTCX, ModeTC, ModeXDPGeneric, ModeXDPNative:
	}
	return c.attachAs(c.options.Mode, index)
}

// attachAs attaches in one mode, completely or not at all.
func (c *Counter) attachAs(mode Mode, index int) error {
	var err error
	switch mode {
	case ModeTCX:
		err = c.attachTCX(index)
	case ModeTC:
		err = c.attachTC(index)
	case ModeXDPGeneric:
		err = c.attachXDP(index, link.XDPGenericMode)
	default:
		err = c.attachXDP(index, link.XDPDriverMode)
	}
	if err == nil {
		c.mode = mode
		return nil
	}
	return errors.Join(fmt.Errorf("%v: %w", mode, err), c.detach())
}

// detach undoes what was attached, the last first.
func (c *Counter) detach() error {
	var errs []error
	for _, undo := range slices.Backward(c.hooks) {
		errs = append(errs, undo())
	}
	c.hooks = nil
	return errors.Join(errs...)
}

func (c *Counter) attachTCX(index int) error {
	for d, attach := range []ebpf.AttachType{Ingress: ebpf.AttachTCXIngress, Egress: ebpf.AttachTCXEgress} {
		p, err := c.loaded.program(ebpf.SchedCLS, Direction(d))
		if err != nil {
			return err
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: attach})
		if err != nil {
			return err
		}
		c.hooks = append(c.hooks, l.Close)
	}
	return nil
}

func (c *Counter) attachXDP(index int, flags link.XDPAttachFlags) error {
	p, err := c.loaded.program(ebpf.XDP, Ingress)
	if err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Interface: index, Program: p, Flags: flags})
	switch {
	case errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%w: the interface has an XDP program already: %w", rdma.ErrInUse, err)
	case errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ERANGE):
		return fmt.Errorf("%w: the driver cannot, or not with the present MTU and queues: %w", rdma.ErrNotSupported, err)
	case err != nil:
		return err
	}
	c.hooks = append(c.hooks, l.Close)
	return nil
}

// The place of our filters on the clsact queueing discipline: first, with a
// handle that says whose they are.
const (
	tcPriority = 1
	tcHandle   = 4791
)

func (c *Counter) attachTC(index int) error {
	made, err := addClsact(index)
	if err != nil {
		return err
	}
	if made != nil {
		c.hooks = append(c.hooks, func() error { return deleteIfEmpty(made) })
	}
	for d, parent := range []uint32{Ingress: netlink.HANDLE_MIN_INGRESS, Egress: netlink.HANDLE_MIN_EGRESS} {
		p, err := c.loaded.program(ebpf.SchedCLS, Direction(d))
		if err != nil {
			return err
		}
		filter := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: tcHandle, Protocol: unix.ETH_P_ALL, Priority: tcPriority},
			Fd:          p.FD(), Name: "tenure_wire", DirectAction: true,
		}
		err = netlink.FilterAdd(filter)
		if errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("%w: there is a filter of a wire counter already; if its process is dead, tc filter del dev X %v pref %d: %w",
				rdma.ErrInUse, Direction(d), tcPriority, err)
		}
		if err != nil {
			return fmt.Errorf("add a filter: %w", err)
		}
		c.hooks = append(c.hooks, func() error { return netlink.FilterDel(filter) })
	}
	return nil
}

// addClsact makes the queueing discipline that has the hooks, and returns nil if
// there was one already.
func addClsact(index int) (*netlink.GenericQdisc, error) {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	switch err := netlink.QdiscAdd(qdisc); {
	case errors.Is(err, syscall.EEXIST):
		return nil, nil
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EOPNOTSUPP):
		return nil, fmt.Errorf("%w: this kernel has no clsact (module sch_ingress): %w", rdma.ErrNotSupported, err)
	case err != nil:
		return nil, fmt.Errorf("add clsact: %w", err)
	}
	return qdisc, nil
}

// deleteIfEmpty removes the queueing discipline that we made, unless somebody
// has put filters on it meanwhile.
func deleteIfEmpty(made *netlink.GenericQdisc) error {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: made.LinkIndex}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(link, parent)
		if err != nil {
			return fmt.Errorf("list filters: %w", err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	return netlink.QdiscDel(made)
}
