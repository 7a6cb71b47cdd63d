package tcp

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// TestConnectedToItself does every verb on a queue pair that is both ends, with
// and without Accept.
func TestConnectedToItself(t *testing.T) {
	for _, accept := range []bool{false, true} {
		n := newNode(t, Options{}, 1<<20)
		q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
		remote := n.r.Remote()
		if accept {
			if err := q.Accept(q.Address()); err != nil {
				t.Fatal(err)
			}
			post(t, q, rdma.FAA(100, n.r.Local(0, 8), remote, 64, 0)) // waits
		}
		if err := q.Connect(t.Context(), q.Address()); err != nil {
			t.Fatal(err)
		}
		if accept {
			n.statuses(t, 100, rdma.StatusOK)
		}
		n.r.Store(64, 5)
		n.r.Store(128, 7)
		post(t, q,
			rdma.CAS(0, n.r.Local(0, 8), remote, 64, 5, 6),
			rdma.FAA(1, n.r.Local(8, 8), remote, 64, 10),
			rdma.Write(2, n.r.Local(64, 8), remote, 72),
			rdma.Read(3, n.r.Local(16, 16), remote, 64),
			rdma.Write(4, n.r.Local(128, 1<<18), remote, 1<<19),
			rdma.Read(5, n.r.Local(1<<18+128, 1<<17), remote, 1<<19),
		)
		ok := rdma.StatusOK
		n.statuses(t, 0, ok, ok, ok, ok, ok, ok)
		// The WRITE takes what is there at Post, as its memory is copied then.
		for at, want := range map[int]uint64{0: 5, 8: 6, 16: 16, 24: 5, 64: 16, 72: 5, 1 << 19: 7, 1<<18 + 128: 7} {
			if got := n.r.Load(at); got != want {
				t.Errorf("accept %v: the word at %d is %d, want %d", accept, at, got, want)
			}
		}
		post(t, q, rdma.WriteImm(7, rdma.Local{}, remote, 0, 99))
		for _, c := range n.wait(t, 2) {
			if c.Op != rdma.OpReceive && c.ID != 7 || c.Op == rdma.OpReceive && c.Imm != 99 || c.Status != ok {
				t.Errorf("accept %v: a doorbell to itself gives %+v", accept, c)
			}
		}
		post(t, q, rdma.Read(8, n.r.Local(0, 8), remote, 1<<20), rdma.Read(9, n.r.Local(0, 8), remote, 0))
		n.statuses(t, 8, rdma.StatusRemoteAccess, rdma.StatusFlushed)
		if err := q.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		if !errors.Is(q.Err(), rdma.StatusRemoteAccess) {
			t.Errorf("it broke as %v", q.Err())
		}
	}
}

// TestDoorbellsWaitForPlaces rings more often than there are places, and polls
// late: all come in the end.
func TestDoorbellsWaitForPlaces(t *testing.T) {
	const count = 20
	_, b, x, _ := couple(t, rdma.QueuePairOptions{ReceiveDepth: 2, Timeout: time.Hour}, 64)
	for i := range count {
		post(t, x, rdma.WriteImm(uint64(i), rdma.Local{}, rdma.RemoteRegion{}, 0, uint32(i)))
	}
	for i := range count {
		if c := b.wait(t, 1)[0]; c.Imm != uint32(i) || c.Op != rdma.OpReceive {
			t.Errorf("doorbell %d is %+v", i, c)
		}
	}
}

// TestDoorbellsFindNoPlace rings more often than there are places while nobody
// polls.
func TestDoorbellsFindNoPlace(t *testing.T) {
	for name, c := range map[string]struct {
		patience, timeout time.Duration
	}{
		"the receiver's patience ends": {20 * time.Millisecond, time.Hour},
		// The receiver answers before the sender gives up on it.
		"the sender's timeout ends": {time.Hour, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			o := rdma.QueuePairOptions{ReceiveDepth: 2, Timeout: c.timeout}
			a, b := newNode(t, Options{}, 64), newNode(t, Options{DoorbellPatience: c.patience}, 64)
			x, y := a.pair(t, o), b.pair(t, o)
			connect(t, x, y)
			ring := rdma.WriteImm(0, rdma.Local{}, rdma.RemoteRegion{}, 0, 0)
			for i := range uint64(4) {
				ring.ID = i
				post(t, x, ring)
			}
			a.statuses(t, 0, rdma.StatusOK, rdma.StatusOK, rdma.StatusReceiverNotReady, rdma.StatusFlushed)
			until(t, "the receiver breaks", func() bool { return y.Err() != nil })
			if got := b.wait(t, 2); got[0].Op != rdma.OpReceive || got[1].Op != rdma.OpReceive {
				t.Errorf("the doorbells that found a place are %+v", got)
			}
			if err := y.Err(); !errors.Is(err, rdma.StatusReceiverNotReady) {
				t.Errorf("the receiver broke as %v", err)
			}
		})
	}
}

// TestDoorbellsToItselfFindNoPlace: the same on a queue pair that is both ends.
func TestDoorbellsToItselfFindNoPlace(t *testing.T) {
	n := newNode(t, Options{DoorbellPatience: 20 * time.Millisecond}, 64)
	own, err := n.p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q := n.pair(t, rdma.QueuePairOptions{ReceiveCQ: own, ReceiveDepth: 1, Timeout: time.Hour})
	t.Cleanup(func() {
		if err := errors.Join(q.Close(), own.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := q.Connect(t.Context(), q.Address()); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		post(t, q, rdma.WriteImm(i, rdma.Local{}, rdma.RemoteRegion{}, 0, 0))
	}
	n.statuses(t, 0, rdma.StatusOK, rdma.StatusReceiverNotReady, rdma.StatusFlushed)
}

// TestWaitingDoorbellIsNoSilence: while a doorbell waits here, the peer's answers
// wait behind it; that is not held against the peer.
func TestWaitingDoorbellIsNoSilence(t *testing.T) {
	a, b := newNode(t, Options{}, 64), newNode(t, Options{DoorbellPatience: time.Hour}, 64)
	o := rdma.QueuePairOptions{ReceiveDepth: 1, Timeout: 2 * time.Hour}
	x, y := a.pair(t, o), b.pair(t, o)
	connect(t, x, y)
	ring := rdma.WriteImm(0, a.r.Local(0, 8), b.r.Remote(), 8, 0)
	a.r.Store(0, 3)
	post(t, x, ring, ring)
	until(t, "the second doorbell has its data in place", func() bool { return b.r.Load(8) == 3 })
	post(t, y, rdma.Read(5, b.r.Local(0, 8), a.r.Remote(), 0))
	for range 3 * ticks {
		before := y.progress.Load()
		until(t, "the doorbell is tried again", func() bool { return y.progress.Load() > before })
		y.mu.Lock()
		y.lookLocked()
		y.unlock()
	}
	for _, c := range b.wait(t, 3) {
		if c.Status != rdma.StatusOK {
			t.Errorf("completion %+v (%v)", c, c.Status)
		}
	}
}

// TestRevokeWhileDoorbellsWait must not wait for the doorbell.
func TestRevokeWhileDoorbellsWait(t *testing.T) {
	a, b := newNode(t, Options{}, 64), newNode(t, Options{DoorbellPatience: time.Hour}, 64)
	o := rdma.QueuePairOptions{ReceiveDepth: 1, Timeout: 2 * time.Hour}
	x, y := a.pair(t, o), b.pair(t, o)
	connect(t, x, y)
	ring := rdma.WriteImm(0, a.r.Local(0, 8), b.r.Remote(), 8, 0)
	a.r.Store(0, 3)
	post(t, x, ring, ring)
	until(t, "the second doorbell has its data in place", func() bool { return b.r.Load(8) == 3 })
	if err := y.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.wait(t, 1)[0]; got.Op != rdma.OpReceive {
		t.Errorf("the doorbell that found a place is %+v", got)
	}
	dst := make([]rdma.Completion, 1)
	if n := b.cq.Poll(dst); n > 0 {
		t.Errorf("after Revoke comes %+v", dst[0])
	}
}

// TestRevokeHonoursContext: with a context that has ended, Revoke says so unless
// there is nothing to wait for.
func TestRevokeHonoursContext(t *testing.T) {
	_, _, x, _ := couple(t, rdma.QueuePairOptions{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Revoke(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Revoke: %v", err)
	}
	if err := x.Revoke(t.Context()); err != nil {
		t.Errorf("Revoke again: %v", err)
	}
	if err := x.Revoke(ctx); err != nil {
		t.Errorf("Revoke of what is revoked: %v", err)
	}
}

// TestWatchdogLooks calls the watchdog by hand.
func TestWatchdogLooks(t *testing.T) {
	n := newNode(t, Options{}, 64)
	for _, c := range []struct {
		name string
		// events, each before a look: p: something is heard, c: all completes, r: a
		// READ is posted, a dot: nothing.
		events string
		broken bool
	}{
		{"nothing outstanding", "..........", false},
		{"silence", "r...", false},
		{"silence for a Timeout", "r....", true},
		{"heard in time", "r...p...p...p", false},
		{"heard and then silence", "r...p....", true},
		{"done in time", "r...c.....", false},
		{"done, and again", "r...c.r...", false},
		{"done, and again for too long", "r...c.r....", true},
		{"posting is no answer", "r.r.r", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
			if err := q.Accept(strange.append(nil)); err != nil {
				t.Fatal(err)
			}
			for _, e := range c.events {
				switch e {
				case 'p':
					q.progress.Add(1)
				case 'r':
					if _, err := q.Post([]rdma.WorkRequest{rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0)}); err != nil && q.Err() == nil {
						t.Fatal(err)
					}
				case 'c':
					q.mu.Lock()
					for q.sends.Len() > 0 {
						q.finishLocked(rdma.StatusOK)
					}
					q.unlock()
				}
				q.mu.Lock()
				q.lookLocked()
				q.unlock()
			}
			if broken := q.Err() != nil; broken != c.broken {
				t.Errorf("broken: %v (%v), want %v", broken, q.Err(), c.broken)
			}
			if armed := q.watch.armed; !c.broken && armed != (q.sends.Len() > 0) {
				t.Errorf("the watchdog looks: %v, with %d outstanding", armed, q.sends.Len())
			}
			_ = q.Close()
			n.cq.Poll(make([]rdma.Completion, 256))
		})
	}
}

// TestWaitEnds ends Wait in every way, with one context that is used again and
// with several waiters.
func TestWaitEnds(t *testing.T) {
	n := newNode(t, Options{}, 64)
	dst := make([]rdma.Completion, 4)
	ctx, cancel := context.WithCancel(t.Context())
	places, err := n.cq.(*completionQueue).Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		places.Push(rdma.Completion{ID: 1}, nil)
		if k, err := n.cq.Wait(ctx, dst); k != 1 || err != nil {
			t.Fatalf("Wait: %d, %v", k, err)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if k, err := n.cq.Wait(ctx, make([]rdma.Completion, 1)); k != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("Wait with a context that was canceled: %d, %v", k, err)
			}
		})
	}
	cancel()
	wg.Wait()
	deadline, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if k, err := n.cq.Wait(deadline, dst); k != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait with a deadline: %d, %v", k, err)
	}
	if k, err := n.cq.Wait(t.Context(), nil); k != 0 || err != nil {
		t.Errorf("Wait for nothing: %d, %v", k, err)
	}
	for range 3 {
		wg.Go(func() {
			if k, err := n.cq.Wait(t.Context(), make([]rdma.Completion, 1)); k != 0 || !errors.Is(err, rdma.ErrClosed) {
				t.Errorf("Wait while the queue is closed: %d, %v", k, err)
			}
		})
	}
	places.Release()
	if err := n.cq.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if k, err := n.cq.Wait(t.Context(), dst); k != 0 || !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("Wait on a closed queue: %d, %v", k, err)
	}
}

// TestWaitersShareCompletions has several waiters take single completions of
// which many come: none may be lost, nor a waiter forgotten.
func TestWaitersShareCompletions(t *testing.T) {
	const waiters, each = 4, 500
	a, b, x, _ := couple(t, rdma.QueuePairOptions{SendDepth: 16}, 64)
	var wg sync.WaitGroup
	for range waiters {
		wg.Go(func() {
			dst := make([]rdma.Completion, 1)
			for range each {
				if n, err := x.Post([]rdma.WorkRequest{rdma.FAA(1, a.r.Local(0, 8), b.r.Remote(), 0, 1)}); n == 0 {
					t.Errorf("Post: %v", err)
					return
				}
				if n, err := a.cq.Wait(t.Context(), dst); n != 1 || err != nil || dst[0].Status != rdma.StatusOK {
					t.Errorf("Wait: %d, %v, %v", n, err, dst[0].Status)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := b.r.Load(0); got != waiters*each {
		t.Errorf("%d FAA add up to %d", waiters*each, got)
	}
}

// TestBothWaysAtOnce streams long and short requests in both directions over one
// connection with full send queues: neither side may wait for the other to read.
func TestBothWaysAtOnce(t *testing.T) {
	const size, rounds, depth = 1 << 20, 40, 8
	a, b, x, y := couple(t, rdma.QueuePairOptions{SendDepth: depth, Timeout: time.Minute}, 3*size)
	var wg sync.WaitGroup
	stream := func(n *node, q *queuePair, remote rdma.RemoteRegion) {
		word := uint64(2 * size)
		dst := make([]rdma.Completion, depth)
		requests := []rdma.WorkRequest{
			rdma.Write(0, n.r.Local(0, size), remote, size),
			rdma.Read(1, n.r.Local(size, size), remote, 0),
			rdma.FAA(2, n.r.Local(2*size+8, 8), remote, word, 1),
			rdma.Read(3, n.r.Local(2*size+16, 100), remote, word+16),
		}
		posted, done := 0, 0
		for done < rounds*len(requests) {
			for posted < rounds*len(requests) {
				if n, _ := q.Post(requests[posted%len(requests):][:1]); n == 0 {
					break
				}
				posted++
			}
			k, err := n.cq.Wait(t.Context(), dst)
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range dst[:k] {
				if c.Status != rdma.StatusOK || c.ID != uint64(done%len(requests)) {
					t.Errorf("completion %d: %+v", done, c)
					return
				}
				done++
			}
		}
	}
	wg.Go(func() { stream(a, x, b.r.Remote()) })
	wg.Go(func() { stream(b, y, a.r.Remote()) })
	wg.Wait()
	for _, n := range []*node{a, b} {
		if got := n.r.Load(2 * size); got != rounds {
			t.Errorf("%d FAA add up to %d", rounds, got)
		}
	}
}

// TestHammer opens, uses and ends queue pairs from many goroutines, abruptly:
// every request that was taken ends once and in order, and all closes.
func TestHammer(t *testing.T) {
	const workers, lives = 4, 15
	a, b := newNode(t, Options{}, 1<<16), newNode(t, Options{}, 1<<16)
	var wg sync.WaitGroup
	for w := range workers {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for range lives {
				hammerOnce(t, rng, a, b)
			}
		})
	}
	wg.Wait()
}

// TestRegionsCloseUnderTraffic closes regions while both ends of a connection use
// them in all roles, with long and short requests: everything ends, nothing
// hangs, and what is not closed goes on.
func TestRegionsCloseUnderTraffic(t *testing.T) {
	const size, rounds = 1 << 18, 12
	a, b := newNode(t, Options{}, size), newNode(t, Options{}, size)
	for round := range rounds {
		o := rdma.QueuePairOptions{SendDepth: 16, Timeout: time.Minute}
		x, y := a.pair(t, o), b.pair(t, o)
		connect(t, x, y)
		ra, err := a.p.Register(size)
		rb, err2 := b.p.Register(size)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		stream := func(n *node, q *queuePair, local rdma.Region, remote rdma.RemoteRegion) {
			dst := make([]rdma.Completion, 16)
			requests := []rdma.WorkRequest{
				rdma.Write(0, local.Local(0, size), remote, 0), rdma.Read(0, local.Local(0, size), remote, 0),
				rdma.Write(0, local.Local(0, 8), remote, 0), rdma.Read(0, local.Local(0, copyMax), remote, 0),
			}
			posted, done := 0, 0
			for broken := false; !broken || done < posted; {
				k, err := q.Post(requests[round%2:])
				posted += k
				broken = errors.Is(err, rdma.ErrBroken)
				if done < posted {
					if k, err = n.cq.Wait(t.Context(), dst); err != nil {
						t.Error(err)
						return
					}
					done += k
				}
			}
		}
		toA, toB := ra.Remote(), rb.Remote()
		wg.Go(func() { stream(a, x, ra, toB) })
		wg.Go(func() { stream(b, y, rb, toA) })
		closed := []rdma.Region{ra, rb}[round%2]
		until(t, "there is traffic", func() bool { return x.progress.Load() > 50 && y.progress.Load() > 50 })
		if err := closed.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := errors.Join(x.Close(), y.Close(), ra.Close(), rb.Close()); err != nil {
			t.Error(err)
		}
	}
}

func hammerOnce(t *testing.T, rng *rand.Rand, a, b *node) {
	cq, err := a.p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	x, err := a.p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq, SendDepth: 16})
	y, err2 := b.p.NewQueuePair(rdma.QueuePairOptions{SendCQ: b.cq, SendDepth: 16, ReceiveDepth: 16})
	if err := errors.Join(err, err2); err != nil {
		t.Error(err)
		return
	}
	if err := errors.Join(y.Accept(x.Address()), x.Connect(t.Context(), y.Address())); err != nil {
		t.Error(err)
	}
	var enders sync.WaitGroup
	after := 1 + rng.IntN(40)
	way := rng.IntN(3)
	next, posted := uint64(0), uint64(0)
	dst := make([]rdma.Completion, 16)
	take := func(n int) {
		for _, c := range dst[:n] {
			if c.ID != next {
				t.Errorf("request %d ended, %d was next", c.ID, next)
			}
			next++
		}
	}
	for broken := false; !broken; {
		if after--; after == 0 {
			enders.Go(func() {
				switch way {
				case 0:
					_ = y.Revoke(t.Context())
				case 1:
					_ = y.Close()
				default:
					_ = x.Close()
				}
			})
		}
		size := []int{8, 100, copyMax + 1, 1 << 15}[rng.IntN(4)]
		w := rdma.Write(posted, a.r.Local(0, size), b.r.Remote(), 0)
		switch rng.IntN(4) {
		case 0:
			w.Op = rdma.OpRead
		case 1:
			w = rdma.FAA(posted, a.r.Local(1<<15, 8), b.r.Remote(), 1<<15, 1)
		case 2:
			w.Flags |= rdma.Fence
		}
		n, err := x.Post([]rdma.WorkRequest{w})
		posted += uint64(n)
		broken = errors.Is(err, rdma.ErrBroken)
		take(cq.Poll(dst))
	}
	enders.Wait()
	if err := errors.Join(x.Close(), y.Close()); err != nil {
		t.Error(err)
	}
	for n := cq.Poll(dst); n > 0; n = cq.Poll(dst) {
		take(n)
	}
	if next != posted {
		t.Errorf("%d requests were posted, %d have ended", posted, next)
	}
	if err := cq.Close(); err != nil {
		t.Error(err)
	}
}

// TestSteadyStateAllocatesNothing measures both ends and all their goroutines.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a, b, x, _ := couple(t, rdma.QueuePairOptions{Timeout: time.Hour}, 1<<17)
	local, remote := a.r.Local(0, 64), b.r.Remote()
	long := a.r.Local(0, 1<<16)
	inline := rdma.Write(0, local, remote, 0)
	inline.Flags |= rdma.Inline
	batch := make([]rdma.WorkRequest, 32)
	for i := range batch {
		batch[i] = rdma.Read(uint64(i), local, remote, 0)
	}
	dst, bells := make([]rdma.Completion, 64), make([]rdma.Completion, 64)
	for name, requests := range map[string][]rdma.WorkRequest{
		"READ": {batch[0]}, "WRITE": {rdma.Write(0, local, remote, 0)}, "inline WRITE": {inline},
		"CAS": {rdma.CAS(0, a.r.Local(0, 8), remote, 0, 0, 1)}, "FAA": {rdma.FAA(0, a.r.Local(0, 8), remote, 0, 1)},
		"WRITE_IMM": {rdma.WriteImm(0, local, remote, 0, 1)}, "32 READs": batch,
		"long WRITE": {rdma.Write(0, long, remote, 0)}, "long READ": {rdma.Read(0, long, remote, 0)},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		// A background goroutine of the runtime may allocate now and then, ours
		// would each time.
		if allocs := testing.AllocsPerRun(200, func() {
			post(t, x, requests...)
			for got := 0; got < len(requests); {
				n, err := a.cq.Wait(ctx, dst)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
			b.cq.Poll(bells)
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
		cancel()
	}
}

// TestErrorsNameThePeer: what an operator reads says which peer and why.
func TestErrorsNameThePeer(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Peer: "worker-3"})
	read := []rdma.WorkRequest{rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0)}
	if _, err := q.Post(read); !errors.Is(err, rdma.ErrBroken) || !strings.Contains(err.Error(), "worker-3") {
		t.Errorf("Post before Connect: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Post(read); !errors.Is(err, rdma.ErrBroken) || !errors.Is(err, rdma.ErrClosed) || !strings.Contains(err.Error(), "worker-3") {
		t.Errorf("Post after Close: %v", err)
	}
	if err := q.Err(); !errors.Is(err, rdma.ErrClosed) || !strings.Contains(err.Error(), "worker-3") {
		t.Errorf("Err after Close: %v", err)
	}
}
