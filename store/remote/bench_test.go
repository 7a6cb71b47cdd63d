package remote_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/store/remote"
)

// benchEngines runs a benchmark on an embedded engine on the disk of the
// temporary directory, and on the same through loopback.
func benchEngines(b *testing.B, run func(b *testing.B, e store.Engine)) {
	open := func(b *testing.B) *pebble.Engine {
		e, err := pebble.Open(pebble.Options{Dir: filepath.Join(b.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { closeEngine(b, e) })
		return e
	}
	b.Run("direct", func(b *testing.B) { run(b, open(b)) })
	b.Run("remote", func(b *testing.B) {
		engine := open(b)
		l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
		if err != nil {
			b.Fatal(err)
		}
		s := rpc.NewServer(rpc.Options{MaxMessage: remote.MessageBytes})
		remote.Register(s, engine, remote.ServerOptions{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Serve(l) })
		b.Cleanup(func() { s.Stop(); wg.Wait() })
		e, err := remote.Dial(l.Addr().String(), remote.Options{Member: remote.Member{Worker: 1, Incarnation: 1}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { closeEngine(b, e) })
		run(b, e)
	})
}

// BenchmarkCommit: committers append a batch of two writes of 100 bytes and wait
// for the disk, each as fast as it can.
func BenchmarkCommit(b *testing.B) {
	for _, committers := range []int{1, 64} {
		b.Run(fmt.Sprintf("committers=%d", committers), func(b *testing.B) {
			benchEngines(b, func(b *testing.B, e store.Engine) {
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for range committers {
					wg.Go(func() {
						value := make([]byte, 100)
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							batch := e.NewBatch()
							batch.Set(fmt.Appendf(nil, "d/%08d", i%100000), value)
							batch.Set(fmt.Appendf(nil, "i/%012d", i), value)
							n, err := e.Append(1, batch)
							batch.Release()
							if err == nil {
								err = e.WaitDurable(context.Background(), n)
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			})
		})
	}
}

// BenchmarkGet reads one key after the other.
func BenchmarkGet(b *testing.B) {
	benchEngines(b, func(b *testing.B, e store.Engine) {
		batch := e.NewBatch()
		for i := range 1000 {
			batch.Set(fmt.Appendf(nil, "d/%08d", i), make([]byte, 100))
		}
		n, err := e.Append(1, batch)
		if err != nil {
			b.Fatal(err)
		}
		waitDurable(b, e, n)
		b.ResetTimer()
		for i := range b.N {
			if _, found, err := e.Get(nil, fmt.Appendf(nil, "d/%08d", i%1000)); err != nil || !found {
				b.Fatal(err)
			}
		}
	})
}
