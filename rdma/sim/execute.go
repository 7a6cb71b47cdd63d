package sim

import (
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// bellRetries is how often a doorbell without room is tried again, every
// sixteenth of Timeout.
const bellRetries = 7

// arrive is a request that reaches the peer's device, if it does.
func (f *Fabric) arrive(r *request) {
	q := r.qp
	switch {
	case q.peer == nil, f.cut[link{q.provider.node.index, q.peer.provider.node.index}]:
		f.park(r, kindArrive)
		return
	case r.fate.LoseRequest && !r.late:
		f.note(noteLost, r)
		return
	}
	if !f.serves(r, kindArrive) {
		return
	}
	if !q.mayStart(r) {
		r.gated = true
		q.gated++
		return
	}
	f.begin(r)
}

// start is a request whose turn has come.
func (f *Fabric) start(r *request) {
	if f.serves(r, kindStart) {
		f.begin(r)
	}
}

// serves says whether the peer executes r now. If not, r is dropped, parked, or
// left alone: then only the requester's time-out will end it.
func (f *Fabric) serves(r *request, k kind) bool {
	peer := r.qp.peer
	switch {
	case peer.revoked || peer.state == stateClosed:
		f.drop(r)
	case peer.provider.node.paused:
		f.park(r, k)
	case peer.state == stateBroken && !r.late && !r.acked && k != kindStore: // a word is not left half done
		f.note(noteIgnored, r)
	default:
		return true
	}
	return false
}

// begin starts the effect of a request whose turn it is.
func (f *Fabric) begin(r *request) {
	w := &r.wr
	if r.fate.Effect == EffectNone {
		f.fail(r, r.fate.Status)
		return
	}
	target, offset, ok := r.qp.peer.provider.find(w.RKey, w.RemoteAddr, w.Local.Length, remoteKey)
	if !ok {
		f.fail(r, rdma.StatusRemoteAccess)
		return
	}
	if w.Op.Atomic() {
		if until, busy := target.busyUntil(offset); busy {
			f.then(r, kindStart, max(until, f.now+time.Microsecond))
			return
		}
	}
	if w.Op.Atomic() {
		f.atomic(r, target, offset)
		return
	}
	if w.Op == rdma.OpRead {
		r.grow(w.Local.Length)
	}
	r.running = true
	f.divide(r)
	if r.fate.EarlyAck {
		if !f.own(r) {
			f.fail(r, rdma.StatusLocal)
			return
		}
		gap := r.fate.Gap
		if !r.fate.scripted {
			gap = f.dice.within(streamEarlyAck, f.faults.HoldBack)
		}
		f.reply(r, rdma.StatusOK)
		r.acked = true
		f.then(r, kindPart, f.now+gap)
		return
	}
	f.move(r)
}

// part is the event of the next part of r.
func (f *Fabric) part(r *request) {
	if f.serves(r, kindPart) {
		f.move(r)
	}
}

// move moves the next part of r, and sees to what comes after it.
func (f *Fabric) move(r *request) {
	if r.part < r.parts {
		if status := f.copyPart(r); status != rdma.StatusOK {
			f.fail(r, status)
			return
		}
		if r.fate.Effect == EffectHalf && 2*r.part >= r.parts {
			f.fail(r, r.fate.Status)
			return
		}
	}
	switch {
	case r.part < r.parts:
		f.then(r, kindPart, f.now+f.gap(r))
	case r.wr.Op == rdma.OpWriteImm:
		f.then(r, kindBell, f.now+f.gap(r))
	default:
		f.done(r)
	}
}

// copyPart moves one part between the peer's memory and ours.
func (f *Fabric) copyPart(r *request) rdma.Status {
	w := &r.wr
	remote, ok := r.qp.peer.provider.bytes(w.RKey, w.RemoteAddr, w.Local.Length, remoteKey)
	if !ok { // closed since the request began
		if r.part > 0 {
			return rdma.StatusRemoteOperation
		}
		return rdma.StatusRemoteAccess
	}
	i := r.order[r.part]
	low, high := r.cut[i], r.cut[i+1]
	r.part++
	if w.Op == rdma.OpRead {
		memory.Copy(r.data[low:high], remote[low:high])
		f.notePart(r, low, r.data[low:high])
		return rdma.StatusOK
	}
	source := r.data
	if !r.owned {
		if source, ok = r.qp.provider.bytes(w.Local.LKey, w.Local.Addr, w.Local.Length, localKey); !ok {
			return rdma.StatusLocal
		}
	}
	memory.Copy(remote[low:high], source[low:high])
	f.notePart(r, low, remote[low:high])
	return rdma.StatusOK
}

// gap is the time to the next part.
func (f *Fabric) gap(r *request) time.Duration {
	switch {
	case r.fate.scripted:
		return r.fate.Gap
	case r.fate.torn:
		return f.dice.within(streamTear, f.faults.PartGap)
	}
	return 0
}

// divide decides on the parts of a READ or WRITE and their order.
func (f *Fabric) divide(r *request) {
	n := r.wr.Local.Length
	r.parts, r.part, r.cut[0], r.cut[1], r.order[0] = 1, 0, 0, n, 0
	switch {
	case n == 0:
		r.parts = 0
	case n == 1:
	case r.fate.Cut > 0 && r.fate.Cut < n:
		r.parts, r.cut[1], r.cut[2], r.order[0], r.order[1] = 2, r.fate.Cut, n, 1, 0
	case r.fate.torn || r.fate.Effect == EffectHalf:
		f.tear(r)
	}
}

// tear draws the bounds of 2 to maxParts parts and their order.
func (f *Fabric) tear(r *request) {
	n := r.wr.Local.Length
	r.parts = 2 + int(f.dice.below(streamTear, uint64(min(n, maxParts)-1)))
	// The places between bytes are divided evenly, and one is drawn from each share.
	places, shares := uint64(n)-1, uint64(r.parts)-1
	for i := range shares {
		low, high := places*i/shares, places*(i+1)/shares
		r.cut[i+1] = uint32(1 + low + f.dice.below(streamTear, high-low))
	}
	r.cut[r.parts] = n
	for i := range r.parts {
		r.order[i] = uint8(i)
	}
	for i := r.parts - 1; i > 0; i-- {
		j := f.dice.below(streamTear, uint64(i+1))
		r.order[i], r.order[j] = r.order[j], r.order[i]
	}
}

// atomic executes a CAS or FAA on its word, or the first half of it.
func (f *Fabric) atomic(r *request, target *region, offset int) {
	r.running = true
	if r.fate.Split {
		gap := r.fate.Gap
		if !r.fate.scripted {
			gap = f.dice.within(streamSplit, f.faults.PartGap)
		}
		r.old = target.mapping.Load(offset)
		r.region, r.offset = target, offset
		target.split(offset, f.now+gap)
		f.noteWord(noteLoad, r, r.old)
		f.then(r, kindStore, f.now+gap)
		return
	}
	if r.wr.Op == rdma.OpCAS {
		r.old = target.mapping.CompareSwap(offset, r.wr.CompareAdd, r.wr.Swap)
	} else {
		r.old = target.mapping.FetchAdd(offset, r.wr.CompareAdd)
	}
	f.noteWord(noteAtomic, r, r.old)
	f.done(r)
}

// store is the second half of a split CAS or FAA.
func (f *Fabric) store(r *request) {
	if !f.serves(r, kindStore) {
		return
	}
	if r.region.mapping == nil { // closed meanwhile
		f.fail(r, rdma.StatusRemoteOperation)
		return
	}
	switch {
	case r.wr.Op == rdma.OpFAA:
		r.region.mapping.Store(r.offset, r.old+r.wr.CompareAdd)
	case r.old == r.wr.CompareAdd:
		r.region.mapping.Store(r.offset, r.wr.Swap)
	}
	f.noteWord(noteAtomic, r, r.old)
	f.done(r)
}

// bell rings the doorbell of a WRITE_IMM whose data is in place.
func (f *Fabric) bell(r *request) {
	if !f.serves(r, kindBell) {
		return
	}
	q, peer := r.qp, r.qp.peer
	if peer.receiveFree.Load() > 0 {
		peer.receiveFree.Add(-1)
		peer.tally.Posted(rdma.OpReceive, r.wr.Local.Length)
		peer.receivePlaces.Push(rdma.Completion{QP: peer.number, Op: rdma.OpReceive, Imm: r.wr.Imm, Length: r.wr.Local.Length}, &peer.receiveFree)
		f.note(noteBell, r)
		f.done(r)
		return
	}
	if r.late || r.bellTries == bellRetries {
		f.fail(r, rdma.StatusReceiverNotReady)
		return
	}
	r.bellTries++
	q.progress = f.now // the peer says that it is there
	f.then(r, kindBell, f.now+q.timeout/16)
}

// done is a request that has taken effect.
func (f *Fabric) done(r *request) {
	f.settle(r)
	if !r.acked {
		f.reply(r, r.fate.Status)
	}
}

// fail is a request that has not, or not wholly, taken effect and will not.
func (f *Fabric) fail(r *request, status rdma.Status) {
	if r.acked { // the region is closed: nobody can see that it is not there
		f.settle(r)
		return
	}
	f.drop(r)
	f.reply(r, status)
}

// reply sends the answer back, if there is still somebody who wants it.
func (f *Fabric) reply(r *request, status rdma.Status) {
	if r.completed {
		return
	}
	r.status = status
	if r.fate.LoseReply {
		f.note(noteReplyLost, r)
		return
	}
	at := f.now + f.dice.within(streamReplyDelay, f.faults.ReplyDelay) + r.fate.ReplyDelay
	f.schedule(event{at: at, r: r, gen: r.replyGen, kind: kindReply})
}

// replied is an answer that reaches the requester's device.
func (f *Fabric) replied(r *request) {
	q := r.qp
	if q.provider.node.paused || f.cut[link{q.peer.provider.node.index, q.provider.node.index}] {
		f.park(r, kindReply)
		return
	}
	f.note(noteReply, r)
	r.answered = true
	// Completions are given in the order of posting.
	for r = q.front; r != nil && r.answered; r = q.front {
		status := r.status
		if status == rdma.StatusOK && !f.land(r) {
			status = rdma.StatusLocal
		}
		if status != rdma.StatusOK {
			f.breakDown(q, status, r)
			return
		}
		r.completed = true
		q.front = r.next
		q.progress = f.now
		q.sends.Finish(rdma.StatusOK)
	}
}

// land puts what a request has brought into local memory.
func (f *Fabric) land(r *request) bool {
	w := &r.wr
	if r.writes() {
		return true
	}
	local, ok := r.qp.provider.bytes(w.Local.LKey, w.Local.Addr, w.Local.Length, localKey)
	if !ok {
		return false
	}
	if w.Op.Atomic() {
		memory.PutWord(local, r.old)
	} else {
		memory.Copy(local, r.data)
	}
	return true
}

// own makes a copy of the payload of a WRITE, because its local memory is about
// to be the caller's again.
func (f *Fabric) own(r *request) bool {
	if !r.writes() || r.owned {
		return true
	}
	local, ok := r.qp.provider.bytes(r.wr.Local.LKey, r.wr.Local.Addr, r.wr.Local.Length, localKey)
	if !ok {
		return false
	}
	r.grow(uint32(len(local)))
	copy(r.data, local)
	r.owned = true
	return true
}
