package mesh

import (
	"errors"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
)

// TestLateInstall: whoever installs first offers until the other has, too.
func TestLateInstall(t *testing.T) {
	onAll(t, func(t *testing.T, open opener) {
		w := newNetwork()
		a, b := w.start(t, open, member(1), nil), w.start(t, open, member(2), nil)
		m := members(t, 1, member(1), member(2))
		if !a.mesh.Down(2) || !a.mesh.Down(1) {
			t.Error("a link is up before there is a view")
		}
		if got := a.cas(2, 0, 0, 1); got.outcome != rdma.NotDone {
			t.Errorf("a CAS without a view is %v", got.outcome)
		}
		install(t, m, a)
		a.up(1)
		if got := a.cas(2, 0, 0, 1); got.outcome != rdma.NotDone {
			t.Errorf("a CAS before the other has installed the view is %v", got.outcome)
		}
		if err := a.send(2, 0, 10); err != nil {
			t.Error(err)
		}
		if err := a.mesh.Drain(within(t)); err != nil {
			t.Errorf("drain waits for a link that was never up: %v", err)
		}
		install(t, m, b)
		a.up(2)
		b.up(1, 2)
		a.mesh.Flush()
		b.until("the message from before", func() bool { return b.checkInbox(1) == 1 })
		if err := b.mesh.Install(t.Context(), members(t, 0, member(2))); err == nil {
			t.Error("an older view was installed")
		}
		install(t, m, a) // again
		if got := a.cas(2, 0, 0, 1); got.outcome != rdma.Done {
			t.Errorf("after the same view was installed again a CAS is %v", got.outcome)
		}
	})
}

func TestAcceptRefuses(t *testing.T) {
	w := newNetwork()
	n := w.start(t, openTCP, member(1), nil)
	if _, err := n.mesh.Accept(t.Context(), offerTo(n)); !errors.Is(err, ErrNotMember) {
		t.Errorf("before there is a view: %v", err)
	}
	install(t, members(t, 1, member(1), member(2)), n)
	for name, c := range map[string]struct {
		change func(*Offer)
		want   error
	}{
		"no member":           {func(o *Offer) { o.From.Worker = 3 }, ErrNotMember},
		"another incarnation": {func(o *Offer) { o.From.Incarnation++ }, ErrNotMember},
		"itself":              {func(o *Offer) { o.From = member(1) }, ErrNotMember},
		"for another":         {func(o *Offer) { o.To.Incarnation++ }, rdma.ErrInvalid},
		"provider":            {func(o *Offer) { o.Provider = "shm" }, rdma.ErrInvalid},
		"slots":               {func(o *Offer) { o.Slots *= 2 }, rdma.ErrInvalid},
		"ring":                {func(o *Offer) { o.RingBytes *= 2 }, rdma.ErrInvalid},
		"no address":          {func(o *Offer) { o.QueuePair = nil }, rdma.ErrInvalid},
		"long address":        {func(o *Offer) { o.QueuePair = make([]byte, rdma.MaxAddress+1) }, rdma.ErrInvalid},
		"wrong address":       {func(o *Offer) { o.QueuePair = []byte{1} }, rdma.ErrInvalid},
		"no generation":       {func(o *Offer) { o.Generation = 0 }, rdma.ErrInvalid},
		"unknown history":     {func(o *Offer) { o.Resumes = true }, rdma.ErrInvalid},
	} {
		o := offerTo(n)
		c.change(&o)
		if _, err := n.mesh.Accept(t.Context(), o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A real one, and what comes after it.
	other, err := openTCP("")
	if err != nil {
		t.Fatal(err)
	}
	cq, err := other.NewCompletionQueue(rdma.CompletionQueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	qp, err := other.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq})
	if err != nil {
		t.Fatal(err)
	}
	o := offerTo(n)
	o.QueuePair, o.Stream, o.Generation = qp.Address(), 8, 5
	answer, err := n.mesh.Accept(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	back := n.mesh.options
	back.Me = member(2)
	if err := answer.checkAnswer(&o, &back); err != nil {
		t.Errorf("the answer is refused: %v", err)
	}
	for name, change := range map[string]func(*Offer){
		"another worker": func(a *Offer) { a.From.Worker++ },
		"another stream": func(a *Offer) { a.Stream++ },
		"generation":     func(a *Offer) { a.Generation++ },
		"few words":      func(a *Offer) { a.Words.Size = 8 },
		"odd words":      func(a *Offer) { a.Words.Addr++ },
		"words wrap":     func(a *Offer) { a.Words.Addr = 1<<64 - 8 },
		"short ring":     func(a *Offer) { a.Ring.Size = 64 },
		"ring wraps":     func(a *Offer) { a.Ring.Addr = 1<<64 - 8 },
	} {
		wrong := answer
		change(&wrong)
		if err := wrong.checkAnswer(&o, &back); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("answer with %s: %v", name, err)
		}
	}
	o.Resumes = true
	if _, err := n.mesh.Accept(t.Context(), o); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("the same generation again: %v", err)
	}
	if err := errors.Join(qp.Close(), cq.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

// offerTo is an offer of worker 2 that has no fault but its address.
func offerTo(n *node) Offer {
	o := &n.mesh.options
	return Offer{From: member(2), To: o.Me, Provider: "tcp", Slots: uint64(o.Slots), RingBytes: uint64(o.RingBytes), QueuePair: []byte("?"), Stream: 7, Generation: 1}
}

func TestSendRefuses(t *testing.T) {
	w := newNetwork()
	n := w.start(t, openTCP, member(1), func(o *Options) { o.BacklogMessages, o.BacklogBytes = 10, 1<<20 })
	install(t, members(t, 1, member(1), member(2)), n)
	long := make([]byte, n.mesh.MaxMessage()+1)
	for name, c := range map[string]struct {
		to   lease.Worker
		kind uint8
		b    []byte
		want error
	}{
		"no member": {3, 1, nil, ErrNotMember},
		"kind 0":    {2, 0, nil, rdma.ErrInvalid},
		"too long":  {2, 1, long, rdma.ErrInvalid},
		"longest":   {2, 1, long[1:], nil},
	} {
		if err := n.mesh.Send(c.to, c.kind, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	sent := 0
	for ; sent < 1000; sent++ {
		if err := n.mesh.Send(2, 1, long[:50]); err != nil {
			if !errors.Is(err, ErrBacklog) {
				t.Error(err)
			}
			break
		}
	}
	if units := n.mesh.options.RingBytes / 64; sent < 10 || sent > units+10 {
		t.Errorf("the backlog took %d messages, option is 10 besides %d units", sent, units)
	}
	n.stop()
	if err := n.mesh.Send(1, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	if err := n.mesh.Install(t.Context(), members(t, 2, member(1))); !errors.Is(err, ErrClosed) {
		t.Errorf("install after close: %v", err)
	}
}

func TestOptions(t *testing.T) {
	p, err := openTCP("")
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Me: member(1), Provider: p, Slots: 8, Handler: &node{}, Exchanger: newNetwork()}
	for name, change := range map[string]func(*Options){
		"me":       func(o *Options) { o.Me.Worker = 0 },
		"provider": func(o *Options) { o.Provider = nil },
		"slots":    func(o *Options) { o.Slots = 12 },
		"no slots": func(o *Options) { o.Slots = 0 },
		"ring":     func(o *Options) { o.RingBytes = 100 },
		"big ring": func(o *Options) { o.RingBytes = 1 << 20 },
		"members":  func(o *Options) { o.Members = 4000 },
		"timeout":  func(o *Options) { o.Timeout = -time.Second },
		"backlog":  func(o *Options) { o.BacklogBytes = -1 },
		"spin":     func(o *Options) { o.Spin = -1 },
		"handler":  func(o *Options) { o.Handler = nil },
	} {
		o := good
		change(&o)
		if m, err := New(o); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			if m != nil {
				_ = m.Close()
			}
		}
	}
	m, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Install(t.Context(), members(t, 1, manyMembers()...)); err == nil {
		t.Error("a view with more members than the option says was installed")
	}
	if err := errors.Join(m.Close(), m.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}

func manyMembers() (all []lease.Member) {
	for w := range 17 {
		all = append(all, member(w+1))
	}
	return all
}

// TestEnds: the number of a closed queue pair is not used again before its last
// completions were seen.
func TestEnds(t *testing.T) {
	s := ends{open: map[uint32]*end{}}
	first, second := &end{number: 7}, &end{number: 7}
	if !s.add(first) || s.add(second) {
		t.Fatal("a number was given twice")
	}
	s.closed = append(s.closed, first)
	if s.add(second) {
		t.Fatal("the number of an end that has closed was given again at once")
	}
	gone := s.takeClosed(nil)
	if len(gone) != 1 || len(s.takeClosed(nil)) != 0 || s.find(7) != first {
		t.Fatalf("closed ends are %v", gone)
	}
	s.forget(gone)
	if !s.add(second) || s.find(7) != second {
		t.Error("a number that is free was refused")
	}
}
