// Package mailbox sends small records to one peer by one-sided WRITEs into a ring
// in its memory. Leases travel in such records.
//
//	sender's region                          receiver's region
//	┌ staging: one record a slot ┐  WRITE    ┌ ring: one record a slot ┐
//	│ r0 │ r1 │ r2 │ ...         │ ────────► │ r0 │ r1 │ r2 │ ...      │
//	└────────────────────────────┘           └─────────────────────────┘
//	│ consumed: 8 bytes          │ ◄──────── the receiver's count and its inverse
//	└────────────────────────────┘  WRITE
//
// A record is 64 bytes, in the slot of its number modulo the size of the ring:
//
//	0        4      5                                            64
//	│ crc32c │ kind │ payload                                     │
//
// The checksum covers kind, payload and the record's number. So a record that is
// torn, not there yet, or of an earlier lap is not a record, in whatever order its
// bytes arrive; a kind is never 0, so that neither are zeroes. A wrong record
// passes with a probability of 2^-32.
//
// Invariants:
//   - The sender never overwrites what the receiver has not consumed: at most a
//     ring of records is on the way, counted by the word that the receiver writes.
//   - Repeating a WRITE is harmless: the same number has the same content. After a
//     queue pair broke, Resume says what to repeat on the next.
//   - Everything that is read from the region was written by a peer and is not
//     trusted: the worst a peer can do is to send wrong records in its own name.
//
// Sender and Receiver only build and interpret memory: whoever uses them posts
// the requests. Neither is safe for concurrent use. The record of a doorbell
// (WRITE_IMM) is whole when the doorbell is polled; a receiver that spins on Next
// needs none.
package mailbox

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/tenure-faas/tenure/rdma"
)

// Sizes in bytes.
const (
	// RecordSize is the size of a record and of a slot.
	RecordSize = 64
	// PayloadSize is what a record carries besides its kind.
	PayloadSize = RecordSize - payloadOffset

	kindOffset    = 4
	payloadOffset = 5
)

// maxSlots bounds a ring: more records than that on the way to one peer mean
// that it does not keep up.
const maxSlots = 1 << 16

// RingSize is the bytes of a ring, and of the staging, with so many slots.
func RingSize(slots int) int { return slots * RecordSize }

// Record is what travels.
type Record struct {
	// Kind is never 0.
	Kind uint8
	// Payload is interpreted by kind.
	Payload [PayloadSize]byte
}

// encode writes the record with this number to 64 bytes.
func (r *Record) encode(dst []byte, number uint64) {
	dst[kindOffset] = r.Kind
	copy(dst[payloadOffset:RecordSize], r.Payload[:])
	binary.LittleEndian.PutUint32(dst, checksum(dst, number))
}

// decode reads the record with this number from 64 bytes, which must not change
// meanwhile; false if they are not it.
func (r *Record) decode(src []byte, number uint64) bool {
	if src[kindOffset] == 0 || binary.LittleEndian.Uint32(src) != checksum(src, number) {
		return false
	}
	r.Kind = src[kindOffset]
	copy(r.Payload[:], src[payloadOffset:RecordSize])
	return true
}

// castagnoli is the polynomial that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum mixes the number in at the end, by Fibonacci hashing, so that the
// number needs no bytes in the record.
func checksum(record []byte, number uint64) uint32 {
	return crc32.Checksum(record[kindOffset:RecordSize], castagnoli) ^ uint32(number*0x9e3779b97f4a7c15>>32)
}

// Sender is the sending end of a ring.
type Sender struct {
	local      rdma.Region
	staging    int // offset of the staging in local
	consumedAt int // offset of the consumed word in local
	remote     rdma.RemoteRegion
	ring       uint64 // offset of the ring in remote
	slots      uint64

	sent     uint64 // number of the next record
	consumed uint64 // records that the receiver is known to have consumed
}

// NewSender makes the sending end. In local it uses RingSize(slots) bytes at
// staging and 8 bytes at consumedAt, which must be zero and divisible by 8; in
// remote the ring at offset ring. Slots is at least 2.
func NewSender(local rdma.Region, staging, consumedAt int, remote rdma.RemoteRegion, ring uint64, slots int) (*Sender, error) {
	size := RingSize(slots)
	switch {
	case slots < 2 || slots > maxSlots:
		return nil, fmt.Errorf("%w mailbox: %d slots (2..%d)", rdma.ErrInvalid, slots, maxSlots)
	case !within(local, staging, size) || !within(local, consumedAt, 8) || consumedAt%8 != 0:
		return nil, fmt.Errorf("%w mailbox: staging at %d and consumed at %d do not fit into %d bytes", rdma.ErrInvalid, staging, consumedAt, len(local.Bytes()))
	case ring > remote.Size || remote.Size-ring < uint64(size):
		return nil, fmt.Errorf("%w mailbox: a ring of %d bytes at %d does not fit into the peer's %d bytes", rdma.ErrInvalid, size, ring, remote.Size)
	}
	return &Sender{local: local, staging: staging, consumedAt: consumedAt, remote: remote, ring: ring, slots: uint64(slots)}, nil
}

// within says whether size bytes at offset are in the region. No offset overflows.
func within(r rdma.Region, offset, size int) bool {
	return offset >= 0 && offset <= len(r.Bytes()) && len(r.Bytes())-offset >= size
}

// Free is how many records can be added before the receiver consumes more.
func (s *Sender) Free() int {
	s.credit()
	return int(s.slots - (s.sent - s.consumed))
}

// credit takes over the receiver's count. It comes from the peer, and its WRITE
// may be torn: a count that goes back, ahead of what was sent, or is not whole is
// not believed. It is read again at the next call.
func (s *Sender) credit() {
	low, whole := openCredit(s.local.Load(s.consumedAt))
	if c := s.consumed + uint64(low-uint32(s.consumed)); whole && c <= s.sent {
		s.consumed = c
	}
}

// sealCredit is the word for a count: its low half, and that inverted. A torn
// word is a mixture of two and does not fit together, unless it is one of them.
func sealCredit(consumed uint64) uint64 {
	low := uint32(consumed)
	return uint64(^low)<<32 | uint64(low)
}

// openCredit returns the low half of a count.
func openCredit(word uint64) (low uint32, whole bool) {
	return uint32(word), uint32(word>>32) == ^uint32(word)
}

// Add puts a record into the staging and returns the unsignaled WRITE that sends
// it; the caller posts them in order. It is false if the ring is full. The
// record's number is Sent()-1 afterwards.
func (s *Sender) Add(r *Record) (rdma.WorkRequest, bool) {
	if r.Kind == 0 {
		panic("mailbox: a record of kind 0")
	}
	if s.sent-s.consumed == s.slots {
		if s.credit(); s.sent-s.consumed == s.slots {
			return rdma.WorkRequest{}, false
		}
	}
	at := s.staging + int(s.sent%s.slots)*RecordSize
	r.encode(s.local.Bytes()[at:at+RecordSize], s.sent)
	w := s.write(s.sent)
	s.sent++
	return w, true
}

// Sent is the number of records added.
func (s *Sender) Sent() uint64 { return s.sent }

func (s *Sender) write(number uint64) rdma.WorkRequest {
	slot := number % s.slots
	w := rdma.Write(number, s.local.Local(s.staging+int(slot)*RecordSize, RecordSize), s.remote, s.ring+slot*RecordSize)
	w.Flags = 0
	return w
}

// Resume is for a new queue pair after the old one broke: the receiver has said
// (over the control plane, after it revoked its old end) how many records it
// consumed. It appends the WRITEs of all later records to requests.
func (s *Sender) Resume(consumed uint64, requests []rdma.WorkRequest) ([]rdma.WorkRequest, error) {
	if consumed < s.consumed || consumed > s.sent {
		return requests, fmt.Errorf("%w mailbox: the peer says that it consumed %d records, between %d and %d are possible", rdma.ErrInvalid, consumed, s.consumed, s.sent)
	}
	s.consumed = consumed
	for n := consumed; n < s.sent; n++ {
		requests = append(requests, s.write(n))
	}
	return requests, nil
}

// Receiver is the receiving end of a ring.
type Receiver struct {
	local      rdma.Region
	ring       int // offset of the ring in local
	consumedAt int // offset of an own word that the credit WRITE takes its value from
	remote     rdma.RemoteRegion
	creditAt   uint64 // offset of the consumed word in remote
	slots      uint64

	consumed uint64 // number of the next record
	credited uint64 // what the sender was last told
	scratch  [RecordSize]byte
}

// NewReceiver makes the receiving end. In local it uses RingSize(slots) bytes at
// ring, zeroed, and 8 bytes at consumedAt; in remote the sender's consumed word
// at offset creditAt.
func NewReceiver(local rdma.Region, ring, consumedAt int, remote rdma.RemoteRegion, creditAt uint64, slots int) (*Receiver, error) {
	size := RingSize(slots)
	switch {
	case slots < 2 || slots > maxSlots:
		return nil, fmt.Errorf("%w mailbox: %d slots (2..%d)", rdma.ErrInvalid, slots, maxSlots)
	case !within(local, ring, size) || !within(local, consumedAt, 8) || consumedAt%8 != 0:
		return nil, fmt.Errorf("%w mailbox: ring at %d and consumed at %d do not fit into %d bytes", rdma.ErrInvalid, ring, consumedAt, len(local.Bytes()))
	case creditAt%8 != 0 || creditAt > remote.Size || remote.Size-creditAt < 8:
		return nil, fmt.Errorf("%w mailbox: no word at %d in the peer's %d bytes", rdma.ErrInvalid, creditAt, remote.Size)
	}
	return &Receiver{local: local, ring: ring, consumedAt: consumedAt, remote: remote, creditAt: creditAt, slots: uint64(slots)}, nil
}

// Next consumes the next record into r; false if it is not there as a whole.
func (m *Receiver) Next(r *Record) bool {
	at := m.ring + int(m.consumed%m.slots)*RecordSize
	// The copy first: the peer may write while we look.
	copy(m.scratch[:], m.local.Bytes()[at:at+RecordSize])
	if !r.decode(m.scratch[:], m.consumed) {
		return false
	}
	m.consumed++
	return true
}

// Consumed is the number of records consumed.
func (m *Receiver) Consumed() uint64 { return m.consumed }

// Credit returns the unsignaled WRITE that tells the sender how much was
// consumed; false as long as less than half a ring has been since the last.
func (m *Receiver) Credit() (rdma.WorkRequest, bool) {
	if m.consumed-m.credited < m.slots/2 {
		return rdma.WorkRequest{}, false
	}
	m.credited = m.consumed
	m.local.Store(m.consumedAt, sealCredit(m.consumed))
	w := rdma.Write(m.consumed, m.local.Local(m.consumedAt, 8), m.remote, m.creditAt)
	w.Flags = 0
	return w, true
}
