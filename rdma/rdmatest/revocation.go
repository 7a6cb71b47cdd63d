package rdmatest

import (
	"errors"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// target is memory under fire: a peer streams requests that change it.
type target struct {
	scene *scene
	x, y  *end // x is the peer's
	// memory has a word that counts rounds by FAA, then, for WRITEs, bytes that each
	// of them changes.
	memory *region
	// sources are local memory of the peer.
	sources []*region
	stream  *pending
	op      rdma.Opcode
	steps   int
}

const (
	// targetSize is of the memory under fire, in bytes.
	targetSize = 1024
	// targetRows is after how many rounds the same bytes are written again.
	targetRows = 1 << 16
)

// fire begins a stream of op (FAA, WRITE, WRITE_IMM) from one node at another
// that would go on for ever, and waits until it has arrived.
func (sc *scene) fire(from, at *node, op rdma.Opcode, depth int) *target {
	sc.Helper()
	x := from.pair(pairOptions{timeout: sc.Timeout, sendDepth: depth})
	y := at.pair(pairOptions{timeout: sc.Timeout, receiveDepth: min(at.Limits.MaxReceiveDepth, 800)})
	join(x, y)
	t := &target{scene: sc, x: x, y: y, memory: at.region(targetSize), op: op}
	old := from.region(8)
	t.sources = append(t.sources, old)
	steps := []step{{Request: rdma.FAA(0, old.local(0, 8), t.memory.remote, 0, 1)}}
	if op != rdma.OpFAA {
		data := from.painted(targetRows+targetSize, sourceSeed)
		t.sources = append(t.sources, data)
		request := rdma.Write(0, data.local(0, targetSize-8), t.memory.remote, 8)
		request.Op = op // nobody polls the doorbells: as many as fit are put
		steps = []step{{Request: request, LocalStep: 1}, steps[0]}
	}
	t.steps = len(steps)
	t.stream = x.stream(doStream{Steps: steps, Rounds: endless, Wrap: targetRows, Batch: 4})
	t.memory.reach(0, 8)
	return t
}

// close frees the regions.
func (t *target) close() {
	t.scene.Helper()
	t.memory.close()
	for _, r := range t.sources {
		r.close()
	}
}

// cut revokes or closes (way) the end that is under fire. From then on nothing
// may change the memory; what the peer was told is done must be there.
func (t *target) cut(way string) {
	sc := t.scene
	sc.Helper()
	what := fmt.Sprintf("%s under %vs", way, t.op)
	c := ask[cutOff](t.y.node, doCut{t.y.Pair, way == "Close", t.memory.number, sc.Bound, sc.Window})
	if c.Changed != "" {
		sc.Errorf("%s: the memory changes afterwards: %s", what, c.Changed)
	}
	t.ended(what, c.Memory)
}

// ended waits for the end of the peer's stream and compares the memory with what
// it was when the end that was under fire was cut off.
func (t *target) ended(what string, memory []byte) {
	sc := t.scene
	sc.Helper()
	s := sc.anyStream(what, t.stream)
	if s.Failed == 0 && s.Refused == nil {
		sc.Errorf("%s: the stream of the peer ended without an error: %+v", what, s)
	}
	if after := t.memory.get(0, targetSize); string(after) != string(memory) {
		sc.Errorf("%s: the memory changed before the peer's stream ended: it was %x, is %x", what, memory, after)
	}
	t.x.broken(what + ", when the peer has noticed")
	if count := t.memory.load(0); count < uint64(s.Done/t.steps) {
		sc.Errorf("%s: %d rounds of the peer's stream were done, the owner sees %d", what, s.Done/t.steps, count)
	}
}

// revoke revokes the queue pair, which must succeed.
func (e *end) revoke() {
	e.node.Helper()
	e.node.must(doRevoke{e.Pair, e.node.scene.Bound})
}

// revocationUnderFire revokes and closes queue pairs while the peer streams.
func revocationUnderFire(sc *scene) {
	other, _ := sc.connect(sc.a, sc.b, pairOptions{})
	word, old := sc.b.region(8), sc.a.region(8)
	for i := range max(1, sc.Rounds/150) {
		for k, op := range []rdma.Opcode{rdma.OpWrite, rdma.OpFAA, rdma.OpWriteImm} {
			way := []string{"Revoke", "Close"}[(i+k)%2]
			t := sc.fire(sc.a, sc.b, op, 0)
			t.cut(way)
			if way == "Revoke" {
				t.y.broken("after Revoke")
			}
			other.complete("another queue pair", rdma.FAA(uint64(op), old.local(0, 8), word.remote, 0, 1))
			t.close()
		}
	}
}

// revocationFlushesOwn revokes a queue pair with requests of its own: each ends,
// as done or flushed.
func revocationFlushesOwn(sc *scene) {
	const depth, size = 64, 16384
	for _, way := range []string{"Revoke", "Close"} {
		for range 4 {
			x, y := sc.connect(sc.a, sc.b, pairOptions{sendDepth: depth, timeout: sc.Timeout})
			into, from := sc.a.region(size), sc.b.painted(size, sourceSeed)
			var requests []rdma.WorkRequest
			for i := range depth {
				r := rdma.Read(uint64(i), into.local(0, size), from.remote, 0)
				if i%2 == 1 && i != depth-1 {
					r.Flags = 0
				}
				requests = append(requests, r)
			}
			var end operation = doRevoke{x.Pair, sc.Bound}
			if way == "Close" {
				end = doClosePair{Pair: x.Pair}
			}
			// In one crossing, so that something is outstanding.
			sc.a.must(doAll{[]operation{doPost{Pair: x.Pair, Requests: requests}, end}})
			sc.flushed(way+" with own requests", x, requests)
			if got := x.cq.poll(1); len(got) > 0 {
				sc.Errorf("%s: a completion too many: %+v", way, got)
			}
			// The memory is ours again: nothing may write to it any more.
			into.fill(groundSeed)
			sc.a.must(doClosePair{Pair: x.Pair})
			if changed := ask[string](sc.a, doQuiet{into.number, sc.Window / 30}); changed != "" {
				sc.Errorf("%s with own requests: when all had ended, the local memory changed: %s", way, changed)
			}
			y.node.must(doClosePair{Pair: y.Pair})
			into.close()
			from.close()
		}
	}
}

// flushed takes the completions of requests that were cut off: first those that
// are done, then all others as flushed.
func (sc *scene) flushed(what string, e *end, requests []rdma.WorkRequest) {
	sc.Helper()
	flushing := false
	next := 0
	for next < len(requests) {
		c := e.cq.wait(what, 1)[0]
		for !flushing && next < len(requests) && requests[next].Flags&rdma.Signaled == 0 && c.ID != requests[next].ID {
			next++ // done without a completion
		}
		if next == len(requests) || c.ID != requests[next].ID || c.Op != requests[next].Op || c.QP != e.Number {
			sc.Fatalf("%s: the completion %+v came, request %d was next", what, c, next)
		}
		switch {
		case c.Status == rdma.StatusOK && !flushing && requests[next].Flags&rdma.Signaled != 0:
		case c.Status == rdma.StatusFlushed:
			flushing = true
		default:
			sc.Fatalf("%s: request %d ended as %+v (%v); flushed before: %v", what, next, c, c.Status, flushing)
		}
		next++
	}
}

// revocationIsAlwaysPossible revokes and closes what is idle, was never
// connected, or is gone already.
func revocationIsAlwaysPossible(sc *scene) {
	x := sc.a.pair(pairOptions{})
	x.revoke()
	x.revoke()
	sc.a.must(doClosePair{Pair: x.Pair})
	sc.a.must(doClosePair{Pair: x.Pair})

	x, y := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
	x.revoke()
	x.broken("after Revoke of an idle queue pair")
	x.revoke()
	y.revoke()
	y.broken("after Revoke when the peer had revoked")
	sc.a.must(doClosePair{Pair: x.Pair})
	sc.b.must(doClosePair{Pair: y.Pair})

	// Revoked between Accept and Connect, and between creation and Accept.
	x, y = sc.a.pair(pairOptions{timeout: sc.Timeout}), sc.b.pair(pairOptions{timeout: sc.Timeout})
	y.node.must(doAccept{y.Pair, x.Address})
	y.revoke()
	word, old := sc.b.region(8), sc.a.region(8)
	if _, err := sc.a.try(doConnect{x.Pair, y.Address, sc.Bound}); err == nil {
		// A device that does not ask the peer learns with the first request.
		if n, _ := x.tryPost(rdma.FAA(1, old.local(0, 8), word.remote, 0, 1)); n == 1 {
			if c := x.cq.wait("FAA to a peer that had revoked", 1)[0]; c.Status == rdma.StatusOK {
				sc.Errorf("a FAA to a peer that had revoked before the connection was made ended as %v", c.Status)
			}
		}
	}
	x.broken("after the peer had revoked before the connection was made")
	if got := word.load(0); got != 0 {
		sc.Errorf("a FAA to a peer that had revoked has happened: the word is %d", got)
	}
	x, y = sc.a.pair(pairOptions{}), sc.b.pair(pairOptions{})
	y.revoke()
	if _, err := sc.b.try(doAccept{y.Pair, x.Address}); err == nil {
		y.broken("after Accept of a queue pair that was revoked before")
	}

	// After a failure.
	x, y = sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
	x.post(rdma.Read(1, old.local(0, 8), rdma.RemoteRegion{}, 0))
	x.cq.wait("a READ with a wrong key", 1)
	x.revoke()
	y.revoke()
	sc.a.must(doClosePair{Pair: x.Pair})
	if _, err := sc.a.try(doRevoke{x.Pair, sc.Bound}); err != nil && !errors.Is(err, rdma.ErrClosed) {
		sc.Errorf("Revoke of a closed queue pair: %v", err)
	}
}

// unknownIsDecidedAfterReconnect cuts off a CAS, connects anew and reads: the
// word says whether the CAS has happened, and stays so.
func unknownIsDecidedAfterReconnect(sc *scene) {
	word := sc.b.region(8)
	value := uint64(0)
	for i := range max(4, min(sc.Rounds/50, 10)) {
		x, y := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
		old, found := sc.a.region(8), sc.a.region(8)
		// The revocation meets the queue pair in the middle of other work, so that
		// it is open whether the CAS goes before or after it.
		var requests []rdma.WorkRequest
		for k := range 8 * (i % 4) {
			requests = append(requests, rdma.Read(uint64(k), old.local(0, 8), word.remote, 0))
		}
		requests = append(requests, rdma.CAS(1000, old.local(0, 8), word.remote, 0, value, value+1))
		revoked := y.node.begin(doRevoke{y.Pair, sc.Bound})
		n, err := x.tryPost(requests...)
		take[done](revoked)
		status, outcome := err, rdma.NotDone // what Post does not take is not done
		if n == len(requests) {
			c := x.cq.wait("what was posted while the peer revoked", n)[n-1]
			status, outcome = c.Err(), c.Status.Outcome()
		}
		x2, _ := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
		x2.complete("READ on a new queue pair", rdma.Read(1, found.local(0, 8), word.remote, 0))
		got := found.load(0)
		if got != value && got != value+1 || outcome == rdma.Done && got == value || outcome == rdma.NotDone && got != value {
			sc.Fatalf("a CAS from %d to %d ended as %v: %v, on a new queue pair the word is %d", value, value+1, outcome, status, got)
		}
		if changed := ask[string](sc.b, doQuiet{word.number, sc.Window / 10}); changed != "" {
			sc.Fatalf("the word changes after the new connection has read it: %s", changed)
		}
		value = got
		x.node.must(doClosePair{Pair: x.Pair})
		y.node.must(doClosePair{Pair: y.Pair})
	}
}
