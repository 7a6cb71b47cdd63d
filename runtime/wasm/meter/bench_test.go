package meter_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// BenchmarkMetered reports the median over the rounds of metered time to unmetered time. Both run in turn within each
// round, so that a slow phase of the machine hits both.
func BenchmarkMetered(b *testing.B) {
	for _, guest := range []struct {
		name      string
		code      []byte
		workloads []workload
	}{
		{"go", goGuest(b), []workload{{"fib", 25}, {"sha", 1 << 20}, {"sorted", 50_000}, {"decode", 2_000}}},
		{"as", asGuest(b), []workload{{"fib", 27}, {"arith", 5_000_000}, {"sieve", 1_000_000}, {"sort", 100_000}}},
	} {
		h := newHost(b)
		original, metered := h.instance(b, guest.code), h.instance(b, rewrite(b, guest.code).Code)
		for _, w := range guest.workloads {
			b.Run(guest.name+"/"+w.name, func(b *testing.B) {
				var ratios []float64
				for b.Loop() {
					begin := time.Now()
					run(b, original, w.name, w.size)
					middle := time.Now()
					run(b, metered, w.name, w.size)
					ratios = append(ratios, float64(time.Since(middle))/float64(middle.Sub(begin)))
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[len(ratios)/2], "ratio")
			})
		}
	}
}

// BenchmarkRewrite is the cost of the rewrite of a Go module of 3.4 MB.
func BenchmarkRewrite(b *testing.B) {
	code := goGuest(b)
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := meter.Rewrite(code, meter.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
