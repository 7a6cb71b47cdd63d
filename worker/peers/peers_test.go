package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice = lease.Member{Worker: 1, Incarnation: 7}
	bob   = lease.Member{Worker: lease.MaxWorker, Incarnation: 1<<32 - 1}
)

// serve serves members on a loopback address until stop, or the end of the test.
func serve(t *testing.T, here leases.Peers) (address string, stop func()) {
	t.Helper()
	l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(rpc.Options{})
	Register(s, here)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { s.Stop(); wg.Wait() })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// reach returns Peers with an address book.
func reach(t *testing.T, o Options, book map[lease.Member]string) *Peers {
	t.Helper()
	p := New(o)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.SetMembers(book); err != nil {
		t.Fatal(err)
	}
	return p
}

// house is a process whose members note what they are called with, and answer err.
type house struct {
	err    error
	answer mesh.Offer
	// entered gets a token from each report, which then waits until hold is closed.
	entered, hold chan struct{}

	mu    sync.Mutex
	calls []any
}

type told struct {
	to, from lease.Member
	view     base.View
	slots    []base.Slot
}

func (h *house) note(call any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, call)
}

func (h *house) Exchange(_ context.Context, to lease.Member, offer mesh.Offer) (mesh.Offer, error) {
	h.note(to)
	h.note(offer)
	return h.answer, h.err
}

func (h *house) Report(_ context.Context, to, from lease.Member, v base.View, slots []base.Slot) error {
	h.note(told{to, from, v, slots})
	if h.hold != nil {
		h.entered <- struct{}{}
		<-h.hold
	}
	return h.err
}

func (h *house) Ready(_ context.Context, to, from lease.Member, v base.View) error {
	h.note(told{to, from, v, nil})
	return h.err
}

func offers() (offer, answer mesh.Offer) {
	offer = mesh.Offer{From: alice, To: bob, Provider: "tcp", Slots: 1 << 20, RingBytes: 65536, QueuePair: []byte{1, 2}, Stream: 1<<64 - 1, Generation: 3, Resumes: true}
	answer = mesh.Offer{From: bob, To: alice, Provider: "tcp", Slots: 1 << 20, RingBytes: 65536, QueuePair: []byte{3}, Stream: 1<<64 - 1, Generation: 3,
		Words: rdma.RemoteRegion{Addr: 1 << 63, Size: 1 << 23, RKey: 1<<32 - 1}, Ring: rdma.RemoteRegion{Addr: 4096, Size: 1 << 16, RKey: 5}, Consumed: 1 << 40}
	return offer, answer
}

func TestCalls(t *testing.T) {
	offer, answer := offers()
	h := &house{answer: answer}
	address, _ := serve(t, h)
	p := reach(t, Options{}, map[lease.Member]string{bob: address})
	got, err := p.Exchange(t.Context(), bob, offer)
	if err != nil || !reflect.DeepEqual(got, answer) {
		t.Errorf("answer %+v, %v; want %+v", got, err, answer)
	}
	for _, slots := range [][]base.Slot{nil, {5, 4, 900}, run(0, base.SlotCount, 1), run(1, base.SlotCount, 2)} {
		if err := p.Report(t.Context(), bob, alice, lease.MaxView, slots); err != nil {
			t.Error(err)
		}
	}
	if err := p.Ready(t.Context(), bob, alice, 1); err != nil {
		t.Error(err)
	}
	want := []any{bob, offer, told{bob, alice, lease.MaxView, nil}, told{bob, alice, lease.MaxView, []base.Slot{4, 5, 900}},
		told{bob, alice, lease.MaxView, run(0, base.SlotCount, 1)}, told{bob, alice, lease.MaxView, run(1, base.SlotCount, 2)}, told{bob, alice, 1, nil}}
	if !reflect.DeepEqual(h.calls, want) {
		t.Errorf("calls %.300v", fmt.Sprint(h.calls))
	}
}

// each makes the three calls to bob.
func each(t *testing.T, p *Peers, check func(call string, err error)) {
	offer, _ := offers()
	_, err := p.Exchange(t.Context(), bob, offer)
	check("exchange", err)
	check("report", p.Report(t.Context(), bob, alice, 3, []base.Slot{1}))
	check("ready", p.Ready(t.Context(), bob, alice, 3))
}

func TestErrorsArriveAsTheyAre(t *testing.T) {
	h := &house{}
	address, _ := serve(t, h)
	p := reach(t, Options{}, map[lease.Member]string{bob: address})
	for _, sentinel := range []error{leases.ErrNotYet, mesh.ErrNotMember} {
		h.err = fmt.Errorf("deep inside: %w", sentinel)
		each(t, p, func(call string, err error) {
			if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), fmt.Sprintf("worker %d, incarnation %d", bob.Worker, bob.Incarnation)) {
				t.Errorf("%s: %v, want %v", call, err, sentinel)
			}
		})
	}
	for _, test := range []struct {
		sent error
		kind base.Kind
	}{
		{mesh.ErrClosed, base.Unavailable},
		{fmt.Errorf("%w offer: too long", rdma.ErrInvalid), base.Invalid},
		{errors.New("two holders"), base.Internal},
		{base.Errorf(base.Unavailable, "gone"), base.Unavailable},
		{context.DeadlineExceeded, base.Timeout},
	} {
		h.err = test.sent
		each(t, p, func(call string, err error) {
			var e *base.Error
			if !errors.As(err, &e) || e.Kind != test.kind || !strings.Contains(e.Detail, strings.TrimPrefix(test.sent.Error(), "unavailable: ")) {
				t.Errorf("%s: %v, want the kind %v", call, err, test.kind)
			}
			if errors.Is(err, leases.ErrNotYet) || errors.Is(err, mesh.ErrNotMember) {
				t.Errorf("%s: %v is taken for another error", call, err)
			}
		})
	}
}

// TestAnotherIncarnation: a server has the members that entered it, no others.
func TestAnotherIncarnation(t *testing.T) {
	address, _ := serve(t, &leases.Local{})
	p := reach(t, Options{}, map[lease.Member]string{bob: address})
	each(t, p, func(call string, err error) {
		var e *base.Error
		if !errors.As(err, &e) || e.Kind != base.Unavailable || e.Unknown || !strings.Contains(e.Detail, "is not here") {
			t.Errorf("%s: %v", call, err)
		}
	})
}

// TestNotInTheBook: such a call goes nowhere, and so can have had no effect.
func TestNotInTheBook(t *testing.T) {
	h := &house{}
	address, _ := serve(t, h)
	earlier := lease.Member{Worker: bob.Worker, Incarnation: bob.Incarnation - 1}
	p := reach(t, Options{}, map[lease.Member]string{earlier: address})
	closed := New(Options{})
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.SetMembers(map[lease.Member]string{bob: address}); base.KindOf(err) != base.Unavailable {
		t.Errorf("set the members after Close: %v", err)
	}
	for name, p := range map[string]*Peers{"another incarnation is": p, "empty": New(Options{}), "closed": closed} {
		each(t, p, func(call string, err error) {
			var e *base.Error
			if !errors.As(err, &e) || e.Kind != base.Unavailable || e.Unknown {
				t.Errorf("%s: %s: %v", name, call, err)
			}
		})
	}
	if len(h.calls) > 0 {
		t.Errorf("calls %v", h.calls)
	}
	offer, _ := offers()
	if _, err := p.Exchange(t.Context(), earlier, offer); base.KindOf(err) != base.Invalid || len(h.calls) > 0 {
		t.Errorf("an offer for somebody else: %v", err)
	}
}

func TestServerIsGone(t *testing.T) {
	address, stop := serve(t, &house{})
	p := reach(t, Options{}, map[lease.Member]string{bob: address})
	if err := p.Ready(t.Context(), bob, alice, 1); err != nil {
		t.Fatal(err)
	}
	stop()
	each(t, p, func(call string, err error) {
		var e *base.Error
		if !errors.As(err, &e) || e.Kind != base.Unavailable || !e.Unknown {
			t.Errorf("%s: %v", call, err)
		}
	})
}

// TestSilence: a process that accepts connections and says nothing holds up no
// call for longer than the time-out.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := reach(t, Options{CallTimeout: 50 * time.Millisecond}, map[lease.Member]string{bob: l.Addr().String()})
	each(t, p, func(call string, err error) {
		var e *base.Error
		if !errors.As(err, &e) || e.Kind != base.Timeout || !e.Unknown {
			t.Errorf("%s: %v", call, err)
		}
	})
}

func TestConnectionsFollowTheBook(t *testing.T) {
	address, _ := serve(t, &house{})
	other, _ := serve(t, &house{})
	p := reach(t, Options{}, map[lease.Member]string{alice: address, bob: address, {Worker: 2}: other, {Worker: 3}: "10.0.0.1:1"})
	for _, m := range []lease.Member{alice, bob, {Worker: 2}} {
		if err := p.Ready(t.Context(), m, alice, 1); err != nil {
			t.Error(err)
		}
	}
	if err := p.Ready(t.Context(), lease.Member{Worker: 3}, alice, 1); base.KindOf(err) != base.Invalid {
		t.Errorf("an address that is not allowed: %v", err)
	}
	if len(p.connections) != 2 {
		t.Fatalf("%d connections for two addresses", len(p.connections))
	}
	kept, gone := p.connections[address], p.connections[other].(*grpc.ClientConn)
	if err := p.SetMembers(map[lease.Member]string{bob: address}); err != nil {
		t.Fatal(err)
	}
	if p.connections[address] != kept || len(p.connections) != 1 || gone.GetState() != connectivity.Shutdown {
		t.Errorf("connections %v, the one of who is gone is %v", p.connections, gone.GetState())
	}
	if err := p.Ready(t.Context(), bob, alice, 1); err != nil {
		t.Error(err)
	}
	// Who comes back at the same address is another process.
	next := lease.Member{Worker: alice.Worker, Incarnation: alice.Incarnation + 1}
	if err := p.SetMembers(map[lease.Member]string{next: address}); err != nil {
		t.Fatal(err)
	}
	if old := kept.(*grpc.ClientConn); len(p.connections) != 0 || old.GetState() != connectivity.Shutdown {
		t.Errorf("connections %v, the one of an earlier process is %v", p.connections, old.GetState())
	}
	if err := p.Ready(t.Context(), next, bob, 1); err != nil {
		t.Error(err)
	}
	many := map[lease.Member]string{}
	for i := range uint32(lease.MaxWorker) + 1 {
		many[lease.Member{Worker: 1, Incarnation: i}] = address
	}
	if err := p.SetMembers(many); base.KindOf(err) != base.TooLarge {
		t.Errorf("too many members: %v", err)
	}
}

// TestBadRequests: nobody is called because of what no member of this release sends.
func TestBadRequests(t *testing.T) {
	h := &house{}
	address, _ := serve(t, h)
	conn, err := rpc.Dial(address, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := rpcpb.NewPeersClient(conn)
	good := &rpcpb.MemberId{Worker: 1, Incarnation: 1}
	zero, big := &rpcpb.MemberId{Incarnation: 1}, &rpcpb.MemberId{Worker: 1<<16 + 1, Incarnation: 1}
	check := func(what string, err error) {
		if base.KindOf(err) != base.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, test := range []struct {
		name     string
		from, to *rpcpb.MemberId
		view     uint32
	}{
		{"from nobody", nil, good, 1}, {"to nobody", good, nil, 1}, {"from worker 0", zero, good, 1}, {"to worker 65537", good, big, 1},
		{"view 0", good, good, 0}, {"view of too many bits", good, good, uint32(lease.MaxView) + 1},
	} {
		_, err := c.Ready(t.Context(), &rpcpb.ReadyNotice{From: test.from, To: test.to, View: test.view})
		check("ready "+test.name, err)
		_, err = c.Report(t.Context(), &rpcpb.HoldingsReport{From: test.from, To: test.to, View: test.view})
		check("report "+test.name, err)
		if test.from != good || test.to != good {
			_, err = c.Exchange(t.Context(), &rpcpb.LinkOffer{From: test.from, To: test.to})
			check("exchange "+test.name, err)
		}
	}
	_, err = c.Report(t.Context(), &rpcpb.HoldingsReport{From: good, To: good, View: 1, Slots: []byte{1}})
	check("slots", err)
	if len(h.calls) > 0 {
		t.Errorf("calls %v", h.calls)
	}
}

// TestBadAnswer: an answer is believed no more than an offer.
func TestBadAnswer(t *testing.T) {
	address, _ := serve(t, &house{})
	p := reach(t, Options{}, map[lease.Member]string{bob: address})
	offer, _ := offers()
	if _, err := p.Exchange(t.Context(), bob, offer); base.KindOf(err) != base.Internal {
		t.Errorf("an answer of nobody: %v", err)
	}
	if err := errorOf(99); base.KindOf(err) != base.Internal {
		t.Errorf("a refusal of another release: %v", err)
	}
}

// TestFewAreUnpacked: reports beyond the limit wait, and give up in time.
func TestFewAreUnpacked(t *testing.T) {
	h := &house{entered: make(chan struct{}, maxUnpacked+2), hold: make(chan struct{})}
	address, _ := serve(t, h)
	book := map[lease.Member]string{bob: address}
	p := reach(t, Options{CallTimeout: 30 * time.Second}, book)
	var reports sync.WaitGroup
	report := func() {
		if err := p.Report(t.Context(), bob, alice, 1, nil); err != nil {
			t.Error(err)
		}
	}
	for range maxUnpacked {
		reports.Go(report)
	}
	for range maxUnpacked {
		<-h.entered
	}
	hasty := reach(t, Options{CallTimeout: 200 * time.Millisecond}, book)
	if err := hasty.Report(t.Context(), bob, alice, 1, nil); base.KindOf(err) != base.Timeout {
		t.Errorf("a report beyond the limit: %v", err)
	}
	if len(h.entered) > 0 {
		t.Errorf("more than %d reports were let in", maxUnpacked)
	}
	close(h.hold)
	reports.Wait()
	report() // there is room again
}
