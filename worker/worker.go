package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/txn"
	"github.com/tenure-faas/tenure/worker/leases"
)

// Options configures a Worker.
type Options struct {
	// Name is the worker's id; empty means "worker-1".
	Name string
	// View is the membership in which the worker was admitted; its batches
	// carry it. Required.
	View base.View
	// Cluster is how the worker passes leases from and to others; nil: it is alone
	// and holds all.
	Cluster *Cluster
	// MaxRunning bounds the invocations that run at once; 0 means 512.
	MaxRunning int
	// MaxQueued bounds those that wait to run; more get Overloaded. 0 means 2048.
	MaxQueued int
	// MaxAttempts bounds how often an invocation is tried before it ends with
	// Conflict; 0 means 16.
	MaxAttempts int
	// MaxKeys bounds the keys that one transaction touches; 0 means 10,000.
	MaxKeys int
	// MaxValueBytes bounds one value; 0 means base.MaxValueBytes.
	MaxValueBytes int
	// MaxWriteBytes bounds the values one transaction writes; 0 means 32 MiB.
	MaxWriteBytes int
	// MaxScan bounds the entries of one scan; 0 means 10,000.
	MaxScan int
	// CacheBytes bounds the cache of values and locks; 0 means 256 MiB.
	CacheBytes int64
	// Timeout is the deadline of requests that have none; 0 means 30 s.
	Timeout time.Duration
	// Retention is how long an invocation's record can be read; 0 means 24 h.
	// Idempotency records are kept for 24 h, or for Retention if it is longer.
	Retention time.Duration
	// SweepEvery is the interval at which expired records are removed; 0 means
	// one minute.
	SweepEvery time.Duration
	// Logs gets the lines that functions write; several workers may share it. nil
	// means one of its own, of 4096 lines.
	Logs *Logs
	// Logger gets the worker's own messages; nil means slog.Default.
	Logger *slog.Logger
	// OnPanic is called when the worker itself, not a function, has panicked: an
	// invariant is broken, or locks are in an unknown state. It must not return.
	// nil means: log the panic and exit with status 1.
	OnPanic func(fault any, stack []byte)
}

// Cluster configures what a worker among others needs.
type Cluster struct {
	// Leases configures the leases; Values, Log, Relabel, Parts and Logger are set by
	// the worker.
	Leases leases.Options
	// Current says whether this worker is certainly a member now. It is asked at
	// every read-only transaction, after its last read.
	Current func() bool
	// Views are the views to install, see leases.Leases.Run.
	Views <-chan *lease.Members
	// OneFate, the same for all of them, says that the store and all workers that
	// ever use it are in this process, so that a batch is lost only with everybody who
	// has read of it, and with all later batches of the log. Then leases and copies
	// move before what was written under them is durable, and only answers wait for
	// that. nil: workers may die alone.
	OneFate *Fate
}

// Fate is what workers of one process know of each other while they have a store
// open. The zero value is ready.
type Fate struct {
	// newest is the newest batch in which one of them has written a value.
	newest atomic.Uint64
}

// note is told of a batch with values before another worker can see them.
func (f *Fate) note(n base.Number) {
	if f == nil {
		return
	}
	for old := f.newest.Load(); old < uint64(n) && !f.newest.CompareAndSwap(old, uint64(n)); old = f.newest.Load() {
	}
}

func (o *Options) fate() *Fate {
	if o.Cluster == nil {
		return nil
	}
	return o.Cluster.OneFate
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.Name, "worker-1")
	setDefault(&o.MaxRunning, 512)
	setDefault(&o.MaxQueued, 2048)
	setDefault(&o.MaxAttempts, 16)
	setDefault(&o.MaxKeys, 10_000)
	setDefault(&o.MaxValueBytes, base.MaxValueBytes)
	setDefault(&o.MaxWriteBytes, 32<<20)
	setDefault(&o.MaxScan, 10_000)
	setDefault(&o.CacheBytes, 256<<20)
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.Retention, idempotencyRetention)
	setDefault(&o.SweepEvery, time.Minute)
	if o.Logs == nil {
		o.Logs = NewLogs(4096)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnPanic == nil {
		logger := o.Logger
		o.OnPanic = func(fault any, stack []byte) {
			logger.Error("the worker broke an invariant; stopping rather than answering wrongly", "panic", fault, "stack", string(stack))
			os.Exit(1)
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every field that cannot be used.
func (o *Options) Validate() error {
	var errs []error
	if o.View == 0 && o.Cluster == nil {
		errs = append(errs, errors.New("worker: Options.View is required"))
	}
	for name, n := range map[string]int{"MaxRunning": o.MaxRunning, "MaxQueued": o.MaxQueued, "MaxAttempts": o.MaxAttempts, "MaxKeys": o.MaxKeys} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("worker: Options.%s is negative: %d", name, n))
		}
	}
	return errors.Join(errs...)
}

// shardCount is the number of lock tables; a power of two. Enough that 64 cores
// seldom meet at a latch, few enough that each has a useful share of the cache.
const shardCount = 64

// shard is one lock table with its latch, on cache lines of its own. Among other
// workers the leases of its slots are under the same latch, that of part.
type shard struct {
	mu    sync.Mutex
	part  *leases.Part
	table *txn.Table
	_     [40]byte
}

func (s *shard) lock() {
	if s.part != nil {
		s.part.Lock()
	} else {
		s.mu.Lock()
	}
}

func (s *shard) unlock() {
	if s.part != nil {
		s.part.Unlock()
	} else {
		s.mu.Unlock()
	}
}

// gateShard keeps the gates of some tables. Idle gates are dropped when there
// are more than gatesKept, so that names of tables cannot fill the memory.
type gateShard struct {
	mu    sync.Mutex
	gates map[string]*txn.Gate
}

const gatesKept = 256

// Worker runs invocations over one store. It is safe for concurrent use.
type Worker struct {
	opt    Options
	engine store.Engine

	shards [shardCount]shard
	gates  [shardCount]gateShard
	// leases are nil if the worker is alone. label is the view of its batches.
	leases *leases.Leases
	label  atomic.Uint32

	// commitMu is the commit section: it orders additive effects.
	commitMu sync.Mutex

	flights flights

	// slots has a token for each invocation that may run; queued counts those
	// that wait for one.
	slots   chan struct{}
	queued  atomic.Int64
	running atomic.Int64
	local   atomic.Uint64
	// stopping is closed by the first Drain.
	stopping chan struct{}
	stop     sync.Once

	pool sync.Pool // *invocation
}

// New returns a worker over engine, which must be sealed for opt.View or an
// older view. It starts nothing; see Run.
func New(opt Options, engine store.Engine) (*Worker, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	w := &Worker{opt: opt, engine: engine, slots: make(chan struct{}, opt.MaxRunning), stopping: make(chan struct{})}
	for i := range w.shards {
		w.shards[i].table = txn.NewTable(opt.CacheBytes / shardCount)
	}
	for i := range w.gates {
		w.gates[i].gates = make(map[string]*txn.Gate)
	}
	w.flights.running = make(map[[32]byte]*flight)
	w.pool.New = func() any { return &invocation{w: w} }
	if opt.Cluster == nil {
		return w, nil
	}
	return w, w.join()
}

// join makes the leases of a worker among others. Their parts are the shards.
func (w *Worker) join() error {
	o := w.opt.Cluster.Leases
	o.Parts, o.Log, o.Relabel, o.Logger = shardCount, w.engine, w.relabel, w.opt.Logger
	if w.opt.fate() != nil {
		o.Log = appendedLog{w.engine}
	}
	o.Values = func(part int) leases.Values { return values{w.shards[part].table, w} }
	var err error
	if w.leases, err = leases.New(o); err != nil {
		return err
	}
	for i := range w.shards {
		w.shards[i].part = w.leases.Part(base.Slot(i))
	}
	return nil
}

// appendedLog is the log of workers of one fate: what is appended counts as durable.
type appendedLog struct{ store.Engine }

// Durable implements leases.Log.
func (l appendedLog) Durable() base.Number { return l.Appended() }

// WaitDurable implements leases.Log.
func (l appendedLog) WaitDurable(context.Context, base.Number) error { return nil }

// foreign is the newest batch that a value may be of that other workers could
// write: one that was read from the store by now, or has arrived. 0: it is durable.
func (w *Worker) foreign() base.Number {
	f := w.opt.fate()
	if f == nil {
		return 0
	}
	return base.Number(f.newest.Load())
}

// values are those of a shard, as leases see them.
type values struct {
	*txn.Table
	w *Worker
}

// InstallValues implements leases.Values.
func (v values) InstallValues(s base.Slot, body []byte) error {
	return v.Table.InstallValues(s, body, v.w.opt.MaxValueBytes, v.w.foreign())
}

// Leases are those of a worker among others, for calls from the others; nil if it
// is alone.
func (w *Worker) Leases() *leases.Leases { return w.leases }

// Run owns the worker's background work, the sweeper and the leases, until ctx
// ends.
func (w *Worker) Run(ctx context.Context) error {
	if w.leases == nil {
		return w.sweeps(ctx)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.sweeps(ctx) })
	group.Go(func() error { return w.leases.Run(ctx, w.opt.Cluster.Views) })
	return group.Wait()
}

func (w *Worker) sweeps(ctx context.Context) error {
	tick := time.NewTicker(w.opt.SweepEvery)
	defer tick.Stop()
	var from []byte // where the next sweep goes on
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			var err error
			if from, err = w.sweep(time.Now(), from); err != nil {
				w.opt.Logger.Error("sweep of expired records", "err", err)
			}
		}
	}
}

// Drain refuses new and queued invocations and waits until the running ones
// have ended or ctx is done. It may be called more than once.
func (w *Worker) Drain(ctx context.Context) error {
	w.stop.Do(func() { close(w.stopping) })
	for i := range cap(w.slots) {
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			for range i {
				<-w.slots
			}
			return fmt.Errorf("%d invocations still run: %w", w.running.Load(), ctx.Err())
		}
	}
	for range cap(w.slots) {
		<-w.slots
	}
	return nil
}

// Name returns the worker's id.
func (w *Worker) Name() string { return w.opt.Name }

// Status is a snapshot of a worker.
type Status struct {
	// Name is the worker's id.
	Name string
	// View is the membership that the worker has installed.
	View base.View
	// Running and Queued count invocations.
	Running, Queued int
	// Local counts the invocations for which every lease was held here.
	Local uint64
}

// Status returns a snapshot. It does not block.
func (w *Worker) Status() Status {
	return Status{
		Name: w.opt.Name, View: w.view(), Local: w.local.Load(),
		Running: int(w.running.Load()), Queued: int(w.queued.Load()),
	}
}

// Lease is what a worker knows of the lease on a key.
type Lease struct {
	// Mode is the mode of the lock held now: "shared", "additive", "exclusive",
	// or "none" if no transaction holds one.
	Mode string
	// Holders and Waiting count transactions.
	Holders, Waiting int
	// View is the epoch of the lease.
	View base.View
}

// Lease says who uses a key here now. With one worker every lease is here.
func (w *Worker) Lease(k base.Key) Lease {
	sh := w.shard(k.Slot())
	sh.lock()
	defer sh.unlock()
	holders, waiting, mode := sh.table.Waiting(k)
	l := Lease{Mode: "none", Holders: holders, Waiting: waiting, View: w.view()}
	if holders > 0 {
		l.Mode = mode.String()
	}
	return l
}

func (w *Worker) shard(s base.Slot) *shard { return &w.shards[s%shardCount] }

func (w *Worker) gateShard(table string) *gateShard {
	return &w.gates[base.Key{Table: table}.Slot()%shardCount]
}

// gate returns the gate of a table, under the latch of gs.
func (gs *gateShard) gate(table string) *txn.Gate {
	g := gs.gates[table]
	if g == nil {
		g = new(txn.Gate)
		gs.gates[table] = g
	}
	return g
}
