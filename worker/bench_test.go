package worker_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// BenchmarkTransfer is the native transfer without HTTP and without a disk:
// the allocations and the CPU of one transaction, by a worker that is alone and by
// one of four, which holds all the leases.
func BenchmarkTransfer(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		engine, err := pebble.Open(pebble.Options{Dir: "db", FS: vfs.NewMem()})
		if err != nil {
			b.Fatal(err)
		}
		w, err := worker.New(worker.Options{View: 1}, engine)
		if err != nil {
			b.Fatal(err)
		}
		transfers(b, w)
		if err := engine.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("of four", func(b *testing.B) {
		c := newCluster(b, 4, worker.Options{}, nil)
		transfers(b, c.members[1].w)
	})
}

func transfers(b *testing.B, w *worker.Worker) {
	bundle, err := native.New(bank.Handlers())
	if err != nil {
		b.Fatal(err)
	}
	def, err := workflow.Parse([]byte(`
functions:
  withdraw: {function: bank, writes: ["accounts/{from}"]}
  deposit: {function: bank, writes: ["accounts/{to}"], after: [withdraw]}
output: deposit
`), workflow.YAML)
	if err != nil {
		b.Fatal(err)
	}
	flow, err := workflow.Compile("transfer", def, resolver{bundle})
	if err != nil {
		b.Fatal(err)
	}
	const accounts = 10_000
	inputs := make([][]byte, 4096)
	for i := range inputs {
		from := rand.IntN(accounts)
		inputs[i] = fmt.Appendf(nil, `{"from":"a%d","to":"a%d","amount":1}`, from, (from+1+rand.IntN(accounts-1))%accounts)
	}
	for i := range accounts {
		if err := w.Load(b.Context(), []worker.Op{{
			Kind: worker.OpPut, Key: keyOf("accounts", fmt.Sprint("a", i)), Value: []byte("1000000"),
		}}); err != nil {
			b.Fatal(err)
		}
	}
	bundles := []runtime.Bundle{bundle, bundle}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		r := w.Execute(b.Context(), &worker.Request{
			ID: newID(), Name: "transfer", Flow: flow, Bundles: bundles, Input: inputs[n%len(inputs)],
		})
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	b.StopTimer()
}

// resolver knows one function, bank.
type resolver struct{ bundle runtime.Bundle }

// Handlers implements workflow.Resolver.
func (r resolver) Handlers(string) ([]string, bool) { return r.bundle.Handlers(), true }
