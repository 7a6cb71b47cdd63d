//go:build linux && cgo && rdma

package verbs

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// Limits that are ours, where a device may have more.
const (
	// maxDepth is what devices allow with inline payloads in their queues.
	maxDepth = 4096
	// maxRegion is more than any machine has.
	maxRegion = 1 << 40
	// maxInFlight is how many READs and atomics a connection may have in flight.
	maxInFlight = 128
)

// Provider implements rdma.Provider over one port of one device.
type Provider struct {
	log     *slog.Logger
	device  string
	context *ibverbs.Context
	pd      *ibverbs.PD
	limits  rdma.Limits
	// here is what all queue pairs of this provider have in common in their
	// addresses; gidIndex is that of here.gid.
	here     endpoint
	gidIndex int
	ledger   rdma.Ledger
	handle   *handle.Handle
	// running are the goroutines of the provider: events, and teardowns of its
	// queue pairs.
	running sync.WaitGroup
	regions regions // the open ones

	mu     sync.Mutex // a leaf
	closed bool
	open   struct{ regions, queues, pairs int }
	// pairs are the open queue pairs by number, queues the open completion queues,
	// for events.
	pairs  map[uint32]*queuePair
	queues map[*completionQueue]bool
}

// Open opens a device, chosen by the options, and tests it with a queue pair
// connected to itself. It takes milliseconds. It fails with rdma.ErrNotSupported
// if there is no device with atomics, or the library or the kernel cannot reach
// it; other errors are of the machine, and say what to do.
func Open(o Options) (*Provider, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.EnsureDefaults()
	devices, err := Devices()
	if err != nil {
		return nil, fmt.Errorf("rdma verbs: %w", err)
	}
	c, err := choose(devices, &o)
	if err != nil {
		return nil, fmt.Errorf("rdma verbs: %w", err)
	}
	p, err := openDevice(&c, &o)
	if err != nil {
		return nil, fmt.Errorf("rdma verbs: device %s: %w", c.device.Name, err)
	}
	if err := p.selfTest(); err != nil {
		return nil, errors.Join(fmt.Errorf("rdma verbs: device %s cannot be trusted: %w", c.device.Name, err), p.Close())
	}
	return p, nil
}

// openDevice opens what was chosen and starts reading its events.
func openDevice(c *choice, o *Options) (p *Provider, err error) {
	context, err := ibverbs.Open(c.device.Name)
	if err != nil {
		return nil, err
	}
	var pd *ibverbs.PD
	defer func() {
		if err != nil {
			if pd != nil {
				err = errors.Join(err, pd.Close())
			}
			err = errors.Join(err, context.Shut(), context.Close())
		}
	}()
	attr, err := context.Attr()
	if err != nil {
		return nil, err
	}
	port, err := context.Port(c.port.Number)
	if err != nil {
		return nil, err
	}
	if pd, err = context.AllocPD(); err != nil {
		return nil, err
	}
	p = &Provider{
		log:      o.Logger.With("device", c.device.Name, "port", c.port.Number),
		device:   c.device.Name,
		context:  context,
		pd:       pd,
		gidIndex: c.gid.Index,
		here: endpoint{
			gid:       c.gid.Addr.As16(),
			lid:       port.LID,
			mtu:       port.ActiveMTU,
			linkLayer: uint8(port.LinkLayer),
			responder: uint8(min(attr.MaxResponderAtomics, maxInFlight)),
			initiator: uint8(min(attr.MaxInitiatorAtomics, maxInFlight)),
			port:      uint8(c.port.Number),
		},
		limits: rdma.Limits{
			MaxMessage:      min(port.MaxMessage, math.MaxInt32),
			MaxSendDepth:    min(attr.MaxWorkRequests, maxDepth),
			MaxReceiveDepth: min(attr.MaxWorkRequests, maxDepth),
			MaxCompletions:  attr.MaxCompletions,
			MaxRegion:       int(min(attr.MaxRegion, maxRegion)),
		},
		pairs:  map[uint32]*queuePair{},
		queues: map[*completionQueue]bool{},
	}
	if p.limits.MaxInline, err = probeInline(context, pd); err != nil {
		return nil, err
	}
	p.handle = handle.Open(p, "verbs provider")
	p.running.Go(p.events)
	return p, nil
}

// probeInline finds out by trying how many bytes may be inline: devices do not
// say, and make queues longer in memory for more.
func probeInline(context *ibverbs.Context, pd *ibverbs.PD) (inline int, err error) {
	cq, err := context.CreateCQ(2)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cq.Shut(), cq.Close()) }()
	for _, inline = range []int{256, 128, 64, 0} {
		var qp *ibverbs.QP
		qp, err = pd.CreateQP(ibverbs.QPOptions{SendCQ: cq, ReceiveCQ: cq, SendDepth: 1, ReceiveDepth: 1, MaxInline: inline})
		if err == nil {
			return inline, qp.Close()
		}
	}
	return 0, err
}

// Name implements rdma.Provider.
func (p *Provider) Name() string { return "verbs" }

// Device is the name of the device that was opened.
func (p *Provider) Device() string { return p.device }

// Limits implements rdma.Provider.
func (p *Provider) Limits() rdma.Limits { return p.limits }

// Counters implements rdma.Provider.
func (p *Provider) Counters() []rdma.PeerCounters { return p.ledger.Counters() }

// enter counts a new handle in kind, one of the fields of open.
func (p *Provider) enter(kind *int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return rdma.ErrClosed
	}
	*kind++
	return nil
}

// leave takes back what enter counted.
func (p *Provider) leave(kind *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*kind--
}

// Close implements rdma.Provider.
func (p *Provider) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	if open := p.open; open.regions+open.queues+open.pairs > 0 {
		p.mu.Unlock()
		return fmt.Errorf("%w: the provider verbs has %d queue pairs, %d completion queues and %d regions open", rdma.ErrInUse, open.pairs, open.queues, open.regions)
	}
	p.closed = true
	p.mu.Unlock()
	err := p.context.Shut()
	p.running.Wait()
	p.handle.Close()
	return errors.Join(err, p.pd.Close(), p.context.Close())
}
