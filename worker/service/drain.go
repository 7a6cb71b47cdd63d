package service

import (
	"context"

	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// Drain implements the service.
func (s *server) Drain(context.Context, *rpcpb.DrainRequest) (*rpcpb.DrainReply, error) {
	s.drain()
	return &rpcpb.DrainReply{}, nil
}

// Drain asks the worker to leave the cluster when its invocations have ended. It
// blocks until the worker has heard of it, which may be asked again.
func (c *Client) Drain(ctx context.Context) error {
	_, err := c.worker.Drain(ctx, &rpcpb.DrainRequest{})
	return err
}
