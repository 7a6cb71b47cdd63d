package leasemgr_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
)

// TestLostCalls: a call that is never answered is given up early enough for
// others before the session expires, though every second call is lost, or two of
// three, so that most of those that are answered say that the one before was not.
func TestLostCalls(t *testing.T) {
	for _, answered := range []int{2, 3} {
		t.Run(fmt.Sprint("one of ", answered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := startManager(t, newMemory(), &seal{})
				defer m.stop(t)
				ways := 0
				s := startSession(t, sessionOptions("a", &link{to: m, fault: func(back bool) (time.Duration, bool) {
					if !back {
						ways++
					}
					return 0, ways > 1 && ways%answered != 0
				}}))
				defer s.stop(t)
				for range 3000 {
					time.Sleep(10 * time.Millisecond)
					if left := s.left(); left < ttl/4 {
						t.Fatalf("%v are left", left)
					}
				}
			})
		})
	}
}

// TestAnswersCut: a member that the leasemgr hears, and that hears nothing, is out
// a time-out after the last renewal that arrived before the cut, as if nothing was
// heard of it either; until then it believes no longer than that. If it hears again
// in time, it stays.
func TestAnswersCut(t *testing.T) {
	for _, cut := range []time.Duration{1500 * time.Millisecond, time.Minute} {
		t.Run(cut.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data := &seal{}
				m := startManager(t, newMemory(), data)
				defer m.stop(t)
				deaf := false
				l := &link{to: m, fault: func(back bool) (time.Duration, bool) { return 0, deaf && back }}
				s := startSession(t, sessionOptions("a", l))
				time.Sleep(10 * time.Second)
				// A change of view just before: what was answered last was sent just before,
				// too, and the next renewal just after.
				b := joined(t, m, joiner("b", 1))
				if err := m.Leave(t.Context(), b.Member); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				l.mu.Lock()
				deaf = true
				l.mu.Unlock()
				start := time.Now()
				var gone atomic.Int64
				data.checks(func(base.View) {
					gone.Store(int64(time.Since(start)))
					if s.left() > 0 {
						t.Errorf("others take over, and the member has another %v", s.left())
					}
				})
				time.Sleep(cut)
				before := l.count()
				l.mu.Lock()
				deaf = false
				l.mu.Unlock()
				time.Sleep(time.Second)
				if before < 20 { // two a second before, and those that it went on to send
					t.Errorf("%d renewals: it did not go on", before)
				}
				out := time.Duration(gone.Load())
				timeout := 3230*time.Millisecond + 50*time.Millisecond // and the window in which changes gather
				switch {
				case cut < ttl: // the third attempt after it is heard
					if left := s.left(); out != 0 || left < ttl/2 {
						t.Errorf("out after %v; %v are left", out, left)
					}
					s.stop(t)
				case out < 2*time.Second || out > timeout+2*time.Millisecond:
					t.Errorf("out %v after the cut, a time-out is %v", out, timeout)
				default:
					s.wg.Wait()
					if base.KindOf(s.err) != base.Precondition {
						t.Errorf("Run: %v", s.err)
					}
				}
			})
		})
	}
}

// TestCutOff: the leasemgr lives and does not hear of the member, which is out.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := &seal{}
		m := startManager(t, newMemory(), data)
		defer m.stop(t)
		l := &link{to: m}
		s := startSession(t, sessionOptions("a", l))
		time.Sleep(time.Second)
		data.checks(func(base.View) {
			if s.left() > 0 {
				t.Errorf("others take over, and the member has another %v", s.left())
			}
		})
		l.set(nil)
		time.Sleep(5 * time.Second)
		if data.sealed() != 2 {
			t.Errorf("sealed for view %d", data.sealed())
		}
		l.set(m)
		<-s.Evicted()
		s.wg.Wait()
		if base.KindOf(s.err) != base.Precondition || s.left() > 0 {
			t.Errorf("Run: %v, %v are left", s.err, s.left())
		}
		next := startSession(t, sessionOptions("a", l))
		if next.Member() != (lease.Member{Worker: 1, Incarnation: 2}) {
			t.Errorf("admitted again as %v", next.Member())
		}
		next.stop(t)
	})
}

// TestYield: of two sessions that cannot reach each other one ends: it has stopped
// before the view without it, which does not wait for its time, and is admitted again
// later.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := &seal{}
		m := startManager(t, newMemory(), data)
		defer m.stop(t)
		sessions := map[string]*leasemgr.Session{}
		far := false
		var ended sync.WaitGroup
		defer ended.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		errs := map[string]error{}
		var mu sync.Mutex
		for _, name := range []string{"a", "b"} {
			s, err := leasemgr.Join(ctx, sessionOptions(name, m))
			if err != nil {
				t.Fatal(err)
			}
			sessions[name] = s
			other := lease.Member{Worker: 3 - s.Member().Worker, Incarnation: 1}
			s.Watch(func() []lease.Member {
				mu.Lock()
				defer mu.Unlock()
				if far {
					return []lease.Member{other}
				}
				return nil
			})
			ended.Go(func() {
				err := s.Run(ctx)
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			})
		}
		time.Sleep(5 * time.Second)
		mu.Lock()
		far = true
		mu.Unlock()
		start := time.Now()
		var gone atomic.Int64
		data.checks(func(base.View) {
			gone.Store(int64(time.Since(start)))
			if left := sessions["b"].Expiry() - sessions["b"].Now(); left > 0 {
				t.Errorf("others take over, and the member has another %v", left)
			}
		})
		time.Sleep(4 * time.Second)
		if out := time.Duration(gone.Load()); out == 0 || out > 2500*time.Millisecond {
			t.Errorf("out %v after the link broke", out)
		}
		mu.Lock() // not while anything waits for time
		err, over := errs["a"]
		if over || base.KindOf(errs["b"]) != base.Precondition {
			t.Errorf("Run of a: %v (%t), of b: %v", err, over, errs["b"])
		}
		mu.Unlock()
		start = time.Now()
		again, err := leasemgr.Join(ctx, sessionOptions("b", m))
		if err != nil || again.Member() != (lease.Member{Worker: 2, Incarnation: 2}) || time.Since(start) < 2*time.Second {
			t.Errorf("admitted again as %v after %v, %v", again.Member(), time.Since(start), err)
		}
	})
}
