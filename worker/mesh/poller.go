package mesh

import (
	"context"

	"github.com/tenure-faas/tenure/rdma"
)

// batchSize is how many completions the poller takes at once.
const batchSize = 64

// poll takes completions to links and inboxes until ctx ends.
func (m *Mesh) poll(ctx context.Context) {
	var (
		batch  [batchSize]rdma.Completion
		closed []*end
	)
	for {
		// What they left in the queue is taken now, if that empties the queue.
		closed = m.ends.takeClosed(closed)
		n, err := m.wait(ctx, batch[:], len(closed) > 0)
		if err != nil {
			if ctx.Err() == nil {
				m.options.Logger.Error("mesh: the device is lost, all links are down for good", "error", err)
				m.lose(err)
			}
			return
		}
		m.calls.Lock()
		for i := range batch[:n] {
			m.handle(&batch[i])
		}
		m.calls.Unlock()
		m.Flush()
		if n < len(batch) && len(closed) > 0 {
			m.ends.forget(closed)
			clear(closed)
			closed = closed[:0]
		}
	}
}

// wait is Wait of the completion queue; if some ends are closed it may find nothing
// after a time, so that they are forgotten without a second completion. One that
// closes while the poller waits without end is forgotten after the next one.
func (m *Mesh) wait(ctx context.Context, batch []rdma.Completion, closed bool) (int, error) {
	if !closed {
		return m.queue.Wait(ctx, batch)
	}
	short, cancel := context.WithTimeout(ctx, m.options.Timeout)
	defer cancel()
	n, err := m.queue.Wait(short, batch)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		return 0, nil
	}
	return n, err
}

// handle takes one completion. The caller holds calls.
func (m *Mesh) handle(c *rdma.Completion) {
	e := m.ends.find(c.QP)
	if e == nil {
		return
	}
	p := e.peer
	switch {
	case c.Op == rdma.OpReceive:
		p.tally.verbs.Posted(rdma.OpReceive, c.Length)
		if !e.passive {
			p.out.credit(e, c.Imm)
		} else if kind, payload, ok := p.in.next(e, c.Imm); ok {
			p.tally.received.Add(1)
			if err := m.options.Handler.Message(p.member.Worker, kind, payload); err != nil {
				p.in.fail(e, err)
			}
			p.in.pay(e)
		}
	case e.passive:
		if err := c.Err(); err != nil {
			p.tally.verbs.Failed(c.Op)
			p.in.fail(e, err)
		}
		p.in.pay(e)
	default:
		r, swung := p.out.complete(e, c)
		if c.Status != rdma.StatusOK {
			m.reportDown(&p.out)
		}
		if swung {
			m.options.Handler.Swung(r.tag, r.outcome, r.old)
		}
	}
}

// reportDown calls LinkDown if the link is broken and that was not told yet. The
// caller holds calls.
func (m *Mesh) reportDown(l *link) {
	l.mu.Lock()
	due := l.state == stateBroken && !l.silent && !l.gone
	if due {
		l.silent = true
	}
	l.mu.Unlock()
	if due {
		m.options.Handler.LinkDown(l.peer.member.Worker)
	}
}

// lose breaks all links when there will be no more completions.
func (m *Mesh) lose(cause error) {
	for _, p := range m.view.Load().all {
		p.out.mu.Lock()
		p.out.failLocked(p.out.end, cause)
		p.out.mu.Unlock()
	}
}

// deliver takes messages of this worker to itself, and refused CAS, to the Handler
// until ctx ends.
func (m *Mesh) deliver(ctx context.Context) {
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return
		}
		m.calls.Lock()
		m.deliverSome()
		m.calls.Unlock()
		m.Flush()
	}
}

// deliverSome empties what is queued at its beginning; the rest has a token of
// its own. The caller holds calls.
func (m *Mesh) deliverSome() {
	s := &m.self
	s.mu.Lock()
	s.messages, m.delivering = m.delivering, s.messages
	s.refused, m.refusing = m.refusing[:0], s.refused
	s.mu.Unlock()
	for _, r := range m.refusing {
		if r.link != nil {
			m.reportDown(r.link)
		}
		m.options.Handler.Swung(r.tag, rdma.NotDone, 0)
	}
	clear(m.refusing)
	me := m.options.Me.Worker
	t := m.tallyOf(me)
	for ; m.delivering.n > 0; m.delivering.pop() {
		kind, payload := m.delivering.front()
		t.received.Add(1)
		if err := m.options.Handler.Message(me, kind, payload); err != nil {
			m.options.Logger.Error("mesh: a message of this worker to itself was refused", "kind", kind, "error", err)
		}
	}
}
