package remote

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// entry is an appended batch that is not known to be durable.
type entry struct {
	view       base.View
	operations []byte
	// done is closed when the batch is durable or the pipeline is lost; nil if
	// nobody waits.
	done chan struct{}
}

// pipeline is the bookkeeping of a member's batches on their way to the log.
// It is not safe for concurrent use: Engine.mu guards it.
//
//	        durable          sent           appended
//	... done  | on the way    | not sent yet  |
//
// entries are those of (durable, appended].
type pipeline struct {
	durable, sent, appended base.Number
	entries                 []*entry
	// bytes are those of all entries.
	bytes int
	// view is the least label that Append takes: that of the last SetView.
	view base.View
	// held is the number of the batch that the seal refused and from which on
	// nothing is sent until SetView; 0 if nothing is held. seal is what refused
	// it, or the greatest seal heard of.
	held base.Number
	seal base.View
	// room is closed when entries leave; nil if nobody waits.
	room chan struct{}
	// lost is why no batch will be sent any more; nil while the member may
	// commit.
	lost error
}

func (p *pipeline) fits(size, maxBytes, maxBatches int) bool {
	return len(p.entries) == 0 || len(p.entries) < maxBatches && p.bytes+size <= maxBytes
}

// push numbers a batch.
func (p *pipeline) push(view base.View, operations []byte) base.Number {
	p.appended++
	p.entries = append(p.entries, &entry{view: view, operations: operations})
	p.bytes += len(operations)
	return p.appended
}

// at returns the entry of batch n, which is in (durable, appended].
func (p *pipeline) at(n base.Number) *entry { return p.entries[n-p.durable-1] }

// welcome begins a stream on which the server says that batches up to applied
// are in its log: what is behind them is sent (again).
func (p *pipeline) welcome(applied base.Number) error {
	if applied < p.durable {
		return base.Errorf(base.Internal, "the store has batches up to %d and had acknowledged %d: it lost data", applied, p.durable)
	}
	if applied > p.appended {
		return base.Errorf(base.Internal, "the store has batches up to %d and %d were appended here: two processes commit as one member", applied, p.appended)
	}
	p.sent, p.held = applied, 0
	return nil
}

// acknowledge takes the durable entries out and wakes who waits for them.
func (p *pipeline) acknowledge(n base.Number) error {
	if n > p.sent {
		return base.Errorf(base.Internal, "the store acknowledged batch %d, the last one sent is %d", n, p.sent)
	}
	if n <= p.durable {
		return nil
	}
	gone := p.entries[:n-p.durable]
	for i, e := range gone {
		p.bytes -= len(e.operations)
		if e.done != nil {
			close(e.done)
		}
		gone[i] = nil
	}
	p.entries = p.entries[len(gone):]
	p.durable = n
	p.wakeAppenders()
	return nil
}

func (p *pipeline) wakeAppenders() {
	if p.room != nil {
		close(p.room)
		p.room = nil
	}
}

// refuse takes note that the seal refused batch n and what was sent behind it.
// held is false if the batch was relabelled meanwhile and is sent again.
func (p *pipeline) refuse(n base.Number, seal base.View) (held bool, err error) {
	if n <= p.durable || n > p.sent {
		return false, base.Errorf(base.Internal, "the store refused batch %d, those on the way are %d to %d", n, p.durable+1, p.sent)
	}
	p.seal = max(p.seal, seal)
	p.sent = n - 1
	if p.at(n).view >= seal {
		return false, nil
	}
	p.held = n
	return true, nil
}

// setView relabels the entries and lets those that the seal refused go again.
func (p *pipeline) setView(v base.View) {
	if v <= p.view {
		return
	}
	p.view = v
	for _, e := range p.entries {
		if !plant.Is(plant.BatchKeepsView) {
			e.view = max(e.view, v)
		}
	}
	if p.held != 0 && p.at(p.held).view >= p.seal {
		p.held = 0
	}
}

// frame takes the next batches to send, at most so many and so large; nil if
// there are none.
func (p *pipeline) frame() *rpcpb.StoreFrame {
	if p.lost != nil || p.held != 0 || p.sent == p.appended {
		return nil
	}
	f := &rpcpb.StoreFrame{First: uint64(p.sent) + 1}
	for size := 0; p.sent < p.appended && len(f.Batches) < maxFrameBatches; p.sent++ {
		e := p.at(p.sent + 1)
		if size += len(e.operations); size > maxFrameBytes && len(f.Batches) > 0 {
			break
		}
		f.Batches = append(f.Batches, &rpcpb.StoreBatch{View: uint32(e.view), Operations: e.operations})
	}
	return f
}

// lose gives the rest of the pipeline up and wakes everybody.
func (p *pipeline) lose(err error) {
	if p.lost != nil {
		return
	}
	p.lost = err
	for _, e := range p.entries {
		if e.done != nil {
			close(e.done)
			e.done = nil
		}
	}
	p.wakeAppenders()
}

// outcome is what a lost pipeline says about batch n, which is not known to be
// durable. What the seal refused and was not sent again has not happened.
func (p *pipeline) outcome(n base.Number) error {
	if p.held != 0 && n >= p.held || n > p.sent {
		return &base.Error{Kind: base.Unavailable, Err: p.lost,
			Detail: fmt.Sprintf("batch %d was not applied, and this worker may not commit any more", n)}
	}
	return &base.Error{Kind: base.Unavailable, Unknown: true, Err: p.lost,
		Detail: fmt.Sprintf("batch %d was sent and not acknowledged, and this worker may not commit any more: the outcome is unknown", n)}
}
