package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/store/remote"
)

// ControlOptions configures RunControl.
type ControlOptions struct {
	// Listen is the address of the control plane. Required.
	Listen string
	// Data is the data directory; it is created if absent. Required.
	Data string
	// RPC says how connections are protected.
	RPC rpc.Options
	// Members are the times of the membership.
	Members membership.Options
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// Store and Wasm configure the parts; directories and logger are set.
	Store pebble.Options
	Wasm  wasm.Options
	// Logger gets messages; nil means slog.Default.
	Logger *slog.Logger
	// Ready is called with the address when the process serves; nil: nobody is told.
	Ready func(address string) error
}

// RunControl runs the process that a cluster has once: the membership, the
// catalogue, and the store behind them, which workers reach over the control plane. It serves until ctx
// ends. Workers go on with what they hold while it is away, until their membership
// expires, but no commit becomes durable.
func RunControl(ctx context.Context, opt ControlOptions) (err error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Data == "" || opt.Listen == "" {
		return errors.New("node: ControlOptions.Listen and Data are required")
	}
	opt.Store.Dir, opt.Store.Logger = filepath.Join(opt.Data, "store"), opt.Logger
	opt.Wasm.CacheDir = filepath.Join(opt.Data, "cache", "wasm")
	engine, err := pebble.Open(opt.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	manager, err := leasemgr.NewManager(engine, leasemgr.ManagerOptions{
		Options: opt.Members, Seal: engine.Seal, Sealed: engine.Sealed(), Logger: opt.Logger,
	})
	if err != nil {
		return err
	}
	rt, err := wasm.New(ctx, opt.Wasm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRuntime(ctx, rt)) }()
	catalogue, err := leasemgr.NewCatalogue(ctx, engine, loader{rt}, opt.Native, opt.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalogue.Close()) }()
	opt.RPC.MaxMessage = controlMessageBytes
	listener, err := rpc.Listen(opt.Listen, opt.RPC)
	if err != nil {
		return err
	}
	server := rpc.NewServer(opt.RPC)
	leasemgr.RegisterMembers(server, manager)
	leasemgr.RegisterCatalogue(server, catalogue)
	remote.Register(server, engine, remote.ServerOptions{})
	return serveControl(ctx, server, listener, manager.Run, opt.Ready)
}

// drainWait bounds how long running invocations may take to end when a worker
// leaves.
const drainWait = 30 * time.Second

// tellWait bounds how long a worker that leaves tries to tell the leasemgr.
const tellWait = 5 * time.Second

// stopWait bounds how long calls under way may take to end at a stop.
const stopWait = 2 * time.Second

// serveControl serves the control plane and runs what is behind it until ctx ends.
func serveControl(ctx context.Context, server *grpc.Server, listener net.Listener, run func(context.Context) error, ready func(string) error) error {
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

// dialControl connects to the control process, for all services of it.
func dialControl(address string, o rpc.Options) (*grpc.ClientConn, error) {
	o.MaxMessage = controlMessageBytes
	return rpc.Dial(address, o)
}

// controlMessageBytes is the MaxMessage that the services of the control process
// need.
const controlMessageBytes = max(remote.MessageBytes, leasemgr.CatalogueMessageBytes)

// closeRuntime waits for guests to end, for a bounded time.
func closeRuntime(ctx context.Context, rt *wasm.Runtime) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWait)
	defer cancel()
	return rt.Close(ctx)
}

// openReplica reads the catalogue, again and again while the control process
// cannot be reached: processes of a cluster start in any order.
func openReplica(ctx context.Context, log *slog.Logger, read func() (*leasemgr.Replica, error)) (*leasemgr.Replica, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		r, err := read()
		if err == nil || base.KindOf(err) != base.Unavailable {
			return r, err
		}
		log.Warn("the leasemgr cannot be reached; trying again", "err", err)
		if sleep(ctx, pause); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}
