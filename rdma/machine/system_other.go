//go:build !linux

package machine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
)

// errLinux is for what only Linux has.
var errLinux = errors.New("only Linux has it")

// host returns this machine: there is no RDMA without Linux, so what is asked
// for are the interfaces.
func host() *system {
	return &system{
		root: "/", goos: runtime.GOOS, goarch: runtime.GOARCH, uid: os.Geteuid(),
		rdmaDevices: func() []string { return nil },
		deviceOf:    func(string) string { return "" },
		charDevices: func(string) []string { return nil },
		links:       links,
		askRDMA:     func() error { return errLinux },
		addRXE:      func(string, string) error { return errLinux },
		open:        func(string) error { return errLinux },
		memlock:     func() (Memlock, error) { return Memlock{Unlimited, Unlimited}, nil },
		memfd:       func() error { return errLinux },
		verbs:       func() ([]verbsDevice, error) { return nil, errLinux },
	}
}

func links() ([]Link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []Link
	for _, i := range interfaces {
		l := Link{
			Name: i.Name, MTU: i.MTU, Up: i.Flags&net.FlagUp != 0, Carrier: i.Flags&net.FlagRunning != 0,
			Loopback: i.Flags&net.FlagLoopback != 0, Ethernet: len(i.HardwareAddr) == 6,
			Addresses: []netip.Prefix{},
		}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.Addresses = append(l.Addresses, p)
			}
		}
		all = append(all, l)
	}
	return all, nil
}
