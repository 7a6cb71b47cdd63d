package cluster

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store/remote"
)

// GatewayOptions configures OpenGateway.
type GatewayOptions struct {
	// Leasemgr is the address of the process that RunControl runs. Required.
	Leasemgr string
	// Loader compiles modules. Required.
	Loader leasemgr.Loader
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// RPC says how other processes are reached.
	RPC rpc.Options
	// Logger gets messages. Required.
	Logger *slog.Logger
}

// Gateway is a cluster as a gateway sees it: Fleet executes, Programs is the
// catalogue. It keeps no state: any number of them may run.
type Gateway struct {
	*Fleet
	Programs *leasemgr.Replica
	control  rpc.Conn
	store    *remote.Engine
}

// OpenGateway connects to the control process and reads the catalogue; it blocks
// until that can be reached. The caller calls Run, and Close after it.
func OpenGateway(ctx context.Context, o GatewayOptions) (_ *Gateway, err error) {
	g := &Gateway{}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if g.control, err = DialControl(o.Leasemgr, o.RPC); err != nil {
		return nil, err
	}
	if g.store, err = remote.Dial(o.Leasemgr, remote.Options{RPC: o.RPC, Logger: o.Logger}); err != nil {
		return nil, err
	}
	g.Programs, err = openReplica(ctx, o.Logger, func() (*leasemgr.Replica, error) {
		return leasemgr.NewReplica(ctx, g.store, o.Loader, o.Native, o.Logger, g.control)
	})
	if err != nil {
		return nil, err
	}
	g.Fleet = newFleet(leasemgr.NewClient(g.control), o.RPC, o.Logger)
	return g, nil
}

// Run follows members and catalogue until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Fleet.run(ctx) })
	group.Go(func() error { return g.Programs.Run(ctx) })
	return group.Wait()
}

// Close closes the connections.
func (g *Gateway) Close() (err error) {
	if g.Programs != nil {
		err = g.Programs.Close()
	}
	if g.store != nil {
		err = errors.Join(err, g.store.Close())
	}
	if g.control != nil {
		err = errors.Join(err, g.control.Close())
	}
	return err
}
