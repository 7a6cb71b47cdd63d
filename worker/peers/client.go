package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// Options configures New.
type Options struct {
	// RPC is how members are reached: what their servers were made with.
	RPC rpc.Options
	// CallTimeout bounds a call, connecting included; 0 means 5 s.
	CallTimeout time.Duration
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	o.RPC.EnsureDefaults()
	if o.CallTimeout == 0 {
		o.CallTimeout = 5 * time.Second
	}
}

// Peers is the leases.Peers of a process whose members are reached over the
// network, itself included. It is safe for concurrent use.
type Peers struct {
	options Options

	// mu guards what follows; nothing is called with it held that waits.
	mu sync.Mutex
	// book has the address of each member.
	book map[lease.Member]string
	// connections are to addresses in book only, made at the first call.
	connections map[string]rpc.Conn
	closed      bool
}

var _ leases.Peers = (*Peers)(nil)

// New returns Peers with an empty address book. The caller closes it.
func New(o Options) *Peers {
	o.EnsureDefaults()
	return &Peers{options: o, connections: map[string]rpc.Conn{}}
}

// SetMembers replaces the address book: for each member the HOST:PORT at which
// its process serves Register. Connections to processes none of whose members stays
// are closed, and calls under way on them end with an error: another process may
// have their addresses now, and a connection that has failed for some time waits
// before it tries again. Call it before the view with these members is installed.
// It keeps nothing of addresses.
func (p *Peers) SetMembers(addresses map[lease.Member]string) error {
	if len(addresses) > int(lease.MaxWorker) {
		return base.Errorf(base.TooLarge, "%d members, a view has at most %d", len(addresses), lease.MaxWorker)
	}
	book, stays := maps.Clone(addresses), map[string]bool{}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return closedError()
	}
	for member, address := range book {
		if p.book[member] == address {
			stays[address] = true
		}
	}
	p.book = book
	var gone []rpc.Conn
	for address, conn := range p.connections {
		if !stays[address] {
			gone = append(gone, conn)
			delete(p.connections, address)
		}
	}
	p.mu.Unlock()
	return closeAll(gone)
}

// Close closes all connections; calls under way end with an error. It may be
// called again.
func (p *Peers) Close() error {
	p.mu.Lock()
	var all []rpc.Conn
	for _, conn := range p.connections {
		all = append(all, conn)
	}
	p.book, p.connections, p.closed = nil, nil, true
	p.mu.Unlock()
	return closeAll(all)
}

func closeAll(connections []rpc.Conn) error {
	var errs []error
	for _, conn := range connections {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func closedError() error {
	return base.Errorf(base.Unavailable, "this process is on its way out and calls nobody any more")
}

// client returns the service of a member.
func (p *Peers) client(to lease.Member) (rpcpb.PeersClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, closedError()
	}
	address, known := p.book[to]
	if !known {
		return nil, base.Errorf(base.Unavailable, "it is not a member of the newest view that is known here")
	}
	conn := p.connections[address]
	if conn == nil {
		var err error
		if conn, err = rpc.Dial(address, p.options.RPC); err != nil { // does not block
			return nil, err
		}
		p.connections[address] = conn
	}
	return rpcpb.NewPeersClient(conn), nil
}

// call makes one call to a member, in time.
func (p *Peers) call(ctx context.Context, what string, to lease.Member, do func(context.Context, rpcpb.PeersClient) (rpcpb.PeersRefusal, error)) error {
	client, err := p.client(to)
	if err == nil {
		var refusal rpcpb.PeersRefusal
		ctx, cancel := context.WithTimeout(ctx, p.options.CallTimeout)
		defer cancel()
		if refusal, err = do(ctx, client); err == nil {
			err = errorOf(refusal)
		}
	}
	if err != nil {
		return fmt.Errorf("%s worker %d, incarnation %d: %w", what, to.Worker, to.Incarnation, err)
	}
	return nil
}

// Exchange implements leases.Peers. Beside mesh.ErrNotMember it returns errors
// with a base.Kind; after one with Unknown the member may have accepted.
func (p *Peers) Exchange(ctx context.Context, to lease.Member, offer mesh.Offer) (answer mesh.Offer, err error) {
	if offer.To != to {
		return mesh.Offer{}, base.Invalidf("offer", "it is for worker %d, incarnation %d, and goes to worker %d, incarnation %d", offer.To.Worker, offer.To.Incarnation, to.Worker, to.Incarnation)
	}
	err = p.call(ctx, "offer a link to", to, func(ctx context.Context, c rpcpb.PeersClient) (rpcpb.PeersRefusal, error) {
		reply, err := c.Exchange(ctx, offerToWire(&offer))
		if err != nil || reply.GetRefusal() != rpcpb.PeersRefusal_PEERS_REFUSAL_NONE {
			return reply.GetRefusal(), err
		}
		if answer, err = offerFromWire(reply.GetAnswer()); err != nil {
			return 0, base.Errorf(base.Internal, "its answer cannot be used: %v", err)
		}
		return 0, nil
	})
	return answer, err
}

// Report implements leases.Peers. The slots may come in any order.
func (p *Peers) Report(ctx context.Context, to, from lease.Member, v base.View, slots []base.Slot) error {
	encoded, err := encodeSlots(slots)
	if err != nil {
		return err
	}
	return p.call(ctx, "report to", to, func(ctx context.Context, c rpcpb.PeersClient) (rpcpb.PeersRefusal, error) {
		reply, err := c.Report(ctx, &rpcpb.HoldingsReport{From: memberToWire(from), To: memberToWire(to), View: uint32(v), Slots: encoded})
		return reply.GetRefusal(), err
	})
}

// Ready implements leases.Peers.
func (p *Peers) Ready(ctx context.Context, to, from lease.Member, v base.View) error {
	return p.call(ctx, "tell", to, func(ctx context.Context, c rpcpb.PeersClient) (rpcpb.PeersRefusal, error) {
		reply, err := c.Ready(ctx, &rpcpb.ReadyNotice{From: memberToWire(from), To: memberToWire(to), View: uint32(v)})
		return reply.GetRefusal(), err
	})
}
