package service

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// Programs is the catalogue of the worker's process. It is safe for concurrent
// use; all but Reach do not block.
type Programs interface {
	// RunWorkflow returns a workflow, compiled, with the bundle of each step. Both
	// are immutable. NotFound if there is none, Unavailable if it cannot run here.
	RunWorkflow(name string) (*workflow.Workflow, []runtime.Bundle, error)
	// RunHandler returns one handler as a workflow of its own.
	RunHandler(function, handler string) (*workflow.Workflow, []runtime.Bundle, error)
	// Bundle returns the current bundle of a function.
	Bundle(function string) (runtime.Bundle, error)
	// Sequence is the number of the last change that was read.
	Sequence() uint64
	// Reach reads changes until the one with a number is among them. It blocks for
	// the store and for modules that are compiled, until the end of ctx. The error
	// is Unavailable if the store does not have that change.
	Reach(ctx context.Context, sequence uint64) error
}

// Options configures Register.
type Options struct {
	// Worker returns the worker of this process, or nil while it has none, between
	// two memberships. Required.
	Worker func() *worker.Worker
	// Programs finds what runs. Required.
	Programs Programs
	// Drain is called when the worker is asked to leave the cluster; it returns at
	// once, and may be called more than once. Required.
	Drain func()
	// Logs are those of all workers of the process (worker.Options.Logs); they stay
	// from one to the next. Required.
	Logs *worker.Logs
}

// Limits of what travels.
const (
	// MaxBodyBytes bounds what users send or get in one call: the input or the
	// operations, and the output or the results.
	MaxBodyBytes = 64 << 20
	// MessageBytes is the MaxMessage of rpc.Options that both ends need.
	MessageBytes = MaxBodyBytes + 8<<20
	// perOp is what an operation or a result may need besides its bytes.
	perOp = 64
	// maxLogsWait and maxLogsBytes bound one reply of Logs, which has one line at
	// least if there is one.
	maxLogsWait  = 20 * time.Second
	maxLogsBytes = 1 << 20
	// retryAfter is the hint given with refusals that pass by themselves.
	retryAfter = time.Second
)

// Register serves the worker of this process on s, a server of rpc.NewServer with
// MessageBytes as MaxMessage. It must be stopped, handlers included, before the
// worker's store is closed.
func Register(s grpc.ServiceRegistrar, o Options) {
	rpcpb.RegisterWorkerServer(s, &server{worker: o.Worker, programs: o.Programs, lookup: o.Programs.Bundle, drain: o.Drain, logs: o.Logs, log: rand.Uint64() | 1})
}

type server struct {
	rpcpb.UnimplementedWorkerServer
	worker   func() *worker.Worker
	programs Programs
	// lookup is programs.Bundle, as a value made once.
	lookup func(function string) (runtime.Bundle, error)
	drain  func()
	logs   *worker.Logs
	// log names this run of the process; never 0.
	log uint64
}

// none is the answer of a process without a worker.
func none() *base.Error {
	return &base.Error{Kind: base.Unavailable, Detail: "the worker is no member of the cluster now; nothing was started", RetryAfter: retryAfter}
}

// Execute implements the service. The caller's context does not reach the worker:
// what has begun goes on until its deadline.
func (s *server) Execute(ctx context.Context, in *rpcpb.ExecuteRequest) (*rpcpb.ExecuteReply, error) {
	w := s.worker()
	req := &worker.Request{
		ID: idFrom(in.GetIdHigh(), in.GetIdLow()), Name: in.GetName(), Input: in.GetInput(),
		IdempotencyKey: in.GetIdempotencyKey(), Deadline: deadlineFrom(in.GetRemainingNs()),
		Ephemeral: in.GetEphemeral(), Trace: in.GetTrace(),
	}
	if err := fill(req, in); err != nil {
		return nil, err
	}
	if w == nil {
		return replyTo(req, &worker.Reply{ID: req.ID, Err: none()}), nil
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.resolve(ctx, req, in); err != nil {
		return replyTo(req, &worker.Reply{ID: req.ID, Err: err}), nil
	}
	reply := w.Execute(ctx, req)
	return replyTo(req, &reply), nil
}

// resolve finds what runs. On an error nothing is started.
func (s *server) resolve(ctx context.Context, req *worker.Request, in *rpcpb.ExecuteRequest) *base.Error {
	if len(req.Ops) > 0 {
		return nil
	}
	if in.GetChanged() > s.programs.Sequence() {
		if err := s.reach(ctx, req, in.GetChanged()); err != nil {
			return err
		}
	}
	var err error
	if workflow := in.GetWorkflow(); workflow != "" {
		req.Name = workflow
		req.Flow, req.Bundles, err = s.programs.RunWorkflow(workflow)
	} else if req.Flow, req.Bundles, err = s.programs.RunHandler(in.GetFunction(), in.GetHandler()); err == nil {
		req.Name = req.Flow.Name
	}
	if err != nil {
		return asError(err)
	}
	req.Lookup = s.lookup
	if deployed := in.GetDeployed(); deployed > s.programs.Sequence() {
		// The caller knows of a later deployment, of something else than this
		// program: it matters only if a function calls that.
		req.Lookup = func(function string) (runtime.Bundle, error) {
			if err := s.reach(ctx, req, deployed); err != nil {
				return nil, err
			}
			return s.programs.Bundle(function)
		}
	}
	return nil
}

// reach waits until the catalogue has a change, at most until the deadline.
func (s *server) reach(ctx context.Context, req *worker.Request, sequence uint64) *base.Error {
	if s.programs.Sequence() >= sequence {
		return nil
	}
	if !req.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, req.Deadline)
		defer cancel()
	}
	err := s.programs.Reach(ctx, sequence)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return base.Errorf(base.Timeout, "the deadline passed while the worker loaded what was deployed: the outcome is unchanged (nothing was started)")
	}
	return &base.Error{
		Kind: base.Unavailable, RetryAfter: retryAfter, Err: err,
		Detail: fmt.Sprintf("the worker has not got change %d of what is deployed yet; nothing was started", sequence),
	}
}

// Load implements the service.
func (s *server) Load(ctx context.Context, in *rpcpb.LoadRequest) (*rpcpb.LoadReply, error) {
	ops, err := opsFrom(in.GetOps())
	if err != nil {
		return nil, err
	}
	w := s.worker()
	if w == nil {
		return &rpcpb.LoadReply{Error: errorTo(none())}, nil
	}
	ctx = context.WithoutCancel(ctx)
	if deadline := deadlineFrom(in.GetRemainingNs()); !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	reply := &rpcpb.LoadReply{}
	if err := w.Load(ctx, ops); err != nil {
		reply.Error = errorTo(asError(err))
	}
	return reply, nil
}

// Record implements the service.
func (s *server) Record(_ context.Context, in *rpcpb.RecordRequest) (*rpcpb.RecordReply, error) {
	w := s.worker()
	if w == nil {
		return nil, none()
	}
	r, err := w.Record(idFrom(in.GetIdHigh(), in.GetIdLow()))
	if err != nil {
		return nil, err
	}
	return recordTo(&r), nil
}

// Status implements the service.
func (s *server) Status(context.Context, *rpcpb.WorkerStatusRequest) (*rpcpb.WorkerStatus, error) {
	w := s.worker()
	if w == nil {
		return nil, none()
	}
	now := w.Status()
	out := &rpcpb.WorkerStatus{Name: now.Name, View: uint32(now.View), Running: uint32(max(now.Running, 0)), Queued: uint32(max(now.Queued, 0)), Local: now.Local}
	if l := w.Leases(); l != nil {
		stats, known := l.Stats()
		out.Homes, out.Leases, out.Pulls = uint32(l.Homes()), uint32(known), stats.Pulls
		waits := l.Waits()
		out.Waits, out.WaitedNs = waits.Counts[:], int64(waits.Sum)
	}
	return out, nil
}

// Lease implements the service.
func (s *server) Lease(_ context.Context, in *rpcpb.LeaseRequest) (*rpcpb.LeaseReply, error) {
	w := s.worker()
	if w == nil {
		return nil, none()
	}
	k := base.Key{Table: in.GetTable(), Key: in.GetKey()}
	if err := k.Validate(); err != nil {
		return nil, err
	}
	lock := w.Lease(k)
	out := &rpcpb.LeaseReply{Mode: lock.Mode, Holders: uint32(lock.Holders), Waiting: uint32(lock.Waiting), LockView: uint32(lock.View)}
	if l := w.Leases(); l != nil {
		out.Lease = knowledgeTo(l.Explain(k.Slot()))
	}
	return out, nil
}

// Logs implements the service.
func (s *server) Logs(ctx context.Context, in *rpcpb.LogsRequest) (*rpcpb.LogsReply, error) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(in.GetWaitNs()), maxLogsWait))
	defer cancel()
	after := in.GetAfter()
	if in.GetLog() != s.log {
		after = 0 // of an earlier run, whose lines are gone
	}
	out := &rpcpb.LogsReply{Log: s.log}
	for {
		lines, more := s.logs.After(after)
		if len(lines) > 0 {
			out.Lines = linesTo(lines)
			return out, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return out, nil
		}
	}
}
