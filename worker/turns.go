package worker

import (
	"cmp"
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/txn"
	"github.com/tenure-faas/tenure/worker/leases"
)

// turns are the turns that an attempt has in slots: the right of this worker to
// use the keys in them, before any lock within it. An attempt takes them in slot
// order, each before the locks of its keys: gates of tables first, then keys and,
// among them, the slot of its idempotency key.
type turns struct {
	// list is in slot order: waiting for a slot before its end could deadlock.
	list  []*leases.Turn
	spare []*leases.Turn
	// waited says that a turn had to come from elsewhere.
	waited bool
}

// find is the attempt's turn in a slot, or nil, and where it is or belongs.
func (ts *turns) find(s base.Slot) (*leases.Turn, int) {
	n := len(ts.list)
	if n == 0 || ts.list[n-1].Slot() < s { // taken in order, as most are
		return nil, n
	}
	i, found := slices.BinarySearchFunc(ts.list, s, func(t *leases.Turn, s base.Slot) int { return cmp.Compare(t.Slot(), s) })
	if !found {
		return nil, i
	}
	return ts.list[i], i
}

// lostIn says whether a change of view has taken the copy of a slot away.
func (ts *turns) lostIn(s base.Slot) bool {
	t, _ := ts.find(s)
	return t != nil && t.Lost()
}

func (ts *turns) next() *leases.Turn {
	if n := len(ts.spare); n > 0 {
		t := ts.spare[n-1]
		ts.spare = ts.spare[:n-1]
		return t
	}
	return new(leases.Turn)
}

// pinned says whether one of the turns is on a copy.
func (ts *turns) pinned() bool { return slices.ContainsFunc(ts.list, (*leases.Turn).Pinned) }

// lost says whether a change of view has taken one of the copies away.
func (ts *turns) lost() bool { return slices.ContainsFunc(ts.list, (*leases.Turn).Lost) }

// leaseMode is what a lock needs of the lease.
func leaseMode(m txn.Mode) lease.Mode {
	if m == txn.Shared {
		return lease.Read
	}
	return lease.Write
}

// takeTurn makes sure that the attempt has a turn in a slot that covers mode. It
// waits for it if wait is set; false means that it had to wait and was not allowed
// to, or that the invocation's time is over.
func (inv *invocation) takeTurn(s base.Slot, mode lease.Mode, wait bool) bool {
	if inv.w.leases == nil {
		return true
	}
	p := inv.w.leases.Part(s)
	t, place := inv.turns.find(s)
	if t != nil {
		if t.Mode() >= mode {
			return true
		}
		p.Lock()
		defer p.Unlock()
		return p.Upgrade(t)
	}
	wait = wait && (place == len(inv.turns.list) || plant.Is(plant.UndeclaredWaits))
	t = inv.turns.next()
	p.Lock()
	status := p.Acquire(s, t, mode, wait)
	p.Unlock()
	switch status {
	case lease.Refused:
		inv.turns.spare = append(inv.turns.spare, t)
		return false
	case lease.Queued:
		if !inv.turns.waited {
			inv.turns.waited = true
			inv.prefetch(s)
		}
		select {
		case <-t.Wake():
			inv.w.leases.Waited(t)
		case <-inv.w.leases.Ended():
			return inv.giveUp(p, t)
		case <-inv.ctx.Done():
			inv.w.leases.Waited(t) // those are what an operator looks for
			return inv.giveUp(p, t)
		}
	}
	if place == len(inv.turns.list) {
		inv.turns.list = append(inv.turns.list, t)
	} else {
		inv.turns.list = slices.Insert(inv.turns.list, place, t)
	}
	return true
}

// prefetchMost bounds the leases that one transaction asks for ahead of its turns,
// and with that the verbs that it has outstanding.
const prefetchMost = 64

// prefetch asks for the leases of the declared slots after s that will be written,
// at the first wait of an invocation: their round trips pass during the wait. The
// turns are still taken in order. Who reads later has a copy sooner than a lease.
func (inv *invocation) prefetch(s base.Slot) {
	asked, last := 0, s
	if inv.idem != nil && inv.idem.slot > s {
		asked++
		inv.prefetchSlot(inv.idem.slot)
	}
	for i := range inv.foot.Needs { // in slot order
		n := &inv.foot.Needs[i]
		if n.Slot <= last || leaseMode(n.Mode) != lease.Write {
			continue
		}
		if asked++; asked > prefetchMost {
			return
		}
		last = n.Slot
		inv.prefetchSlot(n.Slot)
	}
}

func (inv *invocation) prefetchSlot(s base.Slot) {
	p := inv.w.leases.Part(s)
	p.Lock()
	p.Prefetch(s)
	p.Unlock()
}

// giveUp takes back a request for a turn.
func (inv *invocation) giveUp(p *leases.Part, t *leases.Turn) bool {
	p.Lock()
	p.Release(t, 0)
	p.Unlock()
	inv.turns.spare = append(inv.turns.spare, t)
	return false
}

// outOfTime is why an attempt could not take what it needs.
func (inv *invocation) outOfTime() *base.Error {
	if inv.w.leases != nil && inv.ctx.Err() == nil {
		return left()
	}
	return inv.timeout()
}

// left is the answer of a worker that is not a member any more.
func left() *base.Error {
	return base.Errorf(base.Unavailable, "the worker has left the cluster, or cannot reach it; nothing was changed")
}

// takeGates takes the turns in the gates of the tables that the set passes.
func (inv *invocation) takeGates() bool {
	if inv.w.leases == nil {
		return true
	}
	inv.gates = inv.gates[:0]
	for _, p := range inv.set.Passes {
		inv.gates = append(inv.gates, gateUse{base.GateSlot(p.Table), gateMode(p.Scans)})
	}
	slices.SortFunc(inv.gates, func(a, b gateUse) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(b.mode, a.mode)) // the stronger first
	})
	for _, g := range inv.gates {
		if !inv.takeTurn(g.slot, g.mode, true) {
			return false
		}
	}
	return true
}

type gateUse struct {
	slot base.Slot
	mode lease.Mode
}

// gateMode is what a pass needs of its table's gate: writers share it.
func gateMode(scans []string) lease.Mode {
	if len(scans) > 0 {
		return lease.Write
	}
	return lease.Read
}

// takeKeys takes turns and locks of the footprint, in order, and the turn of the
// idempotency key in between.
func (inv *invocation) takeKeys() bool {
	needs := inv.foot.Needs
	owed := inv.idem != nil
	for i := 0; i < len(needs); {
		s, mode, end := needs[i].Slot, lease.Read, i
		for ; end < len(needs) && needs[end].Slot == s; end++ {
			mode = max(mode, leaseMode(needs[end].Mode))
		}
		if owed && inv.idem.slot <= s {
			owed = false
			if inv.idem.slot == s {
				mode = lease.Write
			} else if !inv.takeTurn(inv.idem.slot, lease.Write, true) {
				return false
			}
		}
		if !inv.takeTurn(s, mode, true) {
			return false
		}
		for ; i < end; i++ {
			if !inv.lock(inv.set.Insert(needs[i].Key, needs[i].Mode), true) {
				return false
			}
		}
	}
	return !owed || inv.takeTurn(inv.idem.slot, lease.Write, true)
}

// giveTurns ends the attempt's turns, but that of its idempotency key if keep is
// set. Written is its batch, 0 if it has none.
func (inv *invocation) giveTurns(written base.Number, keep bool) {
	kept := inv.turns.list[:0]
	for _, t := range inv.turns.list {
		if keep && inv.idem != nil && t.Slot() == inv.idem.slot {
			kept = append(kept, t)
			continue
		}
		p := inv.w.leases.Part(t.Slot())
		dirty := written
		if t.Mode() == lease.Read && t.Slot() >= base.GateCount {
			dirty = 0
		}
		p.Lock()
		p.Release(t, dirty)
		p.Unlock()
		inv.turns.spare = append(inv.turns.spare, t)
	}
	clear(inv.turns.list[len(kept):])
	inv.turns.list = kept
}

// appendHolding appends the batch. If the attempt has read under copies, no view
// is installed meanwhile, which could take them away; false means that one is gone.
func (inv *invocation) appendHolding(do func()) bool {
	if inv.w.leases == nil || !inv.turns.pinned() {
		do()
		return true
	}
	return inv.w.leases.Append(inv.turns.list, do)
}

// awaitView waits for a view later than v, for which the store is sealed already;
// false if it does not come.
func (inv *invocation) awaitView(v base.View) bool {
	select {
	case <-inv.w.leases.Installed(v):
		return true
	case <-inv.w.leases.Ended():
	case <-inv.ctx.Done():
	}
	return false
}

// recalled looks for the outcome of an earlier invocation with the same
// idempotency key, among other workers: under the turn of the key's slot, so that
// whoever has run it is done, and durable.
func (inv *invocation) recalled() bool {
	if inv.w.leases == nil || inv.idem == nil {
		return false
	}
	reply, found := inv.w.recall(inv.ctx, inv.req, inv.idem)
	if found && !inv.w.current() {
		reply = Reply{ID: inv.req.ID, Err: left()} // what it has read may be younger than its number of batches
	}
	if found {
		inv.replay = &reply
	}
	return found
}

// current says that this worker is certainly a member now, so that what was read
// before, by leases and copies, was the newest.
func (w *Worker) current() bool {
	return w.leases == nil || w.opt.Cluster.Current() || plant.Is(plant.NoSelfFence)
}

// view is the view that batches belong to.
func (w *Worker) view() base.View {
	if w.leases == nil {
		return w.opt.View
	}
	return base.View(w.label.Load())
}

// relabel is called when a view is installed.
func (w *Worker) relabel(v base.View) {
	w.label.Store(uint32(v))
	if r, ok := w.engine.(interface{ SetView(base.View) }); ok {
		r.SetView(v)
	}
}
