package leasemgr

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/store"
)

// ManagerOptions configures a Manager.
type ManagerOptions struct {
	// Options are the times of the membership.
	membership.Options
	// Seal makes the data store refuse all views older than the given one, and
	// returns when this is durable. Called by one goroutine, with views that never
	// get smaller, repeated until it succeeds. It blocks Run, and must end by itself.
	// Required.
	Seal func(view base.View) error
	// Sealed is the view for which the data store is sealed at the start: views are
	// never below it. 0 for a new store.
	Sealed base.View
	// SealRetry is the pause after the first failure of Seal; it doubles up to a
	// second. 0 means 20 ms.
	SealRetry time.Duration
	// MaxWaiting bounds the calls that wait at the same time; more are refused as
	// overloaded. 0 means 16384.
	MaxWaiting int
	// Clock is a clock that never goes back; nil means time since NewManager.
	Clock func() time.Duration
	// Logger gets a message for each view; nil means slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *ManagerOptions) EnsureDefaults() {
	o.Options.EnsureDefaults()
	if o.SealRetry == 0 {
		o.SealRetry = 20 * time.Millisecond
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 16384
	}
	if o.Clock == nil {
		start := time.Now()
		o.Clock = func() time.Duration { return time.Since(start) }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// maxSealRetry bounds the pause between two attempts to seal.
const maxSealRetry = time.Second

// Manager is the Registry of a cluster: it decides views, makes them durable,
// seals the data store for them and publishes them, in this order. Run does that
// on one goroutine; the other methods wait for it and may be called from any
// number, also before Run.
type Manager struct {
	options ManagerOptions
	engine  store.Engine
	// wake tells Run that a change waits.
	wake chan struct{}
	// stopped is closed when Run has ended.
	stopped chan struct{}

	mu        sync.Mutex // held for microseconds: no I/O under it
	core      *membership.Core
	published Published
	// changed is closed, and replaced, when a decision is durable or published.
	changed chan struct{}
	waiting int
}

var _ Registry = (*Manager)(nil)

// NewManager reads the membership from the leasemgr's engine, which may be the
// data store itself. The engine stays the caller's, who keeps it open until Run
// has returned.
func NewManager(engine store.Engine, o ManagerOptions) (*Manager, error) {
	o.EnsureDefaults()
	if o.Seal == nil {
		return nil, fmt.Errorf("leasemgr: ManagerOptions.Seal is required")
	}
	record, err := ReadMembership(engine)
	if err != nil {
		return nil, err
	}
	core, err := membership.New(o.Options, record, o.Sealed, o.Clock())
	if err != nil {
		return nil, err
	}
	return &Manager{options: o, engine: engine, core: core, published: Published{TTL: o.TTL},
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), changed: make(chan struct{})}, nil
}

// Run decides views until ctx ends; then it returns nil, and waiting calls are
// refused. It returns an error if the record cannot be written or the views are
// used up. Call it once.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.stopped)
	if m.unpublished() { // the last run ended between decision and publication
		if err := m.publish(ctx); err != nil {
			return nil
		}
	}
	for ctx.Err() == nil {
		d, pause, err := m.tick()
		if err != nil {
			return err
		}
		if d == nil {
			m.sleep(ctx, pause)
			continue
		}
		if err := m.write(d.Record); err != nil {
			return err
		}
		m.change(func() { m.core.Durable() })
		if err := m.publish(ctx); err != nil {
			return nil
		}
	}
	return nil
}

func (m *Manager) unpublished() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.core.Unpublished()
}

// tick returns a decision that is due, or how long there will be none unless wake
// says so; a negative pause is for ever.
func (m *Manager) tick() (*membership.Decision, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.options.Clock()
	d, err := m.core.Tick(now)
	if d != nil || err != nil {
		return d, 0, err
	}
	next, any := m.core.Next()
	if !any {
		return nil, -1, nil
	}
	return nil, max(0, next-now), nil
}

// sleep waits for a pause, for wake or for the end of ctx.
func (m *Manager) sleep(ctx context.Context, pause time.Duration) {
	var over <-chan time.Time
	if pause >= 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-m.wake:
	case <-over:
	}
}

// write makes a record durable.
func (m *Manager) write(r Membership) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the membership: %w", err)
	}
	batch := m.engine.NewBatch()
	defer batch.Release()
	batch.Set(membershipKey, raw)
	if err := m.engine.Apply(batch); err != nil {
		return fmt.Errorf("decide view %d: %w", r.View, err)
	}
	return nil
}

// publish seals the store for the last decision, as often as it takes, and then
// publishes it. The error is that of ctx.
func (m *Manager) publish(ctx context.Context) error {
	m.mu.Lock()
	d := m.core.Current()
	m.mu.Unlock()
	if plant.Is(plant.SealLate) {
		m.announce(d)
	}
	for pause := m.options.SealRetry; !plant.Is(plant.NoSeal); pause = min(2*pause, maxSealRetry) {
		err := m.options.Seal(d.View)
		if err == nil {
			break
		}
		m.options.Logger.Warn("the store cannot be sealed, so the view is not published; trying again", "view", d.View, "pause", pause, "err", err)
		m.pause(ctx, pause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !plant.Is(plant.SealLate) {
		m.announce(d)
	}
	return nil
}

// pause waits, without losing a wake.
func (m *Manager) pause(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (m *Manager) announce(d *membership.Decision) {
	m.change(func() {
		m.core.Published(m.options.Clock())
		m.published = Published{View: d.View, Members: d.Members, TTL: m.options.TTL}
	})
	names := make([]string, len(d.Members))
	for i := range d.Members {
		names[i] = d.Members[i].Name
	}
	m.options.Logger.Info("new view", "view", d.View, "members", names)
}

// change does something under the mutex and then lets all waiting calls look.
func (m *Manager) change(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
	m.tellLocked()
}

// tellLocked lets all waiting calls look.
func (m *Manager) tellLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// await calls ask under the mutex, at first and after every change, until it is
// done or has an error. late is true once limit has passed (0: never).
func (m *Manager) await(ctx context.Context, limit time.Duration, ask func(now time.Duration, late bool) (done bool, err error)) error {
	var over <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for late := false; ; {
		done, err := ask(m.options.Clock(), late)
		if done || err != nil {
			return err
		}
		if m.waiting >= m.options.MaxWaiting {
			return base.Errorf(base.Overloaded, "%d calls wait for the leasemgr already", m.waiting)
		}
		changed := m.changed
		m.waiting++
		m.mu.Unlock()
		select {
		case <-changed:
		case <-over:
			late = true
		case <-m.stopped:
			err = &base.Error{Kind: base.Unavailable, Detail: "the leasemgr stops", Unknown: true}
		case <-ctx.Done():
			err = &base.Error{Kind: base.Timeout, Detail: "waiting for a view", Unknown: true, Err: ctx.Err()}
		}
		m.mu.Lock()
		m.waiting--
		if err != nil {
			return err
		}
	}
}

// kick makes Run look at what the core has to decide.
func (m *Manager) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Join implements Registry.
func (m *Manager) Join(ctx context.Context, r JoinRequest) (Admission, error) {
	var a Admission
	err := m.await(ctx, 0, func(now time.Duration, _ bool) (bool, error) {
		member, standing, err := m.core.Join(r, now)
		a = Admission{Member: member, Published: m.published}
		m.kick()
		return standing == membership.In, err
	})
	if err != nil {
		return Admission{}, err
	}
	return a, nil
}

// Renew implements Registry.
func (m *Manager) Renew(ctx context.Context, r RenewRequest) (Published, error) {
	m.mu.Lock()
	extended := m.renewLocked(&r)
	m.mu.Unlock()
	var p Published
	// A member that waits for the disk gets its answer later than it asked for.
	wait := min(max(r.Wait, 0), m.options.TTL/2)
	limit := wait
	if limit == 0 {
		limit = m.options.TTL / 2
	}
	err := m.await(ctx, limit, func(_ time.Duration, late bool) (bool, error) {
		standing := m.core.Standing(r.Member)
		p = m.published
		switch {
		case standing == membership.Out:
			p.Evicted = true
			return true, nil
		case standing == membership.In:
			p.Unextended = !extended
			if p.Yield = m.core.Yields(r.Member); p.Yield {
				return true, nil
			}
			return late || wait == 0 || p.View > r.Known, nil
		case late:
			return false, base.Errorf(base.Unavailable, "a view without worker %d, incarnation %d, is being decided", r.Member.Worker, r.Member.Incarnation)
		default:
			return false, nil
		}
	})
	if err != nil {
		return Published{}, err
	}
	return p, nil
}

// renewLocked tells the core, and the member that is to leave if it has found one.
func (m *Manager) renewLocked(r *RenewRequest) (extended bool) {
	_, extended, loser := m.core.Renew(r.Member, r.Silence, r.Unreachable, m.options.Clock())
	if loser != nil {
		m.options.Logger.Warn("a worker is asked to leave: between it and others there is no link", "worker", loser.Name)
		m.tellLocked()
	}
	return extended
}

// Leave implements Registry.
func (m *Manager) Leave(ctx context.Context, who lease.Member) error {
	return m.await(ctx, 0, func(now time.Duration, _ bool) (bool, error) {
		standing, err := m.core.Leave(who, now)
		m.kick()
		return standing == membership.Out, err
	})
}

// State returns the membership as operators see it. It waits at most wait, and at
// most half a TTL, for a later view than known: so those who are no members, such
// as gateways, follow the views.
func (m *Manager) State(ctx context.Context, known base.View, wait time.Duration) (State, error) {
	var s State
	wait = min(max(wait, 0), m.options.TTL/2)
	err := m.await(ctx, wait, func(now time.Duration, late bool) (bool, error) {
		s.Published = m.published
		if wait > 0 && !late && s.View <= known {
			return false, nil
		}
		s.Decided, s.Reports, s.Joining = m.core.State(now)
		return true, nil
	})
	if err != nil {
		return State{}, err
	}
	return s, nil
}
