package zipf

import "math/bits"

// Permutation maps [0, n) onto itself, far from the identity and the same in
// every process, so that two load generators agree which keys are hot.
type Permutation struct {
	n     uint64
	mask  uint64
	shift int
}

// NewPermutation returns the permutation of [0, n). n is at least 1.
func NewPermutation(n int) Permutation {
	width := max(bits.Len64(uint64(n-1)), 1)
	return Permutation{n: uint64(n), mask: 1<<width - 1, shift: (width + 1) / 2}
}

// At returns where i in [0, n) goes. It mixes in the next power of two and
// walks on while the result lies outside: since every step is invertible, the
// walk returns into [0, n), after less than two steps on average.
func (p Permutation) At(i int) int {
	x := uint64(i)
	for {
		x = p.mix(x)
		if x < p.n {
			return int(x)
		}
	}
}

// mix is invertible on the numbers under mask: an odd factor is invertible
// modulo a power of two, and so is a shift to the right xored in.
func (p Permutation) mix(x uint64) uint64 {
	x = (x + 0x9e3779b97f4a7c15) & p.mask
	x = x * 0xd6e8feb86659fd93 & p.mask
	x ^= x >> p.shift
	x = x * 0xa0761d6478bd642f & p.mask
	x ^= x >> p.shift
	return x
}
