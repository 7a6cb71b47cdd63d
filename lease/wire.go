package lease

import (
	"encoding/binary"
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// Records on the wire, little endian; the kind travels beside the payload:
//
//	0   1     3      7      11
//	│ 0 │ from │ view │ slot │ fields of the kind │
//
//	REQ    pred ticket, own ticket, body (offset, length)
//	GRANT  ticket, body (offset, length, checksum), dependency
//	RREQ   ticket, nonce, body (offset, length)
//	COPY   nonce, stamp, body (offset, length, checksum), dependency
//	NACK   nonce
//	INVAL  stamp             INVACK  stamp
//
// A stamp is a ticket and a round.
const (
	headerSize = 11
	// MaxPayload is the longest payload of a record: that of COPY.
	MaxPayload = headerSize + 4 + 12 + 16 + 8
)

// AppendPayload appends the payload of r to dst: at most MaxPayload bytes. Its
// readers are not in it: see AppendReaders.
func (r *Record) AppendPayload(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, 0)
	dst = le.AppendUint16(dst, uint16(r.From))
	dst = le.AppendUint32(dst, uint32(r.View))
	dst = le.AppendUint32(dst, uint32(r.Slot))
	switch r.Kind {
	case Req:
		dst = le.AppendUint32(dst, uint32(r.Pred))
		dst = le.AppendUint32(dst, uint32(r.Ticket))
		dst = appendBody(dst, r.Body, false)
	case Grant:
		dst = le.AppendUint32(dst, uint32(r.Ticket))
		dst = appendBody(dst, r.Body, true)
		dst = le.AppendUint64(dst, r.Dep)
	case ReadReq:
		dst = le.AppendUint32(dst, uint32(r.Ticket))
		dst = le.AppendUint32(dst, r.Nonce)
		dst = appendBody(dst, r.Body, false)
	case Copy:
		dst = le.AppendUint32(dst, r.Nonce)
		dst = appendStamp(dst, r.Stamp)
		dst = appendBody(dst, r.Body, true)
		dst = le.AppendUint64(dst, r.Dep)
	case Nack:
		dst = le.AppendUint32(dst, r.Nonce)
	case Inval, InvalAck:
		dst = appendStamp(dst, r.Stamp)
	}
	return dst
}

func appendBody(dst []byte, b Body, written bool) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, b.Offset)
	dst = binary.LittleEndian.AppendUint32(dst, b.Length)
	if written {
		dst = binary.LittleEndian.AppendUint32(dst, b.Checksum)
	}
	return dst
}

func appendStamp(dst []byte, s Stamp) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Ticket))
	return binary.LittleEndian.AppendUint64(dst, uint64(s.Round))
}

// fields reads little-endian fields; after the end it reads zeroes and remembers
// that it did.
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

func (f *fields) u16() uint16    { return binary.LittleEndian.Uint16(f.take(2)) }
func (f *fields) u32() uint32    { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) u64() uint64    { return binary.LittleEndian.Uint64(f.take(8)) }
func (f *fields) ticket() Ticket { return Ticket(f.u32()) }
func (f *fields) stamp() Stamp   { return Stamp{f.ticket(), int64(f.u64())} }
func (f *fields) body(written bool) (b Body) {
	b.Offset, b.Length = f.u64(), f.u32()
	if written {
		b.Checksum = f.u32()
	}
	return b
}

// DecodePayload reads the payload of a record of this kind, which may be longer
// than the record: it was written by another process and nothing about it is
// trusted. Whether the worker and view exist is for the caller to check.
func DecodePayload(kind Kind, payload []byte) (r Record, err error) {
	f := fields{b: payload}
	flags := f.take(1)[0]
	r = Record{Kind: kind, From: Worker(f.u16()), View: base.View(f.u32()), Slot: base.Slot(f.u32())}
	switch kind {
	case Req:
		r.Pred, r.Ticket, r.Body = f.ticket(), f.ticket(), f.body(false)
	case Grant:
		r.Ticket, r.Body, r.Dep = f.ticket(), f.body(true), f.u64()
	case ReadReq:
		r.Ticket, r.Nonce, r.Body = f.ticket(), f.u32(), f.body(false)
	case Copy:
		r.Nonce, r.Stamp, r.Body, r.Dep = f.u32(), f.stamp(), f.body(true), f.u64()
	case Nack:
		r.Nonce = f.u32()
	case Inval, InvalAck:
		r.Stamp = f.stamp()
	default:
		return Record{}, fmt.Errorf("lease: record of kind %d", kind)
	}
	switch {
	case f.short:
		return Record{}, fmt.Errorf("lease: %v of %d bytes is too short", kind, len(payload))
	case flags != 0:
		return Record{}, fmt.Errorf("lease: %v with flags %#x, which this release does not know", kind, flags)
	case r.From == Free || r.From > MaxWorker || r.View > MaxView || r.Slot >= base.SlotCount:
		return Record{}, fmt.Errorf("lease: %v from worker %d in view %d about slot %d: out of range", kind, r.From, r.View, r.Slot)
	case r.Stamp.Round < 0:
		return Record{}, fmt.Errorf("lease: %v of round %d", kind, r.Stamp.Round)
	}
	return r, nil
}

// maxReaders bounds a decoded list: one entry a worker.
const maxReaders = int(MaxWorker)

// AppendReaders appends the list of readers to a body: their number, then worker
// and view of each, as varints.
func AppendReaders(dst []byte, readers []ReaderEntry) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(readers)))
	for _, x := range readers {
		dst = binary.AppendUvarint(dst, uint64(x.Worker))
		dst = binary.AppendUvarint(dst, uint64(x.View))
	}
	return dst
}

// DecodeReaders reads what AppendReaders wrote and returns the rest.
func DecodeReaders(b []byte) (readers []ReaderEntry, rest []byte, err error) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = fmt.Errorf("lease: a list of readers ends early")
			return 0
		}
		b = b[n:]
		return v
	}
	count := next()
	if count > uint64(maxReaders) {
		return nil, nil, fmt.Errorf("lease: a list of %d readers, there are at most %d workers", count, maxReaders)
	}
	for range count {
		w, v := next(), next()
		if err != nil {
			return nil, nil, err
		}
		if w == 0 || w > uint64(MaxWorker) || v > uint64(MaxView) {
			return nil, nil, fmt.Errorf("lease: reader %d of view %d: out of range", w, v)
		}
		readers = append(readers, ReaderEntry{Worker(w), base.View(v)})
	}
	return readers, b, err
}
