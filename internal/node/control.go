package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
	"github.com/tenure-faas/tenure/store/pebble"
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
	rt, err := wasm.New(ctx, opt.Wasm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRuntime(ctx, rt)) }()
	opt.RPC.MaxMessage = cluster.MessageBytes
	listener, err := rpc.Listen(opt.Listen, opt.RPC)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // the server closes it
	return cluster.RunControl(ctx, cluster.Control{
		Engine: engine, Loader: loader{rt}, Native: opt.Native, Members: opt.Members,
		Server: rpc.NewServer(opt.RPC), Listener: listener, Logger: opt.Logger, Ready: opt.Ready,
	})
}

// drainWait bounds how long running invocations may take to end at a stop.
const drainWait = 30 * time.Second

// closeRuntime waits for guests to end, for a bounded time.
func closeRuntime(ctx context.Context, rt *wasm.Runtime) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWait)
	defer cancel()
	return rt.Close(ctx)
}
