package shm

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// TestConnectIsRefused: who is not expected is told why, and its queue pair is
// broken.
func TestConnectIsRefused(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	stranger := a.newPair(rdma.QueuePairOptions{})
	other := func(change func(*address)) []byte {
		p := b.newPair(rdma.QueuePairOptions{})
		x := address{p.number, p.token, b.provider.path}
		must(t, p.Accept(stranger.Address()))
		change(&x)
		return x.encode()
	}
	unaccepting := b.newPair(rdma.QueuePairOptions{})
	revoked := b.newPair(rdma.QueuePairOptions{})
	must(t, revoked.Accept(stranger.Address()))
	must(t, revoked.Revoke(t.Context()))
	for name, c := range map[string]struct {
		address []byte
		want    string
	}{
		"not accepted":    {unaccepting.Address(), reasons[notAccepted]},
		"revoked":         {revoked.Address(), reasons[notAccepted]},
		"another peer":    {other(func(*address) {}), reasons[otherPeer]},
		"wrong token":     {other(func(x *address) { x.token[3]++ }), reasons[noPair]},
		"wrong number":    {other(func(x *address) { x.number += 100 }), reasons[noPair]},
		"no such socket":  {other(func(x *address) { x.path += "x" }), "no such file"},
		"no address":      {[]byte("nonsense"), "not one of a queue pair"},
		"another version": {append([]byte("tshm\xff"), b.qp.Address()[5:]...), "not one of a queue pair"},
	} {
		qp := a.newPair(rdma.QueuePairOptions{})
		err := qp.Connect(t.Context(), c.address)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Connect ended with %v, want %q in it", name, err, c.want)
		}
		if !errors.Is(qp.Err(), err) {
			t.Errorf("%s: the queue pair broke because of %v, want %v", name, qp.Err(), err)
		}
		if _, err := qp.Post([]rdma.WorkRequest{{Op: rdma.OpRead}}); !errors.Is(err, rdma.ErrBroken) {
			t.Errorf("%s: Post afterwards: %v", name, err)
		}
	}
}

// TestStates: what may be called when.
func TestStates(t *testing.T) {
	a, b := newNodes(t, 64)
	nop := []rdma.WorkRequest{rdma.Write(1, rdma.Local{}, rdma.RemoteRegion{}, 0)}
	fresh := func() *queuePair { return a.newPair(rdma.QueuePairOptions{}) }
	accepting := fresh()
	must(t, accepting.Accept(b.qp.Address()))
	revoked := fresh()
	must(t, revoked.Revoke(t.Context()))
	shut := fresh()
	must(t, shut.Close())
	must(t, shut.Close())
	must(t, shut.Revoke(t.Context()))
	for name, c := range map[string]struct {
		qp                    *queuePair
		accept, connect, post error
	}{
		"fresh":     {fresh(), nil, nil, rdma.ErrBroken},
		"accepting": {accepting, rdma.ErrInvalid, rdma.ErrInvalid, nil},
		"connected": {a.qp, rdma.ErrInvalid, rdma.ErrInvalid, nil},
		"revoked":   {revoked, rdma.ErrBroken, rdma.ErrBroken, rdma.ErrBroken},
		"closed":    {shut, rdma.ErrClosed, rdma.ErrClosed, rdma.ErrClosed},
	} {
		if _, err := c.qp.Post(nop); !errors.Is(err, c.post) {
			t.Errorf("%s: Post: %v, want %v", name, err, c.post)
		}
		if c.accept == nil {
			continue
		}
		if err := c.qp.Connect(t.Context(), b.qp.Address()); !errors.Is(err, c.connect) {
			t.Errorf("%s: Connect: %v, want %v", name, err, c.connect)
		}
		if err := c.qp.Accept(b.qp.Address()); !errors.Is(err, c.accept) {
			t.Errorf("%s: Accept: %v, want %v", name, err, c.accept)
		}
	}
	if err := fresh().Accept([]byte("nonsense")); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("Accept of nonsense: %v", err)
	}
}

// TestSelf: a queue pair that is its own peer, in both ways to get there.
func TestSelf(t *testing.T) {
	for name, connect := range map[string]func(*queuePair) error{
		"accept":  func(q *queuePair) error { return q.Accept(q.Address()) },
		"connect": func(q *queuePair) error { return q.Connect(t.Context(), q.Address()) },
		"accept and connect": func(q *queuePair) error {
			return errors.Join(q.Accept(q.Address()), q.Connect(t.Context(), q.Address()))
		},
	} {
		n := newNode(t, 4096, Options{}, rdma.QueuePairOptions{})
		must(t, connect(n.qp))
		n.region.Store(64, 41)
		if s := n.do(rdma.CAS(1, n.region.Local(0, 8), n.region.Remote(), 64, 41, 42)); s != rdma.StatusOK || n.region.Load(0) != 41 || n.region.Load(64) != 42 {
			t.Errorf("%s: CAS ended as %v, found %d, left %d", name, s, n.region.Load(0), n.region.Load(64))
		}
		n.post(rdma.WriteImm(2, n.region.Local(0, 8), n.region.Remote(), 128, 7))
		got := map[rdma.Opcode]rdma.Completion{} // in no order
		for range 2 {
			c := n.next()
			got[c.Op] = c
		}
		if sent, bell := got[rdma.OpWriteImm], got[rdma.OpReceive]; sent.ID != 2 || bell.Imm != 7 || n.region.Load(128) != 41 {
			t.Errorf("%s: WRITE_IMM ended as %+v, the doorbell is %+v, the word %d", name, sent, bell, n.region.Load(128))
		}
		if s := n.do(rdma.Read(3, n.region.Local(0, 8), rdma.RemoteRegion{Addr: n.region.Remote().Addr, RKey: n.region.Remote().RKey + 1}, 0)); s != rdma.StatusRemoteAccess {
			t.Errorf("%s: a READ with a wrong key ended as %v", name, s)
		}
		must(t, n.qp.Revoke(t.Context()))
	}
}

// TestEarlyRequests: what is posted before the peer comes is executed when it
// has come, in order, with what was inline then.
func TestEarlyRequests(t *testing.T) {
	a, b := newNode(t, 4096, Options{}, rdma.QueuePairOptions{}), newNode(t, 4096, Options{}, rdma.QueuePairOptions{SendDepth: 8})
	must(t, b.qp.Accept(a.qp.Address()))
	copy(b.region.Bytes(), "inline--payload-")
	inline := rdma.Write(0, b.region.Local(0, 8), a.region.Remote(), 0)
	inline.Flags |= rdma.Inline
	quiet := rdma.Write(1, b.region.Local(8, 8), a.region.Remote(), 8)
	quiet.Flags = 0
	b.post(inline, quiet,
		rdma.WriteImm(2, b.region.Local(8, 8), a.region.Remote(), 16, 9),
		rdma.FAA(3, b.region.Local(100*8, 8), a.region.Remote(), 24, 5),
		rdma.Read(4, b.region.Local(200*8, 32), a.region.Remote(), 0))
	rest := make([]rdma.WorkRequest, 4)
	for i := range rest {
		rest[i] = rdma.Read(uint64(5+i), b.region.Local(300*8, 8), a.region.Remote(), 0)
	}
	if n, err := b.qp.Post(rest); n != 3 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("%d of 4 requests fit into 3 places, error %v", n, err)
	}
	copy(b.region.Bytes(), "garbage?")
	must(t, a.qp.Connect(t.Context(), b.qp.Address()))
	for _, id := range []uint64{0, 2, 3, 4, 5, 6, 7} {
		if c := b.next(); c.ID != id || c.Status != rdma.StatusOK {
			t.Fatalf("completion %+v, want request %d", c, id)
		}
	}
	if c := a.next(); c.Op != rdma.OpReceive || c.Imm != 9 || c.Length != 8 {
		t.Errorf("the doorbell is %+v", c)
	}
	if got := string(b.region.Bytes()[200*8 : 200*8+24]); got != "inline--payload-payload-" || b.region.Load(200*8+24) != 5 {
		t.Errorf("the memory is %q, then %d", got, b.region.Load(200*8+24))
	}
}

// TestNobodyComes: requests wait for the peer for Timeout and no longer.
func TestNobodyComes(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{Timeout: 10 * time.Millisecond})
	must(t, b.qp.Accept(a.qp.Address()))
	b.post(rdma.Read(1, b.region.Local(0, 8), a.region.Remote(), 0), rdma.Read(2, b.region.Local(0, 8), a.region.Remote(), 0))
	if c := b.next(); c.ID != 1 || c.Status != rdma.StatusUnreachable {
		t.Errorf("the first request ended as %+v", c)
	}
	if c := b.next(); c.ID != 2 || c.Status != rdma.StatusFlushed {
		t.Errorf("the second request ended as %+v", c)
	}
	if err := a.qp.Connect(t.Context(), b.qp.Address()); err == nil {
		t.Error("the peer could still connect")
	}
}

// TestConnectEndsWithContext: a peer that does not answer is given up when ctx
// ends, and what we have sent it is worth nothing.
func TestConnectEndsWithContext(t *testing.T) {
	n := newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	path := directory(t) + "/mute"
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	mute := address{number: 1, path: path}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- n.qp.Connect(ctx, mute.encode()) }()
	conn, err := l.AcceptUnix()
	must(t, err)
	defer conn.Close()
	_, files, err := receive(conn)
	must(t, err)
	control, err := memory.MapFile(files[controlFile], controlSize(1))
	must(t, err)
	defer control.Unmap()
	defer closeAll(files)
	if control.Load(revokedAt) != 0 {
		t.Error("it is revoked before")
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Connect ended with %v, want %v", err, context.Canceled)
	}
	if control.Load(revokedAt) == 0 {
		t.Error("whoever was to be our peer could use our memory")
	}
}

// TestConnectIsBounded: a peer that does not answer is given up without a
// deadline of the caller.
func TestConnectIsBounded(t *testing.T) {
	n := newNode(t, 64, Options{HandshakeTimeout: 20 * time.Millisecond}, rdma.QueuePairOptions{})
	path := directory(t) + "/mute"
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	mute := address{number: 1, path: path}
	if err := n.qp.Connect(t.Context(), mute.encode()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Connect ended with %v, want %v", err, context.DeadlineExceeded)
	}
	if n.qp.Err() == nil {
		t.Error("the queue pair is not broken")
	}
}

// TestRevokeDuringConnect: Connect fails if the pair is revoked meanwhile.
func TestRevokeDuringConnect(t *testing.T) {
	n := newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	path := directory(t) + "/slow"
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	slow := address{number: 1, path: path}
	failed := make(chan error)
	go func() { failed <- n.qp.Connect(t.Context(), slow.encode()) }()
	conn, err := l.AcceptUnix()
	must(t, err)
	defer conn.Close()
	_, files, err := receive(conn)
	must(t, err)
	defer closeAll(files)
	must(t, n.qp.Revoke(t.Context()))
	must(t, send(conn, &message{kind: welcome, fromNumber: 1, depth: 1}, files...))
	if err := <-failed; !errors.Is(err, rdma.ErrBroken) || !errors.Is(err, errRevoked) {
		t.Errorf("Connect ended with %v, want %v", err, errRevoked)
	}
}

// TestRevokeBeforeHello: a pair that was revoked does not hand out its memory.
func TestRevokeBeforeHello(t *testing.T) {
	n := newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	must(t, n.qp.Revoke(t.Context()))
	if err := n.qp.sendHello(nil, self(), n.qp.introduction(hello)); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("hello after the revocation: %v", err)
	}
}

// TestFiles counts the open files of queue pairs, as the package comment has them.
func TestFiles(t *testing.T) {
	files := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(all)
	}
	n := newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	c := newChild(t, 64, bound)
	before := files()
	pair := func() *queuePair { return n.newPair(rdma.QueuePairOptions{}) }
	for name, x := range map[string]struct {
		pairs   []*queuePair
		connect func(pairs []*queuePair)
		want    int
	}{
		"not connected":        {[]*queuePair{pair()}, func([]*queuePair) {}, 2},
		"to itself":            {[]*queuePair{pair()}, func(q []*queuePair) { must(t, q[0].Accept(q[0].Address())) }, 2},
		"within a process":     {[]*queuePair{pair(), pair()}, func(q []*queuePair) { connect(t, q[0], q[1]) }, 2 * 3},
		"with another process": {[]*queuePair{pair()}, func(q []*queuePair) { c.connect(q[0]) }, 4},
	} {
		others := files() - 2*len(x.pairs)
		x.connect(x.pairs)
		waitUntil(t, name+" it has as many files as it should", func() bool { return files()-others == x.want })
		for _, q := range x.pairs {
			must(t, q.Close())
		}
	}
	if after := files(); after != before {
		t.Errorf("%d files are open in the end, %d in the beginning", after, before)
	}
}

// TestGarbage: whatever strangers say on the socket, they are refused, and no
// file of theirs stays open (TestMain counts).
func TestGarbage(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	must(t, b.qp.Accept(a.qp.Address()))
	good := a.qp.introduction(hello)
	good.number, good.token = b.qp.number, b.qp.token
	unsealed, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	must(t, err)
	must(t, unix.Ftruncate(unsealed, directorySize))
	small, err := memory.NewFile("small", 64)
	must(t, err)
	defer closeAll([]int{unsealed, small})
	ours := a.qp.files()
	control, bell, catalogue := ours[controlFile], ours[bellFile], ours[directoryFile]
	for name, c := range map[string]struct {
		bytes []byte
		files []int
	}{
		"nothing":            {nil, nil},
		"noise":              {[]byte("GET / HTTP/1.1"), nil},
		"too long":           {append(good.encode(), 0), ours},
		"too short":          {good.encode()[1:], ours},
		"not a hello":        {(&message{kind: want, key: 1}).encode(), nil},
		"no files":           {good.encode(), nil},
		"too few files":      {good.encode(), ours[:2]},
		"too many files":     {good.encode(), append(a.qp.files(), bell)},
		"far too many files": {good.encode(), append(a.qp.files(), a.qp.files()...)},
		"wrong order":        {good.encode(), []int{bell, control, catalogue}},
		"small control":      {good.encode(), []int{small, bell, catalogue}},
		"small directory":    {good.encode(), []int{control, bell, small}},
		"unsealed directory": {good.encode(), []int{control, bell, unsealed}},
	} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.provider.path, Net: "unixpacket"})
		must(t, err)
		if c.bytes != nil {
			var rights []byte
			if len(c.files) > 0 {
				rights = unix.UnixRights(c.files...)
			}
			_, _, err = conn.WriteMsgUnix(c.bytes, rights, nil)
			must(t, err)
			must(t, conn.SetReadDeadline(time.Now().Add(bound)))
			if m, _, err := receive(conn); err != nil || m.kind != refusal {
				t.Errorf("%s: the answer is %+v, %v", name, m, err)
			}
		}
		must(t, conn.Close())
	}
	must(t, a.qp.Connect(t.Context(), b.qp.Address()))
}

// TestGarbageDuringPost: nonsense that Post finds in the socket ends the request,
// and those that wait.
func TestGarbageDuringPost(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		a, b := newNodes(t, 64)
		unmapped := b.region.Remote()
		unmapped.RKey ^= 1 << 20
		w := rdma.Read(1, a.region.Local(0, 8), unmapped, 0)
		a.qp.mu.Lock()
		if waiting {
			a.qp.waitLocked(&w)
		}
		must(t, send(b.qp.link.conn, &message{kind: refusal}))
		waitUntil(t, "the message is there", func() bool {
			if waiting {
				a.qp.advanceLocked()
			} else if status, _ := a.qp.executeLocked(&w, nil); status == rdma.StatusUnreachable {
				a.qp.sends.Immediate(&w, status)
			}
			return a.qp.state == broken
		})
		a.qp.mu.Unlock()
		if c := a.next(); c.ID != 1 || c.Status != rdma.StatusUnreachable {
			t.Errorf("waiting: %v: it ended as %+v", waiting, c)
		}
		if got := make([]rdma.Completion, 1); a.cq.Poll(got) != 0 {
			t.Errorf("waiting: %v: a completion too many: %+v", waiting, got)
		}
	}
}

// TestGarbageFromPeer: a connected peer that talks nonsense is as good as gone.
func TestGarbageFromPeer(t *testing.T) {
	pipe := make([]int, 2)
	must(t, unix.Pipe2(pipe, unix.O_CLOEXEC))
	defer closeAll(pipe)
	for name, m := range map[string]*message{
		"a refusal":                 {kind: refusal},
		"a region that is a pipe":   {kind: grant, key: 5, slot: 1, generation: 1, size: 64},
		"a region that is too long": {kind: grant, key: 5, slot: 1, generation: 1, size: maxRegion},
	} {
		a, b := newNodes(t, 64)
		switch {
		case m.kind == refusal:
			must(t, send(a.qp.link.conn, m))
		case m.size == maxRegion:
			must(t, send(a.qp.link.conn, m, b.provider.exports.file))
		default:
			must(t, send(a.qp.link.conn, m, pipe[0]))
		}
		waitUntil(t, "the queue pair breaks", func() bool { return b.qp.Err() != nil })
		if _, err := b.qp.Post([]rdma.WorkRequest{rdma.Read(1, b.region.Local(0, 8), a.region.Remote(), 0)}); !errors.Is(err, rdma.ErrBroken) {
			t.Errorf("%s: Post afterwards: %v", name, err)
		}
		waitUntil(t, "the peer learns of it", func() bool { return a.qp.Err() != nil })
	}
}
