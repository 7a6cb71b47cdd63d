package rdmatest

import (
	"errors"

	"github.com/tenure-faas/tenure/rdma"
)

// manyPostersAndWaiters lets goroutines post on one queue pair at the same time,
// and several wait for what comes of it.
func manyPostersAndWaiters(sc *scene) {
	for _, waiters := range []int{1, 3} {
		x, y := sc.connect(sc.a, sc.b, pairOptions{sendDepth: 64})
		old, word := sc.a.region(8), sc.b.region(8)
		op := doHammer{
			Pair: x.Pair, Queue: x.cq.number, Request: rdma.FAA(0, old.local(0, 8), word.remote, 0, 1),
			Posters: 8, Batches: max(sc.Rounds/20, 3), Length: 5, Waiters: waiters, Bound: sc.Bound,
		}
		if wrong := ask[string](sc.a, op); wrong != "" {
			sc.Fatalf("%d goroutines post, %d wait: %s", op.Posters, waiters, wrong)
		}
		x.settle(y)
		if got, want := word.load(0), uint64(op.Posters*op.Batches*op.Length); got != want {
			sc.Errorf("%d FAA by %d goroutines add up to %d", want, op.Posters, got)
		}
	}
}

// othersComeAndGo makes and closes regions, queues and queue pairs while a
// stream runs between the same nodes.
func othersComeAndGo(sc *scene) {
	x, _ := sc.connect(sc.a, sc.b, pairOptions{})
	source, target := sc.a.region(4096), sc.b.region(4096)
	source.fill(sourceSeed)
	streams := []*pending{x.stream(doStream{Steps: []step{{Request: rdma.Write(0, source.local(0, 4096), target.remote, 0)}}, Rounds: 4 * sc.Rounds, Batch: 4})}
	back, _ := sc.connect(sc.b, sc.a, pairOptions{})
	into := sc.b.region(4096)
	streams = append(streams, back.stream(doStream{Steps: []step{{Request: rdma.Read(0, into.local(0, 4096), source.remote, 0)}}, Rounds: 4 * sc.Rounds, Batch: 4}))
	for range max(sc.Rounds/20, 3) {
		v, w := sc.connect(sc.b, sc.a, pairOptions{})
		small := sc.a.region(100)
		v.complete("READ of a region that comes and goes", rdma.Read(1, into.local(0, 0), small.remote, 0))
		v.settle(w)
		v.close()
		w.close()
		small.close()
	}
	for _, s := range streams {
		sc.goodStream("a stream while others come and go", s)
	}
	into.verify("what the stream has read", sourceSeed)
}

// close closes the queue pair and the queue that was made for it.
func (e *end) close() {
	e.node.Helper()
	e.last()
}

// last is close and returns the completions that nobody had taken.
func (e *end) last() []rdma.Completion {
	e.node.Helper()
	return ask[waited](e.node, doClosePair{e.Pair, e.cq.number}).Completions
}

// reconnectManyTimes connects, uses and closes queue pairs again and again.
func reconnectManyTimes(sc *scene) {
	word, old := sc.b.region(8), sc.a.region(8)
	q, p := sc.a.queue(rdma.CompletionQueueOptions{}), sc.b.queue(rdma.CompletionQueueOptions{})
	cycles := max(sc.Rounds/10, 5)
	for i := range cycles {
		x, y := sc.a.pair(pairOptions{send: q}), sc.b.pair(pairOptions{send: p})
		if i%2 == 0 {
			join(x, y)
		} else {
			join(y, x)
		}
		faa := rdma.FAA(uint64(i), old.local(0, 8), word.remote, 0, 1)
		x.complete("FAA on a new queue pair", faa)
		if got := old.load(0); got != uint64(i) {
			sc.Fatalf("FAA on queue pair %d finds %d", i, got)
		}
		if i%3 == 0 { // who goes first makes no difference
			x, y = y, x
		}
		x.node.must(doClosePair{Pair: x.Pair})
		y.node.must(doClosePair{Pair: y.Pair})
		y.node.must(doClosePair{Pair: y.Pair})
	}
}

// acceptedMayPostFirst posts on the passive end before the peer has connected.
func acceptedMayPostFirst(sc *scene) {
	x, y := sc.a.pair(pairOptions{}), sc.b.pair(pairOptions{})
	source, target := sc.b.region(64), sc.a.region(64)
	source.fill(sourceSeed)
	target.fill(groundSeed)
	y.node.must(doAccept{y.Pair, x.Address})
	write := rdma.WriteImm(7, source.local(8, 8), target.remote, 16, 99)
	y.post(write)
	x.node.must(doConnect{x.Pair, y.Address, sc.Bound})
	y.expect("WRITE_IMM that was posted before the peer connected", write)
	x.rings("WRITE_IMM that was posted before the peer connected", write)
	target.verify("WRITE_IMM that was posted before the peer connected", groundSeed, copied{At: 16, Length: 8, Seed: sourceSeed, From: 8})

	// If the peer never connects, the requests fail.
	v, w := sc.a.pair(pairOptions{}), sc.b.pair(pairOptions{timeout: sc.Timeout})
	w.node.must(doAccept{w.Pair, v.Address})
	w.post(write)
	if got := w.cq.wait("WRITE_IMM to a peer that never connects", 1)[0]; got.Status.Outcome() != rdma.Unknown || got.ID != write.ID {
		sc.Errorf("a WRITE_IMM to a peer that never connects ended as %+v (%v), want %v", got, got.Status, rdma.StatusUnreachable)
	}
	w.broken("after a request that nobody answered")
}

// broken checks that the queue pair is broken: it says why and takes nothing.
func (e *end) broken(when string) {
	e.node.Helper()
	e.refuses(when, ask[state](e.node, doPairErr{e.Pair}))
}

// refuses checks the answer to doPairErr.
func (e *end) refuses(when string, s state) {
	e.node.Helper()
	switch {
	case s.Err == nil:
		e.node.Errorf("%s, Err of the queue pair of node %s is nil", when, e.node.name)
	case s.Count != 0 || !errors.Is(s.Post.err(), rdma.ErrBroken):
		e.node.Errorf("%s, the queue pair of node %s took %d requests with error %v, want ErrBroken", when, e.node.name, s.Count, s.Post.err())
	}
}

// badAddresses gives Accept and Connect what is no address.
func badAddresses(sc *scene) {
	for _, address := range [][]byte{{}, {1}, make([]byte, rdma.MaxAddress+1)} {
		x := sc.a.pair(pairOptions{timeout: sc.Timeout})
		if _, err := sc.a.try(doAccept{x.Pair, address}); err == nil {
			sc.Errorf("an address of %d bytes was accepted", len(address))
		}
		y := sc.a.pair(pairOptions{timeout: sc.Timeout})
		if _, err := sc.a.try(doConnect{y.Pair, address, sc.Bound}); err == nil {
			sc.Errorf("an address of %d bytes was connected to", len(address))
		}
		y.broken("after a Connect that failed")
	}
}
