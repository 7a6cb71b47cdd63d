package wire

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// Opcode is the opcode of a base transport header. It says what a packet is, not
// what a verb is: a large WRITE is many packets. rdma.Opcode is the verb.
type Opcode uint8

// The opcodes of the reliable connected transport (RC).
const (
	SendFirst    Opcode = 0x00
	SendMiddle   Opcode = 0x01
	SendLast     Opcode = 0x02
	SendLastImm  Opcode = 0x03
	SendOnly     Opcode = 0x04
	SendOnlyImm  Opcode = 0x05
	WriteFirst   Opcode = 0x06
	WriteMiddle  Opcode = 0x07
	WriteLast    Opcode = 0x08
	WriteLastImm Opcode = 0x09
	WriteOnly    Opcode = 0x0a
	WriteOnlyImm Opcode = 0x0b
	ReadRequest  Opcode = 0x0c
	ReadFirst    Opcode = 0x0d
	ReadMiddle   Opcode = 0x0e
	ReadLast     Opcode = 0x0f
	ReadOnly     Opcode = 0x10
	Acknowledge  Opcode = 0x11
	AtomicAck    Opcode = 0x12
	CompareSwap  Opcode = 0x13
	FetchAdd     Opcode = 0x14
	SendLastInv  Opcode = 0x16
	SendOnlyInv  Opcode = 0x17
	FlushRequest Opcode = 0x1c
	AtomicWrite  Opcode = 0x1d
)

// otherOpcode is the slot in which all other transports (UC, UD, CNP...) are
// counted; it follows those of RC.
const (
	otherOpcode Opcode = 0x20
	opcodeSlots        = 0x21
)

// opcodes is what both decoders and the reports know of an RC opcode.
var opcodes = [opcodeSlots]struct {
	name    string
	request bool        // sent by the requester: has a PSN of its own
	verb    rdma.Opcode // the verb that ends with this packet, 0 for none of ours
}{
	SendFirst:    {"SEND_FIRST", true, 0},
	SendMiddle:   {"SEND_MIDDLE", true, 0},
	SendLast:     {"SEND_LAST", true, 0},
	SendLastImm:  {"SEND_LAST_IMM", true, 0},
	SendOnly:     {"SEND_ONLY", true, 0},
	SendOnlyImm:  {"SEND_ONLY_IMM", true, 0},
	WriteFirst:   {"WRITE_FIRST", true, 0},
	WriteMiddle:  {"WRITE_MIDDLE", true, 0},
	WriteLast:    {"WRITE_LAST", true, rdma.OpWrite},
	WriteLastImm: {"WRITE_LAST_IMM", true, rdma.OpWriteImm},
	WriteOnly:    {"WRITE_ONLY", true, rdma.OpWrite},
	WriteOnlyImm: {"WRITE_ONLY_IMM", true, rdma.OpWriteImm},
	ReadRequest:  {"READ_REQUEST", true, rdma.OpRead},
	ReadFirst:    {"READ_RESPONSE_FIRST", false, 0},
	ReadMiddle:   {"READ_RESPONSE_MIDDLE", false, 0},
	ReadLast:     {"READ_RESPONSE_LAST", false, 0},
	ReadOnly:     {"READ_RESPONSE_ONLY", false, 0},
	Acknowledge:  {"ACKNOWLEDGE", false, 0},
	AtomicAck:    {"ATOMIC_ACKNOWLEDGE", false, 0},
	CompareSwap:  {"COMPARE_SWAP", true, rdma.OpCAS},
	FetchAdd:     {"FETCH_ADD", true, rdma.OpFAA},
	SendLastInv:  {"SEND_LAST_INVALIDATE", true, 0},
	SendOnlyInv:  {"SEND_ONLY_INVALIDATE", true, 0},
	FlushRequest: {"FLUSH", true, 0},
	AtomicWrite:  {"ATOMIC_WRITE", true, 0},
	otherOpcode:  {"other transports", false, 0},
}

// String returns the name of an RC opcode, and the number of any other.
func (o Opcode) String() string {
	if o < otherOpcode && opcodes[o].name != "" {
		return opcodes[o].name
	}
	return fmt.Sprintf("opcode-%#02x", uint8(o))
}

// Request says whether a packet with this opcode is sent by the requester, so
// that its PSN tells whether it is a repeat.
func (o Opcode) Request() bool { return opcodes[o.slot()].request }

// slot is where a packet with this opcode is counted.
func (o Opcode) slot() int { return min(int(o), int(otherOpcode)) }

// requestMask has the bit of every request opcode.
func requestMask() (mask uint32) {
	for o := range int(otherOpcode) {
		if opcodes[o].request {
			mask |= 1 << o
		}
	}
	return mask
}

// Syndrome classifies a negative acknowledgement.
type Syndrome uint8

// The syndromes. The first five are the codes of a NAK.
const (
	// NakSequence: a PSN is missing; the requester sends again from there.
	NakSequence Syndrome = iota
	// NakInvalidRequest: StatusRemoteInvalid at the requester.
	NakInvalidRequest
	// NakRemoteAccess: StatusRemoteAccess at the requester.
	NakRemoteAccess
	// NakRemoteOperation: StatusRemoteOperation at the requester.
	NakRemoteOperation
	// NakInvalidRD does not occur on this transport.
	NakInvalidRD
	// NakReceiverNotReady: no receive was posted; the requester tries again later.
	NakReceiverNotReady
	// NakReserved: the standard has no meaning for it.
	NakReserved
	syndromes // how many there are; in a Packet: not a NAK
)

var syndromeNames = [syndromes]string{"sequence error", "invalid request", "remote access", "remote operation", "invalid RD request", "receiver not ready", "reserved"}

// String says what the responder complained about.
func (s Syndrome) String() string {
	if s < syndromes {
		return syndromeNames[s]
	}
	return "none"
}

// syndromeOf reads the syndrome byte of an acknowledgement.
func syndromeOf(b uint8) Syndrome {
	code := Syndrome(b & 0x1f)
	switch b >> 5 & 3 {
	case 0:
		return syndromes
	case 1:
		return NakReceiverNotReady
	case 3:
		if code <= NakInvalidRD {
			return code
		}
	}
	return NakReserved
}
