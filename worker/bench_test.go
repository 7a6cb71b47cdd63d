package worker_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

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
	transfer := newTransfers(b, w)
	b.ReportAllocs()
	for b.Loop() {
		transfer()
	}
	b.StopTimer()
}

// newTransfers fills the accounts, so that all their leases are here, and returns
// what does one transfer.
func newTransfers(b *testing.B, w *worker.Worker) func() {
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
	n := 0
	return func() {
		n++
		r := w.Execute(b.Context(), &worker.Request{
			ID: newID(), Name: "transfer", Flow: flow, Bundles: bundles, Input: inputs[n%len(inputs)],
		})
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

// BenchmarkLocalHits is BenchmarkTransfer by a worker that is alone and by one of
// four in turns, so that both meet the same machine, counted in the CPU time of the
// whole process: medians over the rounds, and of the rounds' ratios.
func BenchmarkLocalHits(b *testing.B) {
	const round = 500
	engine, err := pebble.Open(pebble.Options{Dir: "db", FS: vfs.NewMem()})
	if err != nil {
		b.Fatal(err)
	}
	w, err := worker.New(worker.Options{View: 1}, engine)
	if err != nil {
		b.Fatal(err)
	}
	c := newCluster(b, 4, worker.Options{}, nil)
	alone, ofFour := newTransfers(b, w), newTransfers(b, c.members[1].w)
	var ones, fours, ratios []float64
	for b.Loop() {
		one, four := cpuOf(b, round, alone), cpuOf(b, round, ofFour)
		ones, fours, ratios = append(ones, one), append(fours, four), append(ratios, four/one)
	}
	b.ReportMetric(middle(ones), "one-cpu-us")
	b.ReportMetric(middle(fours), "four-cpu-us")
	b.ReportMetric(middle(ratios), "four/one")
	if err := engine.Close(); err != nil {
		b.Fatal(err)
	}
}

// cpuOf is the CPU time in microseconds that each of n calls takes.
func cpuOf(b *testing.B, n int, do func()) float64 {
	before := cpuTime(b)
	for range n {
		do()
	}
	return float64((cpuTime(b) - before).Nanoseconds()) / 1000 / float64(n)
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func middle(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// resolver knows one function, bank.
type resolver struct{ bundle runtime.Bundle }

// Handlers implements workflow.Resolver.
func (r resolver) Handlers(string) ([]string, bool) { return r.bundle.Handlers(), true }
