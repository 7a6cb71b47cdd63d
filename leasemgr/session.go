package leasemgr

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// SessionOptions configures a Session.
type SessionOptions struct {
	// Registry is the leasemgr. Required.
	Registry Registry
	// Name, Address, Provider and Zone are as in a JoinRequest.
	Name, Address, Provider, Zone string
	// Clock is a clock that never goes back and runs on while the process is
	// stopped; Expiry is in its time. nil means time since Join, by Go's monotonic
	// clock, which stands still while the whole machine sleeps.
	Clock func() time.Duration
	// Nonce draws the nonce of an instance; nil means at random.
	Nonce func() Nonce
	// JoinTimeout bounds one attempt to join; 0 means 3 s.
	JoinTimeout time.Duration
	// Logger gets a message when the leasemgr cannot be reached and when it can
	// again; nil means slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *SessionOptions) EnsureDefaults() {
	if o.Clock == nil {
		start := time.Now()
		o.Clock = func() time.Duration { return time.Since(start) }
	}
	if o.Nonce == nil {
		o.Nonce = func() (n Nonce) {
			_, _ = rand.Read(n[:]) // it never fails: documented
			return n
		}
	}
	if o.JoinTimeout == 0 {
		o.JoinTimeout = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Pauses between attempts to join double from the first to the last; a hint of
// the leasemgr counts, up to maxJoinHint.
const (
	minJoinPause = 50 * time.Millisecond
	maxJoinPause = time.Second
	maxJoinHint  = 10 * time.Second
)

// A renewal is sent TTL/renewFraction after the last one: as a long poll, so that
// a new view arrives at once. A call may take as long again before it is given up;
// one that wants its answer at once, at first three quarters of that, so that of
// three calls two may be lost within the silence that package membership allows.
// At the start of a call at least TTL - TTL/6 are left, at its end TTL - 2*TTL/6:
// as much as with renewals every TTL/3 that are answered at once.
const renewFraction = 6

// quickCalls is how many failures in a row make calls be slower again: then calls may
// be slow rather than lost.
const quickCalls = 4

// fenced is an expiry that has always passed; Expiry - Now does not overflow.
const fenced = math.MinInt64 / 2

// errEvicted ends Run.
var errEvicted = errors.New("it is no member any more: it did not renew in time, has left, or had to")

// Session is the membership of one instance: Join makes it, Run keeps it alive.
// A leasemgr that is down stops neither, until Expiry passes.
type Session struct {
	options SessionOptions
	member  lease.Member
	// expiry is a time.Duration of the clock. Written under mu.
	expiry atomic.Int64
	views  chan Published
	// over is closed when the session is, by eviction or Leave.
	over    chan struct{}
	evicted chan struct{}
	// unreachable is Watch's.
	unreachable func() []lease.Member
	// heard is when the last renewal was sent that was answered, and unheard says that
	// there was one after it. They are Run's.
	heard   time.Duration
	unheard bool

	mu    sync.Mutex // guards the fields below and the writes of expiry
	ended bool
	known base.View
	ttl   time.Duration
}

// Join becomes a member: it repeats until it is admitted, ctx ends, or the
// leasemgr says that it never will be (Invalid). While another instance of the
// name is a member, such as the one that crashed a moment ago, it waits.
func Join(ctx context.Context, o SessionOptions) (*Session, error) {
	o.EnsureDefaults()
	if o.Registry == nil {
		return nil, errors.New("leasemgr: SessionOptions.Registry is required")
	}
	request := JoinRequest{Name: o.Name, Nonce: o.Nonce(), Address: o.Address, Provider: o.Provider, Zone: o.Zone}
	for pause := minJoinPause; ; pause = min(2*pause, maxJoinPause) {
		sent := o.Clock()
		attempt, cancel := context.WithTimeout(ctx, o.JoinTimeout)
		a, err := o.Registry.Join(attempt, request)
		cancel()
		if err == nil {
			return newSession(o, a, sent), nil
		}
		hint := time.Duration(0)
		switch base.KindOf(err) {
		case base.Invalid:
			return nil, err
		case base.Precondition:
			// We were admitted, did not hear of it, and expired. Nothing was ever held
			// under that nonce, so another one may join.
			request.Nonce = o.Nonce()
		default:
			var e *base.Error
			if errors.As(err, &e) {
				hint = min(e.RetryAfter, maxJoinHint)
			}
		}
		o.Logger.Warn("not admitted by the leasemgr; trying again", "worker", o.Name, "err", err)
		if !rest(ctx, max(pause, hint)) {
			return nil, &base.Error{Kind: base.Timeout, Detail: "worker " + o.Name + " was not admitted", Unknown: true, Err: err}
		}
	}
}

// rest waits; false if ctx ended first.
func rest(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

func newSession(o SessionOptions, a Admission, sent time.Duration) *Session {
	s := &Session{options: o, member: a.Member, views: make(chan Published, 1), over: make(chan struct{}), evicted: make(chan struct{}), heard: sent}
	s.expiry.Store(fenced)
	s.accept(a.Published, sent)
	return s
}

// Member returns the number and incarnation of the session.
func (s *Session) Member() lease.Member { return s.member }

// Expiry returns until when, on the session's clock, others take what this member
// holds for its own: look at it after the last read of what is answered. It never
// goes back, but for eviction and Leave: then it has always passed. One atomic
// load.
func (s *Session) Expiry() time.Duration { return time.Duration(s.expiry.Load()) }

// Now returns the time of the session's clock.
func (s *Session) Now() time.Duration { return s.options.Clock() }

// Views returns a channel of views in ascending order, beginning with the one
// that admitted this member. It has place for one: a view that was not taken is
// replaced by the next. It is never closed.
func (s *Session) Views() <-chan Published { return s.views }

// Evicted returns a channel that is closed when the leasemgr has said that this
// member is out, for ever: drop everything, and join as a new instance.
func (s *Session) Evicted() <-chan struct{} { return s.evicted }

// Watch makes each renewal tell which members this one cannot reach. Call it before
// Run, which calls f; f must not block.
func (s *Session) Watch(f func() []lease.Member) { s.unreachable = f }

// Run renews the membership until ctx ends or Leave is called, then it returns
// nil. An error, of kind Precondition, means eviction. After the end of ctx the
// member expires by itself. Call it once.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var leaving sync.WaitGroup
	defer func() { cancel(); leaving.Wait() }()
	leaving.Go(func() {
		select {
		case <-s.over:
			cancel()
		case <-ctx.Done():
		}
	})
	atOnce := false
	for failures := 0; ctx.Err() == nil; {
		// After the first answer, too: not it but the next one may extend.
		again := s.unheard
		err := s.renew(ctx, atOnce, failures)
		atOnce = again || err != nil
		if errors.Is(err, errEvicted) {
			return err
		}
		if err == nil {
			if failures > 0 {
				s.options.Logger.Info("the leasemgr answers again", "worker", s.options.Name, "attempts", failures+1)
			}
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if failures == 0 {
			s.options.Logger.Warn("the membership was not renewed; trying again", "worker", s.options.Name, "left", s.Expiry()-s.Now(), "err", err)
		}
		failures++
		period := s.period()
		rest(ctx, min(period/8<<min(failures-1, 3), period))
	}
	return nil
}

// period is the time between two renewals.
func (s *Session) period() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ttl / renewFraction
}

// renew sends one renewal and waits for its answer; then, if the answer came early
// and had no news, for the rest of the period.
func (s *Session) renew(ctx context.Context, atOnce bool, failures int) error {
	s.mu.Lock()
	r := RenewRequest{Member: s.member, Known: s.known, Wait: s.ttl / renewFraction}
	s.mu.Unlock()
	period := r.Wait
	limit := r.Wait + period
	if atOnce {
		r.Wait, limit = 0, period
		if failures < quickCalls {
			limit = period * 3 / 4
		}
	}
	sent := s.options.Clock()
	if s.unheard {
		r.Silence = max(sent-s.heard, 1)
	}
	if s.unreachable != nil {
		r.Unreachable = s.unreachable()
	}
	call, cancel := context.WithTimeout(ctx, limit)
	p, err := s.options.Registry.Renew(call, r)
	cancel()
	if s.unheard = err != nil; err != nil {
		return err
	}
	s.heard = sent
	if p.Yield && !p.Evicted {
		s.yield(ctx)
		return &base.Error{Kind: base.Precondition, Detail: fmt.Sprintf("worker %s, number %d, incarnation %d: between it and another worker there is no link", s.options.Name, s.member.Worker, s.member.Incarnation), Err: errEvicted}
	}
	if p.Evicted {
		s.end(true)
		return &base.Error{Kind: base.Precondition, Detail: fmt.Sprintf("worker %s, number %d, incarnation %d", s.options.Name, s.member.Worker, s.member.Incarnation), Err: errEvicted}
	}
	if news := s.accept(p, sent); !news && !atOnce {
		if early := sent + period - s.options.Clock(); early > 0 {
			rest(ctx, min(early, period))
		}
	}
	return nil
}

// Who yields stops, waits until what has looked at Expiry before is over, as the
// leasemgr waits in Options.Margin, and then says so, for a while.
const (
	yieldPause = 200 * time.Millisecond
	yieldWait  = 5 * time.Second
)

func (s *Session) yield(ctx context.Context) {
	s.end(true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), yieldWait)
	defer cancel()
	if !rest(ctx, yieldPause) {
		return
	}
	if err := s.Leave(ctx); err != nil {
		s.options.Logger.Warn("the leasemgr was not told that the worker has left; the membership expires by itself", "worker", s.options.Name, "err", err)
	}
}

// accept takes the answer to a renewal that was sent at a time, and says whether
// it had a new view.
func (s *Session) accept(p Published, sent time.Duration) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.ttl = p.TTL
	if !p.Unextended {
		s.expiry.Store(max(s.expiry.Load(), int64(sent+p.TTL)))
	}
	if p.View <= s.known {
		return false
	}
	s.known = p.View
	select {
	case <-s.views: // nobody has taken the last one
	default:
	}
	s.views <- p // there is place: only we send, under mu
	return true
}

// end makes the session be over: it has expired, whatever answers still come.
func (s *Session) end(evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.expiry.Store(fenced)
	if evicted {
		close(s.evicted)
	}
	close(s.over)
}

// Leave ends the session and announces that to the leasemgr, as often as it takes
// until the answer or the end of ctx. From its start Expiry has passed: call it
// when the worker has nothing to answer any more. A member whose announcement does
// not arrive expires by itself.
func (s *Session) Leave(ctx context.Context) error {
	s.end(false)
	for pause := minJoinPause; ; pause = min(2*pause, maxJoinPause) {
		attempt, cancel := context.WithTimeout(ctx, s.options.JoinTimeout)
		err := s.options.Registry.Leave(attempt, s.member)
		cancel()
		if err == nil || base.KindOf(err) == base.NotFound || base.KindOf(err) == base.Invalid {
			return err
		}
		if !rest(ctx, pause) {
			return err
		}
	}
}
