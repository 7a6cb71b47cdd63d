package leasemgr

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// maxCall bounds how long a call may wait whose client has set no deadline.
const maxCall = 30 * time.Second

// RegisterMembers registers a manager as the service Members on a server that
// rpc.NewServer made. What the core does not check itself is checked here.
func RegisterMembers(s grpc.ServiceRegistrar, m *Manager) {
	rpcpb.RegisterMembersServer(s, &membersServer{manager: m})
}

type membersServer struct {
	rpcpb.UnimplementedMembersServer
	manager *Manager
}

func (s *membersServer) Join(ctx context.Context, in *rpcpb.JoinRequest) (*rpcpb.Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	r := JoinRequest{Name: in.GetName(), Address: in.GetAddress(), Provider: in.GetProvider(), Zone: in.GetZone()}
	if len(in.GetNonce()) != len(r.Nonce) {
		return nil, base.Invalidf("worker", "its nonce has %d bytes, it must have %d", len(in.GetNonce()), len(r.Nonce))
	}
	copy(r.Nonce[:], in.GetNonce())
	a, err := s.manager.Join(ctx, r)
	if err != nil {
		return nil, err
	}
	return &rpcpb.Admission{Member: memberToWire(a.Member), Published: publishedToWire(&a.Published)}, nil
}

func (s *membersServer) Renew(ctx context.Context, in *rpcpb.RenewRequest) (*rpcpb.Published, error) {
	member, err := memberFromWire(in.GetMember())
	if err != nil {
		return nil, err
	}
	if len(in.GetUnreachable()) > int(lease.MaxWorker) {
		return nil, base.Invalidf("unreachable", "%d members, there are at most %d", len(in.GetUnreachable()), lease.MaxWorker)
	}
	unreachable := make([]lease.Member, len(in.GetUnreachable()))
	for i, x := range in.GetUnreachable() {
		if unreachable[i], err = memberFromWire(x); err != nil {
			return nil, err
		}
	}
	p, err := s.manager.Renew(ctx, RenewRequest{Member: member, Known: base.View(in.GetKnown()), Wait: time.Duration(in.GetWaitNs()), Silence: time.Duration(in.GetSilenceNs()), Unreachable: unreachable})
	if err != nil {
		return nil, err
	}
	return publishedToWire(&p), nil
}

func (s *membersServer) Leave(ctx context.Context, in *rpcpb.MemberId) (*rpcpb.LeaveReply, error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	member, err := memberFromWire(in)
	if err != nil {
		return nil, err
	}
	if err := s.manager.Leave(ctx, member); err != nil {
		return nil, err
	}
	return &rpcpb.LeaveReply{}, nil
}

func (s *membersServer) State(ctx context.Context, in *rpcpb.StateRequest) (*rpcpb.MembersState, error) {
	state, err := s.manager.State(ctx, base.View(in.GetKnown()), time.Duration(in.GetWaitNs()))
	if err != nil {
		return nil, err
	}
	out := &rpcpb.MembersState{Published: publishedToWire(&state.Published), Decided: uint32(state.Decided), Joining: state.Joining}
	for _, r := range state.Reports {
		out.Reports = append(out.Reports, &rpcpb.MemberReport{Peer: peerToWire(r.Member), Since: uint32(r.Since), RenewedNs: int64(r.Renewed), Leaving: r.Leaving})
	}
	return out, nil
}

// Client is the Registry behind a connection.
type Client struct{ members rpcpb.MembersClient }

var _ Registry = (*Client)(nil)

// NewClient returns the Registry behind a connection that rpc.Dial made, which
// stays the caller's. Calls block until the answer or the end of their context.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{members: rpcpb.NewMembersClient(conn)}
}

// Join implements Registry.
func (c *Client) Join(ctx context.Context, r JoinRequest) (Admission, error) {
	out, err := c.members.Join(ctx, &rpcpb.JoinRequest{Name: r.Name, Nonce: r.Nonce[:], Address: r.Address, Provider: r.Provider, Zone: r.Zone})
	if err != nil {
		return Admission{}, err
	}
	p, err := publishedFromWire(out.GetPublished())
	if err != nil {
		return Admission{}, err
	}
	member, err := memberFromWire(out.GetMember())
	if err != nil {
		return Admission{}, badAnswer("%v", err)
	}
	return Admission{Member: member, Published: p}, nil
}

// Renew implements Registry.
func (c *Client) Renew(ctx context.Context, r RenewRequest) (Published, error) {
	in := &rpcpb.RenewRequest{Member: memberToWire(r.Member), Known: uint32(r.Known), WaitNs: int64(r.Wait), SilenceNs: int64(r.Silence)}
	for _, x := range r.Unreachable {
		in.Unreachable = append(in.Unreachable, memberToWire(x))
	}
	out, err := c.members.Renew(ctx, in)
	if err != nil {
		return Published{}, err
	}
	return publishedFromWire(out)
}

// Leave implements Registry.
func (c *Client) Leave(ctx context.Context, m lease.Member) error {
	_, err := c.members.Leave(ctx, memberToWire(m))
	return err
}

// State is Manager.State.
func (c *Client) State(ctx context.Context, known base.View, wait time.Duration) (State, error) {
	out, err := c.members.State(ctx, &rpcpb.StateRequest{Known: uint32(known), WaitNs: int64(wait)})
	if err != nil {
		return State{}, err
	}
	p, err := publishedFromWire(out.GetPublished())
	if err != nil {
		return State{}, err
	}
	s := State{Published: p, Decided: base.View(out.GetDecided()), Joining: out.GetJoining()}
	for _, r := range out.GetReports() {
		peer, err := peerFromWire(r.GetPeer())
		if err != nil {
			return State{}, badAnswer("%v", err)
		}
		s.Reports = append(s.Reports, membership.Report{Member: peer, Since: base.View(r.GetSince()), Renewed: time.Duration(r.GetRenewedNs()), Leaving: r.GetLeaving()})
	}
	return s, nil
}

// badAnswer is an answer that no leasemgr of this release gives.
func badAnswer(format string, args ...any) error {
	err := base.Errorf(base.Internal, "the leasemgr's answer cannot be used: "+format, args...)
	err.Unknown = true
	return err
}

func memberToWire(m lease.Member) *rpcpb.MemberId {
	return &rpcpb.MemberId{Worker: uint32(m.Worker), Incarnation: m.Incarnation}
}

func memberFromWire(in *rpcpb.MemberId) (lease.Member, error) {
	if n := in.GetWorker(); n == uint32(lease.Free) || n > uint32(lease.MaxWorker) || in.GetIncarnation() == 0 {
		return lease.Member{}, base.Invalidf("worker", "number %d, incarnation %d, is nobody: numbers are 1..%d, incarnations begin at 1", n, in.GetIncarnation(), lease.MaxWorker)
	}
	return lease.Member{Worker: lease.Worker(in.GetWorker()), Incarnation: in.GetIncarnation()}, nil
}

func peerToWire(p Peer) *rpcpb.Peer {
	return &rpcpb.Peer{Id: memberToWire(p.Member), Name: p.Name, Address: p.Address, Provider: p.Provider, Zone: p.Zone}
}

func peerFromWire(in *rpcpb.Peer) (Peer, error) {
	member, err := memberFromWire(in.GetId())
	if err != nil {
		return Peer{}, err
	}
	return Peer{Member: member, Name: in.GetName(), Address: in.GetAddress(), Provider: in.GetProvider(), Zone: in.GetZone()}, nil
}

func publishedToWire(p *Published) *rpcpb.Published {
	out := &rpcpb.Published{View: uint32(p.View), TtlNs: int64(p.TTL), Evicted: p.Evicted, Unextended: p.Unextended, Yield: p.Yield, Members: make([]*rpcpb.Peer, 0, len(p.Members))}
	for _, peer := range p.Members {
		out.Members = append(out.Members, peerToWire(peer))
	}
	return out
}

// publishedFromWire checks what a member would act on: a membership that
// contradicts itself is worse than none.
func publishedFromWire(in *rpcpb.Published) (Published, error) {
	p := Published{View: base.View(in.GetView()), TTL: time.Duration(in.GetTtlNs()), Evicted: in.GetEvicted(), Unextended: in.GetUnextended(), Yield: in.GetYield()}
	if p.TTL <= 0 || p.TTL > math.MaxInt64/2 || p.View > lease.MaxView || len(in.GetMembers()) > int(lease.MaxWorker) {
		return Published{}, badAnswer("view %d, %d members, TTL %v", p.View, len(in.GetMembers()), p.TTL)
	}
	var last lease.Worker
	for _, m := range in.GetMembers() {
		peer, err := peerFromWire(m)
		if err != nil {
			return Published{}, badAnswer("%v", err)
		}
		if peer.Worker <= last {
			return Published{}, badAnswer("worker %d follows worker %d", peer.Worker, last)
		}
		last = peer.Worker
		p.Members = append(p.Members, peer)
	}
	return p, nil
}
