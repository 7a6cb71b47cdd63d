package base

import (
	"encoding/base32"
	"encoding/binary"
	"time"
)

// InvocationID names one run of a workflow: 48 bits of Unix milliseconds,
// then 80 random bits, so that ids sort by time of creation and a range of
// ids is a range of time (the idea of RFC 9562 UUIDv7).
type InvocationID [16]byte

// idEncoding is base32hex without padding, in lower case: it keeps the order
// of the bytes and is safe in URLs.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewInvocationID builds an id from a time and 80 bits of randomness, of
// which the low 16 bits of hi and all of lo are used.
func NewInvocationID(now time.Time, hi uint16, lo uint64) InvocationID {
	var id InvocationID
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16|uint64(hi))
	binary.BigEndian.PutUint64(id[8:], lo)
	return id
}

// String returns the id as 26 lower-case letters and digits; the order of
// strings is the order of ids.
func (id InvocationID) String() string { return idEncoding.EncodeToString(id[:]) }

// Time returns the creation time, to the millisecond.
func (id InvocationID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// ParseInvocationID reads what String wrote. The error is an *Error of kind
// Invalid with subject invocation.
func ParseInvocationID(s string) (InvocationID, error) {
	var id InvocationID
	if len(s) != idEncoding.EncodedLen(len(id)) {
		return id, Invalidf("invocation", "invocation id %q has %d characters, it must have %d", s, len(s), idEncoding.EncodedLen(len(id)))
	}
	if _, err := idEncoding.Decode(id[:], []byte(s)); err != nil {
		return InvocationID{}, Invalidf("invocation", "invocation id %q: %v", s, err)
	}
	if id.String() != s { // the decoder takes line breaks and spare bits
		return InvocationID{}, Invalidf("invocation", "invocation id %q is not written as this system writes ids", s)
	}
	return id, nil
}
