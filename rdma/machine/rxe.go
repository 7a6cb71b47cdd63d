package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

const (
	// rxePatience is how long a new software device may take to come up.
	rxePatience = 5 * time.Second
	// rxeInterval is the time between two looks at it: the kernel tells nobody.
	rxeInterval = 20 * time.Millisecond
)

// CreateRXE makes a software RDMA device (SoftRoCE, rxe) on the best interface
// that has none: one which is up and has the advertised address, or else one
// that other machines can reach. It asks the kernel through RDMA netlink, which
// needs CAP_NET_ADMIN and loads the modules ib_core and rdma_rxe itself if it may; and it
// waits some seconds for the device to be ACTIVE. The device outlives the
// process: `rdma link delete NAME` removes it. What goes wrong is in the
// result, which Judge takes as Facts.Created.
func CreateRXE(ctx context.Context, f Facts, d Demand) Created { return createRXE(ctx, host(), f, d) }

func createRXE(ctx context.Context, s *system, f Facts, d Demand) Created {
	link, ok := f.bestNetdev(d)
	if !ok {
		return Created{
			Error: "no interface is up, carries Ethernet, has an address that other machines can reach, and has no RDMA device",
			Mend:  f.runRoot("ip addr add ADDRESS/24 dev INTERFACE", "ip link set dev INTERFACE up"),
		}
	}
	c := Created{Device: f.freeRXE(), Netdev: link.Name}
	if err := s.addRXE(c.Device, c.Netdev); err != nil {
		c.Error, c.Mend = f.explainRXE(err)
		return c
	}
	if err := s.awaitRXE(ctx, c); err != nil {
		c.Error, c.Mend = err.Error(), run("rdma link show "+c.Device+"/1")
	}
	return c
}

// explainRXE says what the kernel meant.
func (f *Facts) explainRXE(err error) (wrong, mend string) {
	switch {
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		return "the kernel has no RDMA", f.installKernel()
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "it needs the capability CAP_NET_ADMIN", "as root, " + run("tenure doctor --rxe create")
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EOPNOTSUPP):
		if f.Modules[moduleRXE] == ModuleAbsent {
			return "the kernel has no module rdma_rxe", f.installRXE()
		}
		return "the module rdma_rxe is not loaded", f.runHost("modprobe rdma_rxe")
	case errors.Is(err, syscall.EEXIST):
		return "there is one already", run("rdma link show")
	}
	return err.Error(), ""
}

// awaitRXE waits until the device is ACTIVE and has the GID of a routable
// address, which the kernel adds in the background.
func (s *system) awaitRXE(ctx context.Context, c Created) error {
	patience := time.NewTimer(rxePatience)
	defer patience.Stop()
	tick := time.NewTicker(rxeInterval)
	defer tick.Stop()
	for {
		state := "not there"
		for _, p := range s.device(c.Device).Ports {
			if state = p.State; state != stateActive {
				continue
			}
			for g := range s.gids(c.Device, p.Number) {
				if g.Type == typeRoCEv2 && routable(g.Addr) {
					return nil
				}
			}
			state = "ACTIVE without a GID"
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it was made, but is %s: %w", state, ctx.Err())
		case <-patience.C:
			return fmt.Errorf("it was made, but is %s after %v", state, rxePatience)
		}
	}
}

// bestNetdev returns the interface for a software device.
func (f *Facts) bestNetdev(d Demand) (best Link, ok bool) {
	rank := 4
	for _, l := range f.Links {
		if !l.Up || !l.Carrier || l.Loopback || !l.Ethernet || f.taken(l.Name) {
			continue
		}
		for _, p := range l.Addresses {
			r := 1
			if l.Kind != "" {
				r += 2
			}
			if p.Addr().Is6() {
				r++
			}
			switch {
			case d.Advertise.IsValid() && p.Addr() == d.Advertise.Unmap():
				r = 0
			case !routable(p.Addr()):
				continue
			}
			if !ok || r < rank {
				best, ok, rank = l, true, r
			}
		}
	}
	return best, ok
}

// taken says whether an interface has a device that is not without atomics: one
// interface can have an iWARP device and a software one.
func (f *Facts) taken(netdev string) bool {
	return slices.ContainsFunc(f.Devices, func(c Device) bool {
		return c.Atomics != No && slices.ContainsFunc(c.Ports, func(p Port) bool { return p.Netdev == netdev })
	})
}

// freeRXE returns the first of rxe0, rxe1, ... that no device has.
func (f *Facts) freeRXE() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("rxe%d", i)
		if !slices.ContainsFunc(f.Devices, func(c Device) bool { return c.Name == name }) {
			return name
		}
	}
}
