package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
)

// grace is how much longer than its deadline the outcome of an invocation is
// awaited: the worker ends it then, and says whether it had an effect.
const grace = 2 * time.Second

// Client is the stub of one worker. It is safe for concurrent use.
type Client struct {
	worker  rpcpb.WorkerClient
	address string
}

// NewClient returns the stub of the worker behind a connection that rpc.Dial made
// with MessageBytes as MaxMessage, and which stays the caller's.
func NewClient(conn rpc.Conn) *Client {
	return &Client{rpcpb.NewWorkerClient(conn), strings.TrimPrefix(conn.Target(), "passthrough:///")}
}

// Execute is worker.Worker.Execute, elsewhere. Of what runs it sends the names:
// req has Workflow, or Function and Handler, or Ops. It blocks until the outcome
// is there, at most a little longer than until the deadline of req or ctx,
// whichever is earlier. It reads req until it returns; Results may have values of
// req.Ops in them. When the call fails, the reply's error says what is known: see
// the package comment.
func (c *Client) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	fail := func(err *base.Error) worker.Reply { return worker.Reply{ID: req.ID, Err: err} }
	in, tooLarge := requestTo(req)
	if tooLarge != nil {
		return fail(tooLarge)
	}
	b, late := begin(ctx, req.Deadline)
	if late != nil {
		return fail(late)
	}
	defer b.end()
	in.RemainingNs = int64(b.remaining)
	out, err := c.worker.Execute(b.ctx, in, grpc.Peer(&b.peer))
	if err != nil {
		return fail(c.failure(b, err, readsOnly(req)))
	}
	return replyFrom(req, out)
}

// Load is worker.Worker.Load, elsewhere.
func (c *Client) Load(ctx context.Context, ops []worker.Op) error {
	list, tooLarge := opsTo(ops)
	if tooLarge != nil {
		return tooLarge
	}
	b, late := begin(ctx, time.Time{})
	if late != nil {
		return late
	}
	defer b.end()
	out, err := c.worker.Load(b.ctx, &rpcpb.LoadRequest{Ops: list, RemainingNs: int64(b.remaining)}, grpc.Peer(&b.peer))
	if err != nil {
		return c.failure(b, err, false)
	}
	if e := out.GetError(); e != nil {
		return errorFrom(e)
	}
	return nil
}

// call is a call that may change something.
type call struct {
	// ctx ends a little after the deadline, or when the caller's is cancelled.
	ctx context.Context
	// remaining is the time until the deadline; 0: there is none.
	remaining time.Duration
	// peer has an address once there is a stream to the worker.
	peer peer.Peer
	end  func()
}

// begin prepares a call whose deadline is that of ctx or the given one, if it is
// not zero and earlier. The caller calls end.
func begin(ctx context.Context, deadline time.Time) (*call, *base.Error) {
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	b := &call{}
	var cancel context.CancelFunc
	if deadline.IsZero() {
		b.ctx, cancel = context.WithCancel(ctx)
		b.end = cancel
		return b, nil
	}
	if b.remaining = time.Until(deadline); b.remaining <= 0 || ctx.Err() != nil {
		return nil, notStarted()
	}
	b.ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(grace))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	b.end = func() { stop(); cancel() }
	return b, nil
}

func notStarted() *base.Error {
	return base.Errorf(base.Timeout, "the deadline passed before the invocation was sent to a worker: the outcome is unchanged (nothing was started)")
}

// failure is what a failed call means for the invocation.
func (c *Client) failure(b *call, err error, reads bool) *base.Error {
	e := asError(err)
	switch {
	case !e.Unknown: // the worker has answered, and refused it
		return e
	case b.peer.Addr == nil && b.ctx.Err() != nil:
		return notStarted()
	case b.peer.Addr == nil:
		return &base.Error{Kind: base.Unavailable, RetryAfter: retryAfter, Detail: fmt.Sprintf("the worker at %s cannot be reached; nothing was started", c.address), Err: err}
	case reads && b.ctx.Err() != nil:
		return &base.Error{Kind: base.Timeout, Detail: "the deadline passed while the answer of a worker was awaited: the outcome is unchanged (nothing is written by reads)", Err: err}
	case reads:
		return &base.Error{Kind: base.Unavailable, RetryAfter: retryAfter, Detail: "the connection to the worker was lost; nothing was changed", Err: err}
	case b.ctx.Err() != nil:
		return &base.Error{Kind: base.Timeout, Unknown: true, Err: err,
			Detail: "the deadline passed while the answer of a worker was awaited: the outcome is unknown: ask again with the same Idempotency-Key"}
	}
	return &base.Error{Kind: base.Timeout, Unknown: true, Err: err,
		Detail: "the connection to the worker was lost while the invocation ran: the outcome is unknown: ask again with the same Idempotency-Key"}
}

// readsOnly says that an invocation cannot have changed anything.
func readsOnly(req *worker.Request) bool {
	for i := range req.Ops {
		if req.Ops[i].Kind != worker.OpGet {
			return false
		}
	}
	return len(req.Ops) > 0
}

// asError returns err as an *base.Error; what has no kind is Internal, and may
// have happened.
func asError(err error) *base.Error {
	if e, ok := errors.AsType[*base.Error](err); ok {
		return e
	}
	return &base.Error{Kind: base.Internal, Unknown: true, Err: err}
}

// Record is worker.Worker.Record, elsewhere. It blocks until the end of ctx.
func (c *Client) Record(ctx context.Context, id base.InvocationID) (worker.Record, error) {
	high, low := idTo(id)
	out, err := c.worker.Record(ctx, &rpcpb.RecordRequest{IdHigh: high, IdLow: low})
	if err != nil {
		return worker.Record{}, err
	}
	return recordFrom(id, out), nil
}

// Status is a snapshot of a worker and its leases.
type Status struct {
	worker.Status
	// Homes counts the slots whose home it is, and Leases those of which it knows
	// something; 0 for a worker that is alone.
	Homes, Leases int
	// Pulls counts the leases that others granted it.
	Pulls uint64
	// Waits are those for turns.
	Waits leases.Waits
}

// Status returns a snapshot of the worker. It blocks until the end of ctx.
func (c *Client) Status(ctx context.Context) (Status, error) {
	out, err := c.worker.Status(ctx, &rpcpb.WorkerStatusRequest{})
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Status: worker.Status{Name: out.GetName(), View: base.View(out.GetView()), Running: int(out.GetRunning()), Queued: int(out.GetQueued()), Local: out.GetLocal()},
		Homes:  int(out.GetHomes()), Leases: int(out.GetLeases()), Pulls: out.GetPulls(),
	}
	if len(out.GetWaits()) == len(s.Waits.Counts) { // a worker of another release may have others
		s.Waits = leases.Waits{Counts: [leases.WaitBuckets]uint64(out.GetWaits()), Sum: time.Duration(out.GetWaitedNs())}
	}
	return s, nil
}

// Lease is what a worker knows of a key.
type Lease struct {
	// Lock is that of transactions on the worker.
	Lock worker.Lease
	// Known is what it knows of the lease on the key's slot, if Among: it is not
	// alone.
	Known lease.Knowledge
	Among bool
}

// Lease says what the worker knows of a key. It blocks until the end of ctx.
func (c *Client) Lease(ctx context.Context, k base.Key) (Lease, error) {
	out, err := c.worker.Lease(ctx, &rpcpb.LeaseRequest{Table: k.Table, Key: k.Key})
	if err != nil {
		return Lease{}, err
	}
	l := Lease{Lock: worker.Lease{Mode: out.GetMode(), Holders: int(out.GetHolders()), Waiting: int(out.GetWaiting()), View: base.View(out.GetLockView())}}
	if out.GetLease() != nil {
		l.Known, l.Among = knowledgeFrom(out.GetLease()), true
	}
	return l, nil
}

// LogPlace is a place in the log of a worker's process; the zero value is before
// its first line.
type LogPlace struct {
	// Log names the run of the process that counts the lines.
	Log uint64
	// Seq is that of the last line before the place.
	Seq int64
}

// Logs returns the lines behind a place that are still kept, oldest first, not all
// at once if they are many, and the place behind them. If there is none it waits
// for one, for some seconds or wait, whichever is less. A place of an earlier run
// of the worker's process is before the first line of this run.
func (c *Client) Logs(ctx context.Context, after LogPlace, wait time.Duration) ([]worker.LogEntry, LogPlace, error) {
	out, err := c.worker.Logs(ctx, &rpcpb.LogsRequest{Log: after.Log, After: after.Seq, WaitNs: int64(wait)})
	if err != nil {
		return nil, after, err
	}
	if out.GetLog() != after.Log {
		after = LogPlace{Log: out.GetLog()}
	}
	lines := linesFrom(out.GetLines())
	if n := len(lines); n > 0 {
		after.Seq = lines[n-1].Seq
	}
	return lines, after, nil
}
