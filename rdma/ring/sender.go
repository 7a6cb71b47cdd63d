package ring

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/tenure-faas/tenure/rdma"
)

const (
	// UnitSize is the bytes of a unit.
	UnitSize = 64
	// headerSize is the bytes of a message before its payload.
	headerSize   = 8
	kindOffset   = 4
	lengthOffset = 4 // a word: kind in the low byte, then the length

	minUnits = 4
	// maxUnits bounds a ring: its quarter must have a length of 24 bits.
	maxUnits = 1 << 16
)

// Units is how many units a ring of so many bytes has.
func Units(size int) int { return size / UnitSize }

// MaxMessage is the longest payload, in bytes, in a ring of so many bytes: it is
// a quarter of the ring with its header, so that it fits whatever was skipped.
func MaxMessage(size int) int { return Units(size)/4*UnitSize - headerSize }

// unitsOf is how many units a payload of n bytes takes.
func unitsOf(n int) uint64 { return uint64(n+headerSize+UnitSize-1) / UnitSize }

// begin is where a message of n units begins if the one before ended at position.
func begin(position, n, units uint64) uint64 {
	if at := position % units; at+n > units {
		return position + units - at
	}
	return position
}

// checkSize says what is wrong with the size of a ring, in bytes.
func checkSize(size int) error {
	if size%UnitSize != 0 || size < minUnits*UnitSize || size > maxUnits*UnitSize {
		return fmt.Errorf("%w ring of %d bytes: want a multiple of %d, %d..%d", rdma.ErrInvalid, size, UnitSize, minUnits*UnitSize, maxUnits*UnitSize)
	}
	return nil
}

// castagnoli is the polynomial that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum mixes the number in at the end, by Fibonacci hashing, so that the
// number needs no bytes in the message.
func checksum(message []byte, number uint64) uint32 {
	return crc32.Checksum(message[kindOffset:], castagnoli) ^ uint32(number*0x9e3779b97f4a7c15>>32)
}

// message is what the sender remembers until it is consumed.
type message struct {
	begin uint64
	size  uint32 // header and payload, in bytes
}

func (m message) units() uint64 { return uint64(m.size+UnitSize-1) / UnitSize }
func (m message) end() uint64   { return m.begin + m.units() }

// Sender is the sending end of a ring.
type Sender struct {
	local   rdma.Region
	staging int // offset of the staging in local
	remote  rdma.RemoteRegion
	ring    uint64 // offset of the ring in remote
	units   uint64

	// Positions: where the next message may begin; up to where the receiver is
	// known to have consumed; up to where the WRITEs are known to be complete.
	sent, consumed, done uint64
	// messages are those that are not known to be consumed: n of them from first,
	// around the end. There is a place for each unit.
	messages []message
	first, n int
}

// NewSender makes the sending end of a ring of size bytes: a multiple of UnitSize,
// at least 4 units. In local it uses size bytes at staging. Where the ring is, only
// Target says: requests that were made before must not be posted, but those of
// Resume.
func NewSender(local rdma.Region, staging, size int) (*Sender, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if staging < 0 || staging > len(local.Bytes()) || len(local.Bytes())-staging < size {
		return nil, fmt.Errorf("%w ring: a staging of %d bytes at %d does not fit into %d bytes", rdma.ErrInvalid, size, staging, len(local.Bytes()))
	}
	return &Sender{local: local, staging: staging, units: uint64(Units(size)), messages: make([]message, Units(size))}, nil
}

// Target says that the ring is at offset ring in remote from now on.
func (s *Sender) Target(remote rdma.RemoteRegion, ring uint64) error {
	if size := s.units * UnitSize; ring > remote.Size || remote.Size-ring < size {
		return fmt.Errorf("%w ring: %d bytes at %d do not fit into the peer's %d bytes", rdma.ErrInvalid, size, ring, remote.Size)
	}
	s.remote, s.ring = remote, ring
	return nil
}

// Add puts a message, whose payload is the parts one after the other, into the
// staging and returns the unsignaled WRITE_IMM that sends it; the caller posts
// them in order, and may set Signaled. Its ID is the position after it, see Done.
// It is false if there is no room now, and always for more than MaxMessage bytes.
// Kind is not 0. The parts are copied.
func (s *Sender) Add(kind uint8, parts ...[]byte) (rdma.WorkRequest, bool) {
	if kind == 0 {
		panic("ring: a message of kind 0")
	}
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	n := unitsOf(length)
	m := message{begin: begin(s.sent, n, s.units), size: uint32(headerSize + length)}
	if n > s.units/4 || m.begin+n-min(s.consumed, s.done) > s.units {
		return rdma.WorkRequest{}, false
	}
	at := s.staging + int(m.begin%s.units)*UnitSize
	b := s.local.Bytes()[at : at+int(m.size)]
	binary.LittleEndian.PutUint32(b[lengthOffset:], uint32(length)<<8|uint32(kind))
	to := b[headerSize:]
	for _, part := range parts {
		to = to[copy(to, part):]
	}
	binary.LittleEndian.PutUint32(b, checksum(b, m.begin))
	s.messages[s.index(s.n)] = m
	s.n++
	s.sent = m.end()
	return s.request(m), true
}

// index is the place of the i-th message that is not consumed.
func (s *Sender) index(i int) int {
	if i += s.first; i >= len(s.messages) {
		i -= len(s.messages)
	}
	return i
}

func (s *Sender) request(m message) rdma.WorkRequest {
	at := m.begin % s.units * UnitSize
	w := rdma.WriteImm(m.end(), s.local.Local(s.staging+int(at), int(m.size)), s.remote, s.ring+at, uint32(m.units()))
	w.Flags = 0
	return w
}

// Sent is the position after the last message.
func (s *Sender) Sent() uint64 { return s.sent }

// Consumed is up to where the receiver is known to have consumed.
func (s *Sender) Consumed() uint64 { return s.consumed }

// Done says that the request with this ID has completed, or one that was posted
// after it: the staging up to there is free.
func (s *Sender) Done(id uint64) {
	if id <= s.sent {
		s.done = max(s.done, id)
	}
}

// Credit takes the immediate value of the receiver's doorbell. The error says
// that the peer claims what cannot be.
func (s *Sender) Credit(imm uint32) error {
	return s.consume(s.consumed + uint64(imm-uint32(s.consumed)))
}

// consume forgets the messages before a position, which must be the end of one.
func (s *Sender) consume(to uint64) error {
	if to == s.consumed {
		return nil
	}
	for i := range s.n {
		if s.messages[s.index(i)].end() == to {
			s.first, s.n, s.consumed = s.index(i+1), s.n-i-1, to
			return nil
		}
	}
	return fmt.Errorf("%w ring: the peer says that it consumed up to %d, which is no end of a message between %d and %d", rdma.ErrInvalid, to, s.consumed, s.sent)
}

// Resume is for a new queue pair after the old one was closed: the receiver has
// said (over the control plane, after it revoked its old end) up to where it
// consumed. It appends the requests of all later messages to requests: they are
// to be posted before those of any Add that follows.
func (s *Sender) Resume(consumed uint64, requests []rdma.WorkRequest) ([]rdma.WorkRequest, error) {
	if err := s.consume(consumed); err != nil {
		return requests, err
	}
	s.done = consumed // nothing of the old queue pair reads the staging any more
	for i := range s.n {
		requests = append(requests, s.request(s.messages[s.index(i)]))
	}
	return requests, nil
}

// Cut forgets all messages that begin at a position or later. Their requests must
// not have been posted since the last Resume, nor be posted any more: the next
// message may get their number.
func (s *Sender) Cut(position uint64) {
	for s.n > 0 && s.messages[s.index(s.n-1)].begin >= position {
		s.n--
	}
	s.sent = s.consumed
	if s.n > 0 {
		s.sent = s.messages[s.index(s.n-1)].end()
	}
}
