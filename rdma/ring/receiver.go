package ring

import (
	"encoding/binary"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// Receiver is the receiving end of a ring.
type Receiver struct {
	local rdma.Region
	ring  int // offset of the ring in local
	units uint64

	consumed uint64 // the position after the last message
	credited uint64 // what the sender was last told
	// scratch has the last message: the peer may write to the ring at any time.
	scratch []byte
}

// NewReceiver makes the receiving end of a ring of size bytes at offset ring in
// local, which must be zeroed unless the ring is the first there.
func NewReceiver(local rdma.Region, ring, size int) (*Receiver, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if ring < 0 || ring > len(local.Bytes()) || len(local.Bytes())-ring < size {
		return nil, fmt.Errorf("%w ring: %d bytes at %d do not fit into %d bytes", rdma.ErrInvalid, size, ring, len(local.Bytes()))
	}
	return &Receiver{local: local, ring: ring, units: uint64(Units(size)), scratch: make([]byte, headerSize+MaxMessage(size))}, nil
}

// Next consumes the message of a doorbell with this immediate value. The payload
// is a copy that is valid until the next call. An error is a fault of the peer,
// and consumes nothing.
func (r *Receiver) Next(imm uint32) (kind uint8, payload []byte, err error) {
	n := uint64(imm)
	if n == 0 || n > r.units/4 {
		return 0, nil, fmt.Errorf("%w ring: a doorbell for a message of %d units (1..%d)", rdma.ErrInvalid, n, r.units/4)
	}
	number := begin(r.consumed, n, r.units)
	at := r.ring + int(number%r.units)*UnitSize
	ring := r.local.Bytes()[at : at+int(n)*UnitSize]
	copy(r.scratch[:headerSize], ring)
	word := binary.LittleEndian.Uint32(r.scratch[lengthOffset:])
	length := int(word >> 8)
	if kind = uint8(word); kind == 0 || unitsOf(length) != n {
		return 0, nil, fmt.Errorf("%w ring: at %d a doorbell for %d units, but a message of kind %d with %d bytes", rdma.ErrInvalid, number, n, kind, length)
	}
	// Only what was copied counts, whatever the ring holds by now.
	copy(r.scratch[headerSize:headerSize+length], ring[headerSize:])
	if binary.LittleEndian.Uint32(r.scratch) != checksum(r.scratch[:headerSize+length], number) {
		return 0, nil, fmt.Errorf("%w ring: at %d a message with a wrong checksum", rdma.ErrInvalid, number)
	}
	r.consumed = number + n
	return kind, r.scratch[headerSize : headerSize+length : headerSize+length], nil
}

// Consumed is the position after the last message: for the sender's Resume.
func (r *Receiver) Consumed() uint64 { return r.consumed }

// Resume is for a new queue pair: the sender is told Consumed over the control
// plane, so that only what comes after needs a credit.
func (r *Receiver) Resume() { r.credited = r.consumed }

// Credit returns the unsignaled WRITE_IMM that tells the sender how much was
// consumed; false as long as less than a quarter of the ring has been since the
// last. It moves no bytes. One that could not be posted may be replaced by a
// later one.
func (r *Receiver) Credit() (rdma.WorkRequest, bool) {
	if r.consumed-r.credited < r.units/4 {
		return rdma.WorkRequest{}, false
	}
	r.credited = r.consumed
	return rdma.WorkRequest{Op: rdma.OpWriteImm, Imm: uint32(r.consumed)}, true
}
