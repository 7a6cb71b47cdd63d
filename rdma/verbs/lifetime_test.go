//go:build linux && cgo && rdma

package verbs

import (
	"errors"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

func TestCloseOrder(t *testing.T) {
	p, err := Open(Options{})
	if errors.Is(err, rdma.ErrNotSupported) {
		lacks(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 20})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq, SendDepth: 10, ReceiveDepth: 10})
	if err != nil {
		t.Fatal(err)
	}
	region, err := p.Register(4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq, SendDepth: 1, ReceiveDepth: 1}); !errors.Is(err, rdma.ErrInUse) {
		t.Errorf("a queue pair too many for the queue: %v", err)
	}
	steps := []struct {
		name  string
		close func() error
	}{{"queue pair", pair.Close}, {"completion queue", cq.Close}, {"region", region.Close}, {"provider", p.Close}}
	for i, s := range steps {
		for _, later := range steps[i+1:] {
			if later.name == "region" {
				continue // nothing needs it to stay
			}
			if err := later.close(); i < 1 && !errors.Is(err, rdma.ErrInUse) || later.name == "provider" && !errors.Is(err, rdma.ErrInUse) {
				t.Errorf("close the %s before the %s: %v", later.name, s.name, err)
			}
		}
		for range 2 {
			if err := s.close(); err != nil {
				t.Errorf("close the %s: %v", s.name, err)
			}
		}
	}
	if n, err := pair.Post(make([]rdma.WorkRequest, 1)); n != 0 || !errors.Is(err, rdma.ErrClosed) || !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("Post after Close: %d, %v", n, err)
	}
	if n := cq.Poll(make([]rdma.Completion, 1)); n != 0 {
		t.Error("a closed queue has completions")
	}
	_, registerErr := p.Register(4096)
	_, queueErr := p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	for _, err := range []error{registerErr, queueErr} {
		if !errors.Is(err, rdma.ErrClosed) {
			t.Errorf("a closed provider says %v", err)
		}
	}
}

// TestCompletionsOutliveTheirPair closes a queue pair whose completions nobody
// has polled.
func TestCompletionsOutliveTheirPair(t *testing.T) {
	p := openProvider(t)
	far := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	near := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	connect(t, near, far)
	requests := make([]rdma.WorkRequest, 100)
	for i := range requests {
		requests[i] = rdma.Read(uint64(i), near.region.Local(0, 8), far.region.Remote(), 0)
	}
	if _, err := near.pair.Post(requests); err != nil {
		t.Fatal(err)
	}
	if err := near.pair.Close(); err != nil {
		t.Fatal(err)
	}
	for i, c := range near.wait(len(requests)) {
		if c.ID != uint64(i) || c.Status != rdma.StatusOK && c.Status != rdma.StatusFlushed {
			t.Errorf("completion %d is %+v", i, c)
		}
	}
}

// TestLeftCompletionsKeepTheirPlaces holds, without a device, that completions of
// detached queue pairs count as long as nobody has polled them.
func TestLeftCompletionsKeepTheirPlaces(t *testing.T) {
	const sends, receives = 3, 2
	cq := &completionQueue{depth: 2 * (sends + receives), wake: make(chan struct{}, 1), closed: make(chan struct{})}
	// cycle attaches a queue pair, which completes what it can, and detaches it.
	cycle := func() error {
		pair := &queuePair{}
		sendID, err := cq.attach(pair, false, sends)
		if err != nil {
			return err
		}
		receiveID, err := cq.attach(pair, true, receives)
		if err != nil {
			cq.detach(pair, sendID, sends)
			return err
		}
		for range sends {
			cq.push(entry{Completion: rdma.Completion{Op: rdma.OpRead}, pair: pair})
		}
		cq.push(entry{Completion: rdma.Completion{Op: rdma.OpReceive}, pair: pair})
		cq.detach(pair, sendID, sends)
		cq.detach(pair, receiveID, receives)
		return nil
	}
	const left = sends + 1 // of each cycle
	for i := range 2 {
		if err := cycle(); err != nil || cq.reserved != (i+1)*left || cq.left != (i+1)*left {
			t.Fatalf("cycle %d: %v; %d places are reserved and %d left", i, err, cq.reserved, cq.left)
		}
	}
	if err := cycle(); !errors.Is(err, rdma.ErrInUse) || !strings.Contains(err.Error(), "poll the queue") {
		t.Errorf("a queue pair at a queue of completions that nobody polled: %v", err)
	}
	for round := range 100 {
		if n := cq.take(make([]rdma.Completion, left), 0, false); n != left {
			t.Fatalf("round %d: %d completions, want %d", round, n, left)
		}
		if err := cycle(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if n := cq.take(make([]rdma.Completion, 2*left), 0, false); n != 2*left || cq.reserved != 0 || cq.left != 0 {
		t.Errorf("after %d more completions %d places are reserved and %d left", n, cq.reserved, cq.left)
	}
	if cap(cq.pending) > 4*cq.depth {
		t.Errorf("the list has room for %d, and the queue for %d", cap(cq.pending), cq.depth)
	}
}

// TestReconnectsNeedPolling closes queue pairs whose completions nobody polls
// until no other one fits, polls, and goes on; the queue closes with completions.
func TestReconnectsNeedPolling(t *testing.T) {
	const depth = 16
	p := openProvider(t)
	far := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 4 * depth})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for cycle := range 20 {
		pair, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq, SendDepth: depth, ReceiveDepth: depth})
		if errors.Is(err, rdma.ErrInUse) {
			refused++
			if n := cq.Poll(make([]rdma.Completion, 4*depth)); n != 3*depth {
				t.Fatalf("cycle %d: %v, and %d completions", cycle, err, n)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		near := &side{t, cq, pair, far.region}
		if err := errors.Join(pair.Accept(pair.Address()), pair.Connect(t.Context(), pair.Address())); err != nil {
			t.Fatal(err)
		}
		requests := make([]rdma.WorkRequest, depth)
		for i := range requests {
			requests[i] = rdma.Read(uint64(i), far.region.Local(0, 8), far.region.Remote(), 8)
		}
		if _, err := pair.Post(requests); err != nil {
			t.Fatal(err)
		}
		near.mustClose("queue pair", pair.Close)
	}
	if refused != 5 { // each fourth
		t.Errorf("%d queue pairs were refused, want 5", refused)
	}
	if err := cq.Close(); err != nil {
		t.Errorf("close the queue: %v", err)
	}
}

// holdings are what this process and the device have open.
type holdings struct {
	files, goroutines int
	resources         map[string]uint64 // of the device, by kind
	handles           map[string]int
}

func hold(t *testing.T, device string) (h holdings) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h.files, h.goroutines = len(files), runtime.NumGoroutine()
	all, err := netlink.RdmaResourceList()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Name == device {
			h.resources = r.RdmaResourceSummaryEntries
		}
	}
	if h.resources == nil {
		t.Fatalf("no resources of %s among %d devices", device, len(all))
	}
	h.handles, _ = handle.Counts()
	return h
}

// TestThousandConnections connects, uses and closes two queue pairs a thousand
// times, some of them with requests outstanding, and some broken.
func TestThousandConnections(t *testing.T) {
	p := openProvider(t)
	a := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	b := newSide(t, p, rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	cycle := func(i int) {
		o := rdma.QueuePairOptions{SendDepth: 16, ReceiveDepth: 16}
		pairs := [2]rdma.QueuePair{}
		for k, s := range []*side{a, b} {
			o.SendCQ = s.cq
			pair, err := p.NewQueuePair(o)
			if err != nil {
				t.Fatalf("cycle %d: %v", i, err)
			}
			pairs[k] = pair
		}
		near, far := &side{t, a.cq, pairs[0], a.region}, &side{t, b.cq, pairs[1], b.region}
		connect(t, near, far)
		near.succeed(rdma.FAA(uint64(i), near.region.Local(8, 8), far.region.Remote(), 0, 1))
		switch i % 3 {
		case 1:
			if _, err := near.pair.Post([]rdma.WorkRequest{rdma.Read(1, near.region.Local(0, 64), far.region.Remote(), 0)}); err != nil {
				t.Fatal(err)
			}
		case 2:
			w := rdma.Read(1, near.region.Local(0, 64), far.region.Remote(), regionSize)
			if c := near.do(1, w)[0]; c.Status != rdma.StatusRemoteAccess {
				t.Fatalf("cycle %d: %v", i, c.Err())
			}
		}
		near.mustClose("queue pair", pairs[0].Close)
		near.mustClose("queue pair", pairs[1].Close)
		near.cq.Poll(make([]rdma.Completion, 8))
	}
	for i := range 10 {
		cycle(i)
	}
	before := hold(t, p.Device())
	for i := range 1000 {
		cycle(i)
	}
	after := hold(t, p.Device())
	// The last teardown may be about to return.
	for start := time.Now(); after.goroutines > before.goroutines && time.Since(start) < bound; after = hold(t, p.Device()) {
		runtime.Gosched()
	}
	if before.files != after.files || before.goroutines < after.goroutines || !maps.Equal(before.resources, after.resources) || !maps.Equal(before.handles, after.handles) {
		t.Errorf("open after a thousand connections:\n%+v\nbefore:\n%+v", after, before)
	}
	if got := b.region.Load(0); got != 1010 {
		t.Errorf("1010 FAAs made %d", got)
	}
	t.Logf("open: %+v", after)
}

// TestQueueClosesUnderItsEvents closes completion queues while the event of a
// completion is about to come, is being read, or was read: the library waits for
// ever for an event that was read and not acknowledged.
func TestQueueClosesUnderItsEvents(t *testing.T) {
	p := openProvider(t)
	region, err := p.Register(64)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close() //nolint:errcheck // the provider's Close tells
	for round := range 500 {
		cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pair.Accept(pair.Address()), pair.Connect(t.Context(), pair.Address())); err != nil {
			t.Fatal(err)
		}
		var waiting sync.WaitGroup
		asleep := make(chan struct{})
		waiting.Go(func() {
			close(asleep)
			for {
				if _, err := cq.Wait(t.Context(), make([]rdma.Completion, 1)); err != nil {
					return
				}
			}
		})
		<-asleep
		requests := make([]rdma.WorkRequest, 1+round%8)
		for i := range requests {
			requests[i] = rdma.Read(uint64(i), region.Local(0, 8), region.Remote(), 8)
		}
		if _, err := pair.Post(requests); err != nil {
			t.Fatal(err)
		}
		for range round % 16 {
			runtime.Gosched()
		}
		if err := errors.Join(pair.Close(), cq.Close()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		waiting.Wait()
	}
}

// TestDoubleOpen holds that a process may open a device more than once and
// connect queue pairs of both.
func TestDoubleOpen(t *testing.T) {
	a := newSide(t, openProvider(t), rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	b := newSide(t, openProvider(t), rdma.CompletionQueueOptions{}, rdma.QueuePairOptions{})
	connect(t, a, b)
	a.region.Store(0, 42)
	a.succeed(rdma.Write(1, a.region.Local(0, 8), b.region.Remote(), 8))
	if got := b.region.Load(8); got != 42 {
		t.Errorf("WRITE left %d", got)
	}
}

func TestDevices(t *testing.T) {
	p := openProvider(t)
	devices, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		t.Logf("%+v", d)
		if d.Name != p.Device() {
			continue
		}
		if d.Err != nil || !d.HasAtomics() || d.MaxQPRdAtom < 16 || len(d.Ports) == 0 {
			t.Errorf("the device that was opened is %+v", d)
		}
		for _, port := range d.Ports {
			if port.State == "ACTIVE" && (port.ActiveMTU < 256 || len(port.GIDs) == 0 || port.GIDs[0].Type == "") {
				t.Errorf("an active port is %+v", port)
			}
		}
		return
	}
	t.Errorf("%s is not among %d devices", p.Device(), len(devices))
}
