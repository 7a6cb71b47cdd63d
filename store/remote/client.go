package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/store"
)

// Options configures Dial.
type Options struct {
	// Member is who commits. The zero Member only reads, applies and seals.
	Member Member
	// View is the view that the member starts in, see SetView.
	View base.View
	// RPC is how the server is reached; a zero MaxMessage means MessageBytes.
	RPC rpc.Options
	// MaxBatches and MaxBytes bound the batches that are appended and not
	// durable; one batch always fits. 0 means 65536, and 64 MiB.
	MaxBatches, MaxBytes int
	// AppendWait bounds how long Append waits for room; 0 means 2 s.
	AppendWait time.Duration
	// CallTimeout bounds every call but WaitDurable, reconnecting included; 0
	// means 10 s.
	CallTimeout time.Duration
	// CloseWait bounds how long Close waits for the disk; 0 means 10 s.
	CloseWait time.Duration
	// OnRefused is told when the store refuses this member's batches; nil means
	// nobody. It is called by the goroutine that receives, so it must return
	// soon; it may call SetView and Evict, and not Close.
	OnRefused func(Refusal)
	// Logger gets messages about broken connections; nil means slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.RPC.MaxMessage == 0 {
		o.RPC.MaxMessage = MessageBytes
	}
	if o.MaxBatches == 0 {
		o.MaxBatches = 65536
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.AppendWait == 0 {
		o.AppendWait = 2 * time.Second
	}
	if o.CallTimeout == 0 {
		o.CallTimeout = 10 * time.Second
	}
	if o.CloseWait == 0 {
		o.CloseWait = 10 * time.Second
	}
	if o.OnRefused == nil {
		o.OnRefused = func(Refusal) {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Refusal says why the store does not take batches.
type Refusal struct {
	// Seal is the view for which the store is sealed, if that is the reason. The
	// batches wait: find out whether the member is in that view, then call
	// SetView or Evict. The same seal may be reported again after a reconnect.
	Seal base.View
	// Err, if not nil, says that this member may never commit again; everything
	// that waits has been given up.
	Err error
}

// Engine implements store.Engine for one member over the network. It is safe
// for concurrent use.
//
// It differs from an embedded engine in when the seal is noticed: Append only
// puts a batch into the pipeline, so the store's refusal comes later, through
// OnRefused, and reaches those who wait for the batch if Evict follows.
type Engine struct {
	opt    Options
	conn   rpc.Conn
	client rpcpb.StoreClient
	// stop ends the goroutine that commits, running waits for it. It also ends calls
	// that are under way: each gives onStop what ends it, until it calls release.
	stop    context.CancelFunc
	onStop  func(end func()) (release func() bool)
	running sync.WaitGroup
	// wake tells the sender that there is something to send; capacity 1.
	wake chan struct{}

	// mu guards what follows. No call is made with it held.
	mu     sync.Mutex
	pipe   pipeline
	closed bool
}

var _ store.Engine = (*Engine)(nil)

// Dial returns an engine on the server at address. It does not block: the
// connection is made, and made again, in the background. The caller closes it.
func Dial(address string, o Options) (*Engine, error) {
	o.EnsureDefaults()
	commits := o.Member != Member{}
	if commits {
		if err := o.Member.check(); err != nil {
			return nil, err
		}
	}
	conn, err := rpc.Dial(address, o.RPC)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Engine{opt: o, conn: conn, client: rpcpb.NewStoreClient(conn), stop: stop, wake: make(chan struct{}, 1)}
	e.onStop = func(end func()) func() bool { return context.AfterFunc(ctx, end) }
	e.pipe.view = o.View
	if commits {
		e.running.Go(func() { e.run(ctx) })
	}
	return e, nil
}

// NewBatch implements store.Engine.
func (e *Engine) NewBatch() store.Batch { return &batch{} }

var errClosed = errors.New("the engine was closed")

// Append implements store.Engine. It blocks while the pipeline is full, at most
// AppendWait, and takes the batch's memory over. A view older than that of
// SetView is refused.
func (e *Engine) Append(view base.View, b store.Batch) (base.Number, error) {
	mine := b.(*batch)
	if mine.spent {
		panic("store: misused batch: it was appended or released")
	}
	if e.opt.Member == (Member{}) {
		return 0, base.Invalidf("member", "append a batch: this connection to the store was opened without a member")
	}
	if len(mine.operations) > MaxBatchBytes {
		return 0, base.Errorf(base.TooLarge, "the batch has %d bytes, the store takes %d", len(mine.operations), MaxBatchBytes)
	}
	n, room, err := e.push(view, mine)
	if room == nil {
		return n, err
	}
	full := time.NewTimer(e.opt.AppendWait)
	defer full.Stop()
	for room != nil {
		select {
		case <-room:
		case <-full.C:
			return 0, base.Errorf(base.Unavailable, "the store has not taken batches for %v and the pipeline to it is full; nothing was changed", e.opt.AppendWait)
		}
		n, room, err = e.push(view, mine)
	}
	return n, err
}

// push appends if there is room; otherwise it returns what to wait for.
func (e *Engine) push(view base.View, b *batch) (base.Number, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.pipe
	switch {
	case p.lost != nil:
		return 0, nil, &base.Error{Kind: base.Unavailable, Detail: "this worker may not commit any more; nothing was changed", Err: p.lost}
	case e.closed:
		return 0, nil, &base.Error{Kind: base.Unavailable, Detail: "nothing was changed", Err: errClosed}
	case view < p.view:
		return 0, nil, base.Errorf(base.Unavailable, "this worker is in view %d and refuses a batch of view %d; nothing was changed", p.view, view)
	}
	if !p.fits(len(b.operations), e.opt.MaxBytes, e.opt.MaxBatches) {
		if p.room == nil {
			p.room = make(chan struct{})
		}
		return 0, p.room, nil
	}
	n := p.push(view, b.operations)
	b.operations, b.spent = nil, true
	e.nudge()
	return n, nil, nil
}

func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// SetView says that the member has installed view v: batches that are not yet
// acknowledged are relabelled, those that the seal refused are sent again in
// their order, and Append refuses older labels. Views only grow.
func (e *Engine) SetView(v base.View) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pipe.setView(v)
	e.nudge()
}

// Evict says that the member is not in the next view: it commits nothing any
// more. All who wait for batches get kind Unavailable, with Unknown for what
// was sent and neither acknowledged nor refused. Calls under way end with kind
// Unavailable, too: the store may wait for batches before it answers that it will
// never get. reason may be nil.
func (e *Engine) Evict(reason error) {
	if reason == nil {
		reason = errors.New("the membership has evicted this worker")
	}
	e.lose(reason)
	e.stop()
}

func (e *Engine) lose(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pipe.lose(err)
}

// Appended implements store.Engine.
func (e *Engine) Appended() base.Number {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pipe.appended
}

// Durable implements store.Engine.
func (e *Engine) Durable() base.Number {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pipe.durable
}

// WaitDurable implements store.Engine. If the member was evicted or replaced
// the error is of kind Unavailable; Unknown says that the batch may be in the
// store nevertheless.
func (e *Engine) WaitDurable(ctx context.Context, n base.Number) error {
	done, err := e.waitFor(n)
	if done == nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = e.waitFor(n)
	return err
}

// waitFor returns what to wait for until batch n is durable; nil if that is
// decided.
func (e *Engine) waitFor(n base.Number) (<-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.pipe
	switch {
	case n <= p.durable:
		return nil, nil
	case n > p.appended:
		return nil, fmt.Errorf("wait for batch %d: the last one appended is %d", n, p.appended)
	case p.lost != nil:
		return nil, p.outcome(n)
	}
	entry := p.at(n)
	if entry.done == nil {
		entry.done = make(chan struct{})
	}
	return entry.done, nil
}

// Close implements store.Engine. It waits at most CloseWait; if batches are not
// durable then, the error (kind Unavailable) says which. Called again it returns
// nil.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	last := e.pipe.appended
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), e.opt.CloseWait)
	defer cancel()
	err := e.WaitDurable(ctx, last)
	e.lose(errClosed)
	e.stop()
	e.running.Wait()
	if err != nil {
		err = &base.Error{Kind: base.Unavailable, Unknown: true, Err: err,
			Detail: fmt.Sprintf("close the store's connection: batches %d to %d are not known to be durable", e.Durable()+1, last)}
	}
	return errors.Join(err, e.conn.Close())
}
