package leases

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// Turn is a transaction's use of one slot. It belongs to the transaction; the
// zero value is ready, and it may be used again after Release.
type Turn struct {
	user lease.User
	wake chan struct{}
	lost atomic.Bool
	// since is when it was queued last.
	since time.Time
}

// Slot is the slot that the turn is in.
func (t *Turn) Slot() base.Slot { return t.user.Slot() }

// Mode is what the turn allows.
func (t *Turn) Mode() lease.Mode { return t.user.Mode }

// Pinned says that the turn is on a copy: see Leases.Append.
func (t *Turn) Pinned() bool { return t.user.Pinned() }

// Lost says that a change of view has taken the copy away: the attempt must be
// given up, whatever it came to.
func (t *Turn) Lost() bool { return t.lost.Load() }

// Wake has one token when a turn that was queued begins.
func (t *Turn) Wake() <-chan struct{} { return t.wake }

// Part is a part of the slots with its latch, which also guards the values and
// locks of these slots.
type Part struct {
	mu     sync.Mutex
	l      *Leases
	core   *lease.Core
	values Values

	queued  bool // the mesh has something to post
	actions []lease.Action
	message []byte
	stats   Stats
}

// Stats count what happened in a part.
type Stats struct {
	// Turns were given, Hits of them at once.
	Turns, Hits uint64
	// CAS, Reads and Releases were asked of homes, Messages of other members.
	CAS, Reads, Releases, Messages uint64
	// Pulls are leases that other members granted, Copies shared ones.
	Pulls, Copies uint64
	// Invalidated copies were given up because another member writes, Lost turns
	// taken away by a change of view.
	Invalidated, Lost uint64
}

func (s *Stats) add(o Stats) {
	s.Turns += o.Turns
	s.Hits += o.Hits
	s.CAS += o.CAS
	s.Reads += o.Reads
	s.Releases += o.Releases
	s.Messages += o.Messages
	s.Pulls += o.Pulls
	s.Copies += o.Copies
	s.Invalidated += o.Invalidated
	s.Lost += o.Lost
}

// Lock takes the latch.
func (p *Part) Lock() { p.mu.Lock() }

// Unlock gives the latch back, and posts what was asked for under it.
func (p *Part) Unlock() {
	queued := p.queued
	p.queued = false
	p.mu.Unlock()
	if queued {
		p.l.mesh.Flush()
	}
}

// Acquire asks for a turn, as lease.Core.Acquire does. Called under the latch.
func (p *Part) Acquire(s base.Slot, t *Turn, mode lease.Mode, wait bool) lease.Status {
	if t.wake == nil {
		t.wake = make(chan struct{}, 1)
		t.user.Owner = t
	}
	if t.lost.Load() { // a load costs less than a store
		t.lost.Store(false)
	}
	t.user.Mode = mode
	status := p.core.Acquire(s, &t.user, wait)
	p.stats.Turns++
	if status == lease.Granted {
		p.stats.Hits++
	}
	if status == lease.Queued {
		t.since = time.Now() // before the verbs that fetch the lease
	}
	if status == lease.Queued || p.core.Awaits() > 0 {
		p.core.Durable(p.l.options.Log.Durable()) // which says how many may go before a successor
	}
	p.carryOut()
	return status
}

// Prefetch asks for the lease of a slot for which a turn will be asked later, if it
// is not here. Called under the latch.
func (p *Part) Prefetch(s base.Slot) {
	p.core.Prefetch(s)
	p.carryOut()
}

// Upgrade makes a read turn one that may write, if that needs no waiting. Called
// under the latch.
func (p *Part) Upgrade(t *Turn) bool { return p.core.Upgrade(&t.user) }

// Release ends a turn, or the wait for it. Dirty is the batch in which its
// transaction wrote under it, 0 if it did not. Called under the latch.
func (p *Part) Release(t *Turn, dirty base.Number) {
	p.core.Release(&t.user, dirty)
	p.carryOut()
	select {
	case <-t.wake: // it was woken and did not look
	default:
	}
}

// Tags of CASes: what a completion belongs to. Only the low bits of the view fit:
// no verb is outstanding for a thousand views.
//
//	63     62 61      52 51      32 31              0
//	[ kind : 2 ][ view : 10 ][ slot : 20 ][ ticket or nonce : 32 ]
type tag struct {
	kind  uint8
	view  base.View
	slot  base.Slot
	place uint32
}

const (
	tagCAS uint8 = iota
	tagRelease
	tagRead
	tagTail

	tagViews = 1 << 10
)

func (t tag) seal() uint64 {
	return uint64(t.kind)<<62 | uint64(t.view%tagViews)<<52 | uint64(t.slot)<<32 | uint64(t.place)
}

func openTag(x uint64) tag {
	return tag{uint8(x >> 62), base.View(x >> 52 % tagViews), base.Slot(x >> 32 % base.SlotCount), uint32(x)}
}

// of says whether the tag is of view v.
func (t tag) of(v base.View) bool { return t.view == v%tagViews }

// never is a word that no home ever has, because its owner is reserved: a CAS that
// expects it reads the word.
const never = 1<<64 - 1

// carryOut does what the core asks for. Called under the latch, after every call
// of the core.
func (p *Part) carryOut() {
	for !p.core.Quiet() {
		p.actions = p.core.Actions(p.actions[:0])
		for i := range p.actions {
			p.do(&p.actions[i])
		}
		if len(p.actions) > 0 {
			continue
		}
		n := p.core.Awaits()
		durable := p.l.options.Log.Durable()
		if durable < n {
			p.l.await(n)
			return
		}
		p.core.Durable(durable)
	}
}

func (p *Part) do(a *lease.Action) {
	switch a.Kind {
	case lease.CAS:
		p.stats.CAS++
		p.cas(a, tagCAS, uint32(a.Ticket), uint64(a.Expect), uint64(a.New))
	case lease.Release:
		p.stats.Releases++
		p.cas(a, tagRelease, uint32(a.Ticket), uint64(a.Expect), uint64(a.New))
	case lease.ReadWord:
		p.stats.Reads++
		p.cas(a, tagRead, uint32(a.Ticket), never, never)
	case lease.ReadTail:
		p.stats.Reads++
		p.cas(a, tagTail, a.Nonce, never, never)
	case lease.Send:
		p.stats.Messages++
		p.send(a)
	case lease.Load:
		// Values are loaded when a transaction asks for them, from a store in which
		// all of an earlier holder is.
		p.core.Loaded(a.Slot, p.core.View(), a.Ticket)
	case lease.Forget:
		p.values.Forget(a.Slot)
	case lease.Wake:
		a.User.Owner.(*Turn).wake <- struct{}{} // capacity 1, one token for each time it is queued
	case lease.Abort:
		p.stats.Lost++
		a.User.Owner.(*Turn).lost.Store(true)
	}
}

func (p *Part) cas(a *lease.Action, kind uint8, place uint32, expect, swap uint64) {
	p.queued = true
	p.l.mesh.CAS(a.To, a.Slot, expect, swap, tag{kind, p.core.View(), a.Slot, place}.seal())
}

func (p *Part) send(a *lease.Action) {
	p.queued = true
	p.message = a.Record.Append(p.message[:0])
	if a.Record.Kind == lease.Grant || a.Record.Kind == lease.Copy {
		p.message = p.values.AppendValues(p.message, a.Slot, p.l.mesh.MaxMessage()-len(p.message))
	}
	err := p.l.mesh.Send(a.To, uint8(a.Record.Kind), p.message)
	switch {
	case errors.Is(err, mesh.ErrBacklog):
		// The protocol repeats nothing within a view: without this message somebody
		// would wait as long as it lasts.
		p.l.fail(fmt.Errorf("leases: this worker gives up its membership: a %v about slot %d cannot be queued: %w", a.Record.Kind, a.Slot, err))
	case err != nil:
		// To a member that is gone: the view that says so is on its way.
		p.l.options.Logger.Warn("a message between workers was not sent", "to", a.To, "kind", a.Record.Kind, "slot", a.Slot, "err", err)
	}
}
