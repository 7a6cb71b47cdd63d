package leasemgr_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/store"
)

// memory is an engine that keeps its keys in a map. Unlike a real one it starts
// no goroutines, so that a synctest bubble can own it.
type memory struct {
	store.Engine
	mu     sync.Mutex
	keys   map[string][]byte
	broken bool
}

func newMemory() *memory { return &memory{keys: map[string][]byte{}} }

type memoryBatch struct {
	store.Batch
	keys map[string][]byte
}

func (b *memoryBatch) Set(key, value []byte) { b.keys[string(key)] = slices.Clone(value) }
func (b *memoryBatch) Release()              {}

func (e *memory) NewBatch() store.Batch { return &memoryBatch{keys: map[string][]byte{}} }

func (e *memory) Get(dst, key []byte) ([]byte, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, found := e.keys[string(key)]
	return append(dst, value...), found, nil
}

func (e *memory) Apply(b store.Batch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken {
		return errors.New("the disk is broken")
	}
	maps.Copy(e.keys, b.(*memoryBatch).keys)
	return nil
}

// view is that of the durable record.
func (e *memory) view(t *testing.T) base.View {
	t.Helper()
	r, err := leasemgr.ReadMembership(e)
	if err != nil {
		t.Fatal(err)
	}
	return r.View
}

// seal is a data store of which only the seal matters.
type seal struct {
	mu     sync.Mutex
	view   base.View
	calls  int
	broken bool
	check  func(view base.View)
}

func (s *seal) to(view base.View) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.check != nil {
		s.check(view)
	}
	if s.broken {
		return errors.New("the store cannot be reached")
	}
	if view < s.view {
		return fmt.Errorf("sealed for view %d already", s.view)
	}
	s.view = view
	return nil
}

func (s *seal) set(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// checks has every seal looked at before it is done.
func (s *seal) checks(check func(view base.View)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = check
}

func (s *seal) sealed() base.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// running is a manager with its Run.
type running struct {
	*leasemgr.Manager
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    error
}

func startManager(t *testing.T, engine store.Engine, s *seal) *running {
	t.Helper()
	m, err := leasemgr.NewManager(engine, leasemgr.ManagerOptions{Seal: s.to, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Manager: m}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.wg.Go(func() { r.err = m.Run(ctx) })
	return r
}

// stop ends the manager as a crash does: nothing is said to anybody.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	r.wg.Wait()
	if r.err != nil {
		t.Errorf("Run: %v", r.err)
	}
}

func joiner(name string, n byte) leasemgr.JoinRequest {
	return leasemgr.JoinRequest{Name: name, Nonce: leasemgr.Nonce{n}, Address: name + ":1", Provider: "tcp"}
}

func joined(t *testing.T, r leasemgr.Registry, j leasemgr.JoinRequest) leasemgr.Admission {
	t.Helper()
	a, err := r.Join(t.Context(), j)
	if err != nil {
		t.Fatalf("join %s: %v", j.Name, err)
	}
	return a
}

func names(p leasemgr.Published) (all []string) {
	for _, m := range p.Members {
		all = append(all, m.Name)
	}
	return all
}

func TestManagerJoinRenewLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seal{}
		m := startManager(t, newMemory(), s)
		defer m.stop(t)
		a := joined(t, m, joiner("a", 1))
		if a.View != 1 || a.Member != (lease.Member{Worker: 1, Incarnation: 1}) || a.TTL != 3*time.Second || s.sealed() != 1 {
			t.Fatalf("%+v, sealed for %d", a, s.sealed())
		}
		b := joined(t, m, joiner("b", 1))
		p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: 1, Wait: time.Second})
		if err != nil || p.View != 2 || !slices.Equal(names(p), []string{"a", "b"}) || p.Evicted {
			t.Fatalf("%+v, %v", p, err)
		}
		view, err := p.Lease()
		if err != nil || view.View != 2 || len(view.All) != 2 || view.All[1] != b.Member {
			t.Errorf("%+v, %v", view, err)
		}
		if err := m.Leave(t.Context(), a.Member); err != nil {
			t.Fatal(err)
		}
		for what, check := range map[string]lease.Member{"who left": a.Member, "nobody": {Worker: 7, Incarnation: 7}} {
			p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: check})
			if err != nil || !p.Evicted || p.View != 3 || !slices.Equal(names(p), []string{"b"}) {
				t.Errorf("%s: %+v, %v", what, p, err)
			}
		}
	})
}

// TestLongPoll: the answer comes with the view, or at the end of the wait.
func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		a := joined(t, m, joiner("a", 1))
		for _, test := range []struct{ wait, want time.Duration }{{0, 0}, {-1, 0}, {time.Second, time.Second}, {time.Hour, 1500 * time.Millisecond}} {
			start := time.Now()
			p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: a.View, Wait: test.wait})
			if err != nil || p.View != a.View || time.Since(start) != test.want {
				t.Errorf("wait %v: %+v, %v after %v", test.wait, p, err, time.Since(start))
			}
		}
		var others sync.WaitGroup
		start := time.Now()
		others.Go(func() {
			time.Sleep(100 * time.Millisecond)
			if _, err := m.Join(t.Context(), joiner("b", 1)); err != nil {
				t.Error(err)
			}
		})
		p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: a.View, Wait: time.Second})
		if err != nil || p.View != 2 || time.Since(start) != 150*time.Millisecond {
			t.Errorf("%+v, %v after %v", p, err, time.Since(start))
		}
		others.Wait()
		state, err := m.State(t.Context(), 1, time.Second)
		if err != nil || state.View != 2 || state.Decided != 2 || len(state.Reports) != 2 || state.Reports[0].Renewed != 150*time.Millisecond {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

// TestSilentMemberIsOut: evicted by its silence, it hears so when it wakes.
func TestSilentMemberIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seal{}
		m := startManager(t, newMemory(), s)
		defer m.stop(t)
		a, b := joined(t, m, joiner("a", 1)), joined(t, m, joiner("b", 1))
		start := time.Now()
		p := b.Published
		for p.View == b.View {
			var err error
			if p, err = m.Renew(t.Context(), leasemgr.RenewRequest{Member: b.Member, Known: b.View, Wait: time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		// a was renewed when it was published, one window before.
		if took := time.Since(start); took < 3230*time.Millisecond-50*time.Millisecond || took > 3300*time.Millisecond {
			t.Errorf("published after %v", took)
		}
		if !slices.Equal(names(p), []string{"b"}) || s.sealed() != p.View {
			t.Errorf("%+v, sealed for %d", p, s.sealed())
		}
		if p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member}); err != nil || !p.Evicted {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := m.Join(t.Context(), joiner("a", 1)); base.KindOf(err) != base.Precondition {
			t.Errorf("the evicted instance joins: %v", err)
		}
	})
}

// TestNothingIsPublishedUnsealed: the order is decide, seal, publish, and a store
// that cannot be sealed holds up nothing but new views.
func TestNothingIsPublishedUnsealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine, s := newMemory(), &seal{}
		m := startManager(t, engine, s)
		defer m.stop(t)
		a := joined(t, m, joiner("a", 1))
		s.checks(func(view base.View) {
			if durable := engine.view(t); durable < view {
				t.Errorf("sealed for view %d, and view %d is durable", view, durable)
			}
		})
		s.set(true)
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var joining sync.WaitGroup
		joining.Go(func() {
			if _, err := m.Join(short, joiner("b", 1)); base.KindOf(err) != base.Timeout {
				t.Errorf("join while the store is away: %v", err)
			}
		})
		for range 20 {
			p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: a.View, Wait: time.Second / 2})
			if err != nil || p.View != 1 || p.Evicted {
				t.Errorf("%+v, %v", p, err)
			}
		}
		joining.Wait()
		if engine.view(t) != 2 || s.calls < 10 || s.calls > 30 {
			t.Errorf("view %d is decided, %d attempts to seal", engine.view(t), s.calls)
		}
		s.set(false)
		b := joined(t, m, joiner("b", 1))
		if b.View != 2 || b.Member.Incarnation != 1 {
			t.Errorf("%+v", b)
		}
	})
}

// TestCrashBetween stops the manager between decision, seal and publication, and
// starts it again.
func TestCrashBetween(t *testing.T) {
	for _, test := range []struct {
		name string
		// what is broken when the second worker joins
		disk, store bool
		view        base.View // of the second worker
	}{
		{"before the decision is durable", true, false, 2},
		{"before the seal", false, true, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine, s := newMemory(), &seal{}
				m := startManager(t, engine, s)
				a := joined(t, m, joiner("a", 1))
				engine.broken = test.disk
				s.set(test.store)
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				if _, err := m.Join(short, joiner("b", 1)); err == nil {
					t.Error("admitted")
				}
				cancel()
				m.cancel()
				m.wg.Wait()
				if (m.err != nil) != test.disk {
					t.Errorf("Run: %v", m.err)
				}
				engine.broken = false

				s.set(true)
				m = startManager(t, engine, s)
				defer m.stop(t)
				for range 4 { // what is not sealed is not shown, and nobody is out for it
					p, err := m.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: a.View, Wait: time.Second})
					if err != nil || p.View != 0 || p.Evicted {
						t.Fatalf("%+v, %v", p, err)
					}
				}
				s.set(false)
				b := joined(t, m, joiner("b", 1))
				if b.View != test.view || b.Member != (lease.Member{Worker: 2, Incarnation: 1}) || s.sealed() != b.View || !slices.Equal(names(b.Published), []string{"a", "b"}) {
					t.Errorf("%+v, sealed for %d", b, s.sealed())
				}
			})
		})
	}
}

// TestManagerStops: whoever waits is told.
func TestManagerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seal{}
		m := startManager(t, newMemory(), s)
		a := joined(t, m, joiner("a", 1))
		s.set(true)
		var waiting sync.WaitGroup
		for what, call := range map[string]func() error{
			"join":  func() error { _, err := m.Join(t.Context(), joiner("b", 1)); return err },
			"leave": func() error { return m.Leave(t.Context(), a.Member) },
			"state": func() error { _, err := m.State(t.Context(), 9, time.Second); return err },
		} {
			waiting.Go(func() {
				if err := call(); base.KindOf(err) != base.Unavailable {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		m.stop(t)
		waiting.Wait()
	})
}

func TestManagerLimitsWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := leasemgr.NewManager(newMemory(), leasemgr.ManagerOptions{Seal: (&seal{}).to, MaxWaiting: 2})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for n := range byte(2) {
			waiting.Go(func() {
				if _, err := m.Join(ctx, joiner(string(rune('a'+n)), 1)); base.KindOf(err) != base.Timeout {
					t.Errorf("%v", err)
				}
			})
		}
		synctest.Wait()
		if _, err := m.Join(ctx, joiner("c", 1)); base.KindOf(err) != base.Overloaded {
			t.Errorf("the third waiting call: %v", err)
		}
		cancel()
		waiting.Wait()
	})
}

// TestManagerOnOneEngine runs on the engine of a node of one worker, whose views
// and incarnations go on, and whose store it seals.
func TestManagerOnOneEngine(t *testing.T) {
	fs := vfs.NewMem()
	engine := openEngine(t, fs)
	admit(t, engine, "a")
	old := admit(t, engine, "a")
	var last leasemgr.Admission
	for n := range byte(3) {
		m, err := leasemgr.NewManager(engine, leasemgr.ManagerOptions{Seal: engine.Seal, Sealed: engine.Sealed(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		last = joined(t, m, joiner("a", n+1))
		if err := appendBatch(engine, old.View); err == nil {
			t.Error("a batch of an older view was accepted")
		}
		if last.Member.Incarnation != uint32(n)+3 || engine.Sealed() != last.View {
			t.Errorf("start %d: %+v, sealed for %d", n, last, engine.Sealed())
		}
		if err := m.Leave(ctx, last.Member); err != nil {
			t.Error(err)
		}
		cancel()
		run.Wait()
		closeEngine(t, engine)
		engine = openEngine(t, fs)
	}
	if m := admit(t, engine, "a"); m.View <= last.View || m.Members["a"] != 6 {
		t.Errorf("a node of one worker again: %+v", m)
	}
	closeEngine(t, engine)
}

func TestManagerNeedsASeal(t *testing.T) {
	if _, err := leasemgr.NewManager(newMemory(), leasemgr.ManagerOptions{}); err == nil {
		t.Error("made without a seal")
	}
}
