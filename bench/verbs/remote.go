package verbs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rpc"
)

// regionName is the name of the region that is measured.
const regionName = "bench"

// Serve is node B for Connect, until ctx ends. It serves one node A at a time; a
// new one takes the place of the old. It closes l. Options need the same Size
// and Batch as at the other end, or larger.
func Serve(ctx context.Context, open Opener, l net.Listener, o Options) (err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return errors.Join(err, l.Close())
	}
	provider, err := open("b")
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, provider.Close()) }()
	s := &server{provider: provider, options: o}
	defer func() { err = errors.Join(err, s.replace(nil, nil)) }()
	grpcServer := rpc.NewServer(rpc.Options{})
	rpc.ServeRendezvous(grpcServer, provider.Name(), s)
	var wg sync.WaitGroup
	defer wg.Wait()
	served := make(chan struct{})
	defer close(served)
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-served:
		}
		grpcServer.Stop()
	})
	if err := grpcServer.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// server accepts exchanges.
type server struct {
	provider rdma.Provider
	options  Options

	mu   sync.Mutex // held while ends are replaced, which may take a second
	end  *node
	stop func() error
}

// replace closes the present end and puts another in its place.
func (s *server) replace(end *node, stop func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, stopOld := s.end, s.stop
	s.end, s.stop = end, stop
	if old == nil {
		return nil
	}
	// No fault of the new one, and it may be none at all: a peer that is done goes
	// away, and our last request with it.
	if err := stopOld(); err != nil {
		slog.Info("bench verbs: a node was no longer answered", "reason", err)
	}
	return old.closeEnd()
}

// Accept implements rpc.Acceptor.
func (s *server) Accept(_ context.Context, offer rpc.Offer) (rpc.Offer, error) {
	remote, err := regionOf(offer)
	if err != nil {
		return rpc.Offer{}, err
	}
	end, err := newEnd(s.provider, offer.Node, s.options)
	if err != nil {
		return rpc.Offer{}, err
	}
	if err := end.qp.Accept(offer.QueuePair); err != nil {
		return rpc.Offer{}, errors.Join(base.Invalidf("offer", "%v", err), end.closeEnd())
	}
	answer := end.offer("b")
	if err := s.replace(end, end.answer(remote)); err != nil {
		return rpc.Offer{}, err
	}
	return answer, nil
}

// offer describes the end to the other one.
func (n *node) offer(name string) rpc.Offer {
	r := n.region.Remote()
	return rpc.Offer{Node: name, Provider: n.provider.Name(), QueuePair: n.qp.Address(),
		Regions: []rpc.Region{{Name: regionName, Addr: r.Addr, Size: r.Size, RKey: r.RKey}}}
}

func regionOf(o rpc.Offer) (rdma.RemoteRegion, error) {
	if len(o.Regions) != 1 || o.Regions[0].Name != regionName {
		return rdma.RemoteRegion{}, base.Invalidf("offer", "%s offers no region %q: is it a bench of another release?", o.Node, regionName)
	}
	r := o.Regions[0]
	return rdma.RemoteRegion{Addr: r.Addr, Size: r.Size, RKey: r.RKey}, nil
}

// Connect measures from here to the node that Serve runs at address.
func Connect(ctx context.Context, open Opener, address string, ro rpc.Options, o Options) (report *Report, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	conn, err := rpc.Dial(address, ro)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	a, err := newNode(open, "a", o)
	if err != nil {
		return nil, err
	}
	defer closeAfter(a, &err)
	exchange, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	answer, err := rpc.Exchange(exchange, conn, a.offer("a"))
	if err != nil {
		return nil, err
	}
	remote, err := regionOf(answer)
	if err != nil {
		return nil, err
	}
	if need := a.region.Remote().Size; remote.Size < need {
		return nil, fmt.Errorf("bench verbs: the other end has a region of %d bytes, %d are needed: start it with --size %d", remote.Size, need, o.Size)
	}
	if err := a.qp.Connect(exchange, answer.QueuePair); err != nil {
		return nil, err
	}
	return measure(ctx, a, remote, o)
}
