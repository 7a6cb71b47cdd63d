//go:build !linux

package tcp

import (
	"context"

	"github.com/tenure-faas/tenure/rdma"
)

// bell adds nothing where there is no eventfd: the shared queue wakes its
// sleepers over a channel.
type bell struct{}

func (*bell) open() error { return nil }

func (*bell) close() error { return nil }

func (*bell) ring() {}

func (*bell) wait(ctx context.Context, q *completionQueue, dst []rdma.Completion) (int, error) {
	return q.Completions.Wait(ctx, dst)
}
