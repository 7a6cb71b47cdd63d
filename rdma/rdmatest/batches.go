package rdmatest

import (
	"errors"
	"slices"

	"github.com/tenure-faas/tenure/rdma"
)

// batchLargerThanQueue posts several times what fits, by hand: each part that
// is taken, each completion.
func batchLargerThanQueue(sc *scene) {
	const depth, times = 16, 5
	x, _ := sc.connect(sc.a, sc.b, pairOptions{sendDepth: depth})
	word, old := sc.b.region(8), sc.a.region(8*depth*times)
	var requests []rdma.WorkRequest
	for i := range depth * times {
		requests = append(requests, rdma.FAA(uint64(i), old.local(8*i, 8), word.remote, 0, 1))
	}
	for left := requests; len(left) > 0; {
		n, err := x.tryPost(left...)
		if want := min(depth, len(left)); n != want || (n < len(left)) != errors.Is(err, rdma.ErrQueueFull) {
			sc.Fatalf("of %d requests on an empty queue of %d, %d were taken with error %v, want %d and ErrQueueFull for the rest", len(left), depth, n, err, want)
		}
		if n == depth {
			if n, err := x.tryPost(requests[0]); n != 0 || !errors.Is(err, rdma.ErrQueueFull) {
				sc.Fatalf("a full queue takes %d more requests with error %v, want 0 and ErrQueueFull", n, err)
			}
		}
		x.expect("FAA", left[:n]...)
		left = left[n:]
	}
	found := old.words(0, depth*times)
	slices.Sort(found)
	for i, got := range found {
		if got != uint64(i) {
			sc.Fatalf("%d FAA in batches found %v", depth*times, found)
		}
	}
	if got := x.cq.poll(1); len(got) > 0 {
		sc.Errorf("a completion too many: %+v", got)
	}
}

// completionsFreeSlots checks that what was polled is free again, one by one.
func completionsFreeSlots(sc *scene) {
	const depth = 4
	x, _ := sc.connect(sc.a, sc.b, pairOptions{sendDepth: depth})
	source, target := sc.a.region(8), sc.b.region(8)
	write := func(id uint64) rdma.WorkRequest { return rdma.Write(id, source.local(0, 8), target.remote, 0) }
	x.post(write(0), write(1), write(2), write(3))
	for i := range uint64(20) {
		x.expect("the oldest WRITE", write(i))
		n, err := x.tryPost(write(i+depth), write(1000))
		if n != 1 || !errors.Is(err, rdma.ErrQueueFull) {
			sc.Fatalf("after one completion was polled, %d of 2 requests were taken with error %v, want 1 and ErrQueueFull", n, err)
		}
	}
	x.expect("the last WRITEs", write(20), write(21), write(22), write(23))
}

// unsignaledBatches streams batches of which only the last request is signaled,
// many times the queue.
func unsignaledBatches(sc *scene) {
	for _, c := range []struct{ depth, round, batch int }{{8, 8, 1}, {16, 5, 7}, {64, 3, 64}, {1, 1, 4}} {
		x, y := sc.connect(sc.a, sc.b, pairOptions{sendDepth: c.depth})
		word, old := sc.b.region(8), sc.a.region(8)
		rounds := max(sc.Rounds, 2*c.depth)
		steps := make([]step, c.round)
		for i := range steps {
			steps[i].Request = rdma.FAA(0, old.local(0, 8), word.remote, 0, 1)
			steps[i].Request.Flags = 0
		}
		steps[c.round-1].Request.Flags = rdma.Signaled
		sc.goodStream("FAA without completion", x.stream(doStream{Steps: steps, Rounds: rounds, Batch: c.batch}))
		x.settle(y)
		if got, want := word.load(0), uint64(rounds*c.round); got != want {
			sc.Errorf("depth %d: %d FAA in batches of %d rounds of %d, of which one is signaled, add up to %d", c.depth, want, c.batch, c.round, got)
		}
	}
}

// malformed are requests that Post refuses, whatever the peer has.
func malformed(limits rdma.Limits, local *region, remote rdma.RemoteRegion) map[string]rdma.WorkRequest {
	good := rdma.Write(1, local.local(0, 8), remote, 0)
	change := func(f func(*rdma.WorkRequest)) rdma.WorkRequest { r := good; f(&r); return r }
	cas := rdma.CAS(1, local.local(0, 8), remote, 0, 1, 2)
	requests := map[string]rdma.WorkRequest{
		"opcode 0":              change(func(r *rdma.WorkRequest) { r.Op = 0 }),
		"opcode RECEIVE":        change(func(r *rdma.WorkRequest) { r.Op = rdma.OpReceive }),
		"unknown opcode":        change(func(r *rdma.WorkRequest) { r.Op = 200 }),
		"CAS at address 4":      rdma.CAS(1, local.local(0, 8), remote, 4, 1, 2),
		"FAA at address 1":      rdma.FAA(1, local.local(0, 8), remote, 1, 2),
		"CAS with 4 bytes":      rdma.CAS(1, local.local(0, 4), remote, 0, 1, 2),
		"FAA with 16 bytes":     rdma.FAA(1, local.local(0, 16), remote, 0, 2),
		"inline READ":           change(func(r *rdma.WorkRequest) { r.Op, r.Flags = rdma.OpRead, rdma.Inline }),
		"inline CAS":            func() rdma.WorkRequest { r := cas; r.Flags |= rdma.Inline; return r }(),
		"inline WRITE too long": change(func(r *rdma.WorkRequest) { r.Flags |= rdma.Inline; r.Local.Length = uint32(limits.MaxInline + 1) }),
	}
	if int64(limits.MaxMessage) < 1<<32-1 {
		requests["WRITE too long"] = change(func(r *rdma.WorkRequest) { r.Local.Length = uint32(limits.MaxMessage + 1) })
		requests["READ too long"] = change(func(r *rdma.WorkRequest) { r.Op, r.Local.Length = rdma.OpRead, uint32(limits.MaxMessage+1) })
	}
	return requests
}

// malformedRequestsAreRefused posts each between good ones: what precedes it is
// done, the rest is not, and the queue pair goes on.
func malformedRequestsAreRefused(sc *scene) {
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	local, target := sc.a.region(64), sc.b.region(64)
	faa := func(id uint64) rdma.WorkRequest { return rdma.FAA(id, local.local(8, 8), target.remote, 8, 1) }
	done := uint64(0)
	for name, bad := range malformed(sc.a.Limits, local, target.remote) {
		n, err := x.tryPost(faa(1), faa(2), bad, faa(3))
		if n != 2 || !errors.Is(err, rdma.ErrInvalid) {
			sc.Fatalf("%s after two good requests: %d were taken with error %v, want 2 and ErrInvalid", name, n, err)
		}
		x.expect("what precedes "+name, faa(1), faa(2))
		done += 2
		x.settle(y)
		if got := target.load(8); got != done {
			sc.Fatalf("%s: %d FAA were taken, the sum is %d", name, done, got)
		}
		if err := x.err(); err != nil {
			sc.Fatalf("%s: the queue pair broke: %v", name, err)
		}
	}
	if got := target.load(0); got != 0 {
		sc.Errorf("a refused request wrote %#x", got)
	}
}

// err asks the queue pair for its error.
func (e *end) err() error {
	e.node.Helper()
	return ask[state](e.node, doPairErr{e.Pair}).Err.err()
}

func emptyBatchDoesNothing(sc *scene) {
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	x.post()
	x.settle(y)
	x.post()
	if got := x.cq.poll(1); len(got) > 0 {
		sc.Errorf("a completion of nothing: %+v", got)
	}
}

// inlinePayloadIsCopied overwrites the source of inline WRITEs as soon as Post
// has returned.
func inlinePayloadIsCopied(sc *scene) {
	size := min(sc.a.Limits.MaxInline, 64)
	if size == 0 {
		return // a provider may have no inline at all
	}
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	source, target := sc.a.region(size), sc.b.region(8*size)
	for range max(sc.Rounds/10, 4) {
		source.fill(sourceSeed)
		target.fill(groundSeed)
		var requests []rdma.WorkRequest
		var parts []copied
		for i := range 8 {
			r := rdma.Write(uint64(i), source.local(0, size), target.remote, uint64(i*size))
			r.Flags |= rdma.Inline
			requests = append(requests, r)
			parts = append(parts, copied{At: i * size, Length: size, Seed: sourceSeed})
		}
		p := ask[posted](sc.a, doPost{Pair: x.Pair, Requests: requests, Region: source.number, Scribble: [2]int{0, size}})
		if p.Count != len(requests) {
			sc.Fatalf("%d of %d inline WRITEs were taken: %v", p.Count, len(requests), p.Fault.err())
		}
		x.expect("inline WRITE", requests...)
		x.settle(y)
		target.verify("inline WRITE of memory that is overwritten after Post", groundSeed, parts...)
	}
}

// notConnectedIsBroken posts where nobody can get it.
func notConnectedIsBroken(sc *scene) {
	source := sc.a.region(8)
	write := rdma.Write(1, source.local(0, 8), sc.b.region(8).remote, 0)
	x := sc.a.pair(pairOptions{})
	if n, err := x.tryPost(write); n != 0 || !errors.Is(err, rdma.ErrBroken) {
		sc.Errorf("a queue pair that was never connected took %d requests with error %v, want ErrBroken", n, err)
	}
	if err := x.err(); err != nil {
		sc.Errorf("a queue pair that was never connected says that it broke: %v", err)
	}
	sc.a.must(doClosePair{Pair: x.Pair})
	if n, err := x.tryPost(write); n != 0 || !errors.Is(err, rdma.ErrClosed) && !errors.Is(err, rdma.ErrBroken) {
		sc.Errorf("a closed queue pair took %d requests with error %v, want ErrClosed", n, err)
	}
}
