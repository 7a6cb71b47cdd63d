package sim_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// must is for an example only.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The reply of a CAS is lost: step by step, in one goroutine and virtual time.
func ExampleFabric_Step() {
	f := sim.New(sim.Options{Seed: 1})
	defer f.Close() //nolint:errcheck // the example ends
	a, b := must(f.Open("a")), must(f.Open("b"))
	words, old := must(b.Register(64)), must(a.Register(64))
	queueA := must(a.NewCompletionQueue(rdma.CompletionQueueOptions{}))
	queueB := must(b.NewCompletionQueue(rdma.CompletionQueueOptions{}))
	x := must(a.NewQueuePair(rdma.QueuePairOptions{Peer: "b", SendCQ: queueA, Timeout: time.Millisecond}))
	y := must(b.NewQueuePair(rdma.QueuePairOptions{Peer: "a", SendCQ: queueB}))
	fmt.Println(y.Accept(x.Address()), x.Connect(context.Background(), y.Address()))

	f.Script(sim.Rule{From: "a", To: "b", Op: rdma.OpCAS, Fate: sim.Fate{LoseReply: true}})
	must(x.Post([]rdma.WorkRequest{rdma.CAS(7, old.Local(0, 8), words.Remote(), 0, 0, 1)}))
	for f.Step() {
		var c [1]rdma.Completion
		if queueA.Poll(c[:]) > 0 {
			fmt.Printf("at %v request %d: %v\n", f.Now(), c[0].ID, c[0].Status)
		}
	}
	fmt.Println("the word is", words.Load(0))
	// Output:
	// <nil> <nil>
	// at 1ms request 7: rdma: no answer from the peer in time (outcome unknown)
	// the word is 1
}
