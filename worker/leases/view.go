package leases

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// homeState is this worker as the home of slots.
type homeState struct {
	mu   sync.Mutex
	home *lease.Home
	view base.View
	// whole is closed when all members have reported to the view.
	whole chan struct{}
}

// Run installs the views that come on the channel, until ctx ends or the channel
// is closed, and waits for the disk on behalf of slots that are asked for. A view
// is given up when the next one comes. An error is a fault of the protocol or of
// the device, or that more waits for a link than may, or says that this member is in none of the view.
func (l *Leases) Run(ctx context.Context, views <-chan *lease.Members) error {
	defer close(l.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.followDisk(ctx) })
	group.Go(func() error {
		defer cancel()
		return l.followViews(ctx, views)
	})
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (l *Leases) followViews(ctx context.Context, views <-chan *lease.Members) error {
	var current errgroup.Group
	stop := func() {}
	defer func() {
		stop()
		_ = current.Wait() // its error is in l.failed, or it was told to stop
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.failed:
			return err
		case m, ok := <-views:
			if !ok {
				return nil
			}
			stop()
			_ = current.Wait()
			viewCtx, cancel := context.WithCancel(ctx)
			stop = cancel
			if err := l.install(viewCtx, m); err != nil {
				cancel()
				return err
			}
			current = errgroup.Group{}
			current.Go(func() error {
				err := l.activate(viewCtx, m)
				if err == nil {
					l.options.Logger.Info("this worker's part of a view is active: what it holds is reported, the words of its home are rebuilt", "view", m.View)
				}
				if err != nil && viewCtx.Err() == nil {
					l.fail(err)
				}
				return err
			})
		}
	}
}

// fail ends Run with an error, unless another has.
func (l *Leases) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// install enters a view: step 4 of section 8.
func (l *Leases) install(ctx context.Context, m *lease.Members) error {
	if inc, member := m.Incarnation(l.options.Me.Worker); !member || inc != l.options.Me.Incarnation {
		return fmt.Errorf("leases: worker %d in incarnation %d is not a member of view %d", l.options.Me.Worker, l.options.Me.Incarnation, m.View)
	}
	l.enter(m)
	// Nothing is posted in the new view before it is active, and nothing any more
	// in the old one.
	if err := l.mesh.Install(ctx, m); err != nil {
		return fmt.Errorf("leases: install view %d: %w", m.View, err)
	}
	l.recheckLinks(m)
	h := &l.home
	h.mu.Lock()
	defer h.mu.Unlock()
	h.home.Install(m)
	h.view, h.whole = m.View, make(chan struct{})
	l.options.Logger.Info("a view is installed", "view", m.View, "members", len(m.All))
	return nil
}

// enter installs the view in all parts, while nobody appends under a copy.
func (l *Leases) enter(m *lease.Members) {
	l.links.Lock()
	defer l.links.Unlock()
	l.view.Lock()
	defer l.view.Unlock()
	for w := range l.down {
		if _, member := m.Incarnation(w); !member {
			delete(l.down, w)
			delete(l.outages, w)
		}
	}
	for _, x := range m.All {
		if l.members == nil || !m.Same(l.members, x.Worker) {
			l.down[x.Worker], l.outages[x.Worker] = true, outage{Member: x, since: time.Now()} // until its link is there
		}
	}
	l.options.Relabel(m.View)
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		p.core.Install(m)
		for w, down := range l.down {
			if down {
				p.core.LinkDown(w)
			}
		}
		p.carryOut()
		p.Unlock()
	}
	l.members = m
	l.number.Store(uint32(m.View))
	close(l.installed)
	l.installed = make(chan struct{})
}

// recheckLinks finds links that are down although an up was heard: that was of an
// earlier incarnation of the member.
func (l *Leases) recheckLinks(m *lease.Members) {
	l.links.Lock()
	defer l.links.Unlock()
	for _, x := range m.All {
		if l.mesh.Down(x.Worker) && !l.down[x.Worker] {
			l.tellParts(x.Worker, true)
		}
	}
}

// activate takes the steps that wait for others: drain and report, and rebuild
// the words whose home is here.
func (l *Leases) activate(ctx context.Context, m *lease.Members) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.rebuild(ctx, m) })
	group.Go(func() error {
		if !plant.Is(plant.NoDrain) {
			if err := l.mesh.Drain(ctx); err != nil {
				return fmt.Errorf("leases: leave the view before %d: %w", m.View, err)
			}
		}
		if !plant.Is(plant.ReportDirty) {
			if err := l.options.Log.WaitDurable(ctx, l.options.Log.Appended()); err != nil {
				return fmt.Errorf("leases: leave the view before %d: %w", m.View, err)
			}
		}
		reports, ctx := errgroup.WithContext(ctx)
		for _, to := range m.All {
			reports.Go(func() error {
				slots := l.held(to.Worker)
				return l.tell(ctx, to, func(ctx context.Context) error {
					return l.options.Peers.Report(ctx, to, l.options.Me, m.View, slots)
				})
			})
		}
		return reports.Wait()
	})
	return group.Wait()
}

// held are the slots of a home that are held here.
func (l *Leases) held(home lease.Worker) (slots []base.Slot) {
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		slots = p.core.Held(home, slots)
		p.Unlock()
	}
	return slots
}

// rebuild writes the words when all members have reported, and tells them.
func (l *Leases) rebuild(ctx context.Context, m *lease.Members) error {
	h := &l.home
	h.mu.Lock()
	whole := h.whole
	h.mu.Unlock()
	for early := plant.Is(plant.RebuildEarly); !early; early = true {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-whole:
		}
	}
	h.mu.Lock()
	h.home.Words(base.Slot(l.options.Slots), func(s base.Slot, w lease.Word) { l.mesh.StoreWord(s, uint64(w)) })
	h.home.Done()
	h.mu.Unlock()
	tells, ctx := errgroup.WithContext(ctx)
	for _, to := range m.All {
		tells.Go(func() error {
			return l.tell(ctx, to, func(ctx context.Context) error {
				return l.options.Peers.Ready(ctx, to, l.options.Me, m.View)
			})
		})
	}
	return tells.Wait()
}

// Bounds of the waits between two tries of a call.
const (
	tellFirst = 2 * time.Millisecond
	tellLast  = 200 * time.Millisecond
)

// tell repeats a call until it is answered or the view is over: a member that
// does not answer is evicted.
func (l *Leases) tell(ctx context.Context, to lease.Member, call func(context.Context) error) error {
	for wait := tellFirst; ; wait = min(2*wait, tellLast) {
		err := call(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrNotYet) {
			l.options.Logger.Debug("a member does not answer", "worker", to.Worker, "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// Report takes what a member holds: the call that its Peers.Report makes. It does
// not block.
func (l *Leases) Report(from lease.Member, v base.View, slots []base.Slot) error {
	for _, s := range slots {
		if int(s) >= l.options.Slots {
			return fmt.Errorf("leases: worker %d reports slot %d, there are %d", from.Worker, s, l.options.Slots)
		}
	}
	h := &l.home
	h.mu.Lock()
	defer h.mu.Unlock()
	if v > h.view {
		return ErrNotYet
	}
	whole, err := h.home.Report(from, v, slots)
	if whole {
		close(h.whole)
	}
	return err
}

// Ready hears that a home has rebuilt its words: the call that its Peers.Ready
// makes. It does not block.
func (l *Leases) Ready(from lease.Member, v base.View) error {
	l.view.RLock()
	installed := l.members
	l.view.RUnlock()
	switch {
	case installed == nil || v > installed.View:
		return ErrNotYet
	case v < installed.View:
		return nil
	}
	if inc, member := installed.Incarnation(from.Worker); !member || inc != from.Incarnation {
		return fmt.Errorf("leases: a notice from worker %d, incarnation %d, in view %d: %w", from.Worker, from.Incarnation, v, mesh.ErrNotMember)
	}
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		p.core.Ready(from.Worker, v)
		p.carryOut()
		p.Unlock()
	}
	return nil
}

// await has batch n made durable on behalf of a slot that waits for it.
func (l *Leases) await(n base.Number) {
	for {
		known := l.awaited.Load()
		if uint64(n) <= known {
			return
		}
		if l.awaited.CompareAndSwap(known, uint64(n)) {
			break
		}
	}
	select {
	case l.sync <- struct{}{}:
	default: // it will look
	}
}

// followDisk tells the parts when what they wait for is durable.
func (l *Leases) followDisk(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.sync:
		}
		if err := l.options.Log.WaitDurable(ctx, base.Number(l.awaited.Load())); err != nil {
			return fmt.Errorf("leases: wait for the disk: %w", err)
		}
		n := l.options.Log.Durable()
		for i := range l.parts {
			p := &l.parts[i]
			p.Lock()
			if p.core.Awaits() > 0 {
				p.core.Durable(n)
				p.carryOut()
			}
			p.Unlock()
		}
	}
}
