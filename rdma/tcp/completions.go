package tcp

import (
	"context"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// completionQueue is the shared queue with a quicker way to wake one sleeper.
// Whoever has pushed completions calls notify.
type completionQueue struct {
	*queue.Completions
	provider *Provider
	spin     time.Duration
	bell     bell
	isClosed bool // guarded by provider.mu
}

// Close implements rdma.CompletionQueue.
func (q *completionQueue) Close() error {
	p := q.provider
	p.mu.Lock()
	if q.isClosed {
		p.mu.Unlock()
		return nil
	}
	if err := q.Completions.Close(); err != nil {
		p.mu.Unlock()
		return err
	}
	q.isClosed = true
	p.queues--
	p.mu.Unlock()
	return q.bell.close()
}

// Wait implements rdma.CompletionQueue.
func (q *completionQueue) Wait(ctx context.Context, dst []rdma.Completion) (int, error) {
	return q.bell.wait(ctx, q, dst)
}

// notify wakes a sleeping Wait after a push.
func (q *completionQueue) notify() { q.bell.ring() }
