package service_test

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"testing"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
)

// TestAmongOthers has the service show a worker that passes leases.
func TestAmongOthers(t *testing.T) {
	b := newBed(t)
	provider, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	me := lease.Member{Worker: 1, Incarnation: 1}
	var peers leases.Local
	views := make(chan *lease.Members, 1)
	opt := worker.Options{Name: "w2", Logs: b.logs, Logger: slog.New(slog.DiscardHandler)}
	opt.Cluster = &worker.Cluster{Views: views, Current: func() bool { return true }}
	opt.Cluster.Leases = leases.Options{Me: me, Peers: &peers}
	opt.Cluster.Leases.Mesh.Provider = provider
	w, err := worker.New(opt, b.engine)
	if err != nil {
		t.Fatal(err)
	}
	peers.Enter(me, w.Leases())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		peers.Leave(me)
		cancel()
		running.Wait()
		if err := w.Leases().Close(); err != nil {
			t.Error(err)
		}
		if err := provider.Close(); err != nil {
			t.Error(err)
		}
	})
	members, err := lease.NewMembers(2, []lease.Member{me})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Seal(2); err != nil {
		t.Fatal(err)
	}
	views <- members
	b.now.Store(w)
	if r := b.Execute(t.Context(), ops(put("k", []byte("v")))); r.Err != nil {
		t.Fatal(r.Err)
	}
	l, err := b.Lease(t.Context(), key("k"))
	if want := w.Leases().Explain(key("k").Slot()); err != nil || !l.Among || !reflect.DeepEqual(l.Known, want) || l.Known.State != "held" {
		t.Errorf("the lease is %+v, %v; want %+v", l, err, want)
	}
	s, err := b.Status(t.Context())
	if waits := w.Leases().Waits(); s.Waits != waits || waits.Sum <= 0 { // for the first leases
		t.Errorf("waits %+v, want %+v", s.Waits, waits)
	}
	if stats, known := w.Leases().Stats(); err != nil || s.Name != "w2" || s.View != 2 || s.Homes != w.Leases().Homes() || s.Leases != known || s.Pulls != stats.Pulls || known == 0 {
		t.Errorf("status %+v, %v", s, err)
	}
}
