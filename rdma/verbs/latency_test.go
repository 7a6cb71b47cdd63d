//go:build linux && cgo && rdma

package verbs

import (
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// BenchmarkLatency has one request in flight, as perftest's ib_read_lat and
// ib_atomic_lat have, and reports the median as they do. Set beside them:
//
//	verbs.test -test.run '^$' -test.bench Latency -test.benchtime 1000x
//	ib_read_lat -s 64 -n 1000, ib_atomic_lat -A CMP_AND_SWP -n 1000
func BenchmarkLatency(b *testing.B) {
	for _, c := range []struct {
		name    string
		spin    time.Duration
		request func(rdma.Region, rdma.RemoteRegion) rdma.WorkRequest
	}{
		{"READ-64/spin", time.Second, read64},
		{"CAS/spin", time.Second, cas},
		{"WRITE-64-inline/spin", time.Second, inline64},
		{"READ-64/sleep", 0, read64},
		{"CAS/sleep", 0, cas},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := openProvider(b)
			near := newSide(b, p, rdma.CompletionQueueOptions{Spin: c.spin}, rdma.QueuePairOptions{})
			far := newSide(b, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
			connect(b, near, far)
			requests := []rdma.WorkRequest{c.request(near.region, far.region.Remote())}
			times := make([]time.Duration, b.N)
			dst := make([]rdma.Completion, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range times {
				start := time.Now()
				if _, err := near.pair.Post(requests); err != nil {
					b.Fatal(err)
				}
				if _, err := near.cq.Wait(b.Context(), dst); err != nil || dst[0].Status != rdma.StatusOK {
					b.Fatal(err, dst[0].Err())
				}
				times[i] = time.Since(start)
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "median-us")
			b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-us")
		})
	}
}

func read64(r rdma.Region, remote rdma.RemoteRegion) rdma.WorkRequest {
	return rdma.Read(1, r.Local(0, 64), remote, 0)
}

func cas(r rdma.Region, remote rdma.RemoteRegion) rdma.WorkRequest {
	return rdma.CAS(1, r.Local(0, 8), remote, 0, 0, 0)
}

func inline64(r rdma.Region, remote rdma.RemoteRegion) rdma.WorkRequest {
	w := rdma.Write(1, r.Local(0, 64), remote, 0)
	w.Flags |= rdma.Inline
	return w
}

// BenchmarkBatch posts 32 requests in one crossing, of which the last is
// signaled.
func BenchmarkBatch(b *testing.B) {
	for name, request := range map[string]func(rdma.Region, rdma.RemoteRegion) rdma.WorkRequest{"READ-64": read64, "CAS": cas} {
		b.Run(name, func(b *testing.B) {
			p := openProvider(b)
			near := newSide(b, p, rdma.CompletionQueueOptions{Spin: time.Second}, rdma.QueuePairOptions{})
			far := newSide(b, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
			connect(b, near, far)
			batch := make([]rdma.WorkRequest, 32)
			for i := range batch {
				batch[i] = request(near.region, far.region.Remote())
				batch[i].Flags = 0
			}
			batch[len(batch)-1].Flags = rdma.Signaled
			dst := make([]rdma.Completion, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := near.pair.Post(batch); err != nil {
					b.Fatal(err)
				}
				if _, err := near.cq.Wait(b.Context(), dst); err != nil || dst[0].Status != rdma.StatusOK {
					b.Fatal(err, dst[0].Err())
				}
			}
			b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
