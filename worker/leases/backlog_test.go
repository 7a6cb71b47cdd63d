package leases

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// TestFullBacklogEndsMembership: what cannot be queued for a member would be missed
// for as long as the view lasts, so the worker ends instead.
func TestFullBacklogEndsMembership(t *testing.T) {
	provider, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	me, silent := lease.Member{Worker: 1, Incarnation: 1}, lease.Member{Worker: 2, Incarnation: 1}
	l, err := New(Options{
		Me: me, Parts: 4, Slots: 1 << 10, Log: still{}, Values: func(int) Values { return still{} }, Relabel: func(base.View) {},
		Peers: &Local{}, Mesh: mesh.Options{Provider: provider, BacklogMessages: 10}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	view, err := lease.NewMembers(1, []lease.Member{me, silent})
	if err != nil {
		t.Fatal(err)
	}
	views, ended := make(chan *lease.Members, 1), make(chan error, 1)
	views <- view
	go func() { ended <- l.Run(t.Context(), views) }()
	for over := false; !over; {
		select {
		case err = <-ended:
			over = true
		default:
		}
		p := l.Part(5)
		p.Lock()
		p.send(&lease.Action{Kind: lease.Send, To: silent.Worker, Slot: 5, Record: lease.Record{Kind: lease.Inval, Slot: 5, View: 1, Ticket: 1}})
		p.Unlock()
	}
	if !errors.Is(err, mesh.ErrBacklog) {
		t.Errorf("Run ended with %v", err)
	}
	if err := errors.Join(l.Close(), provider.Close()); err != nil {
		t.Error(err)
	}
}
