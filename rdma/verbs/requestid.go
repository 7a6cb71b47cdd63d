package verbs

// requestID is the wr_id of a request: which queue pair of a completion queue it
// belongs to, and its place in that one's ring. The device keeps it for us, and
// may return it after the queue pair is gone: the generation tells.
//
//	63       62..48  47..32      31..0
//	receive  slot    generation  sequence
type requestID uint64

const (
	receiveBit = 1 << 63
	// maxSlots is how many queue pairs a completion queue can tell apart.
	maxSlots = 1 << 15
)

func newRequestID(receive bool, slot int, generation uint16) requestID {
	id := requestID(slot)<<48 | requestID(generation)<<32
	if receive {
		id |= receiveBit
	}
	return id
}

func (id requestID) receive() bool      { return id&receiveBit != 0 }
func (id requestID) slot() int          { return int(id >> 48 & (maxSlots - 1)) }
func (id requestID) generation() uint16 { return uint16(id >> 32) }
func (id requestID) sequence() uint32   { return uint32(id) }

// at returns the ID of the request with this sequence number.
func (id requestID) at(sequence uint32) uint64 { return uint64(id) | uint64(sequence) }
