//go:build linux && cgo && rdma

package ibverbs

import "testing"

// BenchmarkCrossing is the cost of one call into C that posts nothing. It needs
// no device.
func BenchmarkCrossing(b *testing.B) {
	var q QP
	batch := make([]Descriptor, 1)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := q.PostSend(batch[:0]); n != 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
