package sim_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// Every way in which a single request can end by itself, and what is left of it.
func TestEndsOfRequests(t *testing.T) {
	type ends struct {
		a, b *node
		x    rdma.QueuePair
	}
	source := func(e ends) rdma.Local { return e.a.memory.Local(0, 64) }
	closed := func(e ends) rdma.RemoteRegion {
		r, err := e.b.p.Register(64)
		e.b.must(err)
		remote := r.Remote()
		e.b.must(r.Close())
		return remote
	}
	for _, tt := range []struct {
		name   string
		faults sim.Faults
		w      func(e ends) rdma.WorkRequest
		want   rdma.Status
	}{
		{"write", sim.Faults{}, func(e ends) rdma.WorkRequest { return rdma.Write(1, source(e), e.b.memory.Remote(), 8) }, rdma.StatusOK},
		{"no bytes need no region", sim.Faults{}, func(e ends) rdma.WorkRequest {
			return rdma.Write(1, rdma.Local{}, rdma.RemoteRegion{Addr: 1, RKey: 1}, 8)
		}, rdma.StatusOK},
		{"last byte", sim.Faults{}, func(e ends) rdma.WorkRequest { return rdma.Write(1, source(e), e.b.memory.Remote(), 4096-64) }, rdma.StatusOK},
		{"behind the region", sim.Faults{}, func(e ends) rdma.WorkRequest { return rdma.Write(1, source(e), e.b.memory.Remote(), 4096-63) }, rdma.StatusRemoteAccess},
		{"before the region", sim.Faults{}, func(e ends) rdma.WorkRequest {
			return rdma.Write(1, source(e), e.b.memory.Remote(), 1<<64-8)
		}, rdma.StatusRemoteAccess},
		{"local key", sim.Faults{}, func(e ends) rdma.WorkRequest {
			w := rdma.Write(1, source(e), e.b.memory.Remote(), 0)
			w.RKey = e.b.memory.Local(0, 8).LKey
			return w
		}, rdma.StatusRemoteAccess},
		{"key 0", sim.Faults{}, func(e ends) rdma.WorkRequest {
			w := rdma.Write(1, source(e), e.b.memory.Remote(), 0)
			w.RKey = 0
			return w
		}, rdma.StatusRemoteAccess},
		{"our own region at the peer", sim.Faults{}, func(e ends) rdma.WorkRequest { return rdma.Write(1, source(e), e.a.memory.Remote(), 0) }, rdma.StatusRemoteAccess},
		{"closed region", sim.Faults{}, func(e ends) rdma.WorkRequest {
			return rdma.Read(1, source(e), closed(e), 0)
		}, rdma.StatusRemoteAccess},
		{"remote key of our own for local memory", sim.Faults{}, func(e ends) rdma.WorkRequest {
			local := source(e)
			local.LKey = e.a.memory.Remote().RKey
			return rdma.Write(1, local, e.b.memory.Remote(), 0)
		}, rdma.StatusLocal},
		{"local memory out of bounds of a READ", sim.Faults{}, func(e ends) rdma.WorkRequest {
			return rdma.Read(1, e.a.memory.Local(4090, 8), e.b.memory.Remote(), 0)
		}, rdma.StatusLocal},
		{"local memory out of bounds, inline", sim.Faults{}, func(e ends) rdma.WorkRequest {
			w := rdma.Write(1, e.a.memory.Local(4090, 8), e.b.memory.Remote(), 0)
			w.Flags |= rdma.Inline
			return w
		}, rdma.StatusLocal},
		{"local memory out of bounds, acked early", sim.Faults{EarlyAck: 1}, func(e ends) rdma.WorkRequest {
			return rdma.Write(1, e.a.memory.Local(4090, 8), e.b.memory.Remote(), 0)
		}, rdma.StatusLocal},
		{"request lost", sim.Faults{LoseRequest: 1}, func(e ends) rdma.WorkRequest { return rdma.Write(1, source(e), e.b.memory.Remote(), 8) }, rdma.StatusUnreachable},
		{"reply lost", sim.Faults{LoseReply: 1}, func(e ends) rdma.WorkRequest { return rdma.Read(1, source(e), e.b.memory.Remote(), 8) }, rdma.StatusUnreachable},
		{"peer fails", sim.Faults{RemoteOperation: 1}, func(e ends) rdma.WorkRequest { return rdma.FAA(1, e.a.memory.Local(0, 8), e.b.memory.Remote(), 8, 1) }, rdma.StatusRemoteOperation},
		{"device fails", sim.Faults{Fatal: 1}, func(e ends) rdma.WorkRequest {
			return rdma.CAS(1, e.a.memory.Local(0, 8), e.b.memory.Remote(), 8, 0, 1)
		}, rdma.StatusFatal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFabric(t, sim.Options{Faults: tt.faults})
			e := ends{a: open(t, f, "a"), b: open(t, f, "b")}
			e.x, _ = join(e.a, e.b, rdma.QueuePairOptions{})
			w := tt.w(e)
			after := rdma.Write(2, source(e), e.b.memory.Remote(), 1024)
			e.a.memory.Bytes()[0] = 0xff
			e.a.post(e.x, w, after)
			drain(f)
			got := e.a.poll()
			if len(got) != 2 || got[0].Status != tt.want || got[0].ID != 1 || got[0].QP != e.x.Number() {
				t.Fatalf("completions %+v, want the first to be %v", got, tt.want)
			}
			if tt.want == rdma.StatusOK {
				if err := e.x.Err(); err != nil || got[1].Status != rdma.StatusOK {
					t.Errorf("the queue pair says %v, the second request ended as %v", err, got[1].Status)
				}
				return
			}
			if got[1].Status != rdma.StatusFlushed || !errors.Is(e.x.Err(), tt.want) {
				t.Errorf("the second request ended as %v, the queue pair says %v", got[1].Status, e.x.Err())
			}
			// The second may take effect, unless the first was a WRITE.
			clear(e.b.memory.Bytes()[1024:1088])
			if tt.want.Outcome() == rdma.NotDone && slices.ContainsFunc(e.b.memory.Bytes(), func(b byte) bool { return b != 0 }) {
				t.Error("the request is not done and has changed memory")
			}
			if n, err := e.x.Post([]rdma.WorkRequest{after}); n != 0 || !errors.Is(err, rdma.ErrBroken) {
				t.Errorf("a broken queue pair took %d requests: %v", n, err)
			}
		})
	}
}

// A scripted failure has just the effect that the script says.
func TestScriptedFailureHasItsEffect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status rdma.Status
		effect sim.Effect
		want   func(changed int) bool
	}{
		{"none", rdma.StatusRemoteOperation, sim.EffectNone, func(n int) bool { return n == 0 }},
		{"half", rdma.StatusRemoteOperation, sim.EffectHalf, func(n int) bool { return n > 0 && n < 64 }},
		{"all", rdma.StatusFatal, sim.EffectAll, func(n int) bool { return n == 64 }},
		{"what is not done has none", rdma.StatusRemoteInvalid, sim.EffectAll, func(n int) bool { return n == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFabric(t, sim.Options{})
			a, b := open(t, f, "a"), open(t, f, "b")
			x, _ := join(a, b, rdma.QueuePairOptions{})
			f.Script(sim.Rule{Fate: sim.Fate{Status: tt.status, Effect: tt.effect}})
			for i := range 64 {
				a.memory.Bytes()[i] = 1
			}
			if s := a.do(x, rdma.Write(1, a.memory.Local(0, 64), b.memory.Remote(), 0)); s != tt.status {
				t.Errorf("the WRITE ended as %v, want %v", s, tt.status)
			}
			drain(f)
			changed := 0
			for _, c := range b.memory.Bytes() {
				changed += int(c)
			}
			if !tt.want(changed) {
				t.Errorf("%d bytes were written", changed)
			}
		})
	}
}

// A byte has no half, whatever the script says; a word has.
func TestScriptedHalf(t *testing.T) {
	for _, length := range []int{1, 8} {
		f := newFabric(t, sim.Options{})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, _ := join(a, b, rdma.QueuePairOptions{})
		f.Script(sim.Rule{Fate: sim.Fate{Status: rdma.StatusFatal, Effect: sim.EffectHalf}})
		a.memory.Store(0, 1<<64-1)
		a.do(x, rdma.Write(1, a.memory.Local(0, length), b.memory.Remote(), 0))
		drain(f)
		if w := b.memory.Load(0); (w != 0) != (length > 1) || w == 1<<64-1 {
			t.Errorf("%d bytes: the word is %#x", length, w)
		}
	}
}

// More doorbells than there is room for are retried, and get through if the peer
// polls in time; otherwise the queue pair breaks. What has rung is all there.
func TestDoorbellsNeedRoom(t *testing.T) {
	for _, polls := range []bool{true, false} {
		f := newFabric(t, sim.Options{})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, y := join(a, b, rdma.QueuePairOptions{ReceiveDepth: 2, Timeout: 16 * time.Millisecond})
		for i := range uint32(3) {
			a.post(x, rdma.WriteImm(uint64(i), rdma.Local{}, rdma.RemoteRegion{}, 0, i))
		}
		f.RunUntil(2 * time.Millisecond)
		want, last := 2, rdma.StatusReceiverNotReady
		if polls {
			if got := b.poll(); len(got) != 2 || got[1] != (rdma.Completion{QP: y.Number(), Op: rdma.OpReceive, Imm: 1}) {
				t.Errorf("doorbells %+v", got)
			}
			want, last = 1, rdma.StatusOK
		}
		drain(f)
		if got := b.poll(); len(got) != want {
			t.Errorf("peer polls %v: %d more doorbells, want %d", polls, len(got), want)
		}
		if got := a.poll(); len(got) != 3 || got[2].Status != last {
			t.Errorf("peer polls %v: completions %+v, want the last to be %v", polls, got, last)
		}
		if c := y.Counters()[rdma.OpReceive]; c.Posted != map[bool]uint64{true: 3, false: 2}[polls] {
			t.Errorf("peer polls %v: the counter of doorbells is %+v", polls, c)
		}
	}
}

// A doorbell rings when all of its data is in place, however that was torn.
func TestDoorbellComesAfterItsData(t *testing.T) {
	seeds(t, 100, func(t *testing.T, seed uint64) bool {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{Tear: 1}})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, _ := join(a, b, rdma.QueuePairOptions{})
		for i := range 200 {
			a.memory.Bytes()[i] = 1
		}
		a.post(x, rdma.WriteImm(1, a.memory.Local(0, 200), b.memory.Remote(), 3, 7))
		if c := b.next(); c.Length != 200 || c.Imm != 7 {
			t.Errorf("the doorbell is %+v", c)
		}
		if n := slices.Index(b.memory.Bytes()[3:], 0); n != 200 {
			t.Errorf("the doorbell came when %d bytes were there", n)
		}
		return false
	})
}

// Post checks what can be seen without the peer, and takes nothing behind it.
func TestPostRefuses(t *testing.T) {
	f := newFabric(t, sim.Options{MaxInFlight: 6})
	a, b := open(t, f, "a"), open(t, f, "b")
	x, y := join(a, b, rdma.QueuePairOptions{SendDepth: 4})
	good := rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0)
	odd := rdma.CAS(2, a.memory.Local(0, 8), b.memory.Remote(), 4, 0, 0)
	if n, err := x.Post([]rdma.WorkRequest{good, odd, good}); n != 1 || !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("a CAS at an odd address: %d taken, %v", n, err)
	}
	if n, err := x.Post([]rdma.WorkRequest{good, good, good, good}); n != 3 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("over the depth: %d taken, %v", n, err)
	}
	if n, err := y.Post([]rdma.WorkRequest{good, good, good}); n != 2 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("over the fabric's limit: %d taken, %v", n, err)
	}
	drain(f)
	if n, err := x.Post([]rdma.WorkRequest{good}); n != 0 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("before the completions are polled: %d taken, %v", n, err)
	}
	a.poll()
	if n, err := x.Post([]rdma.WorkRequest{good, good}); n != 2 || err != nil {
		t.Errorf("after it: %d taken, %v", n, err)
	}
	if _, err := a.pair(rdma.QueuePairOptions{}).Post([]rdma.WorkRequest{good}); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("unconnected: %v", err)
	}
	if c := a.p.Counters(); len(c) != 2 || c[1].Peer != "b" || c[1].Counters[rdma.OpWrite] != (rdma.OpCounters{Posted: 6, Bytes: 48}) {
		t.Errorf("counters %+v", c)
	}
}

// Requests that are posted before the peer connects wait for it, at most Timeout.
func TestPostBeforeConnect(t *testing.T) {
	for _, connects := range []bool{true, false} {
		f := newFabric(t, sim.Options{})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, y := a.pair(rdma.QueuePairOptions{}), b.pair(rdma.QueuePairOptions{Timeout: time.Millisecond})
		b.must(y.Accept(x.Address()))
		b.memory.Store(0, 7)
		b.post(y, rdma.Write(1, b.memory.Local(0, 8), a.memory.Remote(), 0))
		f.RunUntil(500 * us)
		if connects {
			a.must(x.Connect(context.Background(), y.Address()))
		}
		want := map[bool]rdma.Status{true: rdma.StatusOK, false: rdma.StatusUnreachable}[connects]
		if c := b.next(); c.Status != want {
			t.Errorf("connects %v: the WRITE ended as %v", connects, c.Status)
		}
		if !connects { // the accepting end is broken by now
			if err := x.Connect(context.Background(), y.Address()); !errors.Is(err, rdma.ErrBroken) || x.Err() == nil {
				t.Errorf("connecting to it: %v, then the end says %v", err, x.Err())
			}
		}
	}
}

func TestConnectRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct {
		name string
		do   func(f *sim.Fabric, a *node, x, y rdma.QueuePair) error
		want error
	}{
		{"not accepted", func(_ *sim.Fabric, _ *node, x, y rdma.QueuePair) error {
			return x.Connect(context.Background(), y.Address())
		}, rdma.ErrBroken},
		{"accepted for another", func(_ *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(a.pair(rdma.QueuePairOptions{}).Address()))
			return x.Connect(context.Background(), y.Address())
		}, rdma.ErrBroken},
		{"context over", func(_ *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(x.Address()))
			return x.Connect(ctx, y.Address())
		}, context.Canceled},
		{"no address", func(_ *sim.Fabric, _ *node, x, _ rdma.QueuePair) error {
			return x.Accept([]byte("tcp1 127.0.0.1:1"))
		}, rdma.ErrInvalid},
		{"twice", func(_ *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(x.Accept(y.Address()))
			return x.Accept(y.Address())
		}, rdma.ErrInvalid},
		{"link cut one way", func(f *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(x.Address()))
			f.PartitionOneWay("b", "a")
			return x.Connect(context.Background(), y.Address())
		}, rdma.StatusUnreachable},
		{"node dead", func(f *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(x.Address()))
			f.Crash("b")
			return x.Connect(context.Background(), y.Address())
		}, rdma.StatusUnreachable},
		{"old address of a node started again", func(f *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(x.Address()))
			f.Crash("b")
			again := open(a.t, f, "b")
			a.must(again.pair(rdma.QueuePairOptions{}).Accept(x.Address()))
			return x.Connect(context.Background(), y.Address())
		}, rdma.ErrBroken},
		{"the network fails", func(f *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(y.Accept(x.Address()))
			f.SetFaults(sim.Faults{FailConnect: 1})
			return x.Connect(context.Background(), y.Address())
		}, rdma.StatusUnreachable},
		{"closed", func(_ *sim.Fabric, a *node, x, y rdma.QueuePair) error {
			a.must(x.Close())
			return x.Connect(context.Background(), y.Address())
		}, rdma.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFabric(t, sim.Options{})
			a, b := open(t, f, "a"), open(t, f, "b")
			if err := tt.do(f, a, a.pair(rdma.QueuePairOptions{}), b.pair(rdma.QueuePairOptions{})); !errors.Is(err, tt.want) {
				t.Errorf("the error is %v, want %v", err, tt.want)
			}
		})
	}
}

// A queue pair may be connected to itself.
func TestLoopback(t *testing.T) {
	f := newFabric(t, sim.Options{})
	a := open(t, f, "a")
	x := a.pair(rdma.QueuePairOptions{})
	a.must(x.Accept(x.Address()))
	a.must(x.Connect(context.Background(), x.Address()))
	if s := a.do(x, rdma.CAS(1, a.memory.Local(8, 8), a.memory.Remote(), 0, 0, 5)); s != rdma.StatusOK || a.memory.Load(0) != 5 {
		t.Errorf("the CAS ended as %v, the word is %d", s, a.memory.Load(0))
	}
	a.post(x, rdma.WriteImm(2, rdma.Local{}, rdma.RemoteRegion{}, 0, 3))
	a.must(x.Revoke(context.Background()))
	drain(f)
	if got := a.poll(); len(got) != 1 || got[0].Status != rdma.StatusFlushed {
		t.Errorf("after the revocation: %+v", got)
	}
}

// Handles close in order, and the provider names what is open.
func TestCloseOrder(t *testing.T) {
	f := newFabric(t, sim.Options{})
	a, b := open(t, f, "a"), open(t, f, "b")
	x, _ := join(a, b, rdma.QueuePairOptions{})
	a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
	for _, tt := range []struct {
		what  string
		close func() error
		want  error
	}{
		{"queue with a queue pair", a.cq.Close, rdma.ErrInUse},
		{"provider with all", a.p.Close, rdma.ErrInUse},
		{"queue pair", x.Close, nil},
		{"queue pair again", x.Close, nil},
		{"queue", a.cq.Close, nil},
		{"queue again", a.cq.Close, nil},
		{"provider with a region", a.p.Close, rdma.ErrInUse},
		{"region", a.memory.Close, nil},
		{"region again", a.memory.Close, nil},
		{"provider", a.p.Close, nil},
		{"provider again", a.p.Close, nil},
	} {
		if err := tt.close(); !errors.Is(err, tt.want) {
			t.Errorf("close of the %s: %v, want %v", tt.what, err, tt.want)
		}
	}
	if got := a.poll(); len(got) != 1 || got[0].Status != rdma.StatusFlushed {
		t.Errorf("what Close has flushed: %+v", got)
	}
	if _, err := a.p.Register(1); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("registering at a closed provider: %v", err)
	}
	if _, err := f.Open("a"); err != nil {
		t.Errorf("opening the node again: %v", err)
	}
}
