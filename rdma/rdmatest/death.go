package rdmatest

import (
	"syscall"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// kill ends a node without a word: with SIGKILL, or, in this process, by closing
// all it has.
func (n *node) kill() {
	n.Helper()
	if c := n.scene.session.cluster; c.processes() {
		if _, err := n.try(doDie{}); err == nil {
			n.Fatalf("node %s answers after SIGKILL", n.name)
		}
	} else {
		c.kill(n.name)
		if _, err := n.try(doFinish{}); err != nil {
			n.Errorf("node %s cannot be closed abruptly: %v", n.name, err)
		}
	}
	n.gone()
}

// survivors runs a behaviour twice: node a survives a peer at the other site, and
// node b one at this site. Afterwards a fresh node must be able to work with the
// survivor.
func (sc *scene) survivors(run func(survivor, victim *node)) {
	sc.Helper()
	for _, s := range []struct {
		survivor *node
		site     int
	}{{sc.a, sites["b"]}, {sc.b, sites["a"]}} {
		victim := sc.start("victim", s.site)
		run(s.survivor, victim)
		if !victim.dead {
			victim.finish()
		}
		fresh := sc.start("successor", s.site)
		x, y := sc.connect(s.survivor, fresh, pairOptions{})
		x.settle(y)
		y.settle(x)
		word, old := s.survivor.region(8), fresh.region(8)
		y.complete("FAA of a fresh node", rdma.FAA(1, old.local(0, 8), word.remote, 0, 5))
		y.settle(x)
		if got := word.load(0); got != 5 {
			sc.Errorf("the FAA of a fresh node made %d of 0", got)
		}
		fresh.finish()
	}
}

// learns posts one request to a peer that is dead, if that is taken. The queue
// pair must break within a bound, all requests must end, and it must close.
func (e *end) learns(when string, request rdma.WorkRequest) {
	e.node.Helper()
	sc := e.node.scene
	request.ID, request.Flags = 4711, rdma.Signaled
	if n, err := e.tryPost(request); n == 1 {
		// A request may go well for a while, where the memory outlives its owner.
		c := e.cq.wait("a request after "+when, 1)[0]
		if c.ID != request.ID || c.Status != rdma.StatusOK && c.Status.Outcome() != rdma.Unknown {
			sc.Errorf("a request after %s ended as %+v (%v)", when, c, c.Status)
		}
	} else if e.err() == nil {
		sc.Errorf("after %s Post says %v and the queue pair is not broken", when, err)
	}
	if !ask[broke](e.node, doAwaitBroken{e.Pair, sc.Bound}).Yes {
		sc.Fatalf("%v after %s and a request the queue pair is not broken", sc.Bound, when)
	}
	e.broken("after " + when)
	e.revoke()
	e.node.must(doClosePair{Pair: e.Pair})
}

func peerDiesBeforeConnect(sc *scene) {
	sc.survivors(func(survivor, victim *node) {
		o := pairOptions{timeout: sc.Timeout}
		memory, local := victim.region(4096), survivor.region(64)
		read := rdma.Read(1, local.local(0, 64), memory.remote, 0)
		accepted, asked, made := survivor.pair(o), survivor.pair(o), survivor.pair(o)
		peer1, peer2, peer3 := victim.pair(o), victim.pair(o), victim.pair(o)
		// One end has accepted, the victim would connect next.
		survivor.must(doAccept{accepted.Pair, peer1.Address})
		// The victim has accepted, this end would connect next.
		victim.must(doAccept{peer2.Pair, asked.Address})
		// Nobody has done anything but make queue pairs.
		victim.kill()
		accepted.learns("the death of a peer that had not connected", read)
		if _, err := survivor.try(doConnect{asked.Pair, peer2.Address, sc.Bound}); err == nil {
			asked.learns("Connect to a dead peer that had accepted", read)
		} else {
			asked.broken("after Connect to a dead peer failed")
		}
		if _, err := survivor.try(doAccept{made.Pair, peer3.Address}); err == nil {
			made.learns("Accept of a dead peer", read)
		}
	})
}

func peerDiesIdle(sc *scene) {
	sc.survivors(func(survivor, victim *node) {
		memory, local := victim.region(4096), survivor.region(64)
		var ends []*end
		requests := verbsOf(local, 64)
		for i := range requests {
			x, y := survivor.pair(pairOptions{timeout: sc.Timeout}), victim.pair(pairOptions{timeout: sc.Timeout})
			if i%2 == 0 {
				join(x, y)
			} else {
				join(y, x)
			}
			x.settle(y)
			ends = append(ends, x)
		}
		// One that waits for doorbells of the victim is woken by its own failure.
		waiting := ends[0].doorbells.begin(1)
		victim.kill()
		requests[0].RemoteAddr, requests[0].RKey, requests[0].ID, requests[0].Flags = memory.remote.Addr, memory.remote.RKey, 1, rdma.Signaled
		if n, _ := ends[0].tryPost(requests[0]); n == 1 {
			ends[0].doorbells.taken("a request posted to a dead peer while another waits for its doorbells", 1, waiting)
		} else {
			ends[0].close() // which wakes it as well
			take[waited](waiting)
		}
		for i, x := range ends {
			requests[i].RemoteAddr, requests[i].RKey = memory.remote.Addr, memory.remote.RKey
			if i > 0 {
				x.learns("the death of an idle peer", requests[i])
			}
		}
	})
}

func peerDiesUnderRequests(sc *scene) {
	sc.survivors(func(survivor, victim *node) {
		memory, local := victim.region(targetSize), survivor.region(targetSize)
		marks := survivor.region(8 * 8)
		var streams []*pending
		var ends []*end
		for i, request := range verbsOf(local, 512) {
			x, y := sc.connect(survivor, victim, pairOptions{timeout: sc.Timeout})
			request.RemoteAddr, request.RKey = memory.remote.At(uint64(8*i)), memory.remote.RKey
			steps := []step{{Request: request}}
			if request.Op == rdma.OpWriteImm {
				// Nobody takes the doorbells: a stream of them fails by itself. A few
				// are outstanding when the victim dies.
				request.Flags = 0
				steps = []step{{Request: request}, {Request: rdma.Read(0, local.local(0, 8), memory.remote, 0)}}
			}
			// The streams go both ways, and a word says that this one has begun.
			streams = append(streams, x.stream(doStream{Steps: steps, Rounds: endless, Batch: 2, Window: 8}))
			back := victim.region(8)
			y.stream(doStream{Steps: []step{{Request: rdma.FAA(0, back.local(0, 8), marks.remote, uint64(8*i), 1)}}, Rounds: endless, Batch: 2, Window: 8})
			ends = append(ends, x)
		}
		for i := range ends {
			if i != 2 { // the stream of doorbells may have failed already
				marks.reach(8*i, 3)
			}
		}
		victim.kill()
		for i, p := range streams {
			if s := sc.anyStream("a stream to a peer that dies", p); s.Failed == 0 && s.Refused == nil {
				sc.Errorf("stream %d to a peer that died ended without an error: %+v", i, s)
			}
			ends[i].broken("after the death of the peer under requests")
			ends[i].revoke()
		}
		if changed := ask[string](survivor, doQuiet{marks.number, sc.Window / 10}); changed != "" {
			sc.Errorf("after all queue pairs to a dead peer were revoked, what it wrote to changes: %s", changed)
		}
	})
}

// peerDiesWhileRevoked revokes a queue pair whose peer streams and dies at the
// same time, and one whose peer is dead.
func peerDiesWhileRevoked(sc *scene) {
	sc.survivors(func(survivor, victim *node) {
		during, after := sc.fire(victim, survivor, rdma.OpWrite, 16), sc.fire(victim, survivor, rdma.OpFAA, 16)
		cut := survivor.begin(doCut{during.y.Pair, false, during.memory.number, sc.Bound, sc.Window})
		victim.kill()
		if c := take[cutOff](cut); c.Changed != "" {
			sc.Errorf("Revoke while the peer dies: the memory changes afterwards: %s", c.Changed)
		}
		if c := ask[cutOff](survivor, doCut{after.y.Pair, false, after.memory.number, sc.Bound, sc.Window}); c.Changed != "" {
			sc.Errorf("Revoke when the peer is dead: the memory changes afterwards: %s", c.Changed)
		}
		during.y.broken("after Revoke while the peer dies")
		after.y.broken("after Revoke when the peer is dead")
	})
}

// peerStopsUnderTrickle stops the process of a peer while small requests go on
// being posted, at a pace that keeps some of them young at any time. That they can
// be posted says nothing of the peer: the queue pair must break as if there had
// been one, unless the memory stays within reach and they are done.
func peerStopsUnderTrickle(sc *scene) {
	const enough = 16
	sc.survivors(func(survivor, victim *node) {
		waker := sc.b
		if victim.site == sc.a.site {
			waker = sc.a
		}
		depth := min(800, survivor.Limits.MaxSendDepth) // with the doorbells it fits into a queue
		x, y := sc.connect(survivor, victim, pairOptions{timeout: sc.Timeout, sendDepth: depth})
		memory, local := victim.region(64), survivor.region(64)
		x.settle(y)
		waker.must(doSignal{victim.PID, syscall.SIGSTOP})
		defer func() { // whatever happens: nobody waits for it any more
			if _, err := waker.try(doSignal{victim.PID, syscall.SIGKILL}); err != nil {
				sc.Errorf("kill the stopped peer: %v", err)
			}
			victim.gone()
		}()
		s := ask[trickled](survivor, doTrickle{
			Pair: x.Pair, Queue: x.cq.number, Request: rdma.Write(0, local.local(0, 64), memory.remote, 0),
			Pace: sc.Timeout / 8, Enough: enough, Bound: patience(sc.Timeout),
		})
		switch {
		case s.Done >= enough && s.Failed == 0: // its device, or another mapping, goes on
		case s.Failed == 0:
			sc.Errorf("a peer that was stopped is not noticed after %v, while %d requests were posted: %d are done and none has failed", patience(sc.Timeout), s.Posted, s.Done)
		case s.Status.Outcome() != rdma.Unknown || s.Done+s.Failed != s.Posted:
			sc.Errorf("requests to a peer that was stopped ended as %v: %+v", s.Status, s)
		default:
			x.broken("when the peer was stopped")
		}
		x.node.must(doClosePair{Pair: x.Pair})
	})
}

// patience is how long the contract lets a queue pair take to find out that its
// peer is silent.
func patience(timeout time.Duration) time.Duration { return 24*timeout + 4*time.Second }

// peerStops stops the process of a peer. Its memory may stay within reach, as
// behind a device, or not. Nothing may hang, and Revoke must keep its word when
// the process goes on.
func peerStops(sc *scene) {
	sc.survivors(func(survivor, victim *node) {
		// Somebody else on the victim's machine wakes it up again.
		waker := sc.b
		if victim.site == sc.a.site {
			waker = sc.a
		}
		x, y := sc.connect(survivor, victim, pairOptions{timeout: sc.Timeout})
		memory, local := victim.region(4096), survivor.region(4096)
		x.settle(y)
		t := sc.fire(victim, survivor, rdma.OpWrite, 16)
		waker.must(doSignal{victim.PID, syscall.SIGSTOP})
		stopped := true
		defer func() {
			if stopped { // the behaviour has failed
				_, _ = waker.try(doSignal{victim.PID, syscall.SIGCONT})
			}
		}()
		s := sc.anyStream("WRITEs to a stopped peer", x.stream(doStream{Steps: []step{{Request: rdma.Write(0, local.local(0, 4096), memory.remote, 0)}}, Rounds: 20}))
		if s.Failed > 0 && s.Status.Outcome() != rdma.Unknown {
			sc.Errorf("a WRITE to a stopped peer ended as %v", s.Status)
		}
		v, err := survivor.try(doCut{t.y.Pair, false, t.memory.number, sc.Bound, sc.Window})
		survivor.must(doClosePair{Pair: x.Pair})
		if err != nil {
			// Nothing is certain then, but that the peer can be killed.
			sc.Logf("Revoke when the peer is stopped: %v", err)
			stopped = false
			waker.must(doSignal{victim.PID, syscall.SIGKILL})
			victim.gone()
			return
		}
		if c := v.(cutOff); c.Changed != "" {
			sc.Errorf("Revoke when the peer is stopped: the memory changes afterwards: %s", c.Changed)
		}
		look := survivor.begin(doQuiet{t.memory.number, sc.Window})
		stopped = false
		if _, err := waker.try(doSignal{victim.PID, syscall.SIGCONT}); err != nil {
			sc.Logf("wake the peer up: %v", err) // Revoke may have had to kill it
		}
		if changed := take[string](look); changed != "" {
			sc.Errorf("Revoke when the peer was stopped, which goes on now: the memory changes: %s", changed)
		}
		if _, err := victim.try(doHandles{}); err != nil {
			sc.Logf("Revoke has killed the stopped peer: %v", err)
			victim.gone()
			return
		}
		t.ended("Revoke when the peer was stopped", v.(cutOff).Memory)
	})
}
