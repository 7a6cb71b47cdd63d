package verbs

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

// sample is an end on Ethernet with all fields set.
func sample() endpoint {
	return endpoint{qpn: 0x123456, psn: 0xabcdef, gid: ibverbs.GID{10: 0xff, 11: 0xff, 12: 10, 13: 77, 15: 1}, lid: 7,
		mtu: 5, linkLayer: uint8(ibverbs.Ethernet), responder: 128, initiator: 16, port: 2}
}

func TestAddressRoundTrip(t *testing.T) {
	e := sample()
	b := e.encode()
	if len(b) != addressSize || len(b) > rdma.MaxAddress {
		t.Fatalf("an address of %d bytes", len(b))
	}
	got, err := decodeEndpoint(b)
	if err != nil || got != e {
		t.Errorf("decoded %+v, %v; want %+v", got, err, e)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	good := sample()
	change := func(f func(*endpoint)) []byte {
		e := good
		f(&e)
		return e.encode()
	}
	spoil := func(at int, with byte) []byte {
		b := good.encode()
		b[at] = with
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                  nil,
		"short":                  good.encode()[:addressSize-1],
		"long":                   append(good.encode(), 0),
		"of another provider":    spoil(0, 'x'),
		"of another version":     spoil(3, '2'),
		"queue pair number":      change(func(e *endpoint) { e.qpn = 1 << 24 }),
		"packet number":          change(func(e *endpoint) { e.psn = 1 << 24 }),
		"MTU 0":                  change(func(e *endpoint) { e.mtu = 0 }),
		"MTU 6":                  change(func(e *endpoint) { e.mtu = 6 }),
		"link layer":             change(func(e *endpoint) { e.linkLayer = 0 }),
		"no responder resources": change(func(e *endpoint) { e.responder = 0 }),
		"no initiator depth":     change(func(e *endpoint) { e.initiator = 0 }),
		"last byte":              spoil(addressSize-1, 1),
	} {
		if e, err := decodeEndpoint(b); !errors.Is(err, rdma.ErrInvalid) || e != (endpoint{}) {
			t.Errorf("%s: decoded as %+v, %v", name, e, err)
		}
	}
}

// FuzzAddress holds that whatever is taken for an address is one: it encodes to
// the same bytes and makes a path that a device can be given.
func FuzzAddress(f *testing.F) {
	e := sample()
	f.Add(e.encode())
	f.Add([]byte(addressMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeEndpoint(b)
		if err != nil {
			if !errors.Is(err, rdma.ErrInvalid) {
				t.Fatalf("the error is %v", err)
			}
			return
		}
		if !bytes.Equal(got.encode(), b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, got, got.encode())
		}
		here := sample()
		p, err := pathBetween(&here, &got, 1, time.Second)
		if err != nil {
			return // on another link layer
		}
		if p.MTU.Bytes() == 0 || p.ResponderAtomics == 0 || p.InitiatorAtomics == 0 || p.RemoteQP > maxNumber {
			t.Fatalf("%+v makes the path %+v", got, p)
		}
	})
}

func TestPathTakesTheLesserOfBothSides(t *testing.T) {
	here, there := sample(), sample()
	here.mtu, there.mtu = 5, 3
	here.responder, here.initiator = 128, 16
	there.responder, there.initiator = 32, 64
	there.qpn, there.psn, there.lid, there.gid[15], there.port = 9, 10, 11, 2, 1
	p, err := pathBetween(&here, &there, 3, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	want := ibverbs.Path{RemoteQP: 9, RemotePSN: 10, LocalPSN: here.psn, RemoteLID: 11, RemoteGID: there.gid, Global: true, GIDIndex: 3,
		HopLimit: hopLimit, Port: 2, MTU: 3, ResponderAtomics: 64, InitiatorAtomics: 16, MinRNRTimer: rnrTimer,
		Timeout: timeoutCode(time.Second), Retries: retries, RNRRetries: rnrRetries}
	if p != want {
		t.Errorf("the path is\n%+v, want\n%+v", p, want)
	}
	back, err := pathBetween(&there, &here, 0, time.Second)
	if err != nil || back.MTU != p.MTU || back.InitiatorAtomics != p.ResponderAtomics || back.ResponderAtomics != p.InitiatorAtomics {
		t.Errorf("the peer comes to %+v, %v", back, err)
	}
}

func TestPathBetweenLinkLayers(t *testing.T) {
	ethernet, infiniband := sample(), sample()
	infiniband.linkLayer = uint8(ibverbs.InfiniBand)
	if _, err := pathBetween(&ethernet, &infiniband, 0, time.Second); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("Ethernet to InfiniBand: %v", err)
	}
	other := infiniband
	other.gid[15]++ // another port of the same subnet
	if p, err := pathBetween(&infiniband, &other, 0, time.Second); err != nil || p.Global {
		t.Errorf("within a subnet: global %v, %v", p.Global, err)
	}
	other.gid[0]++
	if p, err := pathBetween(&infiniband, &other, 0, time.Second); err != nil || !p.Global {
		t.Errorf("between subnets: global %v, %v", p.Global, err)
	}
}
