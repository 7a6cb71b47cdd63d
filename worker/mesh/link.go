package mesh

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/ring"
)

// linkState is that of a link.
type linkState uint8

const (
	// stateDown: there is no queue pair, or one that is being connected.
	stateDown linkState = iota
	stateUp
	// stateBroken: it failed, and its keeper has to take it down.
	stateBroken
)

// unsignaled is the ID of requests that complete only by failing.
const unsignaled = ^uint64(0)

// entry is what a link remembers of a signaled request until it completes. The
// request's ID is its index.
type entry struct {
	// tag of a CAS, number of a proof.
	tag uint64
	// seq numbers the request, position is the ring's: what was posted before it
	// is done when it is.
	seq, position uint64
	op            rdma.Opcode
}

// link is the active end to a peer: what is posted on its words and into its ring.
type link struct {
	peer *peer
	// down is state != stateUp, dirty that a flush would find something.
	down, dirty atomic.Bool

	mu    sync.Mutex // a leaf
	state linkState
	// end is the queue pair from its making until all its completions were seen.
	end *end
	// cause is why the link broke.
	cause error
	// silent says that no LinkDown is due: it was called, or LinkUp never was.
	silent bool
	// gone says that Install or Close took the member out.
	gone bool
	// wasUp says that something may have been posted in this history.
	wasUp bool
	// words of the peer, valid while the link is up.
	words rdma.RemoteRegion

	// sender of messages; nil for the link of this worker to itself.
	sender *ring.Sender
	// queue has what is to be posted, backlog the messages that do not fit into the
	// ring.
	queue   requests
	backlog fifo

	// posting says that somebody is in Post with batch; who comes then leaves his
	// requests to him. origin is the batch as it was queued.
	posting       bool
	batch, origin [32]rdma.WorkRequest
	// posts counts the requests that were posted on this queue pair, freed those
	// whose places in the send queue are known to be free.
	posts, freed uint64
	// posted is the position after the last message that was posted on it.
	posted uint64
	// messages and units since the last signaled request.
	loose, looseUnits int
	entries           []entry
	free              []uint32
	inUse             int

	// asked numbers the proofs, proven is the last of them that holds.
	asked, proven uint64
	// changed is closed and made anew when proven, gone or idle change.
	changed chan struct{}
}

func (l *link) init(p *peer, depth int) {
	l.peer, l.silent, l.changed = p, true, make(chan struct{})
	l.down.Store(true)
	l.entries = make([]entry, depth)
	for i := range depth {
		l.free = append(l.free, uint32(depth-1-i))
	}
}

func (l *link) notifyLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// cas queues a CAS, or refuses it.
func (l *link) cas(slot base.Slot, expect, swap, tag uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != stateUp || l.gone {
		l.peer.mesh.refuse(l, tag)
		return
	}
	l.queue.push(rdma.CAS(tag, rdma.Local{}, l.words, uint64(slot)*8, expect, swap))
	l.dirty.Store(true)
}

// send puts a message into the ring, or behind those that wait for room there.
func (l *link) send(kind uint8, parts [][]byte) error {
	o := &l.peer.mesh.options
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return ErrNotMember
	}
	if l.backlog.n == 0 {
		if w, ok := l.sender.Add(kind, parts...); ok {
			if l.state == stateUp { // else it is among those that are repeated
				l.queue.push(w)
				l.dirty.Store(true)
			}
			return nil
		}
	}
	if l.backlog.n >= o.BacklogMessages || l.backlog.size() >= o.BacklogBytes {
		return fmt.Errorf("%w to worker %d: %d messages, %d bytes", ErrBacklog, l.peer.member.Worker, l.backlog.n, l.backlog.size())
	}
	l.backlog.push(kind, parts)
	return nil
}

// flush posts what is queued, as far as there is room. One who posts already
// does it for all.
func (l *link) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.posting {
		return
	}
	l.posting = true
	for {
		l.dirty.Store(false)
		n := l.fillLocked()
		if n == 0 {
			break
		}
		e := l.end
		l.mu.Unlock()
		done, err := e.qp.Post(l.batch[:n])
		l.mu.Lock()
		l.postedLocked(e, done, n, err)
		if done < n {
			break // what was put back waits for completions, or for the next flush
		}
	}
	l.posting = false
	if l.state != stateUp {
		l.notifyLocked() // the keeper waits until nobody posts
	}
}

// fillLocked takes a batch from the queue.
func (l *link) fillLocked() (n int) {
	if l.state != stateUp {
		return 0
	}
	for l.backlog.n > 0 {
		kind, payload := l.backlog.front()
		w, ok := l.sender.Add(kind, payload)
		if !ok {
			break
		}
		l.queue.push(w)
		l.backlog.pop()
	}
	for n < len(l.batch) && l.queue.len() > 0 && l.posts-l.freed < uint64(len(l.entries)) {
		l.origin[n], l.batch[n] = *l.queue.front(), *l.queue.front()
		l.queue.pop()
		l.prepareLocked(&l.batch[n])
		n++
	}
	return n
}

// prepareLocked makes the request fit to be posted next.
func (l *link) prepareLocked(w *rdma.WorkRequest) {
	l.posts++
	if w.Op == rdma.OpWriteImm {
		l.posted = w.ID
		l.loose++
		l.looseUnits += int(w.Imm)
		// An eighth of the ring, so that a sender that waits for room in the staging
		// always waits for a signaled request.
		if l.loose < min(signalEvery, len(l.entries)/2) && l.looseUnits < l.peer.units/8 {
			w.ID = unsignaled
			return
		}
	}
	l.loose, l.looseUnits = 0, 0
	i := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.inUse++
	l.entries[i] = entry{tag: w.ID, seq: l.posts, position: l.posted, op: w.Op}
	if w.Op != rdma.OpWriteImm {
		w.Local = l.peer.region.Local(l.peer.resultAt(i), 8)
	}
	w.ID, w.Flags = uint64(i), rdma.Signaled
}

// postedLocked notes that the first done of n requests were posted.
func (l *link) postedLocked(e *end, done, n int, err error) {
	for i := range done {
		l.peer.tally.verbs.Posted(l.batch[i].Op, l.batch[i].Local.Length)
	}
	if done == n {
		return
	}
	for i := n - 1; i >= done; i-- {
		l.posts--
		if w := &l.batch[i]; w.ID != unsignaled {
			l.releaseLocked(uint32(w.ID))
		}
		if w := &l.origin[i]; w.Op == rdma.OpWriteImm {
			l.posted = w.ID - uint64(w.Imm) // what a message skips comes before it
		}
	}
	l.loose, l.looseUnits = signalEvery, l.peer.units // uncertain now: the next is signaled
	if errors.Is(err, rdma.ErrQueueFull) && l.state == stateUp {
		l.queue.unpop(l.origin[done:n])
		l.dirty.Store(true)
		return
	}
	for i := done; i < n; i++ {
		l.refuseLocked(&l.origin[i])
	}
	l.failLocked(e, err)
}

// refuseLocked drops a request that was not posted. Messages are in the ring.
func (l *link) refuseLocked(w *rdma.WorkRequest) {
	if w.Op == rdma.OpCAS {
		l.peer.mesh.refuse(l, w.ID)
	}
}

func (l *link) releaseLocked(i uint32) {
	l.free = append(l.free, i)
	if l.inUse--; l.inUse == 0 && l.state != stateUp {
		l.notifyLocked()
	}
}

// failLocked takes the link out of use, if it is still that of e.
func (l *link) failLocked(e *end, cause error) {
	if l.end != e || l.state != stateUp {
		return
	}
	l.state, l.cause = stateBroken, cause
	l.down.Store(true)
	l.dropLocked()
	l.peer.wakeKeeper()
}

// dropLocked empties the queue.
func (l *link) dropLocked() {
	for ; l.queue.len() > 0; l.queue.pop() {
		l.refuseLocked(l.queue.front())
	}
}

// fail is failLocked.
func (l *link) fail(e *end, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(e, cause)
}

// result is what the completion of a CAS is for the handler.
type result struct {
	tag, old uint64
	outcome  rdma.Outcome
}

// complete takes a completion of a request; swung says that it was a CAS.
func (l *link) complete(e *end, c *rdma.Completion) (r result, swung bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != e {
		return r, false // a leftover of an end whose signaled requests were all seen
	}
	if err := c.Err(); err != nil {
		l.peer.tally.verbs.Failed(c.Op)
		l.failLocked(e, err)
	}
	if c.ID == unsignaled {
		return r, false
	}
	i := uint32(c.ID)
	x := l.entries[i]
	if x.op == rdma.OpCAS {
		r, swung = result{tag: x.tag, outcome: c.Status.Outcome()}, true
		if c.Status == rdma.StatusOK {
			r.old = l.peer.region.Load(l.peer.resultAt(i))
		}
	}
	if c.Status == rdma.StatusOK {
		l.freed = max(l.freed, x.seq)
		if l.sender != nil {
			l.sender.Done(x.position)
		}
		if x.op == rdma.OpRead && x.tag > l.proven {
			l.proven = x.tag
			l.notifyLocked()
		}
	}
	l.releaseLocked(i)
	if l.queue.len() > 0 || l.backlog.n > 0 {
		l.dirty.Store(true)
	}
	return r, swung
}

// credit takes a doorbell of the peer: it has consumed messages.
func (l *link) credit(e *end, imm uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != e || l.sender == nil {
		return
	}
	if err := l.sender.Credit(imm); err != nil {
		l.failLocked(e, err)
	}
	if l.backlog.n > 0 {
		l.dirty.Store(true)
	}
}

// proofLocked queues a READ and returns its number.
func (l *link) proofLocked() uint64 {
	l.asked++
	if l.state == stateUp {
		l.queue.push(l.readLocked(l.asked))
		l.dirty.Store(true)
	}
	return l.asked
}

// readLocked is the READ of a proof.
func (l *link) readLocked(number uint64) rdma.WorkRequest {
	w := rdma.Read(number, rdma.Local{}, l.words, 0)
	w.Local.Length = 8
	return w
}

// forget is for the install of a view: what was queued belongs to an older one.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backlog.reset()
	kept := l.queue.all[:0]
	for i := l.queue.head; i < len(l.queue.all); i++ {
		if w := l.queue.all[i]; w.Op == rdma.OpRead {
			kept = append(kept, w)
		} else {
			l.refuseLocked(&w)
		}
	}
	l.queue.all, l.queue.head = kept, 0
	if l.sender != nil {
		l.sender.Cut(max(l.posted, l.sender.Consumed()))
	}
}

// leave takes the link out of use for good.
func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.down.Store(true)
	if l.state == stateUp {
		l.state = stateBroken
	}
	l.backlog.reset()
	l.dropLocked()
	l.notifyLocked()
}
