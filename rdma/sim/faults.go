package sim

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// must returns the node of a scripted fault. A wrong name is a fault of the
// program.
func (f *Fabric) must(name string) *node {
	n, err := f.node(name)
	if err != nil {
		panic(fmt.Sprintf("sim: %v", err))
	}
	return n
}

// Crash is the sudden death of a node. Its memory is out of the reach of its
// peers, who are not told; what it had posted may still take effect (see
// Faults.Late). All calls on its handles fail with ErrClosed, but for the Close
// of each; its memory stays mapped, for nobody, until its provider or the fabric
// is closed, which needs no handle of it to be closed before. Open starts the
// node again, empty. A node that is not open does not notice.
func (f *Fabric) Crash(name string) {
	f.lock()
	defer f.mu.Unlock()
	n := f.must(name)
	f.noteNode(noteCrash, n)
	if n.provider != nil {
		n.provider.kill()
	}
	f.notify()
}

// Partition cuts the links between two nodes, both ways; nodes that are not open
// yet are known by name. What was sent and has not arrived waits for Heal.
func (f *Fabric) Partition(a, b string) {
	f.PartitionOneWay(a, b)
	f.PartitionOneWay(b, a)
}

// PartitionOneWay cuts one direction only: requests of from do not reach to, and
// replies of from to the requests of to are not heard.
func (f *Fabric) PartitionOneWay(from, to string) {
	f.lock()
	defer f.mu.Unlock()
	a, b := f.must(from), f.must(to)
	f.noteLink(noteCut, a, b)
	if a != b {
		f.cut[link{a.index, b.index}] = true
	}
}

// Heal mends the links between two nodes, both ways.
func (f *Fabric) Heal(a, b string) {
	f.lock()
	defer f.mu.Unlock()
	n, m := f.must(a), f.must(b)
	f.noteLink(noteHeal, n, m)
	delete(f.cut, link{n.index, m.index})
	delete(f.cut, link{m.index, n.index})
	f.unpark()
	f.notify()
}

// HealAll mends all links.
func (f *Fabric) HealAll() {
	f.lock()
	defer f.mu.Unlock()
	f.noteLink(noteHeal, nil, nil)
	clear(f.cut)
	f.unpark()
	f.notify()
}

// Pause stops the device of a node: it executes nothing for others, sends
// nothing that is posted, hears no reply, and no time-out of its own passes. What
// it had sent goes on.
func (f *Fabric) Pause(name string) {
	f.lock()
	defer f.mu.Unlock()
	n := f.must(name)
	f.noteNode(notePause, n)
	n.paused = true
}

// Resume lets a paused device go on. It sees time-outs that have passed
// meanwhile before it hears what has arrived meanwhile.
func (f *Fabric) Resume(name string) {
	f.lock()
	defer f.mu.Unlock()
	n := f.must(name)
	f.noteNode(noteResume, n)
	n.paused = false
	if n.provider != nil {
		for _, q := range n.provider.queuePairs {
			f.arm(q)
		}
	}
	f.unpark()
	f.notify()
}

// connect joins two ends.
func (f *Fabric) connect(q, peer *queuePair) {
	q.peer, peer.peer = peer, q
	f.noteEnd(noteConnect, q)
	f.unpark()
}

// reachable says whether q can connect to what it addresses, and to which end.
func (f *Fabric) reachable(q *queuePair, to address) (*queuePair, error) {
	n := f.byName[to.name]
	if n == nil || n.provider == nil {
		return nil, fmt.Errorf("connect to %s: the node is not there: %w", to.name, rdma.StatusUnreachable)
	}
	own := q.provider.node
	if n.paused || own.paused || f.cut[link{own.index, n.index}] || f.cut[link{n.index, own.index}] {
		return nil, fmt.Errorf("connect to %s: no answer: %w", to.name, rdma.StatusUnreachable)
	}
	for _, peer := range n.provider.queuePairs {
		if peer.number != to.number {
			continue
		}
		if peer == q {
			return peer, nil
		}
		if peer.state != stateAccepted || peer.remote != q.local() {
			return nil, fmt.Errorf("connect to queue pair %d of %s: it has not accepted this one: %w", to.number, to.name, rdma.ErrBroken)
		}
		return peer, nil
	}
	return nil, fmt.Errorf("connect to queue pair %d of %s: there is none: %w", to.number, to.name, rdma.ErrBroken)
}
