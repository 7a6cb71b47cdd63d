package shm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// longWait is a StopAfter that no test waits for.
const longWait = time.Hour

// TestRevokeOfStoppedIdlePeer: a peer that stands still outside of our memory is
// fenced without being killed, and finds out when it goes on.
func TestRevokeOfStoppedIdlePeer(t *testing.T) {
	n, c := newNode(t, 4096, Options{StopAfter: longWait}, rdma.QueuePairOptions{}), newChild(t, 4096, bound)
	c.connect(n.qp)
	write := rdma.Write(1, c.local(0, 4096), n.region.Remote(), 0)
	if s := c.post(write); s != rdma.StatusOK {
		t.Fatal(s)
	}
	copy(n.region.Bytes(), "as it was")
	c.stop()
	must(t, n.qp.Revoke(t.Context()))
	c.goOn()
	if s := c.post(write); s.Outcome() == rdma.Done {
		t.Errorf("a WRITE after the revocation ended as %v", s)
	}
	if !bytes.HasPrefix(n.region.Bytes(), []byte("as it was")) {
		t.Error("a WRITE has landed after the revocation")
	}
	if !errors.Is(n.qp.Err(), errRevoked) {
		t.Errorf("the revoked queue pair broke because of %v", n.qp.Err())
	}
}

// stopInside connects a child, lets it write to our memory without end, and stops
// it in the middle.
func stopInside(t *testing.T, n *node) *child {
	t.Helper()
	size := len(n.region.Bytes())
	c := newChild(t, size, bound)
	c.connect(n.qp)
	c.tell(order{Do: "stream", Requests: []rdma.WorkRequest{rdma.Write(1, c.local(0, size), n.region.Remote(), 0)}})
	for deadline := time.Now().Add(bound); time.Now().Before(deadline); {
		// It must have begun to write, and be at it.
		if n.region.Load(0) == 0 {
			runtime.Gosched()
			continue
		}
		if c.stop(); n.qp.control.Load(busyAt) != 0 {
			return c
		}
		c.goOn()
	}
	t.Fatal("the child never stopped in the middle of a WRITE")
	return nil
}

const hugeWrite = 32 << 20

// TestRevokeOfPeerStoppedInside: a peer that stands still in the middle of a huge
// WRITE might go on with it; only its death makes the memory ours.
func TestRevokeOfPeerStoppedInside(t *testing.T) {
	n := newNode(t, hugeWrite, Options{StopAfter: 20 * time.Millisecond}, rdma.QueuePairOptions{})
	c := stopInside(t, n)
	must(t, n.qp.Revoke(t.Context()))
	before := bytes.Clone(n.region.Bytes())
	_ = c.cmd.Process.Signal(unix.SIGCONT) // it is dead, or goes on
	if !c.died() {
		t.Error("the peer was not stopped for good")
	}
	if !bytes.Equal(n.region.Bytes(), before) {
		t.Error("the WRITE went on after the revocation")
	}
}

// TestRevokeOfPeerThatDiedInside: a peer that died in the middle left busy set
// for ever, which nobody has to wait for.
func TestRevokeOfPeerThatDiedInside(t *testing.T) {
	n := newNode(t, hugeWrite, Options{StopAfter: longWait}, rdma.QueuePairOptions{})
	c := stopInside(t, n)
	c.kill()
	must(t, n.qp.Revoke(t.Context()))
	if n.qp.control.Load(busyAt) == 0 {
		t.Error("the peer was not in the middle of a request")
	}
	must(t, n.qp.Close())
}

// TestRevokeUntil: Revoke ends with its context, and may be called again.
func TestRevokeUntil(t *testing.T) {
	n := newNode(t, hugeWrite, Options{StopAfter: longWait}, rdma.QueuePairOptions{})
	c := stopInside(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := n.qp.Revoke(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errStuck) {
		t.Errorf("Revoke of a stopped peer ended with %v, want %v", err, context.DeadlineExceeded)
	}
	c.goOn()
	if r := c.listen(); r.Completions[0].Status.Outcome() == rdma.Done {
		t.Errorf("the WRITE that was cut off ended as %v", r.Completions[0].Status)
	}
	must(t, n.qp.Revoke(t.Context()))
}

// TestRevokeSparesThisProcess: whatever the control memory says, we do not kill
// ourselves.
func TestRevokeSparesThisProcess(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{StopAfter: time.Millisecond}, rdma.QueuePairOptions{})
	connect(t, b.qp, a.qp)
	b.qp.control.Store(busyAt, 1)
	if err := b.qp.Revoke(t.Context()); !errors.Is(err, errStuck) {
		t.Errorf("Revoke ended with %v, want %v", err, errStuck)
	}
	if err := b.qp.Close(); !errors.Is(err, errStuck) {
		t.Errorf("Close ended with %v, want %v", err, errStuck)
	}
}

// TestRevokeIsNoticed: a peer that runs learns of the revocation without a
// request.
func TestRevokeIsNoticed(t *testing.T) {
	a, b := newNodes(t, 64)
	must(t, b.qp.Revoke(t.Context()))
	waitUntil(t, "the peer breaks", func() bool { return a.qp.Err() != nil })
}

// TestRevokeEndsOwnRequests: a revocation does not wait for a long batch of ours.
func TestRevokeEndsOwnRequests(t *testing.T) {
	a, b := newNodes(t, hugeWrite)
	var batch []rdma.WorkRequest
	for i := range 128 {
		batch = append(batch, rdma.Write(uint64(i), a.region.Local(0, hugeWrite), b.region.Remote(), 0))
	}
	a.do(rdma.Read(0, a.region.Local(0, 8), b.region.Remote(), 0)) // maps the region
	posted := make(chan int)
	go func() {
		n, _ := a.qp.Post(batch) // refused as soon as the pair is broken
		posted <- n
	}()
	if c := a.next(); c.Status != rdma.StatusOK {
		t.Fatal(c.Status)
	}
	must(t, a.qp.Revoke(t.Context()))
	n := <-posted
	if n == len(batch) {
		t.Errorf("all %d requests were taken", n)
	}
	for i := 1; i < n; i++ {
		if c := a.next(); c.ID != uint64(i) || c.Status != rdma.StatusOK && (c.Status != rdma.StatusFlushed || i != n-1) {
			t.Fatalf("completion %d of %d is %+v", i, n, c)
		}
	}
}

// TestPeerDies: a peer is killed while the connection is idle.
func TestPeerDies(t *testing.T) {
	n, c := newNode(t, 4096, Options{}, rdma.QueuePairOptions{}), newChild(t, 4096, bound)
	c.connect(n.qp)
	read := rdma.Read(1, n.region.Local(0, 64), c.Remote, 0)
	if s := n.do(read); s != rdma.StatusOK {
		t.Fatal(s)
	}
	c.kill()
	waitUntil(t, "the queue pair breaks", func() bool { return n.qp.Err() != nil })
	if taken, err := n.qp.Post([]rdma.WorkRequest{read}); taken != 0 || !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("Post on a broken queue pair: %d, %v", taken, err)
	}
}

// TestStoppedPeerAndUnknownRegion: a region that was not announced needs the
// peer's processor; without it the request fails in time.
func TestStoppedPeerAndUnknownRegion(t *testing.T) {
	n, c := newNode(t, 4096, Options{}, rdma.QueuePairOptions{Timeout: 20 * time.Millisecond}), newChild(t, 4096, bound)
	c.connect(n.qp)
	c.stop()
	unknown := c.Remote
	unknown.RKey ^= 1 << 20
	read := rdma.Read(1, n.region.Local(0, 64), unknown, 0)
	n.post(read, read)
	if s := n.next().Status; s != rdma.StatusUnreachable {
		t.Errorf("a READ of a region that the stopped peer did not hand out ended as %v", s)
	}
	if s := n.next().Status; s != rdma.StatusFlushed {
		t.Errorf("the request after it ended as %v", s)
	}
	c.goOn()
}

// TestStoppedPeer: the peer's memory does not need the peer's processor, from the
// first request on.
func TestStoppedPeer(t *testing.T) {
	n, c := newNode(t, 4096, Options{}, rdma.QueuePairOptions{}), newChild(t, 4096, bound)
	c.connect(n.qp)
	c.stop()
	faa := rdma.FAA(1, n.region.Local(0, 8), c.Remote, 0, 1)
	for i := range uint64(2) {
		if s := n.do(faa); s != rdma.StatusOK || n.region.Load(0) != i {
			t.Errorf("FAA %d on a stopped peer ended as %v, found %d", i, s, n.region.Load(0))
		}
	}
	c.goOn()
}

// TestProcesses: data, atomics and doorbells both ways between processes.
func TestProcesses(t *testing.T) {
	n, c := newNode(t, 4096, Options{}, rdma.QueuePairOptions{}), newChild(t, 4096, bound)
	must(t, n.qp.Accept(c.Address))
	c.tell(order{Do: "connect", Address: n.qp.Address()})
	copy(n.region.Bytes(), "from the parent")
	if s := n.do(rdma.WriteImm(1, n.region.Local(0, 15), c.Remote, 100, 5)); s != rdma.StatusOK {
		t.Fatal(s)
	}
	want := []rdma.Completion{{ID: 2, QP: 1, Op: rdma.OpWriteImm}, {QP: 1, Op: rdma.OpReceive, Imm: 5, Length: 15}}
	got := c.tell(order{Do: "post", Completions: 2, Requests: []rdma.WorkRequest{
		{ID: 2, Op: rdma.OpWriteImm, Flags: rdma.Signaled, Imm: 6, Local: c.local(100, 15), RemoteAddr: n.region.Remote().At(200), RKey: n.region.Remote().RKey}}}).Completions
	if len(got) == 2 && got[0].Op == rdma.OpReceive {
		got[0], got[1] = got[1], got[0]
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("the child got %+v, want %+v", got, want)
	}
	if c := n.next(); c.Op != rdma.OpReceive || c.Imm != 6 {
		t.Errorf("the doorbell of the child is %+v", c)
	}
	if s := string(n.region.Bytes()[200:215]); s != "from the parent" {
		t.Errorf("%q came back", s)
	}
}

// TestStrangers: a process of another user does not get our memory.
func TestStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	type pair struct {
		files [2]int
		err   error
	}
	made := make(chan pair)
	go func() {
		// The thread has another user afterwards, and ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			made <- pair{err: errno}
			return
		}
		files, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		made <- pair{files, err}
	}()
	p := <-made
	must(t, p.err)
	defer closeAll(p.files[:])
	if _, err := peerOf(p.files[0]); err == nil || !strings.Contains(err.Error(), "user 65534") {
		t.Errorf("a peer of user 65534: error %v", err)
	}
}
