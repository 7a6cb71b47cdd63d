package rdmatest

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doorbellsCarryImm rings with and without data, with every kind of number, at a
// queue of their own and at a shared one.
func doorbellsCarryImm(sc *scene) {
	source, target := sc.a.region(64), sc.b.region(64)
	for _, own := range []bool{true, false} {
		options := pairOptions{}
		if own {
			options.receive = sc.b.queue(rdma.CompletionQueueOptions{})
		}
		x, y := sc.a.pair(pairOptions{}), sc.b.pair(options)
		join(x, y)
		var requests []rdma.WorkRequest
		for i, imm := range []uint32{0, 1, 0xffffffff, 0x80000000, 0x01020304} {
			requests = append(requests,
				rdma.WriteImm(uint64(2*i), rdma.Local{}, rdma.RemoteRegion{}, 0, imm),
				rdma.WriteImm(uint64(2*i+1), source.local(i, 3*i), target.remote, uint64(i), imm^0x5555))
		}
		requests[2].Flags &^= rdma.Signaled
		x.complete("WRITE_IMM", requests...)
		y.rings("doorbells", requests...)
		if own {
			if got := y.cq.poll(1); len(got) > 0 {
				sc.Errorf("the send queue of a queue pair with a receive queue got %+v", got)
			}
		}
		// The other way, where sends and doorbells share a queue.
		y.complete("WRITE_IMM the other way", requests[0])
		x.rings("a doorbell the other way", requests[0])
	}
}

// doorbellsWakeWaiters throws doorbells to and fro: a wake-up that is lost stops
// the game.
func doorbellsWakeWaiters(sc *scene) {
	for _, spin := range []time.Duration{0, 50 * time.Microsecond} {
		for _, shared := range []bool{false, true} {
			options := func(n *node) pairOptions {
				o := pairOptions{send: n.queue(rdma.CompletionQueueOptions{Spin: spin})}
				if !shared {
					o.receive = n.queue(rdma.CompletionQueueOptions{Spin: spin})
				}
				return o
			}
			x, y := sc.a.pair(options(sc.a)), sc.b.pair(options(sc.b))
			join(x, y)
			volley := func(e *end, first bool) *pending {
				return e.node.begin(doVolley{e.Pair, e.cq.number, e.doorbells.number, first, sc.Rounds, sc.Bound})
			}
			there, back := volley(x, true), volley(y, false)
			take[done](there)
			take[done](back)
		}
	}
}

// idleWaitUsesNoCPU lets all nodes wait for doorbells that do not come, on
// queues that spin for a moment and on others.
func idleWaitUsesNoCPU(sc *scene) {
	nodes := []*node{sc.a, sc.b, sc.c}
	var queues []*queue
	for _, spin := range []time.Duration{0, time.Millisecond} {
		for _, n := range nodes {
			q := n.queue(rdma.CompletionQueueOptions{Spin: spin})
			x, y := n.pair(pairOptions{send: q}), sc.b.pair(pairOptions{})
			join(x, y)
			x.settle(y) // it has worked and is idle now
			queues = append(queues, q)
		}
	}
	// One goroutine that spins uses what it can get of every window: all of a quiet
	// machine, a sixth of one with a dozen who want its two processors. What the
	// suite and the runtime do is far below both, but on a busy machine, or a
	// virtual one, a window may be charged with what others did.
	var busy string
	for range 3 {
		if busy = sc.idle(nodes, queues); busy == "" {
			return
		}
	}
	sc.Errorf("%s; it was no better twice before", busy)
}

// idle lets nodes wait on idle queues for a window and says which of them was
// busy, or "".
func (sc *scene) idle(nodes []*node, queues []*queue) (busy string) {
	sc.Helper()
	var waits []*pending
	for _, q := range queues {
		waits = append(waits, q.node.begin(doWait{q.number, 1, sc.Window}))
	}
	before := make([]time.Duration, len(nodes))
	for i, n := range nodes {
		before[i] = ask[cpuTime](n, doCPUTime{}).Used
	}
	for _, w := range waits {
		if got := take[waited](w); len(got.Completions) > 0 {
			sc.Errorf("an idle queue got %+v", got.Completions)
		}
	}
	for i, n := range nodes {
		if used := ask[cpuTime](n, doCPUTime{}).Used - before[i]; used > sc.Window*time.Duration(sc.Share)/100 {
			busy = fmt.Sprintf("node %s used %v of processor time while it was idle for %v", n.name, used, sc.Window)
		}
	}
	return busy
}

func waitEnds(sc *scene) {
	for _, spin := range []time.Duration{0, 100 * time.Microsecond} {
		for _, way := range []string{"deadline", "cancel", "close", "closed"} {
			for _, waiters := range []int{1, 4} {
				q := sc.a.queue(rdma.CompletionQueueOptions{Spin: spin})
				if wrong := ask[string](sc.a, doWaitEnds{q.number, way, waiters}); wrong != "" {
					sc.Errorf("Wait (spin %v) ended by %s: %s", spin, way, wrong)
				}
			}
		}
	}
}

// doorbellsAreNeverDropped rings more often than there is room while the peer
// does not poll. Either all come in the end, or the sender learns that they did
// not.
func doorbellsAreNeverDropped(sc *scene) {
	const depth, count = 8, 40
	x := sc.a.pair(pairOptions{timeout: sc.Timeout})
	y := sc.b.pair(pairOptions{receiveDepth: depth})
	join(x, y)
	source, target := sc.a.region(8*count), sc.b.region(8*count)
	source.node.must(doCount{source.number, 100, 1})
	s := sc.anyStream("WRITE_IMM to a peer that does not poll", x.stream(doStream{
		Steps:  []step{{Request: rdma.WriteImm(0, source.local(0, 8), target.remote, 0, 0), LocalStep: 8, RemoteStep: 8, ImmStep: 1}},
		Rounds: count, Batch: count,
	}))
	if s.Done < depth {
		sc.Errorf("%d doorbells fit, %d were done, then %v", depth, s.Done, s.Status)
	}
	if s.Failed > 0 && s.Status != rdma.StatusReceiverNotReady {
		sc.Errorf("a doorbell that finds no room ends as %v, want %v", s.Status, rdma.StatusReceiverNotReady)
	}
	if s.Failed > 0 && s.Done+s.Failed != s.Posted {
		sc.Errorf("of %d posted doorbells %d are done and %d failed", s.Posted, s.Done, s.Failed)
	}
	// What is done has arrived. What failed is unknown: it may have.
	got := y.doorbells.wait("doorbells that were done", s.Done)
	got = append(got, y.doorbells.poll(count)...)
	if len(got) > s.Posted {
		sc.Errorf("%d doorbells came, %d were posted", len(got), s.Posted)
	}
	for i, c := range got {
		if want := (rdma.Completion{QP: y.Number, Op: rdma.OpReceive, Imm: uint32(i), Length: 8}); c != want {
			sc.Fatalf("doorbell %d is %+v, want %+v", i, c, want)
		}
		if word := target.load(8 * i); word != 100+uint64(i) {
			sc.Errorf("doorbell %d came, its data is %d", i, word)
		}
	}
}

// doorbellsWaitForRoom rings more often than there is room while the peer polls
// all the time. The sender takes no credits, so it may fail, but only as the
// contract says.
func doorbellsWaitForRoom(sc *scene) {
	const depth = 4
	count := sc.Rounds
	x := sc.a.pair(pairOptions{})
	y := sc.b.pair(pairOptions{receiveDepth: depth})
	join(x, y)
	slots := sc.b.region(slotSize * count)
	source := sc.a.region(slotSize * count)
	source.fill(sourceSeed)
	rings := sc.b.begin(doRings{y.doorbells.number, slots.number, count, slotSize, sc.Bound})
	s := sc.anyStream("WRITE_IMM without credits", x.stream(doStream{
		Steps:  []step{{Request: rdma.WriteImm(0, source.local(0, slotSize), slots.remote, 0, 0), LocalStep: slotSize, RemoteStep: slotSize, ImmStep: 1}},
		Rounds: count, Batch: 8,
	}))
	if s.Failed == 0 {
		if wrong := take[string](rings); wrong != "" {
			sc.Errorf("all doorbells are done, but %s", wrong)
		}
		return
	}
	if s.Status != rdma.StatusReceiverNotReady {
		sc.Errorf("a doorbell ended as %v, want %v", s.Status, rdma.StatusReceiverNotReady)
	}
	// The receiver waits for more than will come; another queue pair's doorbell is
	// not what it expects and ends it.
	z := sc.a.pair(pairOptions{})
	w := sc.b.pair(pairOptions{send: y.doorbells})
	join(z, w)
	z.complete("a last doorbell", rdma.WriteImm(1, rdma.Local{}, rdma.RemoteRegion{}, 0, 0xffffffff))
	take[string](rings)
}
