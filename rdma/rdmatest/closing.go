package rdmatest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tenure-faas/tenure/rdma"
)

// closeOrderIsEnforced closes what is in use, which must fail and change nothing,
// and then everything in order, twice.
func closeOrderIsEnforced(sc *scene) {
	n := sc.start("closing", sites["b"])
	refused := func(what string, op operation) {
		sc.Helper()
		if _, err := n.try(op); !errors.Is(err, rdma.ErrInUse) {
			sc.Errorf("closing %s: %v, want ErrInUse", what, err)
		}
	}
	twice := func(what string, op operation) {
		sc.Helper()
		for range 2 {
			if _, err := n.try(op); err != nil {
				sc.Errorf("closing %s: %v", what, err)
			}
		}
	}
	q, p, r := n.queue(rdma.CompletionQueueOptions{}), n.queue(rdma.CompletionQueueOptions{}), n.region(64)
	refused("a provider with queues and a region", doCloseProvider{})
	x, y := n.pair(pairOptions{send: q, receive: p}), sc.a.pair(pairOptions{})
	refused("a queue to which a queue pair sends", doCloseQueue{q.number})
	refused("a queue at which a queue pair receives", doCloseQueue{p.number})
	refused("a provider with a queue pair", doCloseProvider{})
	// All still works.
	join(x, y)
	local := sc.a.region(64)
	local.fill(sourceSeed)
	write := rdma.WriteImm(1, local.local(0, 64), r.remote, 0, 5)
	y.complete("WRITE_IMM to what could not be closed", write)
	x.rings("WRITE_IMM to what could not be closed", write)
	r.verify("a region that could not be closed", sourceSeed)
	x.complete("a doorbell from what could not be closed", rdma.WriteImm(2, rdma.Local{}, rdma.RemoteRegion{}, 0, 0))

	twice("a queue pair", doClosePair{Pair: x.Pair})
	refused("a provider with queues", doCloseProvider{})
	twice("a queue", doCloseQueue{q.number})
	twice("another queue", doCloseQueue{p.number})
	refused("a provider with a region", doCloseProvider{})
	twice("a region", doCloseRegion{r.number})
	twice("a provider", doCloseProvider{})
	for what, op := range map[string]operation{
		"Register": doRegister{Size: 64}, "NewCompletionQueue": doQueue{}, "NewQueuePair": doPair{SendCQ: q.number},
	} {
		if _, err := n.try(op); !errors.Is(err, rdma.ErrClosed) {
			sc.Errorf("%s of a closed provider: %v, want ErrClosed", what, err)
		}
	}
}

// completionsOutliveTheirQueuePair closes a queue pair before its completions
// are polled.
func completionsOutliveTheirQueuePair(sc *scene) {
	x, y := sc.connect(sc.a, sc.b, pairOptions{sendDepth: 8, receiveDepth: 8, timeout: sc.Timeout})
	source, target := sc.a.region(64), sc.b.region(64)
	write := rdma.WriteImm(1, source.local(0, 8), target.remote, 0, 3)
	x.post(write, write, write)
	got := y.doorbells.wait("a doorbell", 1) // at least this one is there
	x.node.must(doClosePair{Pair: x.Pair})
	y.node.must(doClosePair{Pair: y.Pair})
	flushing := false
	for i, c := range x.cq.wait("completions of a queue pair that is closed", 3) {
		flushing = flushing || c.Status == rdma.StatusFlushed
		if c.ID != 1 || c.Op != rdma.OpWriteImm || c.QP != x.Number || flushing != (c.Status == rdma.StatusFlushed) || !flushing && c.Status != rdma.StatusOK {
			sc.Errorf("completion %d of a queue pair that is closed is %+v (%v)", i, c, c.Status)
		}
	}
	for i, c := range append(got, y.doorbells.poll(8)...) {
		if want := (rdma.Completion{QP: y.Number, Op: rdma.OpReceive, Imm: 3, Length: 8}); c != want {
			sc.Errorf("doorbell %d of a queue pair that is closed is %+v, want %+v", i, c, want)
		}
	}
	// The queues have room for others again.
	for range 10 {
		v := sc.a.pair(pairOptions{send: x.cq})
		sc.a.must(doClosePair{Pair: v.Pair})
	}
}

// unpolledKeepTheirPlaces closes queue pairs whose completions nobody polls, as a
// user may who connects anew again and again. What the queue holds must stay
// within its depth: queue pairs are refused until somebody polls.
func unpolledKeepTheirPlaces(sc *scene) {
	const depth, all = 8, 64
	q := sc.a.queue(rdma.CompletionQueueOptions{Depth: all})
	peer := sc.b.pair(pairOptions{}) // nobody connects to it
	source, target := sc.a.region(8), sc.b.region(8)
	for range 2 {
		var want []rdma.Completion
		for full := false; !full; {
			v, err := sc.a.try(doPair{Options: rdma.QueuePairOptions{SendDepth: depth, ReceiveDepth: depth, Timeout: sc.Bound}, SendCQ: q.number, Accept: peer.Address})
			if full = errors.Is(err, rdma.ErrInUse); full {
				break
			}
			if err != nil {
				sc.Fatalf("a queue pair beside %d completions that nobody has polled: %v", len(want), err)
			}
			x := v.(paired)
			var requests []rdma.WorkRequest
			for range depth {
				id := uint64(len(want) + 1)
				requests = append(requests, rdma.Write(id, source.local(0, 8), target.remote, 0))
				want = append(want, rdma.Completion{ID: id, QP: x.Number, Op: rdma.OpWrite, Status: rdma.StatusFlushed})
			}
			if p := ask[posted](sc.a, doPost{Pair: x.Pair, Requests: requests}); p.Fault != nil {
				sc.Fatalf("%d of %d requests were taken before the peer has connected: %v", p.Count, depth, p.Fault)
			}
			sc.a.must(doClosePair{Pair: x.Pair})
			if len(want) > all {
				sc.Fatalf("%d completions of closed queue pairs wait in a queue of %d places", len(want), all)
			}
		}
		if len(want) == 0 {
			sc.Fatalf("an empty queue of %d places has no room for a queue pair of %d and %d", all, depth, depth)
		}
		got := q.poll(2 * all)
		if len(got) != len(want) {
			sc.Fatalf("%d completions of closed queue pairs came, want %d", len(got), len(want))
		}
		sc.a.compare("completions of closed queue pairs", got, want)
	}
}

// optionsAreChecked asks for what is malformed and for too much.
func optionsAreChecked(sc *scene) {
	l := sc.a.Limits
	if l.MaxMessage < 4096 || l.MaxSendDepth < 128 || l.MaxReceiveDepth < 128 || l.MaxCompletions < 1024 || l.MaxRegion < 1<<20 || l.MaxInline < 0 {
		sc.Errorf("the limits %+v do not allow the defaults", l)
	}
	q := sc.a.queue(rdma.CompletionQueueOptions{Depth: 300})
	closed := sc.a.queue(rdma.CompletionQueueOptions{})
	sc.a.must(doCloseQueue{closed.number})
	type options = rdma.QueuePairOptions
	for _, c := range []struct {
		what string
		op   operation
		want []error
	}{
		{"a region of no bytes", doRegister{Size: 0}, []error{rdma.ErrInvalid}},
		{"a region of -1 bytes", doRegister{Size: -1}, []error{rdma.ErrInvalid}},
		{"a region that is too large", doRegister{Size: l.MaxRegion + 1}, []error{rdma.ErrInvalid, rdma.ErrInUse}},
		{"a queue of -1", doQueue{rdma.CompletionQueueOptions{Depth: -1}}, []error{rdma.ErrInvalid}},
		{"a queue that spins for -1ns", doQueue{rdma.CompletionQueueOptions{Spin: -1}}, []error{rdma.ErrInvalid}},
		{"a queue that is too long", doQueue{rdma.CompletionQueueOptions{Depth: l.MaxCompletions + 1}}, []error{rdma.ErrInvalid, rdma.ErrInUse}},
		{"a queue pair without a queue", doPair{}, []error{rdma.ErrInvalid}},
		{"a queue pair with a closed queue", doPair{SendCQ: closed.number}, []error{rdma.ErrClosed}},
		{"a queue pair with a closed receive queue", doPair{SendCQ: q.number, ReceiveCQ: closed.number}, []error{rdma.ErrClosed}},
		{"a send depth of -1", doPair{Options: options{SendDepth: -1}, SendCQ: q.number}, []error{rdma.ErrInvalid}},
		{"a receive depth of -1", doPair{Options: options{ReceiveDepth: -1}, SendCQ: q.number}, []error{rdma.ErrInvalid}},
		{"a timeout of -1ns", doPair{Options: options{Timeout: -1}, SendCQ: q.number}, []error{rdma.ErrInvalid}},
		{"a send depth that is too large", doPair{Options: options{SendDepth: l.MaxSendDepth + 1}, SendCQ: q.number}, []error{rdma.ErrInvalid, rdma.ErrInUse}},
		{"a receive depth that is too large", doPair{Options: options{ReceiveDepth: l.MaxReceiveDepth + 1}, SendCQ: q.number}, []error{rdma.ErrInvalid, rdma.ErrInUse}},
		{"a peer's name of 65 bytes", doPair{Options: options{Peer: strings.Repeat("x", 65)}, SendCQ: q.number}, []error{rdma.ErrInvalid}},
		{"more depth than the queue has", doPair{Options: options{SendDepth: 200, ReceiveDepth: 101}, SendCQ: q.number}, []error{rdma.ErrInUse, rdma.ErrInvalid}},
	} {
		_, err := sc.a.try(c.op)
		ok := false
		for _, want := range c.want {
			ok = ok || errors.Is(err, want)
		}
		if !ok {
			sc.Errorf("%s: error %v, want %v", c.what, err, c.want)
		}
	}
	// What was refused has reserved nothing.
	x := sc.a.pair(pairOptions{send: q, sendDepth: 200, receiveDepth: 100, peer: strings.Repeat("y", 64)})
	sc.a.must(doClosePair{Pair: x.Pair})
}

// limitsHold asks for as much as the limits allow.
func limitsHold(sc *scene) {
	l := sc.a.Limits
	q := sc.a.queue(rdma.CompletionQueueOptions{Depth: l.MaxCompletions})
	send := min(l.MaxSendDepth, l.MaxCompletions-1)
	x, y := sc.a.pair(pairOptions{send: q, sendDepth: send, receiveDepth: 1}), sc.b.pair(pairOptions{})
	join(x, y)
	word, old := sc.b.region(8), sc.a.region(8)
	n := min(send, 20*sc.Rounds)
	sc.goodStream(fmt.Sprintf("%d FAA in a queue of %d", n, send), x.stream(doStream{
		Steps: []step{{Request: rdma.FAA(0, old.local(0, 8), word.remote, 0, 1)}}, Rounds: n, Batch: n,
	}))
	x.settle(y)
	if got := word.load(0); got != uint64(n) {
		sc.Errorf("%d FAA in one batch add up to %d", n, got)
	}
}
