// Package zipf draws key numbers of a skewed workload.
//
// A Generator gives ranks: rank 0 is the most popular one and rank k has a
// probability proportional to 1/(k+1)^theta. A Permutation turns ranks into
// key numbers, so that popular keys do not stand side by side in the key space.
//
// Invariants: the law is exact for every theta > 0, and a Permutation maps
// [0, n) onto itself one to one, so that no two ranks share a key. Neither
// holds of the generator that YCSB took from Gray et al.: it is exact only for
// the two first ranks (the third is drawn about a fifth too often at theta
// 0.99), has no answer at theta 1, and scatters ranks by a hash modulo n, which
// merges some keys and never draws others. This package samples the same law
// by rejection-inversion (Hörmann and Derflinger, 1996) instead, which also
// needs no sum over n at the start.
//
// The package keeps no randomness of its own: numbers in [0, 1) come in as a
// *rand.Rand. Start reading at Generator.
package zipf

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Generator draws ranks in [0, n) by Zipf's law. It holds constants only and
// is safe for concurrent use with a rand.Rand per caller.
type Generator struct {
	n     float64
	theta float64
	// first and last are the bounds of the area under the hat, the curve
	// x^-theta from 1/2 to n+1/2, measured by integral.
	first, last float64
	// sure is the distance to the rounded value under which a draw is accepted
	// without computing the curve: the common case.
	sure float64
}

// New returns a generator over n ranks with exponent theta. It refuses n
// outside 1..2^31 and a theta that is not a positive finite number of at most
// 16: above it everything but rank 0 is lost in rounding.
func New(n int, theta float64) (*Generator, error) {
	if n < 1 || n > 1<<31 {
		return nil, fmt.Errorf("zipf: %d ranks, choose 1 to %d", n, 1<<31)
	}
	if !(theta > 0 && theta <= 16) {
		return nil, fmt.Errorf("zipf: theta is %v, choose a number above 0 and at most 16", theta)
	}
	g := &Generator{n: float64(n), theta: theta}
	g.first = g.integral(1.5) - 1
	g.last = g.integral(g.n + 0.5)
	g.sure = 2 - g.inverse(g.integral(2.5)-g.curve(2))
	return g, nil
}

// Rank draws a rank in [0, n). It takes a bounded number of draws on average
// (under 1.2 for every n and theta) and allocates nothing.
func (g *Generator) Rank(rng *rand.Rand) int {
	for {
		area := g.last + rng.Float64()*(g.first-g.last)
		x := g.inverse(area)
		k := min(max(math.Round(x), 1), g.n)
		if k-x <= g.sure || area >= g.integral(k+0.5)-g.curve(k) {
			return int(k) - 1
		}
	}
}

// curve is x^-theta.
func (g *Generator) curve(x float64) float64 { return math.Exp(-g.theta * math.Log(x)) }

// integral is an antiderivative of curve: (x^(1-theta) - 1) / (1-theta), and
// its limit ln x at theta 1, both without cancellation near theta 1.
func (g *Generator) integral(x float64) float64 {
	ln := math.Log(x)
	return expm1Over((1-g.theta)*ln) * ln
}

// inverse undoes integral.
func (g *Generator) inverse(area float64) float64 {
	// Rounding may carry the product below -1, where the logarithm ends.
	t := max(area*(1-g.theta), -1)
	return math.Exp(log1pOver(t) * area)
}

// expm1Over is (e^t - 1) / t with its limit at 0.
func expm1Over(t float64) float64 {
	if math.Abs(t) < 1e-8 {
		return 1 + t/2
	}
	return math.Expm1(t) / t
}

// log1pOver is ln(1 + t) / t with its limit at 0.
func log1pOver(t float64) float64 {
	if math.Abs(t) < 1e-8 {
		return 1 - t/2
	}
	return math.Log1p(t) / t
}
