package wire

import (
	"errors"
	"testing"
)

// handMade are packets with every trap of the layout, and what they are.
var handMade = []struct {
	name   string
	packet testPacket
	err    error // of Decode
}{
	{"READ request", packet(ReadRequest, 7, func(p *testPacket) { p.readLength = 5000 }), nil},
	{"WRITE", packet(WriteOnly, 8, func(p *testPacket) { p.payload = 1024 }), nil},
	{"highest PSN", packet(CompareSwap, 0xffffff), nil},
	{"802.1Q", packet(FetchAdd, 9, func(p *testPacket) { p.vlan = etherVLAN }), nil},
	{"802.1ad", packet(FetchAdd, 9, func(p *testPacket) { p.vlan = etherQinQ }), nil},
	{"two tags", packet(FetchAdd, 9, func(p *testPacket) { p.vlan, p.ethertype = etherQinQ, etherVLAN }), ErrNotRoCE},
	{"IPv6", packet(WriteOnlyImm, 1, func(p *testPacket) { p.source, p.destination = six1, six2 }), nil},
	{"IPv6 with a tag", packet(WriteOnlyImm, 1, func(p *testPacket) { p.source, p.destination, p.vlan = six1, six2, etherVLAN }), nil},
	{"IPv6 with extension headers", packet(WriteOnlyImm, 1, func(p *testPacket) { p.source, p.destination, p.protocol = six1, six2, 0 }), ErrNotRoCE},
	{"IPv6 of another version", packet(WriteOnlyImm, 1, func(p *testPacket) { p.source, p.destination, p.ipVersion = six1, six2, 5 }), ErrNotRoCE},
	{"IPv4 options", packet(ReadRequest, 2, func(p *testPacket) { p.optionWords, p.readLength = 10, 1 }), nil},
	{"IPv4 header too short", packet(ReadRequest, 2, func(p *testPacket) { p.headerWords = 4 }), ErrNotRoCE},
	{"IPv4 of another version", packet(ReadRequest, 2, func(p *testPacket) { p.ipVersion = 5 }), ErrNotRoCE},
	{"first fragment", packet(WriteOnly, 3, func(p *testPacket) { p.fragment = 0x2000 }), nil},
	{"later fragment", packet(WriteOnly, 3, func(p *testPacket) { p.fragment = 0x2000 | 185 }), ErrNotRoCE},
	{"last fragment", packet(WriteOnly, 3, func(p *testPacket) { p.fragment = 185 }), ErrNotRoCE},
	{"not to be fragmented", packet(WriteOnly, 3, func(p *testPacket) { p.fragment = 0x4000 }), nil},
	{"TCP", packet(WriteOnly, 3, func(p *testPacket) { p.protocol = 6 }), ErrNotRoCE},
	{"ARP", packet(WriteOnly, 3, func(p *testPacket) { p.ethertype = 0x0806 }), ErrNotRoCE},
	{"VXLAN", packet(WriteOnly, 3, func(p *testPacket) { p.port = 4789 }), ErrNotRoCE},
	{"next version", packet(WriteOnly, 3, func(p *testPacket) { p.version = 1 }), ErrMalformed},
	{"too short a datagram", packet(SendOnly, 3, func(p *testPacket) { p.udpLength = minUDP - 1 }), ErrMalformed},
	{"shortest datagram", packet(SendOnly, 3), nil},
	{"cut in the Ethernet header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 13 }), ErrNotRoCE},
	{"cut after the Ethernet header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 14 }), ErrNotRoCE},
	{"cut in the tag", packet(SendOnly, 3, func(p *testPacket) { p.vlan, p.cut = etherVLAN, 17 }), ErrNotRoCE},
	{"cut in the IPv4 header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 33 }), ErrNotRoCE},
	{"cut in the IPv4 options", packet(SendOnly, 3, func(p *testPacket) { p.optionWords, p.cut = 2, 41 }), ErrNotRoCE},
	{"cut in the UDP header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 41 }), ErrNotRoCE},
	{"cut in the base transport header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 53 }), ErrMalformed},
	{"cut after the base transport header", packet(SendOnly, 3, func(p *testPacket) { p.cut = 54 }), nil},
	{"cut in the length of a READ", packet(ReadRequest, 3, func(p *testPacket) { p.cut = 69 }), ErrMalformed},
	{"cut after the length of a READ", packet(ReadRequest, 3, func(p *testPacket) { p.cut, p.readLength = 70, 4097 }), nil},
	{"cut in an acknowledgement", packet(Acknowledge, 3, func(p *testPacket) { p.cut = 57 }), ErrMalformed},
	{"cut after the syndrome", packet(Acknowledge, 3, func(p *testPacket) { p.cut, p.syndrome = 58, 0x62 }), nil},
	{"unreliable datagram", packet(0x64, 3), nil},
	{"congestion notification", packet(0x81, 0), nil},
	{"reserved opcode", packet(0x1f, 3), nil},
}

func TestDecode(t *testing.T) {
	for _, c := range handMade {
		t.Run(c.name, func(t *testing.T) {
			p, err := Decode(c.packet.frame())
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			want := Packet{
				Source: c.packet.source, Destination: c.packet.destination, QP: c.packet.qp, PSN: c.packet.psn, Opcode: c.packet.opcode,
				ReadLength: c.packet.readLength, Nak: syndromes, Length: p.Length,
			}
			if c.packet.opcode == Acknowledge {
				want.Nak = syndromeOf(c.packet.syndrome)
			}
			if p != want {
				t.Errorf("got %+v, want %+v", p, want)
			}
		})
	}
}

func TestLength(t *testing.T) {
	p, err := Decode(packet(WriteOnly, 0, func(p *testPacket) { p.payload = 100 }).frame())
	if err != nil || p.Length != 8+12+16+100+4 {
		t.Errorf("got %d bytes, %v; want 140", p.Length, err)
	}
}

func TestSyndromes(t *testing.T) {
	for _, c := range []struct {
		b    uint8
		want Syndrome
	}{
		{0x00, syndromes},
		{0x1f, syndromes},
		{0x80, syndromes}, // the top bit is reserved
		{0x20, NakReceiverNotReady},
		{0x3f, NakReceiverNotReady},
		{0x40, NakReserved},
		{0x60, NakSequence},
		{0x61, NakInvalidRequest},
		{0x62, NakRemoteAccess},
		{0x63, NakRemoteOperation},
		{0x64, NakInvalidRD},
		{0x65, NakReserved},
		{0x7f, NakReserved},
	} {
		if got := syndromeOf(c.b); got != c.want {
			t.Errorf("%#02x is %v, want %v", c.b, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		length uint32
		shift  uint
		want   uint32
	}{{0, 12, 1}, {1, 12, 1}, {4096, 12, 1}, {4097, 12, 2}, {5000, 8, 20}, {1 << 31, 8, 1 << 23}, {1<<32 - 1, 8, 1 << 23}, {1<<32 - 1, 12, 1 << 20}} {
		p := Packet{Opcode: ReadRequest, ReadLength: c.length}
		if got := p.span(c.shift); got != c.want {
			t.Errorf("%d bytes at MTU %d take %d PSNs, want %d", c.length, 1<<c.shift, got, c.want)
		}
	}
}

// FuzzDecode: any bytes decode without a fault, and what decodes is in range.
func FuzzDecode(f *testing.F) {
	for _, c := range handMade {
		f.Add(c.packet.frame())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := Decode(frame)
		switch {
		case errors.Is(err, ErrNotRoCE) || errors.Is(err, ErrMalformed):
			if p != (Packet{}) {
				t.Fatalf("%v together with %+v", err, p)
			}
		case err != nil:
			t.Fatal(err)
		case p.QP > psnMask || p.PSN > psnMask || p.Length < minUDP || p.Nak > syndromes || !p.Source.IsValid() || p.Source.Is4In6():
			t.Fatalf("out of range: %+v", p)
		}
		// What follows the headers does not matter.
		if err == nil && len(frame) > maxHeaders {
			if cut, err := Decode(frame[:maxHeaders]); err != nil || cut != p {
				t.Fatalf("the headers alone give %+v, %v; want %+v", cut, err, p)
			}
		}
		r := newRecorder(4096)
		r.record(Ingress, frame)
	})
}
