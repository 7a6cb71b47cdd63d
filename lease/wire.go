package lease

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tenure-faas/tenure/base"
)

// A message between workers is a record and, in a GRANT or COPY, the values of
// the slot, which only the shell knows. Kind and sender travel beside it. Little
// endian:
//
//	0      4      8
//	│ view │ slot │ fields of the kind │ values │
//
//	REQ    pred ticket, own ticket
//	GRANT  ticket, dependency, readers: their number, then worker and view of each
//	RREQ   ticket, nonce
//	COPY   nonce, stamp, dependency
//	NACK   nonce
//	INVAL  stamp             INVACK  stamp
//
// A stamp is a ticket and a round; what belongs to readers are varints.

// Append appends r to dst, without its kind and sender.
func (r *Record) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(r.View))
	dst = le.AppendUint32(dst, uint32(r.Slot))
	switch r.Kind {
	case Req:
		dst = le.AppendUint32(dst, uint32(r.Pred))
		dst = le.AppendUint32(dst, uint32(r.Ticket))
	case Grant:
		dst = le.AppendUint32(dst, uint32(r.Ticket))
		dst = le.AppendUint64(dst, r.Dep)
		dst = binary.AppendUvarint(dst, uint64(len(r.Readers)))
		for _, x := range r.Readers {
			dst = binary.AppendUvarint(dst, uint64(x.Worker))
			dst = binary.AppendUvarint(dst, uint64(x.View))
		}
	case ReadReq:
		dst = le.AppendUint32(dst, uint32(r.Ticket))
		dst = le.AppendUint32(dst, r.Nonce)
	case Copy:
		dst = le.AppendUint32(dst, r.Nonce)
		dst = appendStamp(dst, r.Stamp)
		dst = le.AppendUint64(dst, r.Dep)
	case Nack:
		dst = le.AppendUint32(dst, r.Nonce)
	case Inval, InvalAck:
		dst = appendStamp(dst, r.Stamp)
	}
	return dst
}

func appendStamp(dst []byte, s Stamp) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Ticket))
	return binary.LittleEndian.AppendUint64(dst, uint64(s.Round))
}

// fields reads fields; after the end it reads zeroes and remembers that it did.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if len(f.b) < n {
		f.short, f.b = true, nil
		return make([]byte, 8)
	}
	taken := f.b[:n]
	f.b = f.b[n:]
	return taken
}

func (f *fields) u32() uint32    { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) u64() uint64    { return binary.LittleEndian.Uint64(f.take(8)) }
func (f *fields) ticket() Ticket { return Ticket(f.u32()) }
func (f *fields) stamp() Stamp   { return Stamp{f.ticket(), int64(f.u64())} }

// number reads a varint of at most limit.
func (f *fields) number(limit uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || v > limit {
		f.short, f.b = true, nil
		return 0
	}
	f.b = f.b[n:]
	return v
}

// readers are at most one entry a worker.
func (f *fields) readers() []ReaderEntry {
	n := f.number(uint64(MaxWorker))
	if n > uint64(len(f.b)/2) { // each takes two bytes at least
		f.short = true
		return nil
	}
	var readers []ReaderEntry
	for range n {
		x := ReaderEntry{Worker(f.number(uint64(MaxWorker))), base.View(f.number(uint64(MaxView)))}
		f.short = f.short || x.Worker == Free
		readers = append(slices.Grow(readers, int(n)-len(readers)), x)
	}
	return readers
}

// Decode reads what Append wrote and returns what follows it, the values. The
// message comes from another process: nothing about it is trusted but its
// sender. Whether the view is the current one is for Core to check.
func Decode(kind Kind, from Worker, message []byte) (r Record, values []byte, err error) {
	f := fields{b: message}
	r = Record{Kind: kind, From: from, View: base.View(f.u32()), Slot: base.Slot(f.u32())}
	switch kind {
	case Req:
		r.Pred, r.Ticket = f.ticket(), f.ticket()
	case Grant:
		r.Ticket, r.Dep, r.Readers = f.ticket(), f.u64(), f.readers()
	case ReadReq:
		r.Ticket, r.Nonce = f.ticket(), f.u32()
	case Copy:
		r.Nonce, r.Stamp, r.Dep = f.u32(), f.stamp(), f.u64()
	case Nack:
		r.Nonce = f.u32()
	case Inval, InvalAck:
		r.Stamp = f.stamp()
	default:
		return Record{}, nil, fmt.Errorf("lease: record of kind %d from w%d", kind, from)
	}
	switch {
	case f.short:
		return Record{}, nil, fmt.Errorf("lease: %v of %d bytes from w%d is cut short or out of range", kind, len(message), from)
	case r.View > MaxView || r.Slot >= base.SlotCount:
		return Record{}, nil, fmt.Errorf("lease: %v from w%d in view %d about slot %d: out of range", kind, from, r.View, r.Slot)
	case r.Stamp.Round < 0:
		return Record{}, nil, fmt.Errorf("lease: %v of round %d from w%d", kind, r.Stamp.Round, from)
	case len(f.b) > 0 && kind != Grant && kind != Copy:
		return Record{}, nil, fmt.Errorf("lease: %v from w%d has %d bytes too many", kind, from, len(f.b))
	}
	return r, f.b, nil
}
