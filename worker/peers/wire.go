package peers

import (
	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker/mesh"
)

func memberToWire(m lease.Member) *rpcpb.MemberId {
	return &rpcpb.MemberId{Worker: uint32(m.Worker), Incarnation: m.Incarnation}
}

func memberFromWire(in *rpcpb.MemberId) (lease.Member, error) {
	if n := in.GetWorker(); n == uint32(lease.Free) || n > uint32(lease.MaxWorker) {
		return lease.Member{}, base.Invalidf("worker", "number %d is nobody's, they are 1..%d", n, lease.MaxWorker)
	}
	return lease.Member{Worker: lease.Worker(in.GetWorker()), Incarnation: in.GetIncarnation()}, nil
}

func offerToWire(o *mesh.Offer) *rpcpb.LinkOffer {
	return &rpcpb.LinkOffer{
		From: memberToWire(o.From), To: memberToWire(o.To), Provider: o.Provider, Slots: o.Slots, RingBytes: o.RingBytes,
		QueuePair: o.QueuePair, Stream: o.Stream, Generation: o.Generation, Resumes: o.Resumes,
		Words: regionToWire(o.Words), Ring: regionToWire(o.Ring), Consumed: o.Consumed,
	}
}

// offerFromWire checks what the form of an offer cannot hold; the mesh checks the
// rest, on both sides.
func offerFromWire(in *rpcpb.LinkOffer) (o mesh.Offer, err error) {
	if o.From, err = memberFromWire(in.GetFrom()); err != nil {
		return mesh.Offer{}, err
	}
	if o.To, err = memberFromWire(in.GetTo()); err != nil {
		return mesh.Offer{}, err
	}
	o.Provider, o.Slots, o.RingBytes = in.GetProvider(), in.GetSlots(), in.GetRingBytes()
	o.QueuePair, o.Stream, o.Generation, o.Resumes = in.GetQueuePair(), in.GetStream(), in.GetGeneration(), in.GetResumes()
	o.Words, o.Ring, o.Consumed = regionFromWire(in.GetWords()), regionFromWire(in.GetRing()), in.GetConsumed()
	return o, nil
}

func regionToWire(r rdma.RemoteRegion) *rpcpb.LinkRegion {
	return &rpcpb.LinkRegion{Addr: r.Addr, Size: r.Size, Rkey: r.RKey}
}

func regionFromWire(in *rpcpb.LinkRegion) rdma.RemoteRegion {
	return rdma.RemoteRegion{Addr: in.GetAddr(), Size: in.GetSize(), RKey: in.GetRkey()}
}
