// Package node assembles a whole Tenure server in one process: store,
// membership, runtimes, catalogue, worker and gateway, and owns its start and
// its stop. `tenure dev` and cmd/worker run it; tests start it in-process or as
// a child.
//
// Start order: store, view (the store is sealed for it), runtimes, catalogue,
// worker, listener, gateway open. Stop order, on the end of Run's context:
// refuse new invocations, let running ones end, close the listener and its
// connections, then catalogue, runtime and store. Whatever was acknowledged is
// durable at every moment in between.
//
// Start reading at Run.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
)

// Options configures a Node.
type Options struct {
	// Listen is the HTTP address; empty means 127.0.0.1:8088. Port 0 picks one.
	Listen string
	// Data is the data directory; it is created if absent. Required.
	Data string
	// Workers is how many workers run in the process, passing leases among
	// themselves; 0 means one, which is alone and holds all.
	Workers int
	// Provider is how several workers reach each other's memory: verbs, shm or tcp;
	// empty means the best that works here.
	Provider string
	// Native are functions compiled into the process, by name.
	Native map[string]runtime.Bundle
	// DrainTimeout bounds how long running invocations may take to end at a
	// stop; 0 means 30 s.
	DrainTimeout time.Duration
	// Store, Wasm, Worker and Gateway configure the parts; their directories,
	// view and logger are set by the node.
	Store   pebble.Options
	Wasm    wasm.Options
	Worker  worker.Options
	Gateway gateway.Options
	// Logger gets the messages of all parts; nil means slog.Default.
	Logger *slog.Logger
	// Ready is called with the base URL when the node accepts requests; nil:
	// nobody is told. It runs on a goroutine of its own, and an error from it
	// stops the node.
	Ready func(ctx context.Context, url string) error
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:8088"
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Store.Dir = filepath.Join(o.Data, "store")
	o.Wasm.CacheDir = filepath.Join(o.Data, "cache", "wasm")
	o.Store.Logger, o.Worker.Logger, o.Gateway.Logger = o.Logger, o.Logger, o.Logger
}

// Run starts a node, serves until ctx ends, and stops in order. It returns nil
// after an orderly stop.
func Run(ctx context.Context, opt Options) (err error) {
	opt.EnsureDefaults()
	if opt.Data == "" {
		return errors.New("node: Options.Data is required")
	}
	if opt.Workers < 1 {
		return fmt.Errorf("node: %d workers, at least one is needed", opt.Workers)
	}
	engine, err := pebble.Open(opt.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()

	rt, err := wasm.New(ctx, opt.Wasm)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), opt.DrainTimeout)
		defer cancel()
		err = errors.Join(err, rt.Close(stop))
	}()
	n, err := assemble(ctx, opt, engine, rt)
	if err != nil {
		return err
	}
	return n.serve(ctx)
}

// node is the assembled server.
type node struct {
	opt     Options
	workers workforce
	gateway *gateway.Gateway
	listen  net.Listener
	server  *http.Server
}

func assemble(ctx context.Context, opt Options, engine store.Engine, rt *wasm.Runtime) (*node, error) {
	listener, err := net.Listen("tcp", opt.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", opt.Listen, err)
	}
	n, err := build(ctx, opt, engine, rt, listener)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return n, nil
}

func build(ctx context.Context, opt Options, engine store.Engine, rt *wasm.Runtime, listener net.Listener) (*node, error) {
	catalogue, err := leasemgr.NewCatalogue(ctx, engine, loader{rt}, opt.Native, opt.Logger)
	if err != nil {
		return nil, err
	}
	workers, executor, err := employ(ctx, opt, engine, listener.Addr().String())
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if c, many := workers.(*inProcess); many {
		registry.MustRegister(newMetrics(c))
	}
	g, err := gateway.New(opt.Gateway, executor, catalogue, registry)
	if err != nil {
		return nil, err
	}
	return &node{opt: opt, workers: workers, gateway: g, listen: listener, server: gateway.NewHTTPServer(opt.Gateway, g.Handler())}, nil
}

// workforce is what executes invocations.
type workforce interface {
	// run runs until ctx ends.
	run(ctx context.Context) error
	// ready waits until invocations can be executed.
	ready(ctx context.Context) error
	// drain refuses new invocations and waits for those that run.
	drain(ctx context.Context) error
}

// employ makes one worker, or several.
func employ(ctx context.Context, opt Options, engine store.Engine, address string) (workforce, gateway.Executor, error) {
	opt.Worker.EnsureDefaults()
	if opt.Workers > 1 {
		c, err := newCluster(ctx, opt, engine)
		return c, &router{inProcess: c}, err
	}
	members, err := leasemgr.Admit(engine, opt.Worker.Name)
	if err != nil {
		return nil, nil, err
	}
	opt.Worker.View = members.View
	w, err := worker.New(opt.Worker, engine)
	return alone{w}, executor{w, address}, err
}

// alone is the one worker of a process.
type alone struct{ *worker.Worker }

func (a alone) run(ctx context.Context) error   { return a.Run(ctx) }
func (a alone) ready(context.Context) error     { return nil }
func (a alone) drain(ctx context.Context) error { return a.Drain(ctx) }

// serve runs the node's goroutines until ctx ends or one of them fails, then
// stops them in order.
func (n *node) serve(ctx context.Context) error {
	// The parts outlive ctx until they are drained.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, failed := errgroup.WithContext(running)
	group.Go(func() error { return n.workers.run(running) })
	group.Go(func() error {
		if err := n.server.Serve(n.listen); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	opened := make(chan struct{}) // closed when the gateway is open, or will not be
	group.Go(func() error {
		ready, cancel := context.WithCancel(failed)
		defer context.AfterFunc(ctx, cancel)()
		defer cancel()
		if err := n.open(ready, opened); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	group.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
		<-opened
		return n.drain(context.WithoutCancel(ctx))
	})
	return group.Wait()
}

// open lets invocations in when there are workers, and says so.
func (n *node) open(ctx context.Context, opened chan<- struct{}) error {
	err := n.workers.ready(ctx)
	if err == nil {
		n.gateway.Serve()
	}
	close(opened)
	if err != nil {
		return err
	}
	url := "http://" + n.listen.Addr().String()
	n.opt.Logger.Info("serving", "url", url, "data", n.opt.Data)
	if n.opt.Ready == nil {
		return nil
	}
	return n.opt.Ready(ctx, url)
}

// drain ends the service in order; it waits at most Options.DrainTimeout.
func (n *node) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.opt.DrainTimeout)
	defer cancel()
	n.opt.Logger.Info("stopping: new invocations are refused, running ones end")
	var errs []error
	if err := n.gateway.Drain(ctx); err != nil {
		errs = append(errs, fmt.Errorf("invocations still run at the end of the drain time-out: %w", err))
	}
	if err := n.server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("close HTTP connections: %w", err), n.server.Close())
	}
	if err := n.workers.drain(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// loader adapts the wasm runtime to the catalogue.
type loader struct{ rt *wasm.Runtime }

// Load implements leasemgr.Loader.
func (l loader) Load(ctx context.Context, name string, module []byte, isolate bool) (runtime.Bundle, error) {
	return l.rt.Load(ctx, name, module, isolate)
}
