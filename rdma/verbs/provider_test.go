//go:build linux && cgo && rdma

package verbs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// bound turns what hangs into a failure.
const bound = 30 * time.Second

// lacks skips the test for want of a device, or fails it where the environment
// variable TENURE_RDMA_REQUIRED says that there is one.
func lacks(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("TENURE_RDMA_REQUIRED") != "" {
		t.Fatalf("TENURE_RDMA_REQUIRED is set: %v", err)
	}
	t.Skip(err)
}

// openProvider opens a device, or skips the test where there is none.
func openProvider(t testing.TB) *Provider {
	t.Helper()
	p, err := Open(Options{})
	if errors.Is(err, rdma.ErrNotSupported) {
		lacks(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("close the provider:", err)
		}
	})
	return p
}

// side is one end of a connection with its queue and region.
type side struct {
	t      testing.TB
	cq     rdma.CompletionQueue
	pair   rdma.QueuePair
	region rdma.Region
}

const regionSize = 1 << 20

// newSide makes an unconnected end, which is closed with the test.
func newSide(t testing.TB, p *Provider, qo rdma.CompletionQueueOptions, o rdma.QueuePairOptions) *side {
	t.Helper()
	s := &side{t: t}
	var err error
	if s.cq, err = p.NewCompletionQueue(qo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.mustClose("completion queue", s.cq.Close) })
	if s.region, err = p.Register(regionSize); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.mustClose("region", s.region.Close) })
	o.SendCQ = s.cq
	if s.pair, err = p.NewQueuePair(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.mustClose("queue pair", s.pair.Close) })
	return s
}

func (s *side) mustClose(what string, close func() error) {
	s.t.Helper()
	if err := close(); err != nil {
		s.t.Error("close the", what+":", err)
	}
}

// connect connects b, the passive end, with a.
func connect(t testing.TB, a, b *side) {
	t.Helper()
	if err := b.pair.Accept(a.pair.Address()); err != nil {
		t.Fatal(err)
	}
	if err := a.pair.Connect(context.Background(), b.pair.Address()); err != nil {
		t.Fatal(err)
	}
}

// newPair makes two connected ends.
func newPair(t testing.TB, p *Provider, o rdma.QueuePairOptions) (a, b *side) {
	t.Helper()
	o.Peer = "b"
	a = newSide(t, p, rdma.CompletionQueueOptions{}, o)
	o.Peer = "a"
	b = newSide(t, p, rdma.CompletionQueueOptions{}, o)
	connect(t, a, b)
	return a, b
}

// wait collects n completions.
func (s *side) wait(n int) []rdma.Completion {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	dst := make([]rdma.Completion, n)
	for got := 0; got < n; {
		k, err := s.cq.Wait(ctx, dst[got:])
		if err != nil {
			s.t.Fatalf("%d of %d completions: %v", got, n, err)
		}
		got += k
	}
	return dst
}

// do posts requests, all of them, and returns their n completions.
func (s *side) do(n int, requests ...rdma.WorkRequest) []rdma.Completion {
	s.t.Helper()
	if k, err := s.pair.Post(requests); err != nil {
		s.t.Fatalf("%d of %d requests posted: %v", k, len(requests), err)
	}
	return s.wait(n)
}

// succeed is do for requests that are all signaled and succeed.
func (s *side) succeed(requests ...rdma.WorkRequest) {
	s.t.Helper()
	for i, c := range s.do(len(requests), requests...) {
		want := rdma.Completion{ID: requests[i].ID, QP: s.pair.Number(), Op: requests[i].Op}
		if c != want {
			s.t.Fatalf("completion %d is %+v (%v), want %+v", i, c, c.Err(), want)
		}
	}
}

func TestEveryVerb(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	local, remote := a.region, b.region.Remote()
	payload := []byte("what travels one way comes back the other")
	copy(local.Bytes(), payload)
	a.succeed(rdma.Write(1, local.Local(0, len(payload)), remote, 100))
	if got := b.region.Bytes()[100:][:len(payload)]; !bytes.Equal(got, payload) {
		t.Errorf("WRITE left %q", got)
	}
	a.succeed(rdma.Read(2, local.Local(1000, len(payload)), remote, 100))
	if got := local.Bytes()[1000:][:len(payload)]; !bytes.Equal(got, payload) {
		t.Errorf("READ brought %q", got)
	}
	b.region.Store(8, 40)
	a.succeed(rdma.CAS(3, local.Local(2000, 8), remote, 8, 40, 41), rdma.CAS(4, local.Local(2008, 8), remote, 8, 40, 99), rdma.FAA(5, local.Local(2016, 8), remote, 8, 1<<63))
	if x, y, z, left := local.Load(2000), local.Load(2008), local.Load(2016), b.region.Load(8); x != 40 || y != 41 || z != 41 || left != 1<<63|41 {
		t.Errorf("the atomics found %d, %d, %d and left %#x", x, y, z, left)
	}
	a.succeed(rdma.WriteImm(6, local.Local(0, 4), remote, 200, 0xdeadbeef), rdma.WriteImm(7, local.Local(0, 0), remote, 0, 7))
	want := []rdma.Completion{{QP: b.pair.Number(), Imm: 0xdeadbeef, Length: 4, Op: rdma.OpReceive}, {QP: b.pair.Number(), Imm: 7, Op: rdma.OpReceive}}
	if got := b.wait(2); !slices.Equal(got, want) {
		t.Errorf("the doorbells are %+v, want %+v", got, want)
	}
	counters := a.pair.Counters()
	for op, n := range map[rdma.Opcode]uint64{rdma.OpWrite: 1, rdma.OpRead: 1, rdma.OpCAS: 2, rdma.OpFAA: 1, rdma.OpWriteImm: 2} {
		if counters[op].Posted != n || counters[op].Failed != 0 {
			t.Errorf("%v: counted %+v, want %d", op, counters[op], n)
		}
	}
	if got := b.pair.Counters()[rdma.OpReceive]; got.Posted != 2 || got.Bytes != 4 {
		t.Errorf("doorbells counted: %+v", got)
	}
}

func TestLargeMessages(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	for i := range a.region.Bytes() {
		a.region.Bytes()[i] = byte(i * 7 >> 3)
	}
	for _, n := range []int{1, 1023, 4096, 4097, 65537, regionSize} {
		clear(b.region.Bytes())
		a.succeed(rdma.Write(1, a.region.Local(0, n), b.region.Remote(), 0))
		if !bytes.Equal(a.region.Bytes()[:n], b.region.Bytes()[:n]) || len(bytes.TrimLeft(b.region.Bytes()[n:], "\x00")) > 0 {
			t.Fatalf("WRITE of %d bytes arrived otherwise", n)
		}
		clear(a.region.Bytes()[:n])
		a.succeed(rdma.Read(2, a.region.Local(0, n), b.region.Remote(), 0))
		if !bytes.Equal(a.region.Bytes()[:n], b.region.Bytes()[:n]) {
			t.Fatalf("READ of %d bytes arrived otherwise", n)
		}
	}
}

// TestBatches posts batches that are longer than what crosses at once and than
// the queue, with few completions.
func TestBatches(t *testing.T) {
	const depth, total = 200, 5000
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{SendDepth: depth})
	requests := make([]rdma.WorkRequest, total)
	for i := range requests {
		requests[i] = rdma.FAA(uint64(i), a.region.Local(i*8, 8), b.region.Remote(), 0, 1)
		if i%50 != 49 {
			requests[i].Flags = 0
		}
	}
	var got []rdma.Completion
	dst := make([]rdma.Completion, 8)
	full := false
	for posted := 0; len(got) < total/50; {
		n, err := a.pair.Post(requests[posted:])
		posted += n
		if err != nil && !errors.Is(err, rdma.ErrQueueFull) {
			t.Fatal(err)
		}
		full = full || err != nil
		got = append(got, dst[:a.cq.Poll(dst)]...)
	}
	if !full {
		t.Errorf("a queue of %d took %d requests at once", depth, total)
	}
	for i, c := range got {
		if c.ID != uint64(i*50+49) || c.Status != rdma.StatusOK {
			t.Fatalf("completion %d is %+v", i, c)
		}
	}
	for i := range total {
		if old := a.region.Load(i * 8); old != uint64(i) {
			t.Fatalf("FAA %d found %d", i, old)
		}
	}
	if sum := b.region.Load(0); sum != total {
		t.Errorf("%d FAAs made %d", total, sum)
	}
}

// TestUnsignaledNeedNoPoll posts many times the queue without one completion
// that the caller sees.
func TestUnsignaledNeedNoPoll(t *testing.T) {
	for _, depth := range []int{1, 2, 3, 64} {
		a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{SendDepth: depth})
		w := rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 0)
		w.Flags = 0
		deadline := time.Now().Add(bound)
		for i := 0; i < 10*depth; {
			n, err := a.pair.Post([]rdma.WorkRequest{w})
			if err != nil && !errors.Is(err, rdma.ErrQueueFull) || time.Now().After(deadline) {
				t.Fatalf("depth %d: request %d: %v", depth, i, err)
			}
			i += n
		}
		if n := a.cq.Poll(make([]rdma.Completion, 8)); n != 0 {
			t.Errorf("depth %d: %d completions of requests that were not signaled", depth, n)
		}
	}
}

// TestFence reads a word and then overwrites it in one batch: with Fence the
// READ never sees the later WRITE.
func TestFence(t *testing.T) {
	a, b := newPair(t, openProvider(t), rdma.QueuePairOptions{})
	for i := range uint64(100) {
		a.region.Store(8, i+1)
		read, write := rdma.Read(1, a.region.Local(0, 8), b.region.Remote(), 0), rdma.Write(2, a.region.Local(8, 8), b.region.Remote(), 0)
		write.Flags |= rdma.Fence
		a.succeed(read, write)
		if got := a.region.Load(0); got != i {
			t.Fatalf("round %d: the READ before the fenced WRITE saw %d", i, got)
		}
	}
}

func TestInline(t *testing.T) {
	p := openProvider(t)
	a, b := newPair(t, p, rdma.QueuePairOptions{})
	if p.Limits().MaxInline < 64 {
		t.Fatalf("MaxInline is %d", p.Limits().MaxInline)
	}
	for _, n := range []int{0, 1, 8, p.Limits().MaxInline} {
		want := bytes.Repeat([]byte{byte(n + 1)}, n)
		copy(a.region.Bytes(), want)
		w := rdma.Write(1, a.region.Local(0, n), b.region.Remote(), 0)
		w.Flags |= rdma.Inline
		if _, err := a.pair.Post([]rdma.WorkRequest{w}); err != nil {
			t.Fatal(err)
		}
		clear(a.region.Bytes()[:n]) // it is ours again
		if c := a.wait(1)[0]; c.Status != rdma.StatusOK {
			t.Fatal(c.Err())
		}
		if !bytes.Equal(b.region.Bytes()[:n], want) {
			t.Errorf("%d bytes inline arrived otherwise", n)
		}
	}
}

// TestInlineOutsideOfRegions would read unmapped memory if the provider trusted
// the address.
func TestInlineOutsideOfRegions(t *testing.T) {
	p := openProvider(t)
	for name, spoil := range map[string]func(*rdma.Local){
		"unmapped":     func(l *rdma.Local) { l.Addr = 4096 },
		"wrong key":    func(l *rdma.Local) { l.LKey ^= 0xff00 },
		"past the end": func(l *rdma.Local) { l.Addr += regionSize },
	} {
		a, b := newPair(t, p, rdma.QueuePairOptions{})
		w := rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 0)
		w.Flags |= rdma.Inline
		spoil(&w.Local)
		if c := a.do(1, w)[0]; c.Status != rdma.StatusLocal {
			t.Errorf("%s: %v", name, c.Err())
		}
	}
}

// TestConnectedToItself is the way of an owner to the words that CAS changes.
func TestConnectedToItself(t *testing.T) {
	a := newSide(t, openProvider(t), rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{Peer: "self"})
	if err := a.pair.Accept(a.pair.Address()); err != nil {
		t.Fatal(err)
	}
	remote := a.region.Remote()
	a.succeed(rdma.FAA(1, a.region.Local(8, 8), remote, 0, 5), rdma.CAS(2, a.region.Local(16, 8), remote, 0, 5, 6))
	if found, left := a.region.Load(16), a.region.Load(0); found != 5 || left != 6 {
		t.Errorf("CAS found %d and left %d", found, left)
	}
}
