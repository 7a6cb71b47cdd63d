package verbs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tenure-faas/tenure/rdma"
)

// Layout of a node's region: a word for atomics, a word for their results, then
// the data.
const (
	wordOffset = 0
	oldOffset  = 8
	dataOffset = 64
)

// node is one end: a provider with one region and one queue pair.
type node struct {
	provider rdma.Provider
	region   rdma.Region
	// sendCQ and receiveCQ are apart, so that who waits for a verb is not woken
	// by a doorbell.
	sendCQ, receiveCQ rdma.CompletionQueue
	qp                rdma.QueuePair

	completions []rdma.Completion
	batch       []rdma.WorkRequest
}

// newNode opens a provider and one end on it. The caller closes both with close.
func newNode(open Opener, name string, o Options) (*node, error) {
	provider, err := open(name)
	if err != nil {
		return nil, err
	}
	n, err := newEnd(provider, "peer of "+name, o)
	if err != nil {
		return nil, errors.Join(err, provider.Close())
	}
	return n, nil
}

// newEnd makes region, queues and queue pair on a provider. The caller closes
// them with closeEnd.
func newEnd(provider rdma.Provider, peer string, o Options) (*node, error) {
	n := &node{provider: provider, completions: make([]rdma.Completion, 64)}
	if err := n.addQueuePair(peer, o); err != nil {
		return nil, errors.Join(err, n.closeEnd())
	}
	return n, nil
}

// addQueuePair fills in the end. What was made before an error is closed by
// closeEnd.
func (n *node) addQueuePair(peer string, o Options) (err error) {
	if n.region, err = n.provider.Register(dataOffset + o.Size); err != nil {
		return err
	}
	const receiveDepth = 16
	depth := min(o.Batch, n.provider.Limits().MaxSendDepth)
	if n.sendCQ, err = n.provider.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: depth, Spin: o.Spin}); err != nil {
		return err
	}
	if n.receiveCQ, err = n.provider.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: receiveDepth, Spin: o.Spin}); err != nil {
		return err
	}
	n.qp, err = n.provider.NewQueuePair(rdma.QueuePairOptions{Peer: peer, SendCQ: n.sendCQ, ReceiveCQ: n.receiveCQ,
		SendDepth: depth, ReceiveDepth: receiveDepth, Timeout: opTimeout / 2})
	return err
}

// close closes the end, then the provider.
func (n *node) close() error { return errors.Join(n.closeEnd(), n.provider.Close()) }

func (n *node) closeEnd() error {
	var errs []error
	if n.qp != nil {
		errs = append(errs, n.qp.Close())
	}
	for _, q := range []rdma.CompletionQueue{n.sendCQ, n.receiveCQ} {
		if q != nil {
			errs = append(errs, q.Close())
		}
	}
	if n.region != nil {
		errs = append(errs, n.region.Close())
	}
	return errors.Join(errs...)
}

// do posts requests, of which the last is signaled, and waits for it.
func (n *node) do(ctx context.Context, requests []rdma.WorkRequest) error {
	for len(requests) > 0 {
		posted, err := n.qp.Post(requests)
		if err != nil && !errors.Is(err, rdma.ErrQueueFull) {
			return err
		}
		if posted == len(requests) {
			return n.await(ctx, requests[posted-1].ID)
		}
		requests = requests[posted:]
		if err := n.await(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// await polls until the completion of request id; 0 means any.
func (n *node) await(ctx context.Context, id uint64) error {
	for {
		k, err := n.sendCQ.Wait(ctx, n.completions)
		if err != nil {
			return err
		}
		for i := range n.completions[:k] {
			if err := n.completions[i].Err(); err != nil {
				return err
			}
			if id == 0 || n.completions[i].ID == id {
				return nil
			}
		}
	}
}

// answer answers each doorbell of the peer by one of its own until stop, which
// returns why it ended before. The peer does not get an answer then, and gives up
// by itself.
func (n *node) answer(remote rdma.RemoteRegion) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		doorbells := make([]rdma.Completion, 16)
		bell := []rdma.WorkRequest{rdma.WriteImm(0, rdma.Local{}, remote, wordOffset, 1)}
		for {
			k, err := n.receiveCQ.Wait(ctx, doorbells)
			for ; k > 0 && err == nil; k-- {
				err = n.do(ctx, bell)
			}
			if errors.Is(err, context.Canceled) {
				return
			}
			if err != nil {
				failed = fmt.Errorf("answer a doorbell: %w", err)
				return
			}
		}
	})
	return func() error { cancel(); wg.Wait(); return failed }
}

// casesOf returns the cases from n against the remote region.
func casesOf(n *node, remote rdma.RemoteRegion, o Options) []*benchCase {
	data := n.region.Local(dataOffset, o.Size)
	old := n.region.Local(oldOffset, 8)
	cases := []*benchCase{
		n.verb("READ", o, rdma.Read(1, data, remote, dataOffset)),
		n.verb("WRITE", o, rdma.Write(1, data, remote, dataOffset)),
		n.verb("CAS", o, rdma.CAS(1, old, remote, wordOffset, 0, 0)),
		n.verb("FAA", o, rdma.FAA(1, old, remote, wordOffset, 0)),
	}
	if o.Size <= n.provider.Limits().MaxInline {
		inline := rdma.Write(1, data, remote, dataOffset)
		inline.Flags |= rdma.Inline
		cases = append(cases, n.verb("WRITE inline", o, inline))
	}
	bell := []rdma.WorkRequest{rdma.WriteImm(1, rdma.Local{}, remote, wordOffset, 1)}
	doorbells := make([]rdma.Completion, 16)
	return append(cases, &benchCase{name: "doorbell and back", patience: opTimeout, one: func(ctx context.Context) error {
		if err := n.do(ctx, bell); err != nil {
			return err
		}
		k, err := n.receiveCQ.Wait(ctx, doorbells)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return errors.Join(fmt.Errorf("no doorbell came back: %w", err), n.qp.Err())
		case err == nil && k != 1:
			return fmt.Errorf("%d doorbells came back, not 1", k)
		}
		return err
	}})
}

// verb makes the case of one verb, alone and in batches of which only the last
// request is signaled.
func (n *node) verb(name string, o Options, w rdma.WorkRequest) *benchCase {
	one := []rdma.WorkRequest{w}
	many := make([]rdma.WorkRequest, o.Batch)
	for i := range many {
		many[i] = w
		many[i].Flags &^= rdma.Signaled
		// A batch beyond the queue is posted in parts: each needs an end that says
		// that it is done.
		if (i+1)%n.provider.Limits().MaxSendDepth == 0 || i == len(many)-1 {
			many[i].Flags |= rdma.Signaled
		}
		many[i].ID = uint64(i + 1)
	}
	return &benchCase{name: name, size: int(w.Local.Length), batch: o.Batch, patience: opTimeout,
		one:  func(ctx context.Context) error { return n.do(ctx, one) },
		many: func(ctx context.Context) error { return n.do(ctx, many) }}
}
