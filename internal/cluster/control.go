package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/remote"
)

// Control is what RunControl runs: the parts of the process that a cluster has
// once. All stay the caller's, but Listener, which Server closes.
type Control struct {
	// Engine is the store. Required.
	Engine store.Engine
	// Loader compiles modules. Required.
	Loader leasemgr.Loader
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// Members are the times of the membership.
	Members membership.Options
	// Server serves the control plane on Listener, with messages of MessageBytes.
	// Required.
	Server   rpc.Server
	Listener net.Listener
	// Clock is a clock that never goes back; nil means Go's monotonic one.
	Clock func() time.Duration
	// Logger gets messages. Required.
	Logger *slog.Logger
	// Ready is called with the address when the process serves; nil: nobody is told.
	Ready func(address string) error
}

// RunControl runs membership, catalogue and the store behind them, until ctx ends.
// Workers go on with what they hold while it is away, until their membership
// expires, but no commit becomes durable.
func RunControl(ctx context.Context, c Control) (err error) {
	manager, err := leasemgr.NewManager(c.Engine, leasemgr.ManagerOptions{
		Options: c.Members, Seal: c.Engine.Seal, Sealed: c.Engine.Sealed(), Clock: c.Clock, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	catalogue, err := leasemgr.NewCatalogue(ctx, c.Engine, c.Loader, c.Native, c.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalogue.Close()) }()
	leasemgr.RegisterMembers(c.Server, manager)
	leasemgr.RegisterCatalogue(c.Server, catalogue)
	remote.Register(c.Server, c.Engine, remote.ServerOptions{})
	return serve(ctx, c.Server, c.Listener, manager.Run, c.Ready)
}

const (
	// leaveWait bounds how long running invocations may take to end when a worker
	// leaves.
	leaveWait = 30 * time.Second
	// tellWait bounds how long a worker that leaves tries to tell the leasemgr.
	tellWait = 5 * time.Second
	// stopWait bounds how long calls under way may take to end at a stop.
	stopWait = 2 * time.Second
)

// serve serves the control plane and runs what is behind it until ctx ends.
func serve(ctx context.Context, server rpc.Server, listener net.Listener, run func(context.Context) error, ready func(string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); err != nil {
			return fmt.Errorf("serve the control plane: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		hurry := time.AfterFunc(stopWait, server.Stop)
		defer hurry.Stop()
		server.GracefulStop()
		return nil
	})
	if ready != nil {
		group.Go(func() error { return ready(listener.Addr().String()) })
	}
	return group.Wait()
}

// DialControl connects to the control process, for all services of it.
func DialControl(address string, o rpc.Options) (rpc.Conn, error) {
	o.MaxMessage = MessageBytes
	return rpc.Dial(address, o)
}

// MessageBytes is the MaxMessage that the services of the control process need.
const MessageBytes = max(remote.MessageBytes, leasemgr.CatalogueMessageBytes)

// openReplica reads the catalogue, again and again while the control process
// cannot be reached: processes of a cluster start in any order.
func openReplica(ctx context.Context, log *slog.Logger, read func() (*leasemgr.Replica, error)) (*leasemgr.Replica, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		r, err := read()
		if kind := base.KindOf(err); err == nil || kind != base.Unavailable && kind != base.Timeout {
			return r, err
		}
		log.Warn("the leasemgr cannot be reached; trying again", "err", err)
		if sleep(ctx, pause); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}
