package leasemgr_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// serveOn runs the services that register adds on a loopback address, and returns
// a connection to it.
func serveOn(t *testing.T, register func(*grpc.Server)) rpc.Conn {
	t.Helper()
	l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Options{})
	register(server)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	conn, err := rpc.Dial(l.Addr().String(), rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		wg.Wait()
	})
	return conn
}

func TestRemote(t *testing.T) {
	m := startManager(t, newMemory(), &seal{})
	t.Cleanup(func() { m.stop(t) })
	c := leasemgr.NewClient(serveOn(t, func(s *grpc.Server) { leasemgr.RegisterMembers(s, m.Manager) }))
	request := joiner("a", 1)
	request.Zone = "rack 7"
	a := joined(t, c, request)
	want := leasemgr.Admission{Member: lease.Member{Worker: 1, Incarnation: 1}, Published: leasemgr.Published{View: 1, TTL: 3 * time.Second, Members: []leasemgr.Peer{
		{Member: lease.Member{Worker: 1, Incarnation: 1}, Name: "a", Address: "a:1", Provider: "tcp", Zone: "rack 7"}}}}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("admission %+v, want %+v", a, want)
	}
	if again := joined(t, c, request); again.Member != a.Member {
		t.Errorf("the same instance again: %+v", again)
	}
	_, err := c.Join(t.Context(), joiner("a", 2))
	var e *base.Error
	if !errors.As(err, &e) || e.Kind != base.Unavailable || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "a:1") {
		t.Errorf("another instance: %#v", err)
	}
	var joining sync.WaitGroup
	joining.Go(func() { joined(t, c, joiner("b", 1)) })
	p, err := c.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member, Known: 1, Wait: 1500 * time.Millisecond})
	if err != nil || p.View != 2 || len(p.Members) != 2 || p.Evicted {
		t.Errorf("renewal: %+v, %v", p, err)
	}
	joining.Wait()
	if err := c.Leave(t.Context(), a.Member); err != nil {
		t.Errorf("leave: %v", err)
	}
	if p, err = c.Renew(t.Context(), leasemgr.RenewRequest{Member: a.Member}); err != nil || !p.Evicted || p.View != 3 {
		t.Errorf("renewal after that: %+v, %v", p, err)
	}
	if _, err := c.Join(t.Context(), request); base.KindOf(err) != base.Precondition {
		t.Errorf("the instance that has left: %v", err)
	}
	s, err := c.State(t.Context(), 0, 0)
	if err != nil || s.Decided != 3 || s.View != 3 || len(s.Reports) != 1 || s.Reports[0].Name != "b" || s.Reports[0].Since != 2 || s.Reports[0].Renewed <= 0 || len(s.Joining) != 0 {
		t.Errorf("state: %+v, %v", s, err)
	}
}

// TestRemoteSession runs a session over a connection.
func TestRemoteSession(t *testing.T) {
	m := startManager(t, newMemory(), &seal{})
	t.Cleanup(func() { m.stop(t) })
	s := startSession(t, sessionOptions("a", leasemgr.NewClient(serveOn(t, func(s *grpc.Server) { leasemgr.RegisterMembers(s, m.Manager) }))))
	<-s.Views()
	joined(t, m, joiner("b", 1))
	if p := <-s.Views(); p.View != 2 || !slices.Equal(names(p), []string{"a", "b"}) {
		t.Errorf("%+v", p)
	}
	if err := s.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	s.stop(t)
}

// TestServerRefuses sends what no client of ours sends.
func TestServerRefuses(t *testing.T) {
	m, err := leasemgr.NewManager(newMemory(), leasemgr.ManagerOptions{Seal: (&seal{}).to, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client := rpcpb.NewMembersClient(serveOn(t, func(s *grpc.Server) { leasemgr.RegisterMembers(s, m) }))
	nonce := make([]byte, 16)
	nonce[0] = 1
	good := &rpcpb.JoinRequest{Name: "a", Nonce: nonce, Address: "a:1", Provider: "tcp"}
	for name, change := range map[string]func(*rpcpb.JoinRequest){
		"nothing":      func(r *rpcpb.JoinRequest) { proto.Reset(r) },
		"short nonce":  func(r *rpcpb.JoinRequest) { r.Nonce = nonce[:15] },
		"zero nonce":   func(r *rpcpb.JoinRequest) { r.Nonce = make([]byte, 16) },
		"long name":    func(r *rpcpb.JoinRequest) { r.Name = strings.Repeat("a", 65) },
		"long address": func(r *rpcpb.JoinRequest) { r.Address = strings.Repeat("a", 257) },
	} {
		r := proto.Clone(good).(*rpcpb.JoinRequest)
		change(r)
		if _, err := client.Join(t.Context(), r); base.KindOf(err) != base.Invalid {
			t.Errorf("join, %s: %v", name, err)
		}
	}
	for _, id := range []*rpcpb.MemberId{nil, {Worker: 0, Incarnation: 1}, {Worker: 4095, Incarnation: 1}, {Worker: 1<<16 + 1, Incarnation: 1}, {Worker: 1}} {
		if _, err := client.Renew(t.Context(), &rpcpb.RenewRequest{Member: id}); base.KindOf(err) != base.Invalid {
			t.Errorf("renewal of %v: %v", id, err)
		}
		if id == nil {
			continue
		}
		if _, err := client.Leave(t.Context(), id); base.KindOf(err) != base.Invalid {
			t.Errorf("leave of %v: %v", id, err)
		}
	}
}

// oddServer answers with what no leasemgr answers.
type oddServer struct {
	rpcpb.UnimplementedMembersServer
	admission *rpcpb.Admission
}

func (s *oddServer) Join(context.Context, *rpcpb.JoinRequest) (*rpcpb.Admission, error) {
	return s.admission, nil
}

func (s *oddServer) Renew(context.Context, *rpcpb.RenewRequest) (*rpcpb.Published, error) {
	return s.admission.GetPublished(), nil
}

func (s *oddServer) State(context.Context, *rpcpb.StateRequest) (*rpcpb.MembersState, error) {
	return &rpcpb.MembersState{Published: s.admission.GetPublished()}, nil
}

// TestClientRefuses: what contradicts itself is an error, not a membership.
func TestClientRefuses(t *testing.T) {
	one, two := &rpcpb.MemberId{Worker: 1, Incarnation: 1}, &rpcpb.MemberId{Worker: 2, Incarnation: 1}
	odd := &oddServer{}
	c := leasemgr.NewClient(serveOn(t, func(s *grpc.Server) { rpcpb.RegisterMembersServer(s, odd) }))
	for name, p := range map[string]*rpcpb.Published{
		"nothing":        {},
		"no TTL":         {View: 1, Members: []*rpcpb.Peer{{Id: one}}},
		"negative TTL":   {View: 1, TtlNs: -1},
		"endless TTL":    {View: 1, TtlNs: 1<<63 - 1},
		"a view too far": {View: 1 << 20, TtlNs: 1},
		"a member twice": {View: 1, TtlNs: 1, Members: []*rpcpb.Peer{{Id: one}, {Id: one}}},
		"out of order":   {View: 1, TtlNs: 1, Members: []*rpcpb.Peer{{Id: two}, {Id: one}}},
		"nobody":         {View: 1, TtlNs: 1, Members: []*rpcpb.Peer{{}}},
	} {
		odd.admission = &rpcpb.Admission{Member: one, Published: p}
		_, joinErr := c.Join(t.Context(), joiner("a", 1))
		_, renewErr := c.Renew(t.Context(), leasemgr.RenewRequest{Member: lease.Member{Worker: 1, Incarnation: 1}})
		_, stateErr := c.State(t.Context(), 0, 0)
		for call, err := range map[string]error{"join": joinErr, "renew": renewErr, "state": stateErr} {
			if base.KindOf(err) != base.Internal || err == nil {
				t.Errorf("%s, %s: %v", call, name, err)
			}
		}
	}
	odd.admission = &rpcpb.Admission{Published: &rpcpb.Published{View: 1, TtlNs: 1}}
	if _, err := c.Join(t.Context(), joiner("a", 1)); err == nil {
		t.Error("admitted as nobody")
	}
}

// TestFullClusterFitsAMessage: the largest membership with the longest names is
// within what package rpc carries.
func TestFullClusterFitsAMessage(t *testing.T) {
	state := &rpcpb.MembersState{Published: &rpcpb.Published{View: 1, TtlNs: int64(time.Second)}}
	for n := range uint32(lease.MaxWorker) {
		peer := &rpcpb.Peer{Id: &rpcpb.MemberId{Worker: n + 1, Incarnation: 1<<32 - 1}, Name: fmt.Sprintf("%064d", n),
			Address: strings.Repeat("a", 256), Provider: strings.Repeat("p", 32), Zone: strings.Repeat("z", 64)}
		state.Published.Members = append(state.Published.Members, peer)
		state.Reports = append(state.Reports, &rpcpb.MemberReport{Peer: peer, Since: 1 << 20, RenewedNs: 1 << 40, Leaving: true})
	}
	limits := rpc.Options{}
	limits.EnsureDefaults()
	if size := proto.Size(state); size > limits.MaxMessage {
		t.Errorf("%d bytes, %d are allowed", size, limits.MaxMessage)
	}
}
