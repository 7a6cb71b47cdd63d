package mesh

import (
	"encoding/binary"

	"github.com/tenure-faas/tenure/rdma"
)

// fifo is messages one after the other in one buffer: what waits for room in a
// ring, or for this worker itself. The zero value is empty.
type fifo struct {
	bytes []byte
	head  int // of the oldest
	n     int
}

const (
	// fifoHeader is length and kind before each message.
	fifoHeader = 8
	// fifoKeep is the capacity that an empty buffer keeps.
	fifoKeep = 1 << 20
)

// size is the bytes that are taken.
func (f *fifo) size() int { return len(f.bytes) - f.head }

// push appends a copy of a message, whose payload is the parts.
func (f *fifo) push(kind uint8, parts [][]byte) {
	if f.head > len(f.bytes)/2 { // the copy is paid for by what was popped
		f.bytes = f.bytes[:copy(f.bytes, f.bytes[f.head:])]
		f.head = 0
	}
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	f.bytes = binary.LittleEndian.AppendUint64(f.bytes, uint64(length)<<8|uint64(kind))
	for _, part := range parts {
		f.bytes = append(f.bytes, part...)
	}
	f.n++
}

// front is the oldest message; there must be one. Valid until the next push.
func (f *fifo) front() (kind uint8, payload []byte) {
	word := binary.LittleEndian.Uint64(f.bytes[f.head:])
	at := f.head + fifoHeader
	return uint8(word), f.bytes[at : at+int(word>>8)]
}

// pop forgets the oldest message.
func (f *fifo) pop() {
	_, payload := f.front()
	f.head += fifoHeader + len(payload)
	if f.n--; f.n == 0 {
		f.reset()
	}
}

// reset forgets all.
func (f *fifo) reset() {
	f.bytes, f.head, f.n = f.bytes[:0], 0, 0
	if cap(f.bytes) > fifoKeep {
		f.bytes = nil
	}
}

// requests are work requests that are to be posted, oldest first. The zero value
// is empty.
type requests struct {
	all  []rdma.WorkRequest
	head int
}

func (q *requests) len() int { return len(q.all) - q.head }

func (q *requests) push(w rdma.WorkRequest) {
	if q.head > len(q.all)/2 {
		q.all = q.all[:copy(q.all, q.all[q.head:])]
		q.head = 0
	}
	q.all = append(q.all, w)
}

func (q *requests) front() *rdma.WorkRequest { return &q.all[q.head] }

func (q *requests) pop() {
	if q.head++; q.head == len(q.all) {
		q.reset()
	}
}

func (q *requests) reset() { q.all, q.head = q.all[:0], 0 }

// unpop puts requests back before all others.
func (q *requests) unpop(back []rdma.WorkRequest) {
	rest := append([]rdma.WorkRequest(nil), q.all[q.head:]...)
	q.all, q.head = append(append(q.all[:0], back...), rest...), 0
}
