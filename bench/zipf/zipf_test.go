package zipf_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench/zipf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRanksFollowTheLaw compares a hundred thousand draws with the analytic
// probabilities by a chi-square test over the first ranks and the tail. The
// seed is fixed: the test does not depend on luck.
func TestRanksFollowTheLaw(t *testing.T) {
	const draws = 100_000
	for _, n := range []int{2, 50, 10_000, 1_000_000} {
		for _, theta := range []float64{0.5, 0.99, 1, 1.2, 2.5} {
			t.Run(fmt.Sprintf("n=%d/theta=%v", n, theta), func(t *testing.T) {
				g, err := zipf.New(n, theta)
				if err != nil {
					t.Fatal(err)
				}
				const bucketCount = 41
				var want [bucketCount]float64
				for k := range n {
					want[min(k, bucketCount-1)] += math.Pow(float64(k+1), -theta)
				}
				sum := 0.0
				for _, w := range want {
					sum += w
				}
				var got [bucketCount]float64
				rng := rand.New(rand.NewPCG(1, uint64(n)))
				for range draws {
					got[min(g.Rank(rng), bucketCount-1)]++
				}
				chi, freedom := 0.0, -1.0
				for i, w := range want {
					expected := w / sum * draws
					if expected < 5 {
						if got[i] > expected+20 {
							t.Errorf("rank %d: %v draws, expected %.2f", i, got[i], expected)
						}
						continue
					}
					chi += (got[i] - expected) * (got[i] - expected) / expected
					freedom++
				}
				// The mean of chi-square is its degrees of freedom, the
				// variance twice that; five deviations are far in the tail.
				if limit := freedom + 5*math.Sqrt(2*max(freedom, 1)); chi > limit {
					t.Errorf("chi-square is %.1f, over %.1f for %v degrees of freedom", chi, limit, freedom)
				}
			})
		}
	}
}

func TestTailReachesEveryRank(t *testing.T) {
	g, err := zipf.New(100, 0.99)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	var seen [100]bool
	for range 200_000 {
		seen[g.Rank(rng)] = true
	}
	for k, ok := range seen {
		if !ok {
			t.Errorf("rank %d was never drawn", k)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		n     int
		theta float64
	}{{0, 0.5}, {-1, 0.5}, {1<<31 + 1, 0.5}, {10, 0}, {10, -1}, {10, 17}, {10, math.NaN()}, {10, math.Inf(1)}} {
		if _, err := zipf.New(c.n, c.theta); err == nil {
			t.Errorf("New(%d, %v) succeeded", c.n, c.theta)
		}
	}
}

func TestPermutationIsOneToOneAndSpreads(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 64, 65, 1000, 10_000, 65_537} {
		p := zipf.NewPermutation(n)
		seen := make([]bool, n)
		for i := range n {
			at := p.At(i)
			if at < 0 || at >= n || seen[at] {
				t.Fatalf("n=%d: %d goes to %d, which is outside or taken", n, i, at)
			}
			seen[at] = true
		}
	}
	// The 64 hottest of 10,000 keys fall into more than a third of 64 equal
	// parts of the key space (a random placement fills 63 % of them).
	p, parts := zipf.NewPermutation(10_000), map[int]bool{}
	for rank := range 64 {
		parts[p.At(rank)*64/10_000] = true
	}
	if len(parts) < 24 {
		t.Errorf("the 64 hottest keys lie in %d of 64 parts of the key space", len(parts))
	}
}

func BenchmarkRank(b *testing.B) {
	g, err := zipf.New(1_000_000, 0.99)
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	p := zipf.NewPermutation(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		p.At(g.Rank(rng))
	}
}
