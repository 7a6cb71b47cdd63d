package tenure

import "math/bits"

// What a handler does most, with eight bytes at a time instead of loops over
// bytes: in the code that the Go compiler makes for WebAssembly every turn of a
// loop is an indirect jump, and the platform counts it.

// Eight bytes with the value 1, and others made of it.
const (
	ones   = 0x0101010101010101
	high   = ones * 0x80
	spaces = ones * ' '
	zeros  = ones * '0'
)

// word returns the first eight bytes of s, which has them, the first lowest.
func word[T string | []byte](s T) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// shortWord is word of at most seven bytes; zeros stand for those that s lacks.
func shortWord[T string | []byte](s T) uint64 {
	n := len(s)
	if n >= 4 { // the two halves overlap
		return uint64(half(s)) | uint64(half(s[n-4:]))<<(8*(n-4))
	}
	if n == 0 {
		return 0
	}
	return uint64(s[0]) | uint64(s[n/2])<<(8*(n/2)) | uint64(s[n-1])<<(8*(n-1))
}

func half[T string | []byte](s T) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// isPlain reports whether s is written in JSON as it is: printable ASCII without
// quotes and backslashes.
func isPlain(s string) bool {
	n := len(s)
	if n < 8 {
		return special(shortWord(s)|spaces<<(8*n)) == 0
	}
	for i := 0; i < n-8; i += 8 {
		if special(word(s[i:])) != 0 {
			return false
		}
	}
	return special(word(s[n-8:])) == 0 // again, in part
}

// special has a bit set if one of the bytes is not plain.
func special(x uint64) uint64 {
	quotes, backslashes := x^ones*'"', x^ones*'\\'
	below := (x-spaces)&^x | (quotes-ones)&^quotes | (backslashes-ones)&^backslashes
	return (below | x) & high
}

// parseInt reads a decimal integer without the copy that strconv would need.
func parseInt(b []byte) (n int64, ok bool) {
	digits := b
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
	}
	var u uint64 // 19 digits fit
	if first := len(digits) & 7; first > 0 {
		x := shortWord(digits[:first])<<(64-8*first) | zeros>>(8*first)
		if !areDigits(x) {
			return 0, false
		}
		u = eightDigits(x)
		digits = digits[first:]
	}
	for len(digits) >= 8 {
		x := word(digits)
		if !areDigits(x) {
			return 0, false
		}
		u = u*1e8 + eightDigits(x)
		digits = digits[8:]
	}
	if negative {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// areDigits reports whether all bytes are digits: their upper half is 3, and
// still is after an addition of 6.
func areDigits(x uint64) bool {
	const upper = ones * 0xf0
	return x&upper|(x+ones*6)&upper>>4 == ones*0x33
}

// eightDigits returns the number that eight digits are, the first lowest: it
// makes pairs of digits, then of pairs, and so on.
func eightDigits(x uint64) uint64 {
	x -= zeros
	x = x*10 + x>>8
	const pairs = 0x000000ff000000ff
	return (x&pairs*(100+1000000<<32) + x>>16&pairs*(1+10000<<32)) >> 32
}

// appendInt appends a decimal integer, as strconv.AppendInt does.
func appendInt(dst []byte, n int64) []byte {
	u := uint64(n)
	if n < 0 {
		dst = append(dst, '-')
		u = -u
	}
	if u < 1e8 {
		return appendDigits(dst, u)
	}
	upper := u / 1e8
	if upper < 1e8 {
		dst = appendDigits(dst, upper)
	} else {
		dst = appendEight(appendDigits(dst, upper/1e8), toDigits(upper%1e8))
	}
	return appendEight(dst, toDigits(u%1e8))
}

// appendDigits appends a number below 1e8 without zeros in front.
func appendDigits(dst []byte, u uint64) []byte {
	x := toDigits(u)
	leading := bits.TrailingZeros64(x-zeros|1<<56) / 8 // the last digit stays
	dst = appendEight(dst, x>>(8*leading))
	return dst[:len(dst)-leading]
}

// toDigits is the inverse of eightDigits, for numbers below 1e8. The divisions
// of several numbers at once are multiplications with fractions.
func toDigits(u uint64) uint64 {
	x := u/1e4 + u%1e4<<32
	q := x * 10486 >> 20 & 0x0000007f0000007f
	x = q + (x-100*q)<<16
	q = x * 103 >> 10 & 0x000f000f000f000f
	return q + (x-10*q)<<8 + zeros
}

func appendEight(dst []byte, x uint64) []byte {
	return append(dst, byte(x), byte(x>>8), byte(x>>16), byte(x>>24),
		byte(x>>32), byte(x>>40), byte(x>>48), byte(x>>56))
}
