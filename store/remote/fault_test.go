package remote_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store/remote"
)

// TestCrashBetweenApplyAndAcknowledge has the server die when batches are in
// the log and nobody was told; with nothing, some or all of the unsynced log
// kept, every batch must be in the next server's log once. The witness sees
// every append there and checks that it is the next one.
func TestCrashBetweenApplyAndAcknowledge(t *testing.T) {
	for _, kept := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("%d percent kept", kept), func(t *testing.T) {
			h := startHost(t, remote.ServerOptions{})
			e := h.member(1, 1, remote.Options{})
			for range 10 {
				appendNumbered(t, e, 1, 1, 100)
			}
			waitDurable(t, e, 10)
			h.engine.stuck.Store(true)
			for range 20 {
				appendNumbered(t, e, 1, 1, 100)
			}
			until(t, "30 batches are applied", func() bool { return h.engine.accepted() == 30 })
			if e.Durable() != 10 {
				t.Errorf("durable up to %d without an acknowledgement", e.Durable())
			}
			h.crash(kept)
			h.start()
			if _, n, err := remote.ReadApplied(h.engine, 1); err != nil || n < 10 || kept == 0 && n != 10 {
				t.Errorf("the log of the next server ends with batch %d, %v", n, err)
			}
			appendNumbered(t, e, 1, 1, 100)
			waitDurable(t, e, 31)
			checkWorker(t, h, 1, 31)
		})
	}
}

// checkWorker checks that exactly the batches 1..n of the worker are there.
func checkWorker(t *testing.T, h *host, worker int, n base.Number) {
	t.Helper()
	next := base.Number(1)
	if err := h.engine.Scan(keyOf(worker, 0), keyOf(worker, 999999), func(key, _ []byte) bool {
		if string(key) != string(keyOf(worker, next)) {
			t.Errorf("found %s, want batch %d", key, next)
			return false
		}
		next++
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if next != n+1 {
		t.Errorf("%d batches of worker %d are there, want %d", next-1, worker, n)
	}
}

// TestCutsAndCrashes cuts the connections of three workers after random numbers
// of bytes, and lets the server crash in between, while they append.
func TestCutsAndCrashes(t *testing.T) {
	const workers, each, crashes = 3, 400, 4
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	h := startHost(t, remote.ServerOptions{})
	var acknowledged [workers + 1]base.Number
	var mu sync.Mutex // guards acknowledged
	var wg sync.WaitGroup
	for w := 1; w <= workers; w++ {
		e := h.member(uint16(w), 1, remote.Options{})
		sizes := rand.New(rand.NewPCG(rng.Uint64(), 1))
		wg.Go(func() {
			for i := range each {
				n := appendNumbered(t, e, w, 1, sizes.IntN(1500))
				if i%20 == 0 {
					if !has(t, e, keyOf(w, n)) {
						t.Errorf("worker %d does not see its batch %d", w, n)
					}
				}
				if sizes.IntN(8) == 0 {
					waitDurable(t, e, n)
					mu.Lock()
					acknowledged[w] = n
					mu.Unlock()
				}
			}
			waitDurable(t, e, each)
		})
	}
	done := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			if !h.proxy.armed() {
				h.proxy.cutAfter(1 + rng.IntN(60000))
			}
			select {
			case <-done:
				h.proxy.cutAfter(0)
				return
			case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
			}
		}
	})
	for range crashes {
		time.Sleep(time.Duration(50+rand.IntN(100)) * time.Millisecond) // a crash may come at any time
		mu.Lock()
		promised := acknowledged
		mu.Unlock()
		h.crash(rand.IntN(101))
		h.start()
		for w := 1; w <= workers; w++ {
			if _, n, err := remote.ReadApplied(h.engine, uint16(w)); err != nil || n < promised[w] {
				t.Errorf("batch %d of worker %d was acknowledged, and the log ends with %d, %v", promised[w], w, n, err)
			}
		}
	}
	wg.Wait()
	close(done)
	cutting.Wait()
	for w := 1; w <= workers; w++ {
		checkWorker(t, h, w, each)
	}
	h.proxy.mu.Lock()
	defer h.proxy.mu.Unlock()
	t.Logf("%d cuts", h.proxy.cuts)
	if h.proxy.cuts == 0 {
		t.Error("nothing was cut")
	}
}

// refusals keeps what OnRefused said.
type refusals struct{ ch chan remote.Refusal }

func newRefusals() refusals { return refusals{make(chan remote.Refusal, 64)} }

func (r refusals) options() remote.Options {
	return remote.Options{View: 1, OnRefused: func(why remote.Refusal) { r.ch <- why }}
}

func (r refusals) next(t *testing.T) remote.Refusal {
	t.Helper()
	select {
	case why := <-r.ch:
		return why
	case <-time.After(patience):
		t.Fatal("nobody was refused")
		panic("unreachable")
	}
}

// TestSealSplitsPipeline is the story seal-splits-pipeline: batches of view 1
// are refused, one of view 2 stands behind them in the pipeline, and the log
// must not take it first. The witness checks the order.
func TestSealSplitsPipeline(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	r := newRefusals()
	e := h.member(1, 1, r.options())
	waitDurable(t, e, appendNumbered(t, e, 1, 1, 10))
	if err := e.Seal(2); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		appendNumbered(t, e, 1, 1, 10)
	}
	appendNumbered(t, e, 1, 2, 10) // number 7, of the view that is accepted
	if why := r.next(t); why.Seal != 2 || why.Err != nil {
		t.Errorf("refused with %+v", why)
	}
	appendNumbered(t, e, 1, 2, 10)
	if n := h.engine.accepted(); n != 1 || e.Durable() != 1 {
		t.Errorf("%d batches were accepted, durable %d", n, e.Durable())
	}
	e.SetView(2)
	waitDurable(t, e, 8)
	checkWorker(t, h, 1, 8)
	b := e.NewBatch()
	defer b.Release()
	b.Set([]byte("k"), nil)
	_, err := e.Append(1, b)
	unavailable(t, err, false)
}

// TestSealAgainAndAgain has a sealer run ahead of a worker that appends all the
// while and follows every refusal with the next view.
func TestSealAgainAndAgain(t *testing.T) {
	const views, each = 30, 20
	h := startHost(t, remote.ServerOptions{})
	var e *remote.Engine
	var mu sync.Mutex // guards view, and orders Append behind SetView
	view := base.View(1)
	ready := make(chan struct{})
	e = h.member(1, 1, remote.Options{View: 1, OnRefused: func(why remote.Refusal) {
		<-ready
		mu.Lock()
		defer mu.Unlock()
		view = max(view, why.Seal)
		e.SetView(view)
	}})
	close(ready)
	sealer := h.dial(remote.Options{})
	defer closeEngine(t, sealer)
	turn := make(chan base.View)
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range turn {
			if err := sealer.Seal(v); err != nil {
				t.Error(err)
			}
		}
	})
	for v := base.View(2); v <= views; v++ {
		turn <- v // the seal before this one is done: what comes next is refused, unless it knows
		for range each {
			mu.Lock()
			appendNumbered(t, e, 1, view, 10)
			mu.Unlock()
		}
		if v%2 == 0 { // otherwise seals overtake what is on the way
			waitDurable(t, e, e.Appended())
		}
	}
	close(turn)
	wg.Wait()
	waitDurable(t, e, (views-1)*each)
	checkWorker(t, h, 1, (views-1)*each)
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	if h.engine.refusals == 0 {
		t.Error("nothing was refused")
	}
	t.Logf("%d batches were refused and came again", h.engine.refusals)
}

// TestEvicted tells apart what has not happened and what nobody knows.
func TestEvicted(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	r := newRefusals()
	e := h.dial(func() remote.Options {
		o := r.options()
		o.Member = remote.Member{Worker: 1, Incarnation: 1}
		return o
	}())
	waitDurable(t, e, appendNumbered(t, e, 1, 1, 10))
	h.engine.stuck.Store(true)
	appendNumbered(t, e, 1, 1, 10) // applied, and never acknowledged
	until(t, "batch 2 is applied", func() bool { return h.engine.accepted() == 2 })
	if err := h.engine.Seal(2); err != nil {
		t.Fatal(err)
	}
	appendNumbered(t, e, 1, 1, 10) // refused
	waiting := make(chan error, 2)
	var wg sync.WaitGroup
	for _, n := range []base.Number{2, 3} {
		wg.Go(func() {
			err := e.WaitDurable(t.Context(), n)
			unavailable(t, err, n == 2)
			waiting <- err
		})
	}
	r.next(t)
	if len(waiting) > 0 {
		t.Error("a wait ended before it was decided whether the worker is a member")
	}
	e.Evict(nil)
	wg.Wait()
	if err := e.WaitDurable(t.Context(), 1); err != nil {
		t.Errorf("a durable batch: %v", err)
	}
	b := e.NewBatch()
	defer b.Release()
	_, err := e.Append(2, b)
	unavailable(t, err, false)
	_, _, err = e.Get(nil, []byte("k"))
	unavailable(t, err, false)
	err = e.Close()
	unavailable(t, err, true)
	if err == nil || !strings.Contains(err.Error(), "2 to 3") {
		t.Errorf("Close says %v, want the batches 2 to 3", err)
	}
	if _, n, err := remote.ReadApplied(h.engine, 1); err != nil || n != 2 {
		t.Errorf("the log ends with batch %d, %v", n, err)
	}
}

// TestOlderIncarnationsAreRefused opens a newer incarnation beside a worker;
// the older one may neither commit nor read, nor come back, nor after a crash.
func TestOlderIncarnationsAreRefused(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	r := newRefusals()
	o := r.options()
	o.Member = remote.Member{Worker: 1, Incarnation: 1}
	old := h.dial(o)
	waitDurable(t, old, appendNumbered(t, old, 1, 1, 10))
	young := h.member(1, 2, remote.Options{})
	other := h.member(2, 1, remote.Options{})
	if why := r.next(t); why.Err == nil || !strings.Contains(why.Err.Error(), "incarnation 2") {
		t.Errorf("the older one was told %+v", why)
	}
	b := old.NewBatch()
	_, err := old.Append(1, b)
	b.Release()
	unavailable(t, err, false)
	_, _, err = old.Get(nil, []byte("k"))
	unavailable(t, err, false)
	if err := old.Close(); err != nil {
		t.Errorf("close, with everything durable: %v", err)
	}
	for _, n := range []base.Number{1, 2} {
		if got := appendNumbered(t, young, 1, 1, 10); got != n {
			t.Errorf("the newer incarnation's batch %d has number %d", n, got)
		}
	}
	waitDurable(t, young, 2)
	waitDurable(t, other, appendNumbered(t, other, 2, 1, 10))
	for range 2 {
		late := h.dial(o)
		if why := r.next(t); why.Err == nil {
			t.Errorf("an older incarnation came back: %+v", why)
		}
		closeEngine(t, late)
		h.crash(0)
		h.start()
	}
	waitDurable(t, young, appendNumbered(t, young, 1, 1, 10))
	if i, n, err := remote.ReadApplied(h.engine, 1); err != nil || i != 2 || n != 3 {
		t.Errorf("the record says %d, %d, %v", i, n, err)
	}
}

// TestTwoProcessesAsOneMember: the one that came first is told to stop.
func TestTwoProcessesAsOneMember(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	r := newRefusals()
	first := h.member(1, 1, r.options())
	waitDurable(t, first, appendNumbered(t, first, 1, 1, 10))
	second := newRefusals()
	h.member(1, 1, second.options())
	// The second one finds a batch in the log that it has not appended.
	if why := second.next(t); why.Err == nil {
		t.Errorf("the second one was told %+v", why)
	}
	if why := r.next(t); why.Err == nil || !strings.Contains(why.Err.Error(), "incarnation of its own") {
		t.Errorf("the first one was told %+v", why)
	}
}

// TestReadsWaitForTheirWrites asks for what is still under way because there is
// no server yet.
func TestReadsWaitForTheirWrites(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	e := h.member(1, 1, remote.Options{})
	waitDurable(t, e, appendNumbered(t, e, 1, 1, 10))
	h.crash(0)
	n := appendNumbered(t, e, 1, 1, 10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if !has(t, e, keyOf(1, n)) {
				t.Errorf("the worker does not see its batch %d", n)
			}
		})
	}
	h.start()
	wg.Wait()
}

// TestReadsDoNotWaitForEver asks for what is held back by a seal.
func TestReadsDoNotWaitForEver(t *testing.T) {
	h := startHost(t, remote.ServerOptions{Wait: time.Millisecond})
	r := newRefusals()
	e := h.member(1, 1, r.options())
	if err := h.engine.Seal(5); err != nil {
		t.Fatal(err)
	}
	n := appendNumbered(t, e, 1, 1, 10)
	r.next(t)
	_, _, err := e.Get(nil, []byte("k"))
	unavailable(t, err, false)
	unavailable(t, e.Scan([]byte("k"), nil, func(_, _ []byte) bool { return true }), false)
	unavailable(t, e.Apply(e.NewBatch()), false)
	e.SetView(4) // not enough
	e.SetView(5)
	waitDurable(t, e, n)
	if !has(t, e, keyOf(1, n)) {
		t.Error("the batch is not there")
	}
}

// TestCloseSaysWhatIsNotDurable closes while the disk does not answer, and while
// there is no server.
func TestCloseSaysWhatIsNotDurable(t *testing.T) {
	for _, test := range []string{"stuck disk", "no server"} {
		t.Run(test, func(t *testing.T) {
			h := startHost(t, remote.ServerOptions{})
			e := h.dial(remote.Options{Member: remote.Member{Worker: 1, Incarnation: 1}, CloseWait: 10 * time.Millisecond})
			waitDurable(t, e, appendNumbered(t, e, 1, 1, 10))
			h.engine.stuck.Store(true)
			if test == "no server" {
				h.stop()
			}
			appendNumbered(t, e, 1, 1, 10)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := e.WaitDurable(ctx, 2); err == nil {
				t.Error("batch 2 is durable")
			}
			err := e.Close()
			unavailable(t, err, true)
			if err == nil || !strings.Contains(err.Error(), "batches 2 to 2") {
				t.Errorf("got %v, want batches 2 to 2", err)
			}
			if err := e.Close(); err != nil {
				t.Errorf("closed again: %v", err)
			}
			_, err = e.Append(1, e.NewBatch())
			unavailable(t, err, false)
		})
	}
}
