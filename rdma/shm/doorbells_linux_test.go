package shm

import (
	"errors"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// bells returns count doorbells with 8 bytes of data each.
func bells(a, b *node, count int) (batch []rdma.WorkRequest) {
	for i := range count {
		w := rdma.WriteImm(uint64(i), a.region.Local(8*i, 8), b.region.Remote(), uint64(8*i), uint32(i))
		a.region.Store(8*i, uint64(100+i))
		batch = append(batch, w)
	}
	return batch
}

// TestRingOverflow: as many doorbells as were agreed wait unpolled. One more
// waits for room, and so does all that is posted after it.
func TestRingOverflow(t *testing.T) {
	const depth = 4
	for _, polls := range []bool{true, false} {
		timeout := bound
		if !polls {
			timeout = 10 * time.Millisecond
		}
		a, b := newNode(t, 4096, Options{}, rdma.QueuePairOptions{Timeout: timeout}), newNode(t, 4096, Options{}, rdma.QueuePairOptions{ReceiveDepth: depth})
		connect(t, b.qp, a.qp)
		a.do(rdma.Write(0, a.region.Local(0, 8), b.region.Remote(), 2048))
		a.post(append(bells(a, b, depth+1), rdma.Write(depth+1, a.region.Local(0, 8), b.region.Remote(), 1024))...)
		for i := range depth {
			if c := a.next(); c.ID != uint64(i) || c.Status != rdma.StatusOK {
				t.Fatalf("doorbell %d: %+v", i, c)
			}
		}
		if b.region.Load(8*depth) != 0 || b.region.Load(1024) != 0 {
			t.Error("a request took effect although the doorbell before it had no room")
		}
		want := []rdma.Status{rdma.StatusReceiverNotReady, rdma.StatusFlushed}
		if polls {
			want = []rdma.Status{rdma.StatusOK, rdma.StatusOK}
			if c := b.next(); c.Imm != 0 {
				t.Errorf("the first doorbell is %+v", c)
			}
		}
		for i, w := range want {
			if c := a.next(); c.ID != uint64(depth+i) || c.Status != w {
				t.Errorf("polled: %v: request %d ended as %+v, want %v", polls, depth+i, c, w)
			}
		}
		if broken := a.qp.Err() != nil; broken == polls {
			t.Errorf("polled: %v: the queue pair: %v", polls, a.qp.Err())
		}
	}
}

// TestUnpolledDoorbellsSurvive: what was done before the sender closed its end,
// or the receiver its own, is there to be polled.
func TestUnpolledDoorbellsSurvive(t *testing.T) {
	const count = 100
	for name, end := range map[string]func(a, b *node) error{
		"sender closes":    func(a, b *node) error { return errors.Join(a.qp.Close(), b.qp.Close()) },
		"receiver closes":  func(a, b *node) error { return b.qp.Close() },
		"receiver revokes": func(a, b *node) error { return b.qp.Revoke(b.t.Context()) },
	} {
		a, b := newNodes(t, 4096)
		a.do(rdma.Write(0, a.region.Local(0, 8), b.region.Remote(), 2048))
		a.post(bells(a, b, count)...)
		must(t, end(a, b))
		got := make([]rdma.Completion, count+1)
		if n := b.cq.Poll(got); n != count {
			t.Errorf("%s: %d doorbells are there, want %d", name, n, count)
		}
		for i, c := range got[:count] {
			if c.Imm != uint32(i) || b.region.Load(8*i) != uint64(100+i) {
				t.Fatalf("%s: doorbell %d is %+v", name, i, c)
			}
		}
	}
}

// TestNonsenseInTheRing: the receiver of an impossible tail and the sender that
// finds an impossible head break their queue pairs.
func TestNonsenseInTheRing(t *testing.T) {
	a, b := newNodes(t, 64)
	b.qp.control.Store(tailAt, 1<<40)
	a.qp.link.ring()
	waitUntil(t, "the receiver breaks", func() bool { return b.qp.Err() != nil })
	if err := b.qp.Err(); !errors.Is(err, errRing) {
		t.Errorf("the receiver broke because of %v", err)
	}
	a, b = newNodes(t, 64)
	b.qp.control.Store(headAt, 1<<40)
	if s := a.do(rdma.WriteImm(1, rdma.Local{}, rdma.RemoteRegion{}, 0, 1)); s != rdma.StatusRemoteOperation {
		t.Errorf("a doorbell to a peer that writes nonsense ended as %v", s)
	}
}

// TestDoorbellOfTheDead: a peer that died before it could ring the bell has put
// its doorbell all the same.
func TestDoorbellOfTheDead(t *testing.T) {
	a, b := newNodes(t, 64)
	waitUntil(t, "the receiver sleeps", func() bool { return b.qp.control.Load(armedAt) == 1 })
	a.qp.mu.Lock()
	ring := a.qp.link.outbox.put(doorbell{imm: 5})
	a.qp.mu.Unlock()
	if !ring {
		t.Error("the receiver does not sleep")
	}
	a.qp.link.hangUp()
	if c := b.next(); c.Op != rdma.OpReceive || c.Imm != 5 {
		t.Errorf("the doorbell is %+v", c)
	}
}
