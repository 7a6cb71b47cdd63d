package meter

import (
	"fmt"
	"unicode/utf8"
)

// reader decodes the binary format. Its error is sticky: after the first failure every method returns zero values and
// moves nothing, so decoding code tests err only where it loops or is about to rely on a value. Readers of parts share
// the code and differ in end, so that pos is always an offset into the whole module.
type reader struct {
	code []byte
	pos  int
	end  int
	err  *Error
}

func (r *reader) fail(format string, args ...any) {
	r.failAt(r.pos, format, args...)
}

func (r *reader) failAt(pos int, format string, args ...any) {
	if r.err == nil {
		r.err = &Error{Offset: pos, Reason: fmt.Sprintf(format, args...)}
	}
}

func (r *reader) more() bool { return r.err == nil && r.pos < r.end }

func (r *reader) byte() byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= r.end {
		r.fail("unexpected end")
		return 0
	}
	b := r.code[r.pos]
	r.pos++
	return b
}

func (r *reader) bytes(n uint32) []byte {
	if r.err != nil {
		return nil
	}
	if uint64(n) > uint64(r.end-r.pos) {
		r.fail("%d bytes announced, %d left", n, r.end-r.pos)
		return nil
	}
	b := r.code[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// u32 decodes an unsigned LEB128 number. Padding is allowed, as linkers leave it, up to the five bytes of the format.
func (r *reader) u32() uint32 {
	start := r.pos
	var v uint32
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && b > 0x0f {
			r.failAt(start, "number does not fit 32 bits")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// signed decodes a signed LEB128 number of the given width (32, 33 or 64 bits).
func (r *reader) signed(bits int) int64 {
	start := r.pos
	var v int64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if left := bits - shift; left < 7 {
			// Only the bits of the sign may stand in the unused part of the last byte.
			sign := int8(b<<1) >> left
			if b >= 0x80 || (sign != 0 && sign != -1) {
				r.failAt(start, "number does not fit %d bits", bits)
				return 0
			}
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if b&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count decodes the length of a vector. Every element takes at least one byte, so a length above what is left is a lie
// and is refused before anything is allocated for it.
func (r *reader) count(what string) int {
	start := r.pos
	n := r.u32()
	if r.err == nil && uint64(n) > uint64(r.end-r.pos) {
		r.failAt(start, "%d %s announced, %d bytes left", n, what, r.end-r.pos)
		return 0
	}
	return int(n)
}

// index decodes an index and refuses it unless it is below limit.
func (r *reader) index(what string, limit int) uint32 {
	start := r.pos
	i := r.u32()
	if r.err == nil && uint64(i) >= uint64(limit) {
		r.failAt(start, "%s index %d is not below %d", what, i, limit)
	}
	return i
}

func (r *reader) name() string {
	start := r.pos
	b := r.bytes(r.u32())
	if r.err == nil && !utf8.Valid(b) {
		r.failAt(start, "name is not UTF-8")
	}
	return string(b)
}

// sub returns a reader of the next n bytes and skips them.
func (r *reader) sub(n uint32) *reader {
	start := r.pos
	r.bytes(n)
	return &reader{code: r.code, pos: start, end: r.pos, err: r.err}
}

// finish takes over the error of a reader made by sub, and fails if bytes are left in it.
func (r *reader) finish(sub *reader, what string) {
	if sub.err == nil && sub.pos != sub.end {
		sub.fail("%d bytes too many in %s", sub.end-sub.pos, what)
	}
	if r.err == nil {
		r.err = sub.err
	}
}
