package node

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/service"
)

// WorkerOptions configures RunWorker.
type WorkerOptions struct {
	// Leasemgr is the address of the process that RunControl runs. Required.
	Leasemgr string
	// Listen is the address of this worker's control plane; empty means a free port of
	// 127.0.0.1. Advertise is the address at which the others reach it; empty means
	// what it listens on.
	Listen, Advertise string
	// Name is the worker's, which it keeps across restarts. Required.
	Name string
	// Demand says how the memory of the other workers is to be reached.
	Demand machine.Demand
	// RPC says how connections are protected.
	RPC rpc.Options
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// Worker and Wasm configure the parts; the worker's name, cluster and logger are
	// set.
	Worker worker.Options
	Wasm   wasm.Options
	// Logger gets messages; nil means slog.Default.
	Logger *slog.Logger
	// Ready is called with the address when the worker has joined; nil: nobody is
	// told.
	Ready func(address string) error
}

// ErrEvicted ends RunWorker when the worker is no member any more: run it again.
var ErrEvicted = cluster.ErrEvicted

// RunWorker runs one worker of a cluster of processes, in one incarnation, until
// ctx ends, when it leaves in order, or until it is evicted.
func RunWorker(ctx context.Context, opt WorkerOptions) (err error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:0"
	}
	_, verdict := machine.Choose(ctx, opt.Demand)
	provider, err := machine.Open(ctx, verdict, opt.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Close()) }()
	rt, err := wasm.New(ctx, opt.Wasm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRuntime(ctx, rt)) }()
	listener, err := rpc.Listen(opt.Listen, opt.RPC)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // the server closes it
	if opt.Advertise == "" {
		opt.Advertise = listener.Addr().String()
	}
	served := opt.RPC
	served.MaxMessage = service.MessageBytes
	return cluster.RunWorker(ctx, cluster.Worker{
		Leasemgr: opt.Leasemgr, Address: opt.Advertise, Name: opt.Name, Provider: provider, Loader: loader{rt}, Native: opt.Native,
		RPC: opt.RPC, Server: rpc.NewServer(served), Listener: listener, Options: opt.Worker, Logger: opt.Logger, Ready: opt.Ready,
	})
}
