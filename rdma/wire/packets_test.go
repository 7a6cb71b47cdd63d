package wire

import (
	"encoding/binary"
	"net/netip"
)

// testPacket describes a frame by hand. Its zero value is not valid; see packet.
type testPacket struct {
	direction           Direction
	vlan                uint16 // kind of the tag, 0 for none
	ethertype           uint16 // instead of that of the addresses
	source, destination netip.Addr
	optionWords         int    // IPv4 options in words
	headerWords         int    // length to claim in the IPv4 header; 0 is the truth
	ipVersion           uint8  // to claim; 0 is the truth
	fragment            uint16 // flags and offset of IPv4
	protocol            uint8
	port                uint16
	udpLength           int // to claim; 0 is the truth
	version             uint8
	opcode              Opcode
	qp, psn             uint32
	readLength          uint32
	syndrome            uint8
	payload             int
	cut                 int // bytes to keep of the frame; 0 is all
}

var (
	nodeA, nodeB = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	six1, six2   = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// packet is an ordinary packet from nodeA to queue pair 0x12 of nodeB.
func packet(opcode Opcode, psn uint32, change ...func(*testPacket)) testPacket {
	p := testPacket{source: nodeA, destination: nodeB, protocol: protoUDP, port: portRoCE, opcode: opcode, qp: 0x12, psn: psn}
	for _, c := range change {
		c(&p)
	}
	return p
}

// frame builds the bytes.
func (p testPacket) frame() []byte {
	transport := []byte{byte(p.opcode), 0x40 | p.version, 0xff, 0xff}
	transport = binary.BigEndian.AppendUint32(transport, 0x5a<<24|p.qp)  // the top byte is reserved
	transport = binary.BigEndian.AppendUint32(transport, 0x80<<24|p.psn) // here it asks for an acknowledgement
	switch p.opcode {
	case ReadRequest, WriteOnly, WriteFirst, WriteOnlyImm:
		transport = binary.BigEndian.AppendUint64(transport, 0x7f0000001000)
		transport = binary.BigEndian.AppendUint32(transport, 0x1234)
		transport = binary.BigEndian.AppendUint32(transport, p.readLength)
	case Acknowledge, AtomicAck, ReadFirst, ReadLast, ReadOnly:
		transport = append(transport, p.syndrome, 0, 0, 1)
	case CompareSwap, FetchAdd:
		transport = append(transport, make([]byte, 28)...)
	}
	transport = append(transport, make([]byte, p.payload+icrcLen)...)

	length := p.udpLength
	if length == 0 {
		length = udpLen + len(transport)
	}
	udp := binary.BigEndian.AppendUint16(nil, 0xc123)
	udp = binary.BigEndian.AppendUint16(udp, p.port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(length))
	udp = binary.BigEndian.AppendUint16(udp, 0)
	udp = append(udp, transport...)

	frame := append(p.link(), p.network(len(udp))...)
	frame = append(frame, udp...)
	if p.cut > 0 {
		frame = frame[:min(p.cut, len(frame))]
	}
	return frame
}

func (p testPacket) link() []byte {
	link := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	if p.vlan != 0 {
		link = binary.BigEndian.AppendUint16(link, p.vlan)
		link = append(link, 0, 100)
	}
	kind := p.ethertype
	switch {
	case kind != 0:
	case p.source.Is4():
		kind = etherIPv4
	default:
		kind = etherIPv6
	}
	return binary.BigEndian.AppendUint16(link, kind)
}

func (p testPacket) network(payload int) []byte {
	if !p.source.Is4() {
		ip := []byte{0x60, 0, 0, 0}
		if p.ipVersion != 0 {
			ip[0] = p.ipVersion << 4
		}
		ip = binary.BigEndian.AppendUint16(ip, uint16(payload))
		ip = append(ip, p.protocol, 64)
		source, destination := p.source.As16(), p.destination.As16()
		return append(append(ip, source[:]...), destination[:]...)
	}
	version, words := p.ipVersion, p.headerWords
	if version == 0 {
		version = 4
	}
	if words == 0 {
		words = 5 + p.optionWords
	}
	ip := []byte{version<<4 | byte(words), 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+4*p.optionWords+payload))
	ip = append(ip, 0, 1)
	ip = binary.BigEndian.AppendUint16(ip, p.fragment)
	ip = append(ip, 64, p.protocol, 0, 0)
	source, destination := p.source.As4(), p.destination.As4()
	ip = append(append(ip, source[:]...), destination[:]...)
	return append(ip, make([]byte, 4*p.optionWords)...)
}

// recorder counts frames in Go, by Decode and by a judge of its own: it numbers
// PSNs without end and keeps every one in a set. It is what the program is
// compared with.
type recorder struct {
	shift     uint
	flows     map[Flow]*recorded // by a Flow without counts
	malformed uint64
}

type recorded struct {
	counts  Flow
	started bool
	next    int64          // the number after the highest seen
	seen    map[int64]bool // by number
}

func newRecorder(pathMTU int) *recorder {
	o := Options{PathMTU: pathMTU}
	return &recorder{shift: o.mtuShift(), flows: map[Flow]*recorded{}}
}

func (r *recorder) record(d Direction, frame []byte) {
	p, err := Decode(frame)
	switch err {
	case nil:
	case ErrMalformed:
		r.malformed++
		return
	default:
		return
	}
	name := Flow{Direction: d, Source: p.Source, Destination: p.Destination, QP: p.QP}
	f := r.flows[name]
	if f == nil {
		f = &recorded{counts: name, seen: map[int64]bool{}}
		r.flows[name] = f
	}
	slot := &f.counts.Opcodes[p.Opcode.slot()]
	slot.All++
	slot.Bytes += uint64(p.Length)
	if p.Negative() {
		f.counts.Naks[p.Nak]++
	}
	if p.Opcode.Request() && f.repeated(int64(p.PSN), int64(p.span(r.shift))) {
		slot.Repeats++
	}
}

// repeated is the judge.
func (f *recorded) repeated(psn, span int64) bool {
	const all = 1 << 24
	ahead := (psn - f.next) & (all - 1)
	behind := all - ahead
	switch {
	case !f.started, ahead >= all/2 && behind > 1<<20:
		f.started = true
		f.next += 2*all + ahead // far from everything seen
	case ahead < all/2:
		f.next += ahead
	case behind > 256:
		return true
	default:
		number := f.next - behind
		if f.seen[number] {
			return true
		}
		for n := number; n < min(number+span, f.next); n++ {
			f.seen[n] = true
		}
		return false
	}
	f.next += span
	for n := f.next - min(span, 256); n < f.next; n++ {
		f.seen[n] = true
	}
	return false
}

func (r *recorder) snapshot() Snapshot {
	s := Snapshot{Malformed: r.malformed}
	for _, f := range r.flows {
		s.Flows = append(s.Flows, f.counts)
	}
	sortFlows(s.Flows)
	return s
}
