package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// Limits of an offer, which comes from another process.
const (
	maxNode      = 64
	maxQueuePair = 512
	maxRegions   = 64
)

// Offer is one end of a connection of queue pairs.
type Offer struct {
	// Node is the name of the offering node, at most 64 bytes.
	Node string
	// Provider is the name of its provider of verbs; both ends have the same.
	Provider string
	// QueuePair is the address of its queue pair, opaque, at most 512 bytes.
	QueuePair []byte
	// Regions are the memory that the other end may use, at most 64.
	Regions []Region
}

// Region is registered memory of the offering node.
type Region struct {
	// Name says what the region is for.
	Name string
	// Addr is the address of its first byte in the owner, Size its bytes.
	Addr, Size uint64
	// RKey allows access.
	RKey uint32
}

// Acceptor is the passive end of exchanges.
type Acceptor interface {
	// Accept makes a queue pair, has it accept the one of the offer, and returns
	// its own end. Called concurrently. An error is returned to the caller of
	// Exchange with its kind. The acceptor keeps the end that it accepted until it
	// closes it: the answer may be lost, and then nobody connects, and no provider
	// notices. It must bound how many it keeps, for instance by closing the one of
	// a node when the same node offers again.
	Accept(ctx context.Context, offer Offer) (Offer, error)
}

// ServeRendezvous registers the service on a server; provider is the name that
// offers must have.
func ServeRendezvous(s grpc.ServiceRegistrar, provider string, a Acceptor) {
	rpcpb.RegisterRendezvousServer(s, &rendezvous{provider: provider, acceptor: a})
}

type rendezvous struct {
	rpcpb.UnimplementedRendezvousServer
	provider string
	acceptor Acceptor
}

func (r *rendezvous) Exchange(ctx context.Context, in *rpcpb.Offer) (*rpcpb.Offer, error) {
	offer := fromWire(in)
	if err := offer.check(r.provider); err != nil {
		return nil, err
	}
	answer, err := r.acceptor.Accept(ctx, offer)
	if err != nil {
		return nil, err
	}
	return toWire(answer), nil
}

// Exchange offers our end of a connection to the node behind conn and returns
// its end, which has accepted: connect the queue pair then. It blocks until the
// answer, or the end of ctx. After an error with Unknown the other end may hold a
// queue pair that nobody connects to, until the acceptor there closes it, for
// instance when this node offers again: see Acceptor.
func Exchange(ctx context.Context, conn Conn, offer Offer) (Offer, error) {
	out, err := rpcpb.NewRendezvousClient(conn).Exchange(ctx, toWire(offer))
	if err != nil {
		return Offer{}, err
	}
	answer := fromWire(out)
	if err := answer.check(offer.Provider); err != nil {
		return Offer{}, err
	}
	return answer, nil
}

func (o *Offer) check(provider string) error {
	switch {
	case o.Node == "" || len(o.Node) > maxNode:
		return base.Invalidf("offer", "the node's name has %d bytes (1..%d)", len(o.Node), maxNode)
	case o.Provider != provider:
		return base.Invalidf("offer", "%s speaks %q, this end %q: start both with the same --provider", o.Node, o.Provider, provider)
	case len(o.QueuePair) == 0 || len(o.QueuePair) > maxQueuePair:
		return base.Invalidf("offer", "the queue pair's address has %d bytes (1..%d)", len(o.QueuePair), maxQueuePair)
	case len(o.Regions) > maxRegions:
		return base.Invalidf("offer", "%d regions, the limit is %d", len(o.Regions), maxRegions)
	}
	return nil
}

func toWire(o Offer) *rpcpb.Offer {
	out := &rpcpb.Offer{Node: o.Node, Provider: o.Provider, QueuePair: o.QueuePair}
	for _, r := range o.Regions {
		out.Regions = append(out.Regions, &rpcpb.Region{Name: r.Name, Addr: r.Addr, Size: r.Size, Rkey: r.RKey})
	}
	return out
}

func fromWire(in *rpcpb.Offer) Offer {
	o := Offer{Node: in.GetNode(), Provider: in.GetProvider(), QueuePair: in.GetQueuePair()}
	for _, r := range in.GetRegions() {
		o.Regions = append(o.Regions, Region{Name: r.GetName(), Addr: r.GetAddr(), Size: r.GetSize(), RKey: r.GetRkey()})
	}
	return o
}
