package leasemgr_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
)

const ttl = 3 * time.Second

// link is a Registry behind a network with faults.
type link struct {
	mu sync.Mutex
	// to is who answers; nil: nobody can be reached.
	to leasemgr.Registry
	// fault is asked twice for each call, on its way there and back: how long it
	// takes, and whether it is lost.
	fault func(back bool) (delay time.Duration, lost bool)
	calls int
}

func (l *link) set(to leasemgr.Registry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
}

// count is how many calls were made.
func (l *link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func (l *link) way(ctx context.Context, back bool) error {
	l.mu.Lock()
	to, delay, lost := l.to, time.Duration(0), false
	if l.fault != nil {
		delay, lost = l.fault(back)
	}
	if !back {
		l.calls++
	}
	l.mu.Unlock()
	if to == nil {
		return &base.Error{Kind: base.Unavailable, Detail: "connection refused", Unknown: true}
	}
	if lost {
		<-ctx.Done()
		return &base.Error{Kind: base.Timeout, Unknown: true, Err: ctx.Err()}
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return &base.Error{Kind: base.Timeout, Unknown: true, Err: ctx.Err()}
	}
}

// carry makes a call go there and back. An answer that is lost or late was still
// given.
func carry[T any](ctx context.Context, l *link, call func(ctx context.Context, to leasemgr.Registry) (T, error)) (answer T, err error) {
	if err := l.way(ctx, false); err != nil {
		return answer, err
	}
	l.mu.Lock()
	to := l.to
	l.mu.Unlock()
	if to == nil {
		return answer, base.Errorf(base.Unavailable, "connection reset")
	}
	if answer, err = call(ctx, to); err != nil {
		return answer, err
	}
	return answer, l.way(ctx, true)
}

func (l *link) Join(ctx context.Context, r leasemgr.JoinRequest) (leasemgr.Admission, error) {
	return carry(ctx, l, func(ctx context.Context, to leasemgr.Registry) (leasemgr.Admission, error) { return to.Join(ctx, r) })
}

func (l *link) Renew(ctx context.Context, r leasemgr.RenewRequest) (leasemgr.Published, error) {
	return carry(ctx, l, func(ctx context.Context, to leasemgr.Registry) (leasemgr.Published, error) { return to.Renew(ctx, r) })
}

func (l *link) Leave(ctx context.Context, m lease.Member) error {
	_, err := carry(ctx, l, func(ctx context.Context, to leasemgr.Registry) (struct{}, error) { return struct{}{}, to.Leave(ctx, m) })
	return err
}

func sessionOptions(name string, r leasemgr.Registry) leasemgr.SessionOptions {
	return leasemgr.SessionOptions{Registry: r, Name: name, Address: name + ":1", Provider: "tcp", Logger: slog.New(slog.DiscardHandler)}
}

// live is a session with its Run.
type live struct {
	*leasemgr.Session
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    error
}

func startSession(t *testing.T, o leasemgr.SessionOptions) *live {
	t.Helper()
	s, err := leasemgr.Join(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{Session: s}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.wg.Go(func() { l.err = s.Run(ctx) })
	return l
}

func (l *live) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	if l.err != nil {
		t.Errorf("Run: %v", l.err)
	}
}

// left is how long the session has until it expires.
func (l *live) left() time.Duration { return l.Expiry() - l.Now() }

// TestSessionKeepsAhead: a session that is served has never less than half a TTL.
func TestSessionKeepsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		l := &link{to: m}
		s := startSession(t, sessionOptions("a", l))
		defer s.stop(t)
		for range 6000 {
			time.Sleep(10 * time.Millisecond)
			if left := s.left(); left < ttl/2 || left > ttl {
				t.Fatalf("%v are left", left)
			}
		}
		if calls := l.count(); calls < 120 || calls > 130 {
			t.Errorf("%d calls in a minute, want two a second", calls)
		}
	})
}

// TestSessionViews: they come in order and at once, and who does not look gets
// the latest.
func TestSessionViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		s := startSession(t, sessionOptions("a", m))
		defer s.stop(t)
		if p := <-s.Views(); p.View != 1 || !slices.Equal(names(p), []string{"a"}) {
			t.Errorf("%+v", p)
		}
		start := time.Now()
		joined(t, m, joiner("b", 1))
		if p := <-s.Views(); p.View != 2 || time.Since(start) != 50*time.Millisecond {
			t.Errorf("%+v after %v", p, time.Since(start))
		}
		joined(t, m, joiner("c", 1))
		joined(t, m, joiner("d", 1))
		time.Sleep(time.Millisecond)
		if p := <-s.Views(); p.View != 4 || !slices.Equal(names(p), []string{"a", "b", "c", "d"}) {
			t.Errorf("%+v", p)
		}
		select {
		case p := <-s.Views():
			t.Errorf("a view too many: %+v", p)
		default:
		}
	})
}

// scripted answers renewals after a delay, as a member of view 1.
type scripted struct {
	leasemgr.Registry
	delay time.Duration
	sent  []time.Time
}

func (r *scripted) Join(context.Context, leasemgr.JoinRequest) (leasemgr.Admission, error) {
	time.Sleep(r.delay)
	return leasemgr.Admission{Member: lease.Member{Worker: 1, Incarnation: 1}, Published: leasemgr.Published{View: 1, TTL: ttl}}, nil
}

func (r *scripted) Renew(context.Context, leasemgr.RenewRequest) (leasemgr.Published, error) {
	r.sent = append(r.sent, time.Now())
	time.Sleep(r.delay)
	return leasemgr.Published{View: 1, TTL: ttl}, nil
}

func (r *scripted) Leave(context.Context, lease.Member) error { return nil }

// TestAnswerAfterLeave: a renewal that was on its way does not bring a session
// back that has ended.
func TestAnswerAfterLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSession(t, sessionOptions("a", &scripted{delay: 400 * time.Millisecond}))
		time.Sleep(100 * time.Millisecond)
		if err := s.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		s.wg.Wait()
		if s.err != nil || s.left() > 0 {
			t.Errorf("Run: %v, %v are left", s.err, s.left())
		}
	})
}

// TestExpiryCountsFromSending: not from the answer.
func TestExpiryCountsFromSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		o := sessionOptions("a", &scripted{delay: 400 * time.Millisecond})
		o.Clock = func() time.Duration { return time.Since(start) }
		s := startSession(t, o)
		if s.Expiry() != ttl {
			t.Errorf("expiry %v after a join", s.Expiry())
		}
		time.Sleep(420 * time.Millisecond)
		if s.Expiry() != ttl+400*time.Millisecond {
			t.Errorf("expiry %v after a renewal", s.Expiry())
		}
		s.stop(t)
	})
}

// TestAnswersWithoutWaiting: a leasemgr that does not hold answers back is not
// asked more often.
func TestAnswersWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &scripted{}
		s := startSession(t, sessionOptions("a", r))
		time.Sleep(10*time.Second + time.Millisecond)
		s.stop(t)
		if len(r.sent) != 21 {
			t.Errorf("%d renewals in 10 s", len(r.sent))
		}
	})
}

// TestLeasemgrAway: a session outlives a leasemgr that is away for a moment, and
// one that is away longer, though it has to stop in between.
func TestLeasemgrAway(t *testing.T) {
	for _, away := range []time.Duration{1500 * time.Millisecond, 20 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine, data := newMemory(), &seal{}
				m := startManager(t, engine, data)
				l := &link{to: m}
				s := startSession(t, sessionOptions("a", l))
				time.Sleep(10 * time.Second)
				m.stop(t)
				l.set(nil)
				before := l.count()
				time.Sleep(away)
				if left := s.left(); (left > 0) != (away < ttl) {
					t.Errorf("%v are left", left)
				}
				if calls := l.count() - before; calls < 3 || calls > 50 {
					t.Errorf("%d attempts in %v", calls, away)
				}
				m = startManager(t, engine, data)
				defer m.stop(t)
				l.set(m)
				time.Sleep(time.Second)
				if left := s.left(); left < ttl/2 {
					t.Errorf("%v are left after the leasemgr is back", left)
				}
				s.stop(t)
			})
		})
	}
}

// TestRestartedWorkerWaits: a worker that crashed and starts again is admitted when
// its predecessor has expired, in one view.
func TestRestartedWorkerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		first := startSession(t, sessionOptions("a", m))
		time.Sleep(700 * time.Millisecond)
		first.stop(t) // it renewed 200 ms ago
		start := time.Now()
		second := startSession(t, sessionOptions("a", m))
		defer second.stop(t)
		if took := time.Since(start); took < 3*time.Second || took > 3500*time.Millisecond {
			t.Errorf("admitted after %v", took)
		}
		if p := <-second.Views(); p.View != 2 || second.Member().Incarnation != 2 {
			t.Errorf("%+v", p)
		}
	})
}

// TestJoinNeverHeard: the answers to its joins were lost until it was evicted; it
// holds nothing, and joins with another nonce.
func TestJoinNeverHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		deaf := time.Now().Add(100 * time.Millisecond)
		l := &link{to: m, fault: func(back bool) (time.Duration, bool) {
			if !back && time.Now().After(deaf) && time.Now().Before(deaf.Add(8*time.Second)) {
				return 0, true
			}
			return 0, back && time.Now().Before(deaf.Add(8*time.Second))
		}}
		s := startSession(t, sessionOptions("a", l))
		defer s.stop(t)
		if s.Member().Incarnation != 2 {
			t.Errorf("admitted as %v", s.Member())
		}
	})
}

func TestJoinGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		if _, err := leasemgr.Join(t.Context(), sessionOptions("", m)); base.KindOf(err) != base.Invalid {
			t.Errorf("without a name: %v", err)
		}
		if _, err := leasemgr.Join(t.Context(), leasemgr.SessionOptions{}); err == nil {
			t.Error("joined without a registry")
		}
		l := &link{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := leasemgr.Join(ctx, sessionOptions("a", l)); base.KindOf(err) != base.Timeout {
			t.Errorf("while nobody is there: %v", err)
		}
		if calls := l.count(); calls < 10 || calls > 20 {
			t.Errorf("%d attempts in 10 s", calls)
		}
	})
}

// TestSessionLeave: it has expired from the first moment, and says so until it is
// heard.
func TestSessionLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startManager(t, newMemory(), &seal{})
		defer m.stop(t)
		l := &link{to: m}
		s := startSession(t, sessionOptions("a", l))
		time.Sleep(time.Second + time.Millisecond) // in the middle of a long poll
		l.set(nil)
		var leaving sync.WaitGroup
		leaving.Go(func() {
			if err := s.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if s.left() > 0 {
			t.Errorf("%v are left", s.left())
		}
		s.wg.Wait()
		if s.err != nil {
			t.Errorf("Run: %v", s.err)
		}
		time.Sleep(100 * time.Millisecond)
		l.set(m)
		leaving.Wait()
		state, err := m.State(t.Context(), 0, 0)
		if err != nil || state.View != 2 || len(state.Members) != 0 || s.left() > 0 {
			t.Errorf("%+v, %v, %v are left", state, err, s.left())
		}
		if err := s.Leave(t.Context()); err != nil {
			t.Errorf("leave again: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.set(nil)
		if err := s.Leave(ctx); base.KindOf(err) != base.Unavailable {
			t.Errorf("leave while nobody is there: %v", err)
		}
	})
}

// TestFlaky runs sessions with clocks of their own speed over links that delay
// and lose, and a leasemgr that restarts. Whenever the store is sealed for a view,
// whoever is not in it has expired.
func TestFlaky(t *testing.T) {
	evicted := 0
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { evicted += flaky(t, seed) })
		})
	}
	if evicted < 10 {
		t.Errorf("%d evictions: the test saw too little", evicted)
	}
}

// flock are workers that join again when they are evicted.
type flock struct {
	mu      sync.Mutex
	alive   map[string]*leasemgr.Session
	evicted int
}

func (f *flock) worker(ctx context.Context, t *testing.T, o leasemgr.SessionOptions) {
	for ctx.Err() == nil {
		s, err := leasemgr.Join(ctx, o)
		if err != nil {
			continue
		}
		f.mu.Lock()
		f.alive[o.Name] = s
		f.mu.Unlock()
		last := base.View(0)
		run := func() error {
			var watch sync.WaitGroup
			defer watch.Wait()
			inner, cancel := context.WithCancel(ctx)
			defer cancel()
			watch.Go(func() {
				for {
					select {
					case p := <-s.Views():
						if p.View <= last {
							t.Errorf("view %d follows view %d", p.View, last)
						}
						last = p.View
					case <-inner.Done():
						return
					}
				}
			})
			return s.Run(inner)
		}
		if err := run(); err != nil {
			f.mu.Lock()
			f.evicted++
			f.mu.Unlock()
		}
	}
}

// check looks at who is missing in a view that is about to be published.
func (f *flock) check(t *testing.T, engine *memory) {
	r, err := leasemgr.ReadMembership(engine)
	if err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, s := range f.alive {
		if in := r.Members[name]; in != uint64(s.Member().Incarnation) && s.Expiry() > s.Now() {
			t.Errorf("view %d has incarnation %d of %s, and %d expires in %v", r.View, in, name, s.Member().Incarnation, s.Expiry()-s.Now())
		}
	}
}

func flaky(t *testing.T, seed uint64) int {
	rng := rand.New(rand.NewPCG(seed, 0))
	engine, data, f := newMemory(), &seal{}, &flock{alive: map[string]*leasemgr.Session{}}
	data.checks(func(base.View) { f.check(t, engine) })
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	m := startManager(t, engine, data)
	var links []*link
	for n := range 4 {
		faults := rand.New(rand.NewPCG(seed, uint64(n)+1))
		loss := []int{0, 5, 30, 60}[n]
		l := &link{to: m, fault: func(bool) (time.Duration, bool) {
			delay := time.Duration(faults.IntN(30)) * time.Millisecond
			if faults.IntN(20) == 0 {
				delay = time.Duration(faults.IntN(1000)) * time.Millisecond
			}
			return delay, faults.IntN(100) < loss
		}}
		links = append(links, l)
		o := sessionOptions(string(rune('a'+n)), l)
		start, rate := time.Now(), []float64{1, 1 / 1.01, 1.01, 1 / 1.01}[n]
		o.Clock = func() time.Duration { return time.Duration(float64(time.Since(start)) * rate) }
		o.Nonce = func() (nonce leasemgr.Nonce) {
			for i := range nonce {
				nonce[i] = byte(faults.Uint32())
			}
			return nonce
		}
		workers.Go(func() { f.worker(ctx, t, o) })
	}
	for range 20 {
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
		switch rng.IntN(3) {
		case 0: // the leasemgr restarts
			m.stop(t)
			for _, l := range links {
				l.set(nil)
			}
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
			m = startManager(t, engine, data)
			for _, l := range links {
				l.set(m)
			}
		case 1: // one is cut off
			l := links[rng.IntN(len(links))]
			l.set(nil)
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
			l.set(m)
		case 2: // the store is away
			data.set(true)
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
			data.set(false)
		}
	}
	cancel()
	workers.Wait()
	m.stop(t)
	return f.evicted
}
