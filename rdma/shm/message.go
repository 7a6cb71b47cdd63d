package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// kind says what a message on the socket of a connection means.
type kind uint8

const (
	// hello is the active end's first word: to whom it wants, who it is, how
	// many doorbells it takes. With files.
	hello kind = iota + 1
	// welcome answers it: connected. With files.
	welcome
	// refusal answers it: not connected, and the reason.
	refusal
	// want asks for the region with a key.
	want
	// grant answers it, or announces a region unasked. With the region's file.
	grant
	// unknown answers it: there is no such region.
	unknown
)

// files is how many files travel with a message.
func (k kind) files() int {
	switch k {
	case hello, welcome:
		return connectionFiles
	case grant:
		return 1
	default:
		return 0
	}
}

// The files that travel with hello and welcome, in this order: control memory,
// bell (an eventfd), directory of regions.
const (
	controlFile = iota
	bellFile
	directoryFile
	connectionFiles
)

// reason says why a hello was refused.
type reason uint8

const (
	noReason reason = iota
	// noPair: no open queue pair has this number and token.
	noPair
	// notAccepted: the queue pair has not accepted, or is connected or broken.
	notAccepted
	// otherPeer: the queue pair accepted another peer.
	otherPeer
	// stranger: a process of another user, or one that could not be stopped.
	stranger
	// malformed: the message or its files are not what they should be.
	malformed
	lastReason = malformed
)

var reasons = [...]string{
	noReason:    "no reason given",
	noPair:      "it has no such queue pair: it was closed, or the address is that of another provider",
	notAccepted: "its queue pair has not accepted yet, is connected already or is broken",
	otherPeer:   "its queue pair accepted another peer",
	stranger:    "it does not let a process of this user, or of this pid namespace, have its memory",
	malformed:   "it did not understand what it got",
}

// message is what travels on the socket of a connection. All have one form;
// what a kind does not use is zero.
type message struct {
	kind   kind
	reason reason
	// number of the queue pair that the hello is for, and from whom it is.
	number, fromNumber uint32
	token, fromToken   token
	// depth is how many doorbells the sender of hello or welcome takes.
	depth uint32
	// key of the region that is wanted, described or unknown.
	key uint32
	// slot of the directory where the region has its word, which is generation
	// while the region is open.
	slot       uint32
	generation uint64
	// addr is the owner's address of the region, size its length in bytes.
	addr, size uint64
}

// messageSize is the length of an encoded message.
const messageSize = 2 + 2*4 + 2*len(token{}) + 3*4 + 3*8

func (m *message) encode() []byte {
	b := append(make([]byte, 0, messageSize), byte(m.kind), byte(m.reason))
	b = binary.LittleEndian.AppendUint32(b, m.number)
	b = binary.LittleEndian.AppendUint32(b, m.fromNumber)
	b = append(b, m.token[:]...)
	b = append(b, m.fromToken[:]...)
	b = binary.LittleEndian.AppendUint32(b, m.depth)
	b = binary.LittleEndian.AppendUint32(b, m.key)
	b = binary.LittleEndian.AppendUint32(b, m.slot)
	b = binary.LittleEndian.AppendUint64(b, m.generation)
	b = binary.LittleEndian.AppendUint64(b, m.addr)
	return binary.LittleEndian.AppendUint64(b, m.size)
}

// decodeMessage decodes what came with this many files, and checks all that can
// be checked without them.
func decodeMessage(b []byte, files int) (m message, err error) {
	if len(b) != messageSize {
		return m, fmt.Errorf("message of %d bytes, not %d", len(b), messageSize)
	}
	m.kind, m.reason, b = kind(b[0]), reason(b[1]), b[2:]
	m.number, m.fromNumber, b = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), b[8:]
	m.token, m.fromToken, b = token(b), token(b[len(token{}):]), b[2*len(token{}):]
	m.depth, m.key, m.slot, b = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), b[12:]
	m.generation, m.addr, m.size = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	return m, m.check(files)
}

func (m *message) check(files int) error {
	if m.kind < hello || m.kind > unknown {
		return fmt.Errorf("message of kind %d", m.kind)
	}
	if files != m.kind.files() {
		return fmt.Errorf("message of kind %d with %d files, not %d", m.kind, files, m.kind.files())
	}
	switch m.kind {
	case hello, welcome:
		if m.depth == 0 || m.depth > maxDepth {
			return fmt.Errorf("a peer that takes %d doorbells (1..%d)", m.depth, maxDepth)
		}
	case refusal:
		if m.reason > lastReason {
			return fmt.Errorf("a refusal for reason %d", m.reason)
		}
	case grant:
		if m.slot >= directorySlots || m.generation == 0 || m.size == 0 || m.size > maxRegion || m.addr+m.size < m.addr {
			return fmt.Errorf("a region of %d bytes at %#x in slot %d, generation %d", m.size, m.addr, m.slot, m.generation)
		}
	case want, unknown:
	default:
		return errors.New("message of a kind that is not checked")
	}
	return nil
}
