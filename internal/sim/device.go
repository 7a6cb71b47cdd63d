package sim

import (
	"context"

	"github.com/tenure-faas/tenure/rdma"
)

// device is the provider of a process: that of the fabric, behind the process's
// gate. One-sided verbs of others reach the memory of a process that stands still,
// as they do where a NIC executes them; what it posts itself waits.
type device struct {
	rdma.Provider
	process *process
}

// NewCompletionQueue implements rdma.Provider.
func (d *device) NewCompletionQueue(o rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	q, err := d.Provider.NewCompletionQueue(o)
	return &completions{q, d.process}, err
}

// NewQueuePair implements rdma.Provider.
func (d *device) NewQueuePair(o rdma.QueuePairOptions) (rdma.QueuePair, error) {
	if q, ok := o.SendCQ.(*completions); ok {
		o.SendCQ = q.CompletionQueue
	}
	if q, ok := o.ReceiveCQ.(*completions); ok {
		o.ReceiveCQ = q.CompletionQueue
	}
	q, err := d.Provider.NewQueuePair(o)
	return &queuePair{q, d.process}, err
}

// completions is a completion queue of a device.
type completions struct {
	rdma.CompletionQueue
	process *process
}

// Wait implements rdma.CompletionQueue.
func (c *completions) Wait(ctx context.Context, dst []rdma.Completion) (int, error) {
	n, err := c.CompletionQueue.Wait(ctx, dst)
	c.process.gate()
	return n, err
}

// queuePair is one of a device.
type queuePair struct {
	rdma.QueuePair
	process *process
}

// Connect implements rdma.QueuePair.
func (q *queuePair) Connect(ctx context.Context, remote []byte) error {
	q.process.gate()
	return q.QueuePair.Connect(ctx, remote)
}

// Post implements rdma.QueuePair.
func (q *queuePair) Post(requests []rdma.WorkRequest) (int, error) {
	q.process.gate()
	return q.QueuePair.Post(requests)
}

// Revoke implements rdma.QueuePair.
func (q *queuePair) Revoke(ctx context.Context) error {
	q.process.gate()
	return q.QueuePair.Revoke(ctx)
}

// Close implements rdma.QueuePair.
func (q *queuePair) Close() error {
	q.process.gate()
	return q.QueuePair.Close()
}
