package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store/remote"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/peers"
	"github.com/tenure-faas/tenure/worker/service"
	"golang.org/x/sync/errgroup"
)

// Worker is what RunWorker runs: the parts of one worker's process. All stay the
// caller's, but Listener, which Server closes.
type Worker struct {
	// Leasemgr is the address of the process that RunControl runs. Required.
	Leasemgr string
	// Address is the one at which the other processes reach this worker. Required.
	Address string
	// Name is the worker's, which it keeps across restarts. Required.
	Name string
	// Provider is how the memory of the other workers is reached. Required.
	Provider rdma.Provider
	// Loader compiles modules. Required.
	Loader leasemgr.Loader
	// Native are functions compiled into all processes of the cluster, by name.
	Native map[string]runtime.Bundle
	// RPC says how other processes are reached.
	RPC rpc.Options
	// Server serves this worker's control plane on Listener, with messages of
	// service.MessageBytes. Required.
	Server   rpc.Server
	Listener net.Listener
	// Options configures the worker; its name, cluster and logger are set.
	Options worker.Options
	// Clock is a clock that never goes back and runs on while the process is
	// stopped; nil means Go's monotonic one.
	Clock func() time.Duration
	// Logger gets messages. Required.
	Logger *slog.Logger
	// Ready is called with the address when the worker has joined; nil: nobody is
	// told.
	Ready func(address string) error
	// Started is called with the worker before it serves; nil: nobody is told.
	Started func(*worker.Worker)
}

// ErrEvicted ends RunWorker when the worker is no member any more, because it
// could not renew its membership in time: what it held is gone. Run it again, and
// it joins as a new incarnation.
var ErrEvicted = errors.New("the worker was evicted from the cluster")

// RunWorker runs one worker of a cluster of processes, in one incarnation, until
// ctx ends, when it leaves in order, or until it is evicted.
func RunWorker(ctx context.Context, w Worker) (err error) {
	conn, err := DialControl(w.Leasemgr, w.RPC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	session, err := leasemgr.Join(ctx, leasemgr.SessionOptions{
		Registry: leasemgr.NewClient(conn), Name: w.Name, Address: w.Address, Provider: w.Provider.Name(), Clock: w.Clock, Logger: w.Logger,
	})
	if err != nil {
		return err
	}
	p := &workerProcess{Worker: w, session: session, control: conn, leaving: make(chan struct{})}
	return p.run(ctx)
}

// workerProcess is a worker that has joined.
type workerProcess struct {
	Worker
	session *leasemgr.Session
	control rpc.Conn
	// leaving is closed by ask when somebody wants the worker to go.
	leaving chan struct{}
	ask     sync.Once

	engine   *remote.Engine
	programs *leasemgr.Replica
	peers    *peers.Peers
	here     leases.Local
	worker   *worker.Worker
	logs     *worker.Logs
	views    chan *lease.Members
}

func (p *workerProcess) run(ctx context.Context) (err error) {
	me := p.session.Member()
	first := <-p.session.Views() // the one that has admitted us
	p.engine, err = remote.Dial(p.Leasemgr, remote.Options{
		Member: remote.Member{Worker: uint16(me.Worker), Incarnation: me.Incarnation}, View: first.View, RPC: p.RPC,
		OnRefused: p.refused, Logger: p.Logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.engine.Close()) }()
	p.peers = peers.New(peers.Options{RPC: p.RPC})
	defer func() { err = errors.Join(err, p.peers.Close()) }()

	p.programs, err = openReplica(ctx, p.Logger, func() (*leasemgr.Replica, error) {
		return leasemgr.NewReplica(ctx, p.engine, p.Loader, p.Native, p.Logger, p.control)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.programs.Close()) }()

	p.views = make(chan *lease.Members, 1)
	o := p.Options
	o.Logs = worker.NewLogs(4096)
	p.logs = o.Logs
	o.Name, o.Logger = p.Name, p.Logger
	o.Cluster = &worker.Cluster{
		Leases:  leases.Options{Me: me, Peers: p.peers},
		Current: func() bool { return p.session.Now() < p.session.Expiry() },
		Views:   p.views,
	}
	o.Cluster.Leases.Mesh.Provider = p.Provider
	if p.worker, err = worker.New(o, p.engine); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.worker.Leases().Close()) }()
	if p.Started != nil {
		p.Started(p.worker)
	}
	p.session.Watch(func() []lease.Member { return p.worker.Leases().Unreachable(2 * first.TTL) })
	p.here.Enter(me, p.worker.Leases())
	if err := p.enter(first); err != nil {
		return err
	}
	return p.serve(ctx)
}

// refused is told when the store does not take our batches: the view that says
// why is on its way, or there will be none with us.
func (p *workerProcess) refused(r remote.Refusal) {
	if r.Err != nil {
		p.Logger.Error("the store takes no more batches of this worker", "err", r.Err)
	}
}

// enter passes a view on to the leases, the newest only.
func (p *workerProcess) enter(v leasemgr.Published) error {
	m, err := v.Lease()
	if err != nil {
		return err
	}
	addresses := map[lease.Member]string{}
	for i := range v.Members {
		addresses[v.Members[i].Member] = v.Members[i].Address
	}
	if err := p.peers.SetMembers(addresses); err != nil {
		return err
	}
	select {
	case <-p.views: // nobody has taken the last one
	default:
	}
	p.views <- m
	return nil
}

// serve runs the goroutines of the process until ctx ends or the membership does.
func (p *workerProcess) serve(ctx context.Context) error {
	peers.Register(p.Server, &p.here)
	service.Register(p.Server, service.Options{
		Worker: func() *worker.Worker { return p.worker }, Programs: p.programs, Logs: p.logs,
		Drain: func() { p.ask.Do(func() { close(p.leaving) }) },
	})
	// The parts outlive ctx until the worker has left in order.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, running := errgroup.WithContext(running)
	// evicted is why the membership ended. Others notice that the store takes no more
	// of this worker, and their errors may come first.
	var evicted error
	group.Go(func() error {
		if err := p.session.Run(running); err != nil {
			evicted = errors.Join(ErrEvicted, err)
			p.engine.Evict(fmt.Errorf("worker %s: %w", p.Name, err))
		}
		return evicted
	})
	group.Go(func() error { return p.worker.Run(running) })
	group.Go(func() error { return p.follow(running) })
	group.Go(func() error { return p.programs.Run(running) })
	group.Go(func() error {
		return serve(running, p.Server, p.Listener, func(context.Context) error { return nil }, p.Ready)
	})
	group.Go(func() error {
		defer stop()
		select {
		case <-running.Done():
			return nil
		case <-ctx.Done():
		case <-p.leaving:
		}
		return p.leave(context.WithoutCancel(ctx))
	})
	err := group.Wait()
	if evicted != nil {
		return evicted
	}
	return err
}

func (p *workerProcess) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-p.session.Views():
			if err := p.enter(v); err != nil {
				return err
			}
		}
	}
}

// leave lets the invocations end, then announces that the worker goes: what it
// held is free from then on.
func (p *workerProcess) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	p.Logger.Info("leaving the cluster: new invocations are refused, running ones end")
	if err := p.worker.Drain(ctx); err != nil {
		return err
	}
	if err := p.engine.WaitDurable(ctx, p.engine.Appended()); err != nil {
		return err
	}
	telling, cancelTelling := context.WithTimeout(ctx, tellWait)
	defer cancelTelling()
	if err := p.session.Leave(telling); err != nil && base.KindOf(err) != base.NotFound {
		p.Logger.Warn("the leasemgr was not told; the membership expires by itself", "err", err)
	}
	return nil
}
