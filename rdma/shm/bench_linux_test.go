package shm

import (
	"context"
	"sync"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

// benchOne measures Post of one signaled request and Poll of its completion.
func benchOne(b *testing.B, request func(x, y *node) rdma.WorkRequest) {
	x, y := newNodes(b, 1<<16)
	batch := []rdma.WorkRequest{request(x, y)}
	x.do(batch...) // maps the region
	completions := make([]rdma.Completion, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.qp.Post(batch); err != nil {
			b.Fatal(err)
		}
		if x.cq.Poll(completions) != 1 || completions[0].Status != rdma.StatusOK {
			b.Fatal(completions[0])
		}
	}
}

func BenchmarkCAS(b *testing.B) {
	benchOne(b, func(x, y *node) rdma.WorkRequest {
		return rdma.CAS(1, x.region.Local(0, 8), y.region.Remote(), 64, 0, 0)
	})
}

func BenchmarkRead64(b *testing.B) {
	benchOne(b, func(x, y *node) rdma.WorkRequest {
		return rdma.Read(1, x.region.Local(0, 64), y.region.Remote(), 64)
	})
}

func BenchmarkWrite64(b *testing.B) {
	benchOne(b, func(x, y *node) rdma.WorkRequest {
		return rdma.Write(1, x.region.Local(0, 64), y.region.Remote(), 64)
	})
}

// BenchmarkPostBatch32 posts 32 READs of 64 bytes at once, the last signaled.
func BenchmarkPostBatch32(b *testing.B) {
	x, y := newNodes(b, 1<<16)
	batch := make([]rdma.WorkRequest, 32)
	for i := range batch {
		batch[i] = rdma.Read(uint64(i), x.region.Local(64*i, 64), y.region.Remote(), uint64(64*i))
		batch[i].Flags = 0
	}
	batch[31].Flags = rdma.Signaled
	x.do(batch...)
	completions := make([]rdma.Completion, 1)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := x.qp.Post(batch); err != nil || n != len(batch) {
			b.Fatal(n, err)
		}
		if x.cq.Poll(completions) != 1 || completions[0].Status != rdma.StatusOK {
			b.Fatal(completions[0])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(32*b.N), "ns/request")
}

// BenchmarkDoorbell is half of a round trip of doorbells between two goroutines,
// of one process or of two, that both sleep in Wait: one wake-up.
func BenchmarkDoorbell(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		x, y := newNodes(b, 1<<16)
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = echo(ctx, y.qp, y.cq) })
		benchDoorbell(b, x)
		cancel()
		wg.Wait()
	})
	b.Run("processes", func(b *testing.B) {
		x, c := newNode(b, 1<<16, Options{}, rdma.QueuePairOptions{}), newChild(b, 64, bound)
		c.connect(x.qp)
		c.tell(order{Do: "echo"})
		benchDoorbell(b, x)
	})
}

func benchDoorbell(b *testing.B, x *node) {
	bell := []rdma.WorkRequest{{Op: rdma.OpWriteImm}}
	done := make([]rdma.Completion, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.qp.Post(bell); err != nil {
			b.Fatal(err)
		}
		if _, err := x.cq.Wait(b.Context(), done); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/wake")
}
