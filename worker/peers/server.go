package peers

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/mesh"
)

const (
	// maxServe bounds a call whose client has set no deadline.
	maxServe = 30 * time.Second
	// maxUnpacked bounds the sets of slots that are unpacked at the same time: one
	// may have 4 MiB, and come in a few bytes.
	maxUnpacked = 4
)

// Register serves the members that are in this process on s, a server of
// rpc.NewServer whose messages may have 2 MiB at least. Here is how they are
// reached, usually a *leases.Local: a member enters it before others hear of its
// address, and leaves it when its incarnation is over, while the server goes on.
func Register(s grpc.ServiceRegistrar, here leases.Peers) {
	rpcpb.RegisterPeersServer(s, &server{here: here, unpacking: make(chan struct{}, maxUnpacked)})
}

type server struct {
	rpcpb.UnimplementedPeersServer
	here leases.Peers
	// unpacking has a token for each set of slots that is in memory.
	unpacking chan struct{}
}

// Exchange implements the service.
func (s *server) Exchange(ctx context.Context, in *rpcpb.LinkOffer) (*rpcpb.LinkReply, error) {
	ctx, cancel := context.WithTimeout(ctx, maxServe)
	defer cancel()
	offer, err := offerFromWire(in)
	if err != nil {
		return nil, err
	}
	answer, err := s.here.Exchange(ctx, offer.To, offer)
	refusal, err := refusalOf(err)
	if err != nil {
		return nil, err
	}
	reply := &rpcpb.LinkReply{Refusal: refusal}
	if refusal == rpcpb.PeersRefusal_PEERS_REFUSAL_NONE {
		reply.Answer = offerToWire(&answer)
	}
	return reply, nil
}

// Report implements the service.
func (s *server) Report(ctx context.Context, in *rpcpb.HoldingsReport) (*rpcpb.PeersReply, error) {
	ctx, cancel := context.WithTimeout(ctx, maxServe)
	defer cancel()
	c, err := callFromWire(in)
	if err != nil {
		return nil, err
	}
	select {
	case s.unpacking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.unpacking }()
	if err := ctx.Err(); err != nil { // it may have ended while this waited
		return nil, err
	}
	slots, err := decodeSlots(in.GetSlots())
	if err != nil {
		return nil, err
	}
	return replyOf(s.here.Report(ctx, c.to, c.from, c.view, slots))
}

// Ready implements the service.
func (s *server) Ready(ctx context.Context, in *rpcpb.ReadyNotice) (*rpcpb.PeersReply, error) {
	ctx, cancel := context.WithTimeout(ctx, maxServe)
	defer cancel()
	c, err := callFromWire(in)
	if err != nil {
		return nil, err
	}
	return replyOf(s.here.Ready(ctx, c.to, c.from, c.view))
}

// call is what a report and a notice have in common.
type call struct {
	from, to lease.Member
	view     base.View
}

func callFromWire(in interface {
	GetFrom() *rpcpb.MemberId
	GetTo() *rpcpb.MemberId
	GetView() uint32
}) (c call, err error) {
	if c.from, err = memberFromWire(in.GetFrom()); err != nil {
		return call{}, err
	}
	if c.to, err = memberFromWire(in.GetTo()); err != nil {
		return call{}, err
	}
	if c.view = base.View(in.GetView()); c.view == 0 || c.view > lease.MaxView {
		return call{}, base.Invalidf("view", "%d, views are 1..%d", c.view, lease.MaxView)
	}
	return c, nil
}

func replyOf(err error) (*rpcpb.PeersReply, error) {
	refusal, err := refusalOf(err)
	if err != nil {
		return nil, err
	}
	return &rpcpb.PeersReply{Refusal: refusal}, nil
}

// refusalOf tells the errors that callers branch on from failures, which get a
// kind if they have none.
func refusalOf(err error) (rpcpb.PeersRefusal, error) {
	switch {
	case err == nil:
		return rpcpb.PeersRefusal_PEERS_REFUSAL_NONE, nil
	case errors.Is(err, leases.ErrNotYet):
		return rpcpb.PeersRefusal_PEERS_REFUSAL_NOT_YET, nil
	case errors.Is(err, mesh.ErrNotMember):
		return rpcpb.PeersRefusal_PEERS_REFUSAL_NOT_MEMBER, nil
	case errors.Is(err, mesh.ErrClosed):
		return 0, base.Errorf(base.Unavailable, "the worker is on its way out: %v", err)
	case errors.Is(err, rdma.ErrInvalid):
		return 0, base.Invalidf("offer", "%v", err)
	}
	return 0, err
}

// errorOf is the reverse of refusalOf.
func errorOf(refusal rpcpb.PeersRefusal) error {
	switch refusal {
	case rpcpb.PeersRefusal_PEERS_REFUSAL_NONE:
		return nil
	case rpcpb.PeersRefusal_PEERS_REFUSAL_NOT_YET:
		return leases.ErrNotYet
	case rpcpb.PeersRefusal_PEERS_REFUSAL_NOT_MEMBER:
		return mesh.ErrNotMember
	}
	return base.Errorf(base.Internal, "refusal %d is unknown here: the other end is of another release", refusal)
}
