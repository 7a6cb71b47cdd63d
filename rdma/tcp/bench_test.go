package tcp

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// medians runs blocks of each of the functions in turn, so that what else the
// machine does hits them all, and returns their median times.
func medians(b *testing.B, functions ...func()) []time.Duration {
	const block = 200
	times := make([][]time.Duration, len(functions))
	for i := range times {
		times[i] = make([]time.Duration, 0, b.N+block)
	}
	b.ResetTimer()
	for done := 0; done < b.N; done += block {
		for i, f := range functions {
			for range block {
				start := time.Now()
				f()
				times[i] = append(times[i], time.Since(start))
			}
		}
	}
	b.StopTimer()
	result := make([]time.Duration, len(functions))
	for i := range times {
		slices.Sort(times[i])
		result[i] = times[i][len(times[i])/2]
	}
	return result
}

// echoer returns a function that sends 64 bytes over a bare connection and waits
// until they come back.
func echoer(b *testing.B) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer s.Close()
		buf := make([]byte, 64)
		for {
			if _, err := io.ReadFull(s, buf); err != nil {
				return
			}
			if _, err := s.Write(buf); err != nil {
				return
			}
		}
	}()
	b.Cleanup(func() { c.Close() })
	buf := make([]byte, 64)
	return func() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// waiter is CompletionQueue.Wait.
type waiter func(ctx context.Context, dst []rdma.Completion) (int, error)

// wait is how a queue of this package wakes its sleeper, and waitChannel how the
// shared queue does.
func wait(q rdma.CompletionQueue) waiter        { return q.Wait }
func waitChannel(q rdma.CompletionQueue) waiter { return q.(*completionQueue).Completions.Wait }

// reader returns a function that posts a batch of READs of 64 bytes and waits for
// them.
func reader(b *testing.B, batch int, how func(rdma.CompletionQueue) waiter) func() {
	a, p, x, _ := couple(b, rdma.QueuePairOptions{}, 1<<16)
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	wait := how(a.cq)
	requests := make([]rdma.WorkRequest, batch)
	for i := range requests {
		requests[i] = rdma.Read(uint64(i), a.r.Local(i*64, 64), p.r.Remote(), uint64(i*64))
	}
	dst := make([]rdma.Completion, batch)
	return func() {
		post(b, x, requests...)
		for got := 0; got < batch; {
			n, err := wait(ctx, dst)
			if err != nil {
				b.Fatal(err)
			}
			for _, c := range dst[:n] {
				if c.Status != rdma.StatusOK {
					b.Fatal(c.Status)
				}
			}
			got += n
		}
	}
}

func BenchmarkEcho64(b *testing.B) {
	f := echoer(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkRead64(b *testing.B) {
	f := reader(b, 1, wait)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkReadBatch(b *testing.B) {
	f := reader(b, 32, wait)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

// BenchmarkLong moves a mebibyte at a time.
func BenchmarkLong(b *testing.B) {
	const size = 1 << 20
	for _, op := range []rdma.Opcode{rdma.OpWrite, rdma.OpRead} {
		b.Run(op.String(), func(b *testing.B) {
			a, p, x, _ := couple(b, rdma.QueuePairOptions{}, size)
			request := rdma.Write(0, a.r.Local(0, size), p.r.Remote(), 0)
			request.Op = op
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				post(b, x, request)
				if c := a.wait(b, 1)[0]; c.Status != rdma.StatusOK {
					b.Fatal(c.Status)
				}
			}
		})
	}
}

// BenchmarkReadAgainstEcho is what the package is measured by: a READ against a
// bare echo of as many bytes, and a batch against single READs.
func BenchmarkReadAgainstEcho(b *testing.B) {
	m := medians(b, echoer(b), reader(b, 1, wait), reader(b, 32, wait))
	b.ReportMetric(float64(m[0].Nanoseconds()), "echo-ns")
	b.ReportMetric(float64(m[1].Nanoseconds()), "read-ns")
	b.ReportMetric(float64(m[1])/float64(m[0]), "read/echo")
	b.ReportMetric(32*float64(m[1])/float64(m[2]), "batch-gain")
}

// BenchmarkWakeups compares the ways to wake whoever waits for a READ, see bell.
func BenchmarkWakeups(b *testing.B) {
	m := medians(b, echoer(b), reader(b, 1, wait), reader(b, 1, waitChannel))
	b.ReportMetric(float64(m[1])/float64(m[0]), "bell/echo")
	b.ReportMetric(float64(m[2])/float64(m[0]), "channel/echo")
}
