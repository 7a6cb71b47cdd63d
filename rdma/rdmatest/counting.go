package rdmatest

import (
	"github.com/tenure-faas/tenure/rdma"
)

// countersCount posts a script on two queue pairs to one peer and one to
// another, and compares the counters of queue pairs and provider, also after all
// are closed.
func countersCount(sc *scene) {
	const first, second = "counted first", "counted second"
	sumFirst, sumSecond, sumReceived := tally(sc.provider(sc.a, first)), tally(sc.provider(sc.a, second)), tally(sc.provider(sc.b, first))
	local, target := sc.a.region(4096), sc.b.region(4096)
	script := []rdma.WorkRequest{
		rdma.Read(1, local.local(0, 100), target.remote, 0),
		rdma.Write(2, local.local(100, 20), target.remote, 100),
		rdma.Write(3, local.local(200, 3), target.remote, 200),
		rdma.WriteImm(4, local.local(300, 1000), target.remote, 300, 1),
		rdma.WriteImm(5, rdma.Local{}, rdma.RemoteRegion{}, 0, 2),
		rdma.CAS(6, local.local(2000, 8), target.remote, 2000, 0, 1),
		rdma.FAA(7, local.local(2008, 8), target.remote, 2008, 1),
		rdma.FAA(8, local.local(2016, 8), target.remote, 2008, 1),
	}
	script[1].Flags = 0
	script[3].Flags = 0
	var once, received tally
	for i := range script {
		once[script[i].Op].Posted++
		once[script[i].Op].Bytes += uint64(script[i].Local.Length)
		if script[i].Op == rdma.OpWriteImm {
			received[rdma.OpReceive].Posted++
			received[rdma.OpReceive].Bytes += uint64(script[i].Local.Length)
		}
	}
	var ends []*end
	for i, peer := range []string{first, first, second} {
		x, y := sc.a.pair(pairOptions{peer: peer, timeout: sc.Timeout}), sc.b.pair(pairOptions{peer: first})
		join(x, y)
		var want, wantReceived tally
		for range i + 1 {
			x.complete("a script that is counted", script...)
			y.rings("a script that is counted", script...)
			want.add(&once)
			wantReceived.add(&received)
		}
		want.check(sc, "a queue pair", sc.counted(x))
		wantReceived.check(sc, "the peer's end", sc.counted(y))
		if i == 1 { // what fails is counted twice: as posted and as failed
			want[rdma.OpRead].Posted++
			want[rdma.OpRead].Failed++
			want[rdma.OpRead].Bytes += 8
			x.post(rdma.Read(9, local.local(0, 8), rdma.RemoteRegion{}, 0))
			x.cq.wait("a READ with a wrong key", 1)
			want.check(sc, "a queue pair with a failure", sc.counted(x))
			x.broken("after a READ with a wrong key") // what Post refuses is not counted
		}
		if peer == first {
			sumFirst.add(&want)
		} else {
			sumSecond.add(&want)
		}
		sumReceived.add(&wantReceived)
		ends = append(ends, x, y)
		if i == 0 {
			x.close() // some are closed before the others are made
			y.close()
		}
	}
	for _, when := range []string{"while some queue pairs are open", "after all were closed"} {
		sumFirst.check(sc, "the provider's peer "+first+" "+when, sc.provider(sc.a, first))
		sumSecond.check(sc, "the provider's peer "+second+" "+when, sc.provider(sc.a, second))
		sumReceived.check(sc, "the other provider's peer "+first+" "+when, sc.provider(sc.b, first))
		for _, e := range ends {
			e.node.must(doClosePair{Pair: e.Pair})
		}
	}
}

// tally is what counters should be.
type tally rdma.Counters

func (t *tally) add(other *tally) { (*rdma.Counters)(t).Add((*rdma.Counters)(other)) }

// check compares. The contract does not say what the payload of an atomic is.
func (t tally) check(sc *scene, what string, got rdma.Counters) {
	sc.Helper()
	for op := rdma.OpRead; op <= rdma.OpReceive; op++ {
		want := t[op]
		if op.Atomic() {
			want.Bytes = got[op].Bytes
		}
		if got[op] != want {
			sc.Errorf("%s counts %+v for %v, want %+v", what, got[op], op, want)
		}
	}
}

// counted returns the counters of a queue pair.
func (sc *scene) counted(e *end) rdma.Counters {
	sc.Helper()
	return ask[counted](e.node, doCounters{e.Pair}).Pair
}

// provider returns a provider's counters for a peer.
func (sc *scene) provider(n *node, peer string) (c rdma.Counters) {
	sc.Helper()
	found := 0
	for _, p := range ask[counted](n, doCounters{}).Provider {
		if p.Peer == peer {
			found++
			c = p.Counters
		}
	}
	if found > 1 {
		sc.Errorf("the provider of node %s counts the peer %q %d times", n.name, peer, found)
	}
	return c
}
