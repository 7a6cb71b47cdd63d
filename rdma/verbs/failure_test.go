//go:build linux && cgo && rdma

package verbs

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// TestRefusedByThePeer holds that a wrong access fails that request, breaks that
// connection, flushes the rest once each, and touches nothing.
func TestRefusedByThePeer(t *testing.T) {
	p := openProvider(t)
	for name, c := range map[string]struct {
		spoil func(*rdma.WorkRequest)
		want  rdma.Status
	}{
		"wrong key":        {func(w *rdma.WorkRequest) { w.RKey ^= 0x5500 }, rdma.StatusRemoteAccess},
		"past the end":     {func(w *rdma.WorkRequest) { w.RemoteAddr += regionSize - 8 }, rdma.StatusRemoteAccess},
		"before the start": {func(w *rdma.WorkRequest) { w.RemoteAddr -= 8 }, rdma.StatusRemoteAccess},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t, p, rdma.QueuePairOptions{})
			bystander, other := newPair(t, p, rdma.QueuePairOptions{})
			a.region.Bytes()[0] = 0xff
			requests := make([]rdma.WorkRequest, 6)
			for i := range requests {
				requests[i] = rdma.Write(uint64(i), a.region.Local(0, 16), b.region.Remote(), 0)
				requests[i].Flags = 0
			}
			c.spoil(&requests[1])
			if _, err := a.pair.Post(requests); err != nil {
				t.Fatal(err)
			}
			got := a.wait(5)
			for i, g := range got {
				want := rdma.Completion{ID: uint64(i + 1), QP: a.pair.Number(), Op: rdma.OpWrite, Status: rdma.StatusFlushed}
				if i == 0 {
					want.Status = c.want
				}
				if g != want {
					t.Errorf("completion %d is %+v, want %+v", i, g, want)
				}
			}
			if _, err := a.pair.Post(requests[:1]); !errors.Is(err, rdma.ErrBroken) || a.pair.Err() == nil {
				t.Errorf("after the failure: Post %v, Err %v", err, a.pair.Err())
			}
			if err := a.pair.Revoke(t.Context()); err != nil {
				t.Error(err)
			}
			if n := a.cq.Poll(make([]rdma.Completion, 16)); n != 0 {
				t.Errorf("%d more completions", n)
			}
			if got := a.pair.Counters()[rdma.OpWrite]; got.Posted != 6 || got.Failed != 5 {
				t.Errorf("counted %+v", got)
			}
			bystander.succeed(rdma.Write(1, bystander.region.Local(0, 8), other.region.Remote(), 0))
		})
	}
}

// TestRegionGoesInTheMiddleOfAWrite holds that a WRITE of which bytes have landed
// is never reported as not done, although the peer refused the rest of it.
func TestRegionGoesInTheMiddleOfAWrite(t *testing.T) {
	const size, rounds = 8 << 20, 50
	p := openProvider(t)
	source, err := p.Register(size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range source.Bytes() {
		source.Bytes()[i] = 0xff
	}
	torn := 0
	for round := 0; round < rounds && torn < 3; round++ {
		a, b := newPair(t, p, rdma.QueuePairOptions{})
		opened, err := p.Register(size)
		if err != nil {
			t.Fatal(err)
		}
		target := opened.(*region)
		var closing sync.WaitGroup
		var dropped error
		closing.Go(func() {
			for start := time.Now(); target.Load(0) == 0 && time.Since(start) < bound; {
				runtime.Gosched()
			}
			// Not Close, which also unmaps what is to be looked at.
			dropped = target.mr.Close()
		})
		status := a.do(1, rdma.Write(1, source.Local(0, size), target.Remote(), 0))[0].Status
		closing.Wait()
		if dropped != nil {
			t.Fatal(dropped)
		}
		landed := bytes.Count(target.Bytes(), []byte{0xff})
		if status != rdma.StatusOK && landed > 0 {
			torn++
			t.Logf("round %d: %d of %d bytes landed: %v", round, landed, size, status)
			if status.Outcome() == rdma.NotDone {
				t.Errorf("round %d: %d bytes landed, and the status is %v", round, landed, status)
			}
		}
		if target.mr, err = p.pd.Register(target.addr, size); err != nil { // for Close
			t.Fatal(err)
		}
		if err := errors.Join(a.pair.Close(), b.pair.Close(), target.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if torn == 0 {
		t.Errorf("in %d rounds no WRITE was refused in the middle", rounds)
	}
}

func TestLocalFaults(t *testing.T) {
	p := openProvider(t)
	for name, spoil := range map[string]func(*rdma.WorkRequest){
		"wrong key":    func(w *rdma.WorkRequest) { w.Local.LKey ^= 0x5500 },
		"past the end": func(w *rdma.WorkRequest) { w.Local.Addr += regionSize - 4 },
	} {
		for _, op := range []rdma.Opcode{rdma.OpRead, rdma.OpWrite, rdma.OpCAS} {
			a, b := newPair(t, p, rdma.QueuePairOptions{})
			w := rdma.CAS(1, a.region.Local(0, 8), b.region.Remote(), 0, 0, 0)
			w.Op = op
			spoil(&w)
			if c := a.do(1, w)[0]; c.Status != rdma.StatusLocal {
				t.Errorf("%v with %s: %v", op, name, c.Err())
			}
		}
	}
}

// TestLocalFaultAmongOthers posts a bad request in the middle of a batch: those
// before it are done or flushed, it has its own status, those behind are flushed.
func TestLocalFaultAmongOthers(t *testing.T) {
	const bad, total = 20, 40
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	requests := make([]rdma.WorkRequest, total)
	for i := range requests {
		requests[i] = rdma.Read(uint64(i), a.region.Local(0, 4096), b.region.Remote(), 0)
	}
	requests[bad].Local.LKey ^= 0x5500
	for i, c := range a.do(total, requests...) {
		ok := false
		switch {
		case i < bad:
			ok = c.Status == rdma.StatusOK || c.Status == rdma.StatusFlushed
		case i == bad:
			ok = c.Status == rdma.StatusLocal
		default:
			ok = c.Status == rdma.StatusFlushed
		}
		if !ok || c.ID != uint64(i) {
			t.Errorf("completion %d is %+v", i, c)
		}
	}
	if !errors.Is(a.pair.Err(), rdma.StatusLocal) {
		t.Errorf("Err is %v", a.pair.Err())
	}
}

// TestLocalFaultAfterUnsignaled posts a bad request behind some of which no
// completion will tell that they are done.
func TestLocalFaultAfterUnsignaled(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	write := rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 0)
	bad := rdma.Read(2, a.region.Local(0, 8), b.region.Remote(), 0)
	bad.Local.Addr += regionSize
	write.Flags = 0
	if _, err := a.pair.Post([]rdma.WorkRequest{write, write}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.pair.Post([]rdma.WorkRequest{bad}); err != nil {
		t.Fatal(err)
	}
	for c := a.wait(1)[0]; ; c = a.wait(1)[0] {
		if c.ID == 2 {
			if c.Status != rdma.StatusLocal {
				t.Errorf("the bad request ended as %v", c.Status)
			}
			return
		}
		if c.ID != 1 || c.Status != rdma.StatusFlushed {
			t.Errorf("a completion is %+v", c)
		}
	}
}

// TestRegionClosedInUse closes a region into which READs are under way. The queue
// pair breaks, one that uses another region does not.
func TestRegionClosedInUse(t *testing.T) {
	p := openProvider(t)
	a, b := newPair(t, p, rdma.QueuePairOptions{Timeout: time.Minute})
	other, c := newPair(t, p, rdma.QueuePairOptions{})
	if err := b.pair.Revoke(t.Context()); err != nil { // so that they stay under way
		t.Fatal(err)
	}
	read := rdma.Read(1, a.region.Local(0, 4096), b.region.Remote(), 0)
	if _, err := a.pair.Post([]rdma.WorkRequest{read, read}); err != nil {
		t.Fatal(err)
	}
	if err := a.region.Close(); err != nil {
		t.Fatal(err)
	}
	if got := a.wait(2); got[0].Status != rdma.StatusLocal || got[1].Status != rdma.StatusFlushed {
		t.Errorf("the READs ended as %v and %v", got[0].Status, got[1].Status)
	}
	if _, err := a.pair.Post([]rdma.WorkRequest{read}); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("Post into a closed region: %v", err)
	}
	other.succeed(rdma.Write(1, other.region.Local(0, 8), c.region.Remote(), 0))
}

// TestDeviceThatSaysNothing has a device that would report a silent peer after a
// minute: the provider gives up first.
func TestDeviceThatSaysNothing(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{Timeout: time.Minute})
	a.pair.(*queuePair).stall.limit = 100 * time.Millisecond
	a.succeed(rdma.Read(1, a.region.Local(0, 8), b.region.Remote(), 0))
	if err := b.pair.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := rdma.Read(2, a.region.Local(0, 8), b.region.Remote(), 0)
	if got := a.do(2, read, read); got[0].Status != rdma.StatusUnreachable || got[1].Status != rdma.StatusFlushed {
		t.Errorf("the READs ended as %v and %v", got[0].Status, got[1].Status)
	}
	if !errors.Is(a.pair.Err(), rdma.StatusUnreachable) {
		t.Errorf("Err is %v", a.pair.Err())
	}
}

func TestClosedRegion(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	remote := b.region.Remote()
	a.succeed(rdma.Write(1, a.region.Local(0, 8), remote, 0))
	if err := b.region.Close(); err != nil {
		t.Fatal(err)
	}
	if c := a.do(1, rdma.Write(2, a.region.Local(0, 8), remote, 0))[0]; c.Status != rdma.StatusRemoteAccess {
		t.Errorf("WRITE to a closed region: %v", c.Err())
	}
}

func TestRefusedByPost(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{SendDepth: 4})
	good := rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 0)
	bad := rdma.CAS(2, a.region.Local(0, 8), b.region.Remote(), 4, 0, 0)
	if n, err := a.pair.Post([]rdma.WorkRequest{good, bad, good}); n != 1 || !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("a bad request between good ones: %d, %v", n, err)
	}
	a.wait(1)
	if n, err := a.pair.Post([]rdma.WorkRequest{good, good, good, good, good}); n != 4 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("five requests into a queue of four: %d, %v", n, err)
	}
	a.wait(3)
	// Three are polled, so three slots are free.
	if n, err := a.pair.Post([]rdma.WorkRequest{good, good, good, good}); n != 3 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("four requests into three slots: %d, %v", n, err)
	}
	a.wait(4)
	idle := newSide(t, a.provider(), rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	if n, err := idle.pair.Post([]rdma.WorkRequest{good}); n != 0 || !errors.Is(err, rdma.ErrBroken) || idle.pair.Err() != nil {
		t.Errorf("a queue pair that was never connected: %d, %v, Err %v", n, err, idle.pair.Err())
	}
}

func (s *side) provider() *Provider { return s.pair.(*queuePair).provider }

// TestUnreachable posts to a peer that revoked its end: silence, and then the
// outcome is unknown.
func TestUnreachable(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{Timeout: 200 * time.Millisecond})
	if err := b.pair.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := a.do(2, rdma.FAA(1, a.region.Local(0, 8), b.region.Remote(), 0, 1), rdma.Read(2, a.region.Local(8, 8), b.region.Remote(), 0))
	if got[0].ID != 1 || got[0].Status != rdma.StatusUnreachable || got[1].ID != 2 || got[1].Status != rdma.StatusFlushed {
		t.Errorf("the completions are %+v", got)
	}
	if b.region.Load(0) != 0 {
		t.Error("the FAA landed after Revoke")
	}
}

// TestReceiverNotReady sends exactly what fits, and then one doorbell too many.
func TestReceiverNotReady(t *testing.T) {
	const depth = 8
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{ReceiveDepth: depth})
	bell := rdma.WriteImm(1, a.region.Local(0, 0), b.region.Remote(), 0, 1)
	for range 3 {
		for range depth {
			a.succeed(bell)
		}
		b.wait(depth)
	}
	for range depth {
		a.succeed(bell)
	}
	if c := a.do(1, bell)[0]; c.Status != rdma.StatusReceiverNotReady {
		t.Errorf("doorbell %d of %d: %v", depth+1, depth, c.Err())
	}
	b.wait(depth) // those that arrived stay
}

// TestReceiverComesLate polls while a doorbell knocks.
func TestReceiverComesLate(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{ReceiveDepth: 1})
	bell := rdma.WriteImm(1, a.region.Local(0, 0), b.region.Remote(), 0, 1)
	if _, err := a.pair.Post([]rdma.WorkRequest{bell, bell, bell}); err != nil {
		t.Fatal(err)
	}
	b.wait(3)
	for _, c := range a.wait(3) {
		if c.Status != rdma.StatusOK {
			t.Error(c.Err())
		}
	}
}

func TestRevoke(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{SendDepth: 512})
	requests := make([]rdma.WorkRequest, 400)
	for i := range requests {
		requests[i] = rdma.FAA(uint64(i), a.region.Local(8, 8), b.region.Remote(), 0, 1)
	}
	if _, err := a.pair.Post(requests); err != nil {
		t.Fatal(err)
	}
	if err := b.pair.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := b.region.Load(0)
	if !errors.Is(b.pair.Err(), errRevoked) {
		t.Errorf("Err after Revoke is %v", b.pair.Err())
	}
	if err := a.pair.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := uint64(0)
	for i, c := range a.wait(len(requests)) {
		if c.ID != uint64(i) {
			t.Fatalf("completion %d is of request %d", i, c.ID)
		}
		if c.Status == rdma.StatusOK {
			done++
		}
	}
	if n := a.cq.Poll(make([]rdma.Completion, 8)); n != 0 {
		t.Errorf("%d completions too many", n)
	}
	if done > at || b.region.Load(0) != at {
		t.Errorf("%d FAAs were reported, %d had landed at Revoke, %d later", done, at, b.region.Load(0))
	}
}

func TestRevokeWithAnEndedContext(t *testing.T) {
	a, _ := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.pair.Revoke(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := a.pair.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := a.pair.Post(make([]rdma.WorkRequest, 1)); !errors.Is(err, rdma.ErrBroken) {
		t.Error(err)
	}
}

func TestConnectFailures(t *testing.T) {
	p := openProvider(t)
	a := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{Peer: "nobody"})
	if err := a.pair.Connect(t.Context(), []byte("garbage")); !errors.Is(err, rdma.ErrInvalid) || a.pair.Err() == nil {
		t.Errorf("garbage: %v, Err %v", err, a.pair.Err())
	}
	b, c := newPair(t, p, rdma.QueuePairOptions{})
	if err := b.pair.Connect(t.Context(), c.pair.Address()); !errors.Is(err, rdma.ErrInvalid) || b.pair.Err() != nil {
		t.Errorf("a second time: %v, Err %v", err, b.pair.Err())
	}
}
