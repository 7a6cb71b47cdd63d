package sim_test

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

const us = time.Microsecond

// newFabric makes a fabric that the test closes.
func newFabric(t testing.TB, options sim.Options) *sim.Fabric {
	t.Helper()
	f := sim.New(options)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// node is a node with one region and one completion queue.
type node struct {
	t      testing.TB
	f      *sim.Fabric
	name   string
	p      *sim.Provider
	memory rdma.Region
	cq     rdma.CompletionQueue
}

func open(t testing.TB, f *sim.Fabric, name string) *node {
	t.Helper()
	n := &node{t: t, f: f, name: name}
	var err error
	n.p, err = f.Open(name)
	n.must(err)
	n.memory, err = n.p.Register(4096)
	n.must(err)
	n.cq, err = n.p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	n.must(err)
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// pair makes an unconnected queue pair, of small depths if options say nothing.
func (n *node) pair(options rdma.QueuePairOptions) rdma.QueuePair {
	n.t.Helper()
	options.SendCQ = n.cq
	options.SendDepth, options.ReceiveDepth = cmp.Or(options.SendDepth, 16), cmp.Or(options.ReceiveDepth, 16)
	qp, err := n.p.NewQueuePair(options)
	n.must(err)
	return qp
}

// join connects two nodes. The queue pairs know each other's nodes by name.
func join(a, b *node, options rdma.QueuePairOptions) (x, y rdma.QueuePair) {
	a.t.Helper()
	options.Peer = b.name
	x = a.pair(options)
	options.Peer = a.name
	y = b.pair(options)
	a.must(y.Accept(x.Address()))
	a.must(x.Connect(context.Background(), y.Address()))
	return x, y
}

func (n *node) post(qp rdma.QueuePair, requests ...rdma.WorkRequest) {
	n.t.Helper()
	_, err := qp.Post(requests)
	n.must(err)
}

// poll returns the completions that are there.
func (n *node) poll() []rdma.Completion {
	all := make([]rdma.Completion, 64)
	return all[:n.cq.Poll(all)]
}

// next steps until there is a completion and returns it alone.
func (n *node) next() rdma.Completion {
	n.t.Helper()
	var one [1]rdma.Completion
	for n.cq.Poll(one[:]) == 0 {
		if !n.f.Step() {
			n.t.Fatalf("node %s waits for a completion and nothing is left to happen", n.name)
		}
	}
	return one[0]
}

// do posts one request and steps until it has completed.
func (n *node) do(qp rdma.QueuePair, w rdma.WorkRequest) rdma.Status {
	n.t.Helper()
	n.post(qp, w)
	return n.next().Status
}

// drain executes everything that is left, which must come to an end.
func drain(f *sim.Fabric) {
	for steps := 0; f.Step(); steps++ {
		if steps > 1_000_000 {
			panic("there is no end to what is left to happen")
		}
	}
}

// seeds runs a story for many seeds and returns in how many it came to what it
// asks for, and the first of them. The seed is in the failure of any.
func seeds(t *testing.T, n int, story func(t *testing.T, seed uint64) bool) (hits int, first uint64) {
	t.Helper()
	for seed := range uint64(n) {
		if story(t, seed) {
			if hits++; hits == 1 {
				first = seed
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	return hits, first
}

func statuses(all []rdma.Completion) string {
	text := ""
	for _, c := range all {
		text += fmt.Sprintf("%d:%v ", c.ID, c.Status.Outcome())
	}
	return text
}
