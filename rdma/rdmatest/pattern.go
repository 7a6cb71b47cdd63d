package rdmatest

import (
	"bytes"
	"fmt"
)

// pattern is the byte at a position of an endless sequence that looks random;
// every seed has one of its own, so that bytes in a wrong place are seen.
func pattern(seed uint64, position int) byte {
	return byte(mix(seed, uint64(position)/8) >> (position % 8 * 8))
}

// mix is splitmix64 over both arguments.
func mix(seed, n uint64) uint64 {
	z := seed*0xd1342543de82ef95 + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// paint writes the pattern from position from on into dst.
func paint(dst []byte, seed uint64, from int) {
	for i := range dst {
		dst[i] = pattern(seed, from+i)
	}
}

// copied is a part of a region that a verb should have changed: Length bytes at
// At that are the pattern of Seed from From on.
type copied struct {
	At, Length int
	Seed       uint64
	From       int
}

// difference compares memory with what it should be: the pattern of ground
// everywhere, but for parts. It says where they first differ, or "".
func difference(memory []byte, ground uint64, parts []copied) string {
	want := make([]byte, len(memory))
	paint(want, ground, 0)
	for _, c := range parts {
		paint(want[c.At:c.At+c.Length], c.Seed, c.From)
	}
	if bytes.Equal(memory, want) {
		return ""
	}
	wrong, first := 0, -1
	for i := range want {
		if memory[i] != want[i] {
			if wrong++; first < 0 {
				first = i
			}
		}
	}
	where := "outside of what was written"
	for n, c := range parts {
		if first >= c.At && first < c.At+c.Length {
			where = fmt.Sprintf("byte %d of the %d bytes of part %d", first-c.At, c.Length, n)
		}
	}
	return fmt.Sprintf("%d of %d bytes are wrong, the first at offset %d (%s): %#02x, want %#02x",
		wrong, len(memory), first, where, memory[first], want[first])
}
