package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/base"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
)

// inProcess is several workers of one process over one store, which pass leases
// among themselves as workers of several processes do.
type inProcess struct {
	opt     Options
	engine  store.Engine
	verdict machine.Verdict
	manager *leasemgr.Manager
	peers   leases.Local
	fate    worker.Fate
	members []*member
	// draining is held while a worker leaves, one at a time, so that one stays.
	draining sync.Mutex
}

// maxWorkers bounds the workers of one process.
const maxWorkers = 16

// newCluster chooses the provider and reads the membership. Nothing runs before
// run.
func newCluster(ctx context.Context, opt Options, engine store.Engine) (*inProcess, error) {
	if opt.Workers > maxWorkers {
		return nil, fmt.Errorf("node: %d workers in one process, at most %d are possible", opt.Workers, maxWorkers)
	}
	c := &inProcess{opt: opt, engine: engine}
	_, c.verdict = machine.Choose(ctx, machine.Demand{Provider: opt.Provider})
	if c.verdict.Err != nil {
		return nil, c.verdict.Err
	}
	// The members of an earlier run were in a process that had this store open:
	// they are gone, and a view of nobody says so.
	record, err := leasemgr.ReadMembership(engine)
	if err != nil {
		return nil, err
	}
	empty := max(record.View, engine.Sealed()) + 1
	if err := engine.Seal(empty); err != nil {
		return nil, err
	}
	if c.manager, err = leasemgr.NewManager(engine, leasemgr.ManagerOptions{Seal: engine.Seal, Sealed: empty, Logger: opt.Logger}); err != nil {
		return nil, err
	}
	opt.Worker.Logs = worker.NewLogs(4096)
	opt.Worker.CacheBytes /= int64(opt.Workers)
	for i := range opt.Workers {
		m := &member{c: c, opt: opt.Worker, up: make(chan struct{}), leaving: make(chan struct{})}
		m.opt.Name = fmt.Sprintf("worker-%d", i+1)
		c.members = append(c.members, m)
	}
	return c, nil
}

// run runs membership and workers until ctx ends.
func (c *inProcess) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.manager.Run(ctx) })
	for _, m := range c.members {
		group.Go(func() error { return m.run(ctx) })
	}
	return group.Wait()
}

// ready waits until every worker has joined once.
func (c *inProcess) ready(ctx context.Context) error {
	for _, m := range c.members {
		select {
		case <-m.up:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// release takes a member out of the cluster for good. If ctx ends before, it is
// out of the routes and leaves when its invocations have ended.
func (c *inProcess) release(ctx context.Context, m *member) error {
	c.draining.Lock()
	defer c.draining.Unlock()
	others := 0
	for _, x := range c.members {
		if x != m && x.now.Load() != nil {
			others++
		}
	}
	n := m.now.Load()
	switch {
	case n == nil:
		return base.Errorf(base.NotFound, "worker %s is not in the cluster", m.opt.Name)
	case others == 0:
		return base.Errorf(base.InUse, "worker %s is the last one", m.opt.Name)
	}
	m.leave.Do(func() { close(m.leaving) })
	select {
	case <-n.gone:
		return nil
	case <-ctx.Done():
		return &base.Error{Kind: base.Timeout, Detail: fmt.Sprintf("worker %s takes no more invocations and leaves when its own have ended", m.opt.Name), Unknown: true}
	}
}

// drain lets the invocations of all workers end.
func (c *inProcess) drain(ctx context.Context) error {
	var errs []error
	for _, m := range c.members {
		if n := m.now.Load(); n != nil {
			errs = append(errs, n.worker.Drain(ctx))
		}
	}
	return errors.Join(errs...)
}

// member is one worker of a cluster, in one incarnation after another.
type member struct {
	c   *inProcess
	opt worker.Options
	now atomic.Pointer[incarnation] // nil between two, and when it leaves
	up  chan struct{}               // closed when the first has joined
	// leaving is closed by leave when it is to go for good.
	leaving chan struct{}
	leave   sync.Once
}

// incarnation is one start of it.
type incarnation struct {
	worker   *worker.Worker
	session  *leasemgr.Session
	provider string
	gone     chan struct{} // closed when it has ended
}

// run runs incarnations until ctx ends. One that was evicted, because the process
// stood still for longer than its membership lasted, is followed by the next.
func (m *member) run(ctx context.Context) error {
	for {
		err := m.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.opt.Name, err)
		}
		select {
		case <-m.leaving:
			m.c.opt.Logger.Info("a worker has left", "worker", m.opt.Name)
			return nil
		default:
		}
		m.c.opt.Logger.Warn("a worker was evicted and joins again", "worker", m.opt.Name)
	}
}

// once runs one incarnation until it is evicted, or ctx ends.
func (m *member) once(ctx context.Context) (err error) {
	provider, err := machine.Open(ctx, m.c.verdict, m.opt.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Close()) }()
	session, err := leasemgr.Join(ctx, leasemgr.SessionOptions{
		Registry: m.c.manager, Name: m.opt.Name, Address: "in this process", Provider: provider.Name(), Logger: m.opt.Logger,
	})
	if err != nil {
		return err
	}
	views := make(chan *lease.Members, 1)
	opt := m.opt
	opt.Cluster = &worker.Cluster{
		Leases:  leases.Options{Me: session.Member(), Peers: &m.c.peers},
		Current: func() bool { return session.Now() < session.Expiry() },
		Views:   views,
		OneFate: &m.c.fate, // the engine is of this process, and nobody else has it
	}
	opt.Cluster.Leases.Mesh.Provider = provider
	w, err := worker.New(opt, m.c.engine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Leases().Close()) }()
	m.c.peers.Enter(session.Member(), w.Leases())
	defer m.c.peers.Leave(session.Member())
	n := &incarnation{w, session, provider.Name(), make(chan struct{})}
	defer close(n.gone)
	m.now.Store(n)
	defer m.now.Store(nil)
	select {
	case <-m.up:
	default:
		close(m.up)
	}
	return m.serve(ctx, session, w, views)
}

// serve runs the goroutines of an incarnation.
func (m *member) serve(ctx context.Context, session *leasemgr.Session, w *worker.Worker, views chan *lease.Members) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		if err := session.Run(ctx); err != nil {
			m.opt.Logger.Warn("the membership is over", "worker", m.opt.Name, "err", err)
		}
		return nil
	})
	group.Go(func() error {
		defer cancel()
		return m.depart(ctx, session, w)
	})
	group.Go(func() error { return w.Run(ctx) })
	group.Go(func() error { return follow(ctx, session, views) })
	return group.Wait()
}

// depart waits until the member is to go, then lets its invocations end and
// announces that it leaves: from then on what it held is free.
func (m *member) depart(ctx context.Context, session *leasemgr.Session, w *worker.Worker) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.leaving:
	}
	m.now.Store(nil)
	if err := w.Drain(ctx); err != nil {
		return nil // ctx has ended
	}
	if err := session.Leave(ctx); err != nil && ctx.Err() == nil {
		m.opt.Logger.Warn("the membership ends by itself", "worker", m.opt.Name, "err", err)
	}
	return nil
}

// follow passes the newest view on.
func follow(ctx context.Context, session *leasemgr.Session, views chan *lease.Members) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-session.Views():
			m, err := p.Lease()
			if err != nil {
				return err
			}
			select {
			case <-views: // nobody has taken the last one
			default:
			}
			views <- m
		}
	}
}
