package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// What a frame may be instead of a RoCEv2 packet.
var (
	// ErrNotRoCE: it is not for us, whatever it is.
	ErrNotRoCE = errors.New("not a RoCEv2 packet")
	// ErrMalformed: it goes to the port of RoCEv2 and is too short, or of a
	// version that nobody speaks.
	ErrMalformed = errors.New("malformed RoCEv2 packet")
)

// Numbers of the protocols, as both decoders use them.
const (
	etherLen   = 14
	vlanLen    = 4
	ipv4Len    = 20 // without options
	ipv6Len    = 40
	udpLen     = 8
	bthLen     = 12
	icrcLen    = 4
	rethLen    = 16 // READ: address 8, key 4, length 4
	aethLen    = 4  // acknowledgement: syndrome 1, sequence 3
	maxHeaders = etherLen + vlanLen + 60 + udpLen + bthLen + rethLen

	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100 // 802.1Q
	etherQinQ  = 0x88a8 // 802.1ad
	protoUDP   = 17
	portRoCE   = 4791
	minUDP     = udpLen + bthLen + icrcLen
	versionBTH = 0

	psnMask = 1<<24 - 1
	maxSpan = 1 << 23 // PSNs of one READ: 2^31 bytes at the smallest MTU
)

// Packet is what Decode reads of a RoCEv2 packet.
type Packet struct {
	// Source and Destination are the addresses; IPv4 ones are not mapped.
	Source, Destination netip.Addr
	// QP is the number of the receiver's queue pair.
	QP uint32
	// PSN is the packet sequence number, 24 bits.
	PSN uint32
	// ReadLength is the length in bytes that a READ_REQUEST asks for; 0 for others.
	ReadLength uint32
	// Length is that of the UDP datagram, with its header, in bytes.
	Length uint16
	// Opcode says what it is.
	Opcode Opcode
	// Nak says what an ACKNOWLEDGE complains about, if Negative.
	Nak Syndrome
}

// Negative says whether the packet is a NAK.
func (p *Packet) Negative() bool { return p.Nak < syndromes }

// span is how many PSNs a request takes when the path MTU is 1<<shift bytes.
func (p *Packet) span(shift uint) uint32 {
	packets := (uint64(p.ReadLength) + 1<<shift - 1) >> shift
	return uint32(min(max(packets, 1), maxSpan))
}

// Decode reads an Ethernet frame, which may be cut off after the headers. It
// fails with ErrNotRoCE or ErrMalformed, and keeps nothing of frame.
func Decode(frame []byte) (Packet, error) {
	p := Packet{Nak: syndromes}
	payload, err := p.decodeLink(frame)
	if err != nil {
		return Packet{}, err
	}
	if len(payload) < udpLen || binary.BigEndian.Uint16(payload[2:]) != portRoCE {
		return Packet{}, ErrNotRoCE
	}
	p.Length = binary.BigEndian.Uint16(payload[4:])
	if p.Length < minUDP || !p.decodeTransport(payload[udpLen:]) {
		return Packet{}, ErrMalformed
	}
	return p, nil
}

// decodeLink reads the link and network headers and returns what follows them.
func (p *Packet) decodeLink(frame []byte) ([]byte, error) {
	if len(frame) < etherLen {
		return nil, ErrNotRoCE
	}
	kind, b := binary.BigEndian.Uint16(frame[12:]), frame[etherLen:]
	if kind == etherVLAN || kind == etherQinQ {
		if len(b) < vlanLen {
			return nil, ErrNotRoCE
		}
		kind, b = binary.BigEndian.Uint16(b[2:]), b[vlanLen:]
	}
	switch {
	case kind == etherIPv4 && len(b) >= ipv4Len && b[0]>>4 == 4:
		header := int(b[0]&15) * 4
		laterFragment := binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		if header < ipv4Len || len(b) < header || b[9] != protoUDP || laterFragment {
			return nil, ErrNotRoCE
		}
		p.Source, p.Destination = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		return b[header:], nil
	case kind == etherIPv6 && len(b) >= ipv6Len && b[0]>>4 == 6 && b[6] == protoUDP:
		// Unmap because a flow's key holds both kinds in one form.
		p.Source, p.Destination = netip.AddrFrom16([16]byte(b[8:24])).Unmap(), netip.AddrFrom16([16]byte(b[24:40])).Unmap()
		return b[ipv6Len:], nil
	}
	return nil, ErrNotRoCE
}

// decodeTransport reads the base transport header and what we need of the
// extended one, and says whether they are there.
func (p *Packet) decodeTransport(b []byte) bool {
	if len(b) < bthLen || b[1]&15 != versionBTH {
		return false
	}
	p.Opcode = Opcode(b[0])
	p.QP = binary.BigEndian.Uint32(b[4:]) & psnMask
	p.PSN = binary.BigEndian.Uint32(b[8:]) & psnMask
	b = b[bthLen:]
	switch p.Opcode {
	case ReadRequest:
		if len(b) < rethLen {
			return false
		}
		p.ReadLength = binary.BigEndian.Uint32(b[12:])
	case Acknowledge:
		if len(b) < aethLen {
			return false
		}
		p.Nak = syndromeOf(b[0])
	}
	return true
}
