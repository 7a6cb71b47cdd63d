package shm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

func TestAddress(t *testing.T) {
	good := address{number: 7, token: token{1, 2, 3, 15: 9}, path: "/tmp/tenure-shm-1/socket"}
	encoded := good.encode()
	if got, err := decodeAddress(encoded); err != nil || got != good {
		t.Fatalf("decoded %+v, %v, want %+v", got, err, good)
	}
	if longest := (&address{path: "/" + strings.Repeat("x", maxPath-1)}).encode(); len(longest) > rdma.MaxAddress {
		t.Errorf("the longest address has %d bytes, the limit is %d", len(longest), rdma.MaxAddress)
	}
	otherVersion := bytes.Clone(encoded)
	otherVersion[4]++
	for name, b := range map[string][]byte{
		"empty":         nil,
		"other kind":    append([]byte("xxxx\x01"), encoded[5:]...),
		"other version": otherVersion,
		"cut":           encoded[:20],
		"no path":       encoded[:fixedAddress],
		"relative path": (&address{path: "socket"}).encode(),
		"unclean path":  (&address{path: "/tmp/../socket"}).encode(),
		"zero in path":  (&address{path: "/tmp/a\x00b"}).encode(),
		"long path":     (&address{path: "/" + strings.Repeat("x", maxPath)}).encode(),
	} {
		if a, err := decodeAddress(b); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s: decoded as %+v, error %v, want %v", name, a, err, rdma.ErrInvalid)
		}
	}
}

// messages are one good message of each kind.
var messages = []message{
	{kind: hello, number: 1, fromNumber: 2, token: token{3}, fromToken: token{4}, depth: 128},
	{kind: welcome, fromNumber: 2, fromToken: token{4}, depth: maxDepth},
	{kind: refusal, reason: otherPeer},
	{kind: want, key: 0xdeadbeef},
	{kind: grant, key: 1, slot: directorySlots - 1, generation: 1 << 63, addr: 0x7f0000000000, size: maxRegion},
	{kind: unknown, key: 1},
}

func TestMessage(t *testing.T) {
	for _, m := range messages {
		if got, err := decodeMessage(m.encode(), m.kind.files()); err != nil || got != m {
			t.Errorf("decoded %+v, %v, want %+v", got, err, m)
		}
		if _, err := decodeMessage(m.encode(), m.kind.files()+1); err == nil {
			t.Errorf("a message of kind %d with a file too many passed", m.kind)
		}
	}
	for name, m := range map[string]message{
		"no kind":               {},
		"kind too high":         {kind: unknown + 1},
		"no depth":              {kind: hello},
		"depth too large":       {kind: welcome, depth: maxDepth + 1},
		"no such reason":        {kind: refusal, reason: lastReason + 1},
		"slot too high":         {kind: grant, slot: directorySlots, generation: 1, size: 1},
		"no generation":         {kind: grant, size: 1},
		"no size":               {kind: grant, generation: 1},
		"size too large":        {kind: grant, generation: 1, size: maxRegion + 1},
		"over the last address": {kind: grant, generation: 1, addr: 1<<64 - 8, size: 16},
	} {
		if _, err := decodeMessage(m.encode(), m.kind.files()); err == nil {
			t.Errorf("%s: %+v passed", name, m)
		}
	}
	for _, n := range []int{0, 1, messageSize - 1, messageSize + 1} {
		if _, err := decodeMessage(make([]byte, n), 0); err == nil {
			t.Errorf("a message of %d bytes passed", n)
		}
	}
}

func TestOptions(t *testing.T) {
	var o Options
	o.EnsureDefaults()
	if o.StopAfter <= 0 || o.HandshakeTimeout <= 0 || o.Validate() != nil {
		t.Errorf("the defaults %+v are not valid: %v", o, o.Validate())
	}
	o.StopAfter = -1
	if err := o.Validate(); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("a negative StopAfter: error %v", err)
	}
	o = Options{StopAfter: 1, HandshakeTimeout: -1}
	if err := o.Validate(); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("a negative HandshakeTimeout: error %v", err)
	}
}

// FuzzAddress decodes what arrives over the control plane.
func FuzzAddress(f *testing.F) {
	f.Add((&address{number: 7, token: token{1}, path: "/tmp/socket"}).encode())
	f.Add([]byte("tshm\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAddress(b)
		if err != nil {
			return
		}
		if !bytes.Equal(a.encode(), b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, a, a.encode())
		}
		if len(a.path) > maxPath || strings.Contains(a.path, "\x00") {
			t.Errorf("the path %q is not one of a socket", a.path)
		}
	})
}

// FuzzMessage decodes what arrives on the socket: hello, welcome and the rest.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		f.Add(m.encode(), m.kind.files())
	}
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		m, err := decodeMessage(b, files)
		if err != nil {
			return
		}
		if !bytes.Equal(m.encode(), b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, m, m.encode())
		}
		switch {
		case files != m.kind.files():
			t.Errorf("%d files passed with %+v", files, m)
		case m.kind == grant && (generationAt(m.slot)+8 > directorySize || m.size > maxRegion):
			t.Errorf("an impossible region passed: %+v", m)
		case (m.kind == hello || m.kind == welcome) && controlSize(int(m.depth)) > controlSize(maxDepth):
			t.Errorf("an impossible depth passed: %+v", m)
		}
	})
}
