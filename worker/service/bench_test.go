package service_test

import (
	"testing"

	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// BenchmarkExecute runs the same on a worker in the process and over loopback: a
// read of one value, which leaves no record, and a function that returns its
// input, which does. The bare call is the floor: a call of the same connection
// with nothing in it.
func BenchmarkExecute(b *testing.B) {
	bed := newBed(b)
	read := ops(get("a"))
	read.Ephemeral = true
	if r := bed.w.Execute(b.Context(), ops(put("a", []byte("value")))); r.Err != nil {
		b.Fatal(r.Err)
	}
	echo := bed.handler("test", "echo", `{"from":"account-000017","to":"account-004242","amount":12}`)
	b.Run("read/direct", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := bed.w.Execute(b.Context(), read); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	})
	b.Run("read/loopback", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := bed.Execute(b.Context(), read); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	})
	b.Run("echo/direct", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := bed.w.Execute(b.Context(), echo); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	})
	b.Run("echo/loopback", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := bed.Execute(b.Context(), echo); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	})
	bare := rpcpb.NewWorkerClient(dial(b, bed.address))
	b.Run("bare call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bare.Status(b.Context(), &rpcpb.WorkerStatusRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
