//go:build linux && cgo && rdma

package verbs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

// events reads the asynchronous events of the device until Close.
func (p *Provider) events() {
	for {
		e, err := p.context.NextEvent()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Error("rdma verbs: no more events of the device", "error", err)
			return
		}
		p.handleEvent(&e)
	}
}

func (p *Provider) handleEvent(e *ibverbs.Event) {
	switch e.Type {
	case ibverbs.EventQPFatal, ibverbs.EventQPRequest, ibverbs.EventQPAccess:
		p.mu.Lock()
		q := p.pairs[e.QP]
		p.mu.Unlock()
		if q == nil {
			return // closed meanwhile
		}
		f := &failure{cause: fmt.Errorf("the device broke the connection with %q (%v)", q.options.Peer, e.Type)}
		if e.Type == ibverbs.EventQPFatal {
			f.status = rdma.StatusFatal
		}
		q.fail(f)
	case ibverbs.EventCQError:
		for _, q := range p.openQueues() {
			if q.cq.Is(e) {
				p.log.Error("rdma verbs: a completion queue failed")
				q.fail(fmt.Errorf("the device lost completions (%v)", e.Type))
			}
		}
	case ibverbs.EventDeviceFatal:
		p.log.Error("rdma verbs: the device failed or is being removed; all its connections are broken")
		for _, q := range p.openQueues() {
			q.fail(errors.New("the device failed or was removed"))
		}
	case ibverbs.EventPortError:
		// Connections survive a short break of the link, and time out in a long one.
		p.log.Warn("rdma verbs: the port went down; look at its link: ip link")
	case ibverbs.EventPortActive:
		p.log.Info("rdma verbs: the port is active")
	case ibverbs.EventGIDChange:
		p.log.Warn("rdma verbs: the addresses of the port changed; if its own one is gone, connections break")
	default:
		p.log.Debug("rdma verbs: event of the device", "event", e.Type)
	}
}

func (p *Provider) openQueues() []*completionQueue {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.queues))
}
