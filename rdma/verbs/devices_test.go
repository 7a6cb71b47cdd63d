package verbs

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

func gid(index int, addr, typ string) GID {
	a, err := parseGID(addr)
	if err != nil {
		panic(err)
	}
	return GID{Index: index, Addr: a, Type: typ}
}

func TestChooseGID(t *testing.T) {
	const v2, v1 = TypeRoCEv2, TypeIB
	for _, c := range []struct {
		name  string
		layer string
		gids  []GID
		want  int // index; -1 for an error
	}{
		{"none", LinkEthernet, nil, -1},
		{"an IPv4 address is never first in the table", LinkEthernet, []GID{gid(0, "fe80::1", v1), gid(1, "fe80::1", v2), gid(2, "10.0.0.1", v1), gid(3, "10.0.0.1", v2)}, 3},
		{"rxe", LinkEthernet, []GID{gid(0, "fe80::5054:ff:fe77:1", v2), gid(1, "10.77.0.1", v2)}, 1},
		{"the first of equals", LinkEthernet, []GID{gid(4, "10.0.0.1", v2), gid(5, "10.0.0.2", v2)}, 4},
		{"IPv6 that can be routed before link-local", LinkEthernet, []GID{gid(0, "fe80::1", v2), gid(1, "169.254.1.1", v2), gid(2, "2001:db8::1", v2)}, 2},
		{"IPv4 link-local before IPv6 link-local", LinkEthernet, []GID{gid(0, "fe80::1", v2), gid(1, "169.254.1.1", v2)}, 1},
		{"link-local if there is nothing else", LinkEthernet, []GID{gid(0, "fe80::1", v2)}, 0},
		{"any RoCE v2 before RoCE v1", LinkEthernet, []GID{gid(0, "10.0.0.1", v1), gid(1, "fe80::1", v2)}, 1},
		{"RoCE v1 if there is nothing else", LinkEthernet, []GID{gid(0, "fe80::1", v1), gid(1, "10.0.0.1", v1)}, 1},
		{"a kernel that does not tell the type", LinkEthernet, []GID{gid(0, "fe80::1", ""), gid(1, "10.0.0.1", "")}, 1},
		{"loopback is of no use", LinkEthernet, []GID{gid(0, "127.0.0.1", v2), gid(1, "::1", v2)}, -1},
		{"InfiniBand takes the first", LinkInfiniBand, []GID{gid(0, "fe80::2:c903", v1), gid(1, "fec0::1", v1)}, 0},
	} {
		got, err := chooseGID(&Port{Number: 1, LinkLayer: c.layer, GIDs: c.gids}, netip.Addr{})
		if (err != nil) != (c.want < 0) || err == nil && got.Index != c.want {
			t.Errorf("%s: chose %v, %v; want index %d", c.name, got, err, c.want)
		}
	}
}

func TestChooseWantedGID(t *testing.T) {
	port := &Port{Number: 1, LinkLayer: LinkEthernet, GIDs: []GID{gid(0, "fe80::1", TypeRoCEv2), gid(1, "10.0.0.1", TypeIB), gid(2, "10.0.0.1", TypeRoCEv2), gid(3, "10.0.0.2", TypeRoCEv2)}}
	for text, want := range map[string]int{"10.0.0.1": 2, "::ffff:10.0.0.1": 2, "10.0.0.2": 3, "fe80::1": 0, "fe80::1%eth0": 0, "10.0.0.3": -1} {
		addr, err := parseGID(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := chooseGID(port, addr)
		if (err != nil) != (want < 0) || err == nil && got.Index != want {
			t.Errorf("%s: chose %v, %v; want index %d", text, got, err, want)
		}
	}
}

// good is a device that can be used; change spoils it.
func good(name string, change func(*Device)) Device {
	d := Device{Name: name, Transport: "InfiniBand", Atomics: "HCA", MaxQPRdAtom: 16, Ports: []Port{
		{Number: 1, State: "DOWN", LinkLayer: LinkEthernet},
		{Number: 2, State: "ACTIVE", LinkLayer: LinkEthernet, ActiveMTU: 4096, GIDs: []GID{gid(1, "10.0.0.1", TypeRoCEv2)}},
		{Number: 3, State: "ACTIVE", LinkLayer: LinkEthernet, ActiveMTU: 4096, GIDs: []GID{gid(1, "10.0.0.2", TypeRoCEv2)}},
	}}
	if change != nil {
		change(&d)
	}
	return d
}

func TestChoose(t *testing.T) {
	fine := good("fine0", nil)
	siw := good("siw0", func(d *Device) { d.Atomics = "none" })
	denied := good("denied0", func(d *Device) { *d = Device{Name: d.Name, Err: errors.New("no permission")} })
	down := good("down0", func(d *Device) { d.Ports = d.Ports[:1] })
	bare := good("bare0", func(d *Device) { d.Ports[1].GIDs = nil; d.Ports[2].GIDs = nil })
	for _, c := range []struct {
		name    string
		devices []Device
		options Options
		device  string
		port    int
		fault   string // part of the error
	}{
		{"the only one", []Device{fine}, Options{}, "fine0", 2, ""},
		{"the first that can be used", []Device{siw, denied, down, bare, fine, good("fine1", nil)}, Options{}, "fine0", 2, ""},
		{"the named device", []Device{good("other0", nil), fine}, Options{Device: "fine0"}, "fine0", 2, ""},
		{"the named port", []Device{fine}, Options{Port: 3}, "fine0", 3, ""},
		{"the port with the address", []Device{fine}, Options{GID: "10.0.0.2"}, "fine0", 3, ""},
		{"no device", nil, Options{}, "", 0, "rdma link add"},
		{"no such device", []Device{fine}, Options{Device: "mlx5_0"}, "", 0, `no RDMA device "mlx5_0"; there are fine0`},
		{"no atomics", []Device{siw}, Options{}, "", 0, "siw0: rdma: not supported here: it has no atomics"},
		{"no permission", []Device{denied}, Options{}, "", 0, "denied0: no permission"},
		{"link down", []Device{down}, Options{}, "", 0, "down0: port 1 is DOWN"},
		{"no address", []Device{bare}, Options{}, "", 0, "ip addr add"},
		{"named port down", []Device{fine}, Options{Port: 1}, "", 0, "port 1 is DOWN"},
		{"no such port", []Device{fine}, Options{Port: 4}, "", 0, "it has no port 4, but 3 ports"},
		{"no such address", []Device{fine}, Options{GID: "10.0.0.9"}, "", 0, "port 3 has no GID 10.0.0.9; it has 10.0.0.2 (RoCE v2, index 1)"},
		{"all faults are told", []Device{siw, down}, Options{}, "", 0, "down0"},
	} {
		got, err := choose(c.devices, &c.options)
		switch {
		case c.fault == "" && (err != nil || got.device.Name != c.device || got.port.Number != c.port):
			t.Errorf("%s: chose %s port %d, %v", c.name, got.device.Name, got.port.Number, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: the error is %v, want one with %q", c.name, err, c.fault)
		}
	}
}

func TestWhatIsNotSupported(t *testing.T) {
	for name, devices := range map[string][]Device{"no device": nil, "no atomics": {good("siw0", func(d *Device) { d.Atomics = "none" })}} {
		if _, err := choose(devices, &Options{}); !errors.Is(err, rdma.ErrNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := choose([]Device{good("down0", func(d *Device) { d.Ports = d.Ports[:1] })}, &Options{}); errors.Is(err, rdma.ErrNotSupported) {
		t.Errorf("a link that is down can be mended, the error is %v", err)
	}
}

func TestOptions(t *testing.T) {
	var zero Options
	if err := zero.Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	if zero.EnsureDefaults(); zero.Logger == nil {
		t.Error("no logger by default")
	}
	bad := Options{Port: 256, GID: "here"}
	err := bad.Validate()
	if !errors.Is(err, rdma.ErrInvalid) || !strings.Contains(err.Error(), "256") || !strings.Contains(err.Error(), "here") {
		t.Errorf("not all faults are told: %v", err)
	}
}
