package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
)

const (
	workerCount  = 3
	gatewayCount = 2
)

// host runs one role, in one process after another.
type host struct {
	w    *world
	name string
	role func(ctx context.Context, p *process) error

	mu sync.Mutex // guards what follows
	// now is the newest process, cancel ends its context.
	now    *process
	cancel context.CancelFunc
	// held keeps it from starting again until release.
	held bool
	// free is closed when it is not held.
	free chan struct{}
	// worker and handler are of the newest process, once it has them.
	worker  *worker.Worker
	handler http.Handler
}

// restart is how long a host takes until the next process runs.
var restart = span{5 * time.Millisecond, 300 * time.Millisecond}

// raise starts all hosts.
func (w *world) raise() {
	w.control = w.newHost("control", w.runControl)
	for i := range workerCount {
		h := w.newHost(fmt.Sprint("w", i+1), nil)
		h.role = h.runWorker()
		w.workers = append(w.workers, h)
	}
	for i := range gatewayCount {
		h := w.newHost(fmt.Sprint("g", i+1), nil)
		h.role = h.runGateway
		w.gateways = append(w.gateways, h)
	}
	for _, h := range w.hosts() {
		spawn(h.live)
	}
}

func (w *world) hosts() []*host {
	return append(append([]*host{w.control}, w.workers...), w.gateways...)
}

func (w *world) newHost(name string, role func(context.Context, *process) error) *host {
	return &host{w: w, name: name, role: role, free: make(chan struct{})}
}

// live runs process after process.
func (h *host) live() {
	for h.w.sleep(h.w.draw(restart)) {
		h.mu.Lock()
		free := h.free
		if !h.held {
			free = nil
		}
		h.mu.Unlock()
		if free != nil {
			select {
			case <-free:
			case <-h.w.over:
			}
			continue
		}
		h.once()
	}
}

// once runs one process until it ends or is killed. What is left of one that was
// killed ends by and by, and nobody waits for it.
func (h *host) once() {
	p := h.w.net.boot(h.name)
	ctx, cancel := context.WithCancel(context.Background())
	h.mu.Lock()
	h.now, h.cancel, h.worker, h.handler = p, cancel, nil, nil
	h.mu.Unlock()
	ended := make(chan error, 1)
	spawn(func() { ended <- h.role(ctx, p) })
	select {
	case err := <-ended:
		h.w.log.Info("a process has ended", "host", h.name, "err", err)
		h.bury(p)
	case <-p.dead:
	}
}

// bury cuts a process off from everything.
func (h *host) bury(p *process) {
	h.mu.Lock()
	cancel := h.cancel
	h.mu.Unlock()
	p.kill()
	cancel()
	switch h.name[0] {
	case 'w':
		h.w.fabric.Crash(h.name)
	case 'c':
		h.w.disk.Crash()
	}
}

// crash kills the process that runs now.
func (h *host) crash(why string) {
	h.mu.Lock()
	p := h.now
	h.mu.Unlock()
	if p != nil && p.alive() {
		h.w.log.Warn("CRASH", "host", h.name, "why", why)
		h.w.count("crashes of "+h.kind(), 1)
		h.bury(p)
	}
}

func (h *host) kind() string { return strings.TrimRight(h.name, "0123456789") }

// hold keeps the host from starting a process, or lets it.
func (h *host) hold(held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held && !held {
		close(h.free)
		h.free = make(chan struct{})
	}
	h.held = held
}

// process is the newest one; nil before the first.
func (h *host) process() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// pause makes the newest process stand still, or go on.
func (h *host) pause(still bool) {
	if p := h.process(); p != nil {
		p.pause(still)
	}
}

// clock is that of a process: it has its own beginning, and runs fast or slow.
func (w *world) clock() func() time.Duration {
	begun, offset := w.now(), w.draw(span{0, time.Hour})
	rate := 1 + (w.draw(span{0, 40 * time.Millisecond}) - 20*time.Millisecond).Seconds()
	return func() time.Duration { return offset + time.Duration(float64(w.now()-begun)*rate) }
}

// options are those of a process's connections.
func (p *process) options() rpc.Options { return rpc.Options{Plain: true, Network: p} }

// listener has an address and accepts nothing: calls come over the network.
type listener string

func (l listener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l listener) Close() error              { return nil }
func (l listener) Addr() net.Addr            { return address(l) }

// noModules is a loader: all functions are compiled in.
type noModules struct{}

// Load implements leasemgr.Loader.
func (noModules) Load(context.Context, string, []byte, bool) (runtime.Bundle, error) {
	return nil, errors.New("a simulation has no modules")
}

func (w *world) runControl(ctx context.Context, p *process) error {
	engine, err := w.disk.Open()
	if err != nil {
		w.fail("open the disk: %v", err)
		return err
	}
	return cluster.RunControl(ctx, cluster.Control{
		Engine: &gated{Engine: engine, process: p}, Loader: noModules{}, Native: natives(), Server: p.server, Listener: listener(p.host),
		Clock: w.clock(), Logger: w.log.With("host", p.host),
	})
}

// runWorker is the role of a worker.
func (h *host) runWorker() func(ctx context.Context, p *process) error {
	return func(ctx context.Context, p *process) error {
		provider, err := h.w.fabric.Open(h.name)
		if err != nil {
			h.w.fail("open the device of %s: %v", h.name, err)
			return err
		}
		log := h.w.log.With("host", h.name)
		return cluster.RunWorker(ctx, cluster.Worker{
			Leasemgr: address("control").String(), Address: address(h.name).String(), Name: h.name,
			Provider: &device{provider, p}, Loader: noModules{}, Native: natives(), RPC: p.options(), Server: p.server, Listener: listener(h.name),
			Options: worker.Options{CacheBytes: 4 << 20, Timeout: 10 * time.Second, OnPanic: func(fault any, stack []byte) {
				if p.alive() {
					h.w.fail("worker %s panics: %v\n%s", h.name, fault, stack)
				}
				select {} // it must not return
			}},
			Clock: h.w.clock(), Logger: log,
			Started: func(x *worker.Worker) {
				h.mu.Lock()
				defer h.mu.Unlock()
				if h.now == p {
					h.worker = x
				}
			},
		})
	}
}

// runGateway is the role of a gateway.
func (h *host) runGateway(ctx context.Context, p *process) error {
	log := h.w.log.With("host", h.name)
	c, err := cluster.OpenGateway(ctx, cluster.GatewayOptions{Leasemgr: address("control").String(), Loader: noModules{}, Native: natives(), RPC: p.options(), Logger: log})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the process ends
	g, err := gateway.New(gateway.Options{Logger: log, Timeout: 10 * time.Second}, c, c.Programs, prometheus.NewRegistry())
	if err != nil {
		h.w.fail("gateway: %v", err)
		return err
	}
	spawn(func() {
		if c.Ready(ctx) == nil {
			g.Serve()
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.now == p {
				h.handler = g.Handler()
			}
		}
	})
	return c.Run(ctx)
}
