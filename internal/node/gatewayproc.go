package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
)

// GatewayOptions configures RunGateway.
type GatewayOptions struct {
	// Leasemgr is the address of the process that RunControl runs. Required.
	Leasemgr string
	// Listen is the HTTP address; empty means 127.0.0.1:8088. Port 0 picks one.
	Listen string
	// RPC says how connections are protected.
	RPC rpc.Options
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// Wasm and Gateway configure the parts; the logger is set.
	Wasm    wasm.Options
	Gateway gateway.Options
	// Logger gets messages; nil means slog.Default.
	Logger *slog.Logger
	// Ready is called with the base URL when requests are accepted; nil: nobody is
	// told.
	Ready func(ctx context.Context, url string) error
}

// RunGateway runs one gateway of a cluster of processes until ctx ends. It keeps
// no state: any number of them may run.
func RunGateway(ctx context.Context, opt GatewayOptions) (err error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:8088"
	}
	opt.Gateway.Logger = opt.Logger
	rt, err := wasm.New(ctx, opt.Wasm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRuntime(ctx, rt)) }()
	c, err := cluster.OpenGateway(ctx, cluster.GatewayOptions{Leasemgr: opt.Leasemgr, Loader: loader{rt}, Native: opt.Native, RPC: opt.RPC, Logger: opt.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	listener, err := net.Listen("tcp", opt.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", opt.Listen, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &fleetMetrics{c.Fleet, newWaitMetric()})
	g, err := gateway.New(opt.Gateway, c, c.Programs, registry)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	n := &node{
		opt:     Options{DrainTimeout: drainWait, Logger: opt.Logger, Ready: opt.Ready},
		workers: fleet{c}, gateway: g, listen: listener, server: gateway.NewHTTPServer(opt.Gateway, g.Handler()),
	}
	return n.serve(ctx)
}

// fleet is the workers of other processes.
type fleet struct{ *cluster.Gateway }

func (f fleet) run(ctx context.Context) error   { return f.Run(ctx) }
func (f fleet) ready(ctx context.Context) error { return f.Ready(ctx) }

// drain has nothing to wait for: the gateway counts its invocations.
func (f fleet) drain(context.Context) error { return nil }
