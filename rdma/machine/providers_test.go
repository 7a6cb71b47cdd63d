package machine

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
)

// TestMain looks for what was left open; nodes of suites do not run here, but
// would be what this machine has.
func TestMain(m *testing.M) {
	rdmatest.Main(m, func(string) (rdma.Provider, error) { return Open(context.Background(), Judge(Probe(), Demand{}), nil) })
}

// TestOpenReal opens every provider that works on this machine, and closes it.
func TestOpenReal(t *testing.T) {
	f := Probe()
	for _, provider := range providers {
		v := Judge(f, Demand{Provider: provider})
		p, err := Open(t.Context(), v, nil)
		if v.Err != nil {
			if err == nil || err.Error() != v.Err.Error() {
				t.Errorf("%s opens with %v, against %v", provider, err, v.Err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", provider, err)
			continue
		}
		if p.Name() != provider {
			t.Errorf("%s was opened instead of %s", p.Name(), provider)
		}
		if err := p.Close(); err != nil {
			t.Errorf("close %s: %v", provider, err)
		}
	}
	if _, err := openChoice(Choice{Provider: "sim"}, nil); err == nil || !strings.Contains(err.Error(), `"sim"`) {
		t.Errorf("a provider that cannot be chosen: %v", err)
	}
}

// TestTCPOptions has where tcp listens and what it tells peers.
func TestTCPOptions(t *testing.T) {
	for _, test := range []struct {
		name              string
		choice            Choice
		listen, advertise string
		fault             string // part of the error
	}{
		{name: "address of this machine", choice: Choice{Advertise: netip.MustParseAddr("10.0.0.1")}, listen: "10.0.0.1:0"},
		{name: "IPv6", choice: Choice{Advertise: netip.MustParseAddr("2001:db8::1")}, listen: "[2001:db8::1]:0"},
		{name: "a port of all addresses", choice: Choice{Advertise: netip.MustParseAddr("10.0.0.1"), Listen: ":7000"}, listen: ":7000", advertise: "10.0.0.1:7000"},
		{name: "another address, any port", choice: Choice{Advertise: netip.MustParseAddr("10.0.0.1"), Listen: "10.0.0.2:0"}, listen: "10.0.0.2:0"},
		{name: "no port", choice: Choice{Advertise: netip.MustParseAddr("10.0.0.1"), Listen: "10.0.0.2"}, fault: "missing port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, err := tcpOptions(test.choice)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("error %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil || o.Listen != test.listen || o.Advertise != test.advertise {
				t.Errorf("options %+v, %v; want %q and %q", o, err, test.listen, test.advertise)
			}
		})
	}
	o, err := tcpOptions(Choice{Advertise: netip.MustParseAddr("192.0.2.1"), Forwarded: true})
	if err != nil || !strings.HasPrefix(o.Listen, ":") || o.Advertise != "192.0.2.1"+o.Listen || o.Listen == ":0" {
		t.Errorf("forwarded: %+v, %v", o, err)
	}
}
