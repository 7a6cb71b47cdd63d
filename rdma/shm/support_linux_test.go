package shm

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// bound is how long a test waits for what must come.
const bound = 20 * time.Second

// node is a provider with one queue pair, one region and a completion queue.
type node struct {
	t        testing.TB
	provider *Provider
	cq       rdma.CompletionQueue
	qp       *queuePair
	region   rdma.Region
}

// newNode opens a node that is closed at the end of the test.
func newNode(t testing.TB, size int, options Options, qpOptions rdma.QueuePairOptions) *node {
	t.Helper()
	if options.Directory == "" {
		options.Directory = directory(t)
	}
	p, err := Open(options)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	n := &node{t: t, provider: p, region: register(t, p, size)}
	n.cq, err = p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 4096})
	must(t, err)
	t.Cleanup(func() { must(t, n.cq.Close()) })
	n.qp = n.newPair(qpOptions)
	return n
}

// newPair makes one more queue pair of the node.
func (n *node) newPair(options rdma.QueuePairOptions) *queuePair {
	n.t.Helper()
	if options.Timeout == 0 {
		options.Timeout = bound
	}
	options.Peer, options.SendCQ = "peer", n.cq
	qp, err := n.provider.NewQueuePair(options)
	must(n.t, err)
	n.t.Cleanup(func() { _ = qp.Close() }) // tests look at its error where it matters
	return qp.(*queuePair)
}

func register(t testing.TB, p *Provider, size int) rdma.Region {
	t.Helper()
	r, err := p.Register(size)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// connect connects two queue pairs; passive is the one that accepts. It waits
// until passive has noticed.
func connect(t testing.TB, passive, active *queuePair) {
	t.Helper()
	must(t, passive.Accept(active.Address()))
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	must(t, active.Connect(ctx, passive.Address()))
	waitUntil(t, "the passive end is connected", func() bool { return passive.announced.Load() != nil })
}

// newNodes returns two connected nodes.
func newNodes(t testing.TB, size int) (a, b *node) {
	t.Helper()
	a, b = newNode(t, size, Options{}, rdma.QueuePairOptions{}), newNode(t, size, Options{}, rdma.QueuePairOptions{})
	connect(t, b.qp, a.qp)
	return a, b
}

// post posts requests, all of which must be taken.
func (n *node) post(requests ...rdma.WorkRequest) {
	n.t.Helper()
	if taken, err := n.qp.Post(requests); err != nil || taken != len(requests) {
		n.t.Fatalf("post: %d of %d taken, error %v", taken, len(requests), err)
	}
}

// next returns the next completion.
func (n *node) next() rdma.Completion {
	n.t.Helper()
	return next(n.t, n.cq)
}

func next(t testing.TB, cq rdma.CompletionQueue) rdma.Completion {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	c := make([]rdma.Completion, 1)
	if _, err := cq.Wait(ctx, c); err != nil {
		t.Fatalf("no completion: %v", err)
	}
	return c[0]
}

// do posts requests and waits for the completion of the last one.
func (n *node) do(requests ...rdma.WorkRequest) rdma.Status {
	n.t.Helper()
	n.post(requests...)
	return n.next().Status
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// directory returns a directory for sockets, whose path is short.
func directory(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("", "shm") // t.TempDir has the name of the test in its path
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(d)) })
	return d
}

// waitUntil waits for something that other goroutines or processes do.
func waitUntil(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if ok, _ := waitFor(ctx, bound, holds); !ok {
		t.Fatalf("it has not come so far in %v that %s", bound, what)
	}
}

// mappings counts the mappings of regions of this size in this process.
func mappings(t testing.TB, size uint64) (n int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	for line := range strings.Lines(string(maps)) {
		var start, end uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err == nil && end-start == size && strings.Contains(line, "memfd:tenure-region") {
			n++
		}
	}
	return n
}
