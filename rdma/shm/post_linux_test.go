package shm

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// TestRefusals: each wrong request ends with its status, touches nothing, and
// breaks the queue pair.
func TestRefusals(t *testing.T) {
	const size = 4096
	region := func(n *node) rdma.RemoteRegion { return n.region.Remote() }
	for name, c := range map[string]struct {
		request func(a, b *node) rdma.WorkRequest
		want    rdma.Status
	}{
		"unknown key": {func(a, b *node) rdma.WorkRequest {
			r := region(b)
			r.RKey ^= 1 << 20
			return rdma.Write(1, a.region.Local(0, 8), r, 0)
		}, rdma.StatusRemoteAccess},
		"key zero": {func(a, b *node) rdma.WorkRequest {
			r := region(b)
			r.RKey = 0
			return rdma.Write(1, a.region.Local(0, 8), r, 0)
		}, rdma.StatusRemoteAccess},
		"our own key": {func(a, b *node) rdma.WorkRequest { return rdma.Write(1, a.region.Local(0, 8), region(a), 0) }, rdma.StatusRemoteAccess},
		"over the end": {func(a, b *node) rdma.WorkRequest {
			return rdma.Write(1, a.region.Local(0, 16), region(b), size-8)
		}, rdma.StatusRemoteAccess},
		"at the end": {func(a, b *node) rdma.WorkRequest {
			return rdma.CAS(1, a.region.Local(0, 8), region(b), size, 0, 1)
		}, rdma.StatusRemoteAccess},
		"before the start": {func(a, b *node) rdma.WorkRequest {
			return rdma.Write(1, a.region.Local(0, 8), region(b), ^uint64(0)-7)
		}, rdma.StatusRemoteAccess},
		"over the last address": {func(a, b *node) rdma.WorkRequest {
			r := region(b)
			r.Addr = ^uint64(0) - 3
			return rdma.Write(1, a.region.Local(0, 8), r, 0)
		}, rdma.StatusRemoteAccess},
		"wrong local key": {func(a, b *node) rdma.WorkRequest {
			l := a.region.Local(0, 8)
			l.LKey++
			return rdma.FAA(1, l, region(b), 0, 1)
		}, rdma.StatusLocal},
		"local over the end": {func(a, b *node) rdma.WorkRequest {
			return rdma.Write(1, a.region.Local(size-8, 16), region(b), 0)
		}, rdma.StatusLocal},
	} {
		for _, mapped := range []bool{false, true} {
			a, b := newNodes(t, size)
			for i := range a.region.Bytes() {
				a.region.Bytes()[i] = 0xaa
			}
			if mapped {
				a.do(rdma.Write(0, a.region.Local(0, 8), region(b), 0))
				b.region.Store(0, 0)
			}
			w := c.request(a, b)
			n, err := a.qp.Post([]rdma.WorkRequest{w, w})
			if got := a.next().Status; got != c.want {
				t.Errorf("%s (region mapped: %v): ended as %v, want %v", name, mapped, got, c.want)
			}
			if n == 1 && !errors.Is(err, rdma.ErrBroken) {
				t.Errorf("%s: the request after it was refused with %v", name, err)
			} else if n == 2 && a.next().Status != rdma.StatusFlushed {
				t.Errorf("%s: the request after it was not flushed", name)
			}
			for i, v := range b.region.Bytes() {
				if v != 0 {
					t.Errorf("%s: byte %d has changed", name, i)
					break
				}
			}
			if err := a.qp.Err(); !errors.Is(err, c.want) {
				t.Errorf("%s: the queue pair broke because of %v", name, err)
			}
		}
	}
}

// TestFailureIsKnown: whoever has the completion of a failed request finds the
// queue pair broken.
func TestFailureIsKnown(t *testing.T) {
	const rounds = 100
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	bad := []rdma.WorkRequest{rdma.Read(1, a.region.Local(0, 8), b.region.Remote(), 64)}
	for range rounds {
		x, y := a.newPair(rdma.QueuePairOptions{SendDepth: 1, ReceiveDepth: 1}), b.newPair(rdma.QueuePairOptions{SendDepth: 1, ReceiveDepth: 1})
		connect(t, y, x)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := x.Post(bad); err != nil {
				t.Error(err)
			}
		})
		for got := make([]rdma.Completion, 1); a.cq.Poll(got) == 0; {
			runtime.Gosched()
		}
		if x.Err() == nil {
			t.Fatal("a request has failed, and Err says nothing")
		}
		wg.Wait()
		must(t, errors.Join(x.Close(), y.Close()))
	}
}

// TestClosedRegion: after Region.Close its key opens nothing, not even what came
// in its place, and its memory is given back.
func TestClosedRegion(t *testing.T) {
	const size = 5 * 4096 // no other region has
	for _, itself := range []bool{false, true} {
		a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
		if itself {
			b = a
			must(t, a.qp.Accept(a.qp.Address()))
		} else {
			connect(t, b.qp, a.qp)
		}
		first, err := b.provider.Register(size)
		must(t, err)
		write := rdma.Write(1, a.region.Local(0, 8), first.Remote(), 0)
		if s := a.do(write); s != rdma.StatusOK {
			t.Fatal(s)
		}
		if n := mappings(t, size); n != 2 {
			t.Errorf("the region is mapped %d times, want 2", n)
		}
		must(t, first.Close())
		must(t, first.Close())
		waitUntil(t, "the peer has unmapped the region", func() bool { return mappings(t, size) == 0 })
		second := register(t, b.provider, 4096)
		if s := a.do(write); s != rdma.StatusRemoteAccess {
			t.Errorf("a WRITE to a closed region ended as %v", s)
		}
		if second.Load(0) != 0 {
			t.Error("it has landed in the region that came afterwards")
		}
	}
}

// TestClosedRegionStillMapped: a peer that has not unmapped a closed region does
// not use it, even if another has its key.
func TestClosedRegionStillMapped(t *testing.T) {
	a, b := newNodes(t, 4096)
	write := rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 0)
	a.do(write)
	exports := b.provider.exports
	a.qp.mu.Lock() // so that nothing is unmapped
	mapped := a.qp.remotes.known[0]
	exports.directory.Store(generationAt(mapped.slot), mapped.generation+1)
	status, o := a.qp.executeLocked(&write, nil)
	exports.directory.Store(generationAt(mapped.slot), mapped.generation)
	a.qp.mu.Unlock()
	if status != rdma.StatusRemoteAccess || o != nothing {
		t.Errorf("a WRITE to the mapping of a closed region ended as %v", status)
	}
}

// TestClosedLocalRegion: a request that waits while its local memory is closed
// fails.
func TestClosedLocalRegion(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	local, err := b.provider.Register(64)
	must(t, err)
	must(t, b.qp.Accept(a.qp.Address()))
	b.post(rdma.Write(1, local.Local(0, 8), a.region.Remote(), 0))
	must(t, local.Close())
	must(t, a.qp.Connect(t.Context(), b.qp.Address()))
	if s := b.next().Status; s != rdma.StatusLocal {
		t.Errorf("it ended as %v", s)
	}
}

// TestManyRegions: more regions than are announced, and than the cache of recent
// ones has places.
func TestManyRegions(t *testing.T) {
	a, b := newNodes(t, 4096)
	var batch []rdma.WorkRequest
	var regions []rdma.Region
	for i := range maxAnnounced + 16 {
		regions = append(regions, register(t, b.provider, 64))
		batch = append(batch, rdma.FAA(uint64(i), a.region.Local(0, 8), regions[i].Remote(), 8, uint64(i)))
	}
	for range 3 {
		a.post(batch...)
		for range batch {
			if c := a.next(); c.Status != rdma.StatusOK {
				t.Fatal(c)
			}
		}
	}
	for i, r := range regions {
		if r.Load(8) != uint64(3*i) {
			t.Errorf("the word of region %d is %d, want %d", i, r.Load(8), 3*i)
		}
	}
}

// TestNewRegionIsAnnounced: a region that was registered after the connection was
// made does not need the owner's processor either.
func TestNewRegionIsAnnounced(t *testing.T) {
	a, b := newNodes(t, 64)
	r := register(t, b.provider, 64)
	r.Store(0, 5)
	b.qp.mu.Lock() // the owner answers nothing
	defer b.qp.mu.Unlock()
	if s := a.do(rdma.Read(1, a.region.Local(0, 8), r.Remote(), 0)); s != rdma.StatusOK || a.region.Load(0) != 5 {
		t.Errorf("a READ ended as %v and read %d", s, a.region.Load(0))
	}
}

// TestPostReadsAnnouncements: Post does not need reader to find what was
// announced.
func TestPostReadsAnnouncements(t *testing.T) {
	a, b := newNodes(t, 64)
	a.qp.mu.Lock()
	defer a.qp.mu.Unlock()
	register(t, b.provider, 64) // reader may have this one in its hands, and waits for mu
	r := register(t, b.provider, 64)
	if x, status, o := a.qp.fetchLocked(r.Remote().RKey); x == nil {
		t.Errorf("the region was not found: %v, obstacle %d", status, o)
	}
}

// TestGrantReplaces: a region takes the place of a closed one with the same key.
func TestGrantReplaces(t *testing.T) {
	a, b := newNodes(t, 64)
	key := b.region.Remote().RKey
	a.do(rdma.Read(1, a.region.Local(0, 8), b.region.Remote(), 0))
	x := b.provider.exports.byKey[key]
	a.qp.mu.Lock()
	defer a.qp.mu.Unlock()
	for name, age := range map[string]uint64{"closed": 1, "the same": 0} {
		old := a.qp.remotes.find(key)
		old.generation -= age
		file, err := unix.FcntlInt(uintptr(x.file), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		must(t, a.qp.grantedLocked(&message{kind: grant, key: key, slot: x.slot, generation: x.generation, addr: x.addr, size: x.size}, file))
		if now := a.qp.remotes.find(key); (now == old) != (age == 0) || now.generation != x.generation {
			t.Errorf("%s: the region is of generation %d now, want %d", name, now.generation, x.generation)
		}
	}
	if n := len(a.qp.remotes.known); n != 1 {
		t.Errorf("%d regions are known, there is 1", n)
	}
}

// TestTooMuch: what Post refuses was not done.
func TestTooMuch(t *testing.T) {
	a, b := newNode(t, 64, Options{}, rdma.QueuePairOptions{SendDepth: 2}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	connect(t, b.qp, a.qp)
	faa := rdma.FAA(1, a.region.Local(0, 8), b.region.Remote(), 0, 1)
	a.do(faa)
	if n, err := a.qp.Post([]rdma.WorkRequest{faa, faa, faa}); n != 2 || !errors.Is(err, rdma.ErrQueueFull) {
		t.Errorf("%d of 3 requests fit into 2 places, error %v", n, err)
	}
	a.next()
	a.next()
	bad := faa
	bad.RemoteAddr++
	if n, err := a.qp.Post([]rdma.WorkRequest{faa, bad, faa}); n != 1 || !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("%d requests before the malformed one were taken, error %v", n, err)
	}
	a.next()
	if got := b.region.Load(0); got != 4 || a.qp.Err() != nil {
		t.Errorf("4 FAA were taken, the word is %d, the queue pair %v", got, a.qp.Err())
	}
}

// TestHammer: many posters on two queue pairs to one word, in both directions.
func TestHammer(t *testing.T) {
	const posters, rounds = 4, 500
	a, b := newNodes(t, 4096)
	a2 := a.newPair(rdma.QueuePairOptions{})
	connect(t, b.newPair(rdma.QueuePairOptions{}), a2)
	var wg sync.WaitGroup
	for i := range posters {
		for _, end := range []struct {
			n  *node
			qp *queuePair
			to rdma.Region
		}{{a, a.qp, b.region}, {a, a2, b.region}, {b, b.qp, b.region}} {
			to := end.to.Remote()
			if end.n == b {
				to = a.region.Remote()
			}
			wg.Go(func() {
				for range rounds {
					w := rdma.FAA(0, end.n.region.Local(64+8*i, 8), to, 0, 1)
					w.Flags = 0
					batch := []rdma.WorkRequest{w, w}
					for len(batch) > 0 {
						n, err := end.qp.Post(batch)
						if batch = batch[n:]; err != nil && !errors.Is(err, rdma.ErrQueueFull) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
	waitUntil(t, "all is done", func() bool { return a.region.Load(0) == 2*posters*rounds })
	waitUntil(t, "all is done", func() bool { return b.region.Load(0) == 4*posters*rounds })
}

// TestCopyInPieces: a long copy ends early when the peer has revoked.
func TestCopyInPieces(t *testing.T) {
	a, b := newNodes(t, 64)
	src := make([]byte, 3*pieceSize)
	for i := range src {
		src[i] = 1
	}
	for name, c := range map[string]struct {
		stop func()
		want rdma.Status
		done int
	}{
		"nothing happens":   {func() {}, rdma.StatusOK, len(src)},
		"we end":            {func() { a.qp.stopping.Store(true) }, rdma.StatusFlushed, pieceSize},
		"the peer revokes":  {func() { b.qp.control.Store(revokedAt, 1) }, rdma.StatusUnreachable, pieceSize},
		"the peer has gone": {func() { a.qp.link.gone.Store(true) }, rdma.StatusUnreachable, pieceSize},
	} {
		c.stop()
		dst := make([]byte, len(src))
		if got := a.qp.copy(dst, src); got != c.want || bytes.Count(dst, []byte{1}) != c.done {
			t.Errorf("%s: %d bytes were copied, status %v, want %d and %v", name, bytes.Count(dst, []byte{1}), got, c.done, c.want)
		}
		a.qp.stopping.Store(false)
		b.qp.control.Store(revokedAt, 0)
		a.qp.link.gone.Store(false)
	}
}
