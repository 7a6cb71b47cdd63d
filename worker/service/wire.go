package service

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker"
)

func idTo(id base.InvocationID) (high, low uint64) {
	return binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
}

func idFrom(high, low uint64) (id base.InvocationID) {
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id
}

// deadlineFrom is the deadline after a remaining time; the zero time for none.
func deadlineFrom(remaining int64) time.Time {
	if remaining == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(remaining))
}

// requestTo gives a request its form on the wire, but for the remaining time. The
// bytes are not copied.
func requestTo(req *worker.Request) (*rpcpb.ExecuteRequest, *base.Error) {
	in := &rpcpb.ExecuteRequest{
		Workflow: req.Workflow, Function: req.Function, Handler: req.Handler, Changed: req.Changed, Deployed: req.Deployed,
		Input: req.Input, IdempotencyKey: req.IdempotencyKey, Ephemeral: req.Ephemeral, Trace: req.Trace,
	}
	in.IdHigh, in.IdLow = idTo(req.ID)
	if req.IdempotencyKey != "" {
		in.Digest = req.Digest[:]
	}
	if len(req.Input) > MaxBodyBytes {
		return nil, base.Errorf(base.TooLarge, "the input has %d bytes, the limit is %d", len(req.Input), MaxBodyBytes)
	}
	if len(req.Ops) == 0 {
		return in, nil
	}
	in.Name = req.Name
	var err *base.Error
	in.Ops, err = opsTo(req.Ops)
	return in, err
}

// fill sets what of a request has to be checked.
func fill(req *worker.Request, in *rpcpb.ExecuteRequest) (err error) {
	programs := 0
	for _, named := range [...]bool{in.GetWorkflow() != "", in.GetFunction() != "" && in.GetHandler() != "", len(in.GetOps()) > 0} {
		if named {
			programs++
		}
	}
	switch {
	case programs != 1:
		return base.Invalidf("request", "it must name a workflow, or a function and its handler, or operations, and just one of these")
	case req.Ephemeral && (len(in.GetOps()) == 0 || req.IdempotencyKey != ""):
		return base.Invalidf("request", "only operations without an idempotency key can leave no record")
	case req.IdempotencyKey != "" && len(in.GetDigest()) != len(req.Digest):
		return base.Invalidf("request", "the digest has %d bytes, not %d", len(in.GetDigest()), len(req.Digest))
	}
	copy(req.Digest[:], in.GetDigest())
	req.Ops, err = opsFrom(in.GetOps())
	return err
}

// opsTo gives operations their form on the wire. The bytes are not copied.
func opsTo(ops []worker.Op) ([]*rpcpb.WorkerOp, *base.Error) {
	size := 0
	memory, list := make([]rpcpb.WorkerOp, len(ops)), make([]*rpcpb.WorkerOp, len(ops))
	for i := range ops {
		op, to := &ops[i], &memory[i]
		to.Kind, to.Table, to.Key, to.Value = uint32(op.Kind), op.Key.Table, op.Key.Key, op.Value
		to.IfPresent, to.IfAbsent = op.IfPresent, op.IfAbsent
		if op.IfMatch != nil {
			version := uint64(*op.IfMatch)
			to.IfVersion = &version
		}
		list[i] = to
		size += len(op.Key.Table) + len(op.Key.Key) + len(op.Value) + perOp
	}
	if size > MaxBodyBytes {
		return nil, base.Errorf(base.TooLarge, "the operations have %d bytes, the limit is %d", size, MaxBodyBytes)
	}
	return list, nil
}

// opsFrom reads operations. Their values are the receiver's: the decoder has given
// each memory of its own, which a cache may keep without the rest.
func opsFrom(list []*rpcpb.WorkerOp) ([]worker.Op, error) {
	if len(list) == 0 {
		return nil, nil
	}
	ops := make([]worker.Op, len(list))
	for i, from := range list {
		op := &ops[i]
		op.Kind, op.Key, op.Value = worker.OpKind(from.GetKind()), base.Key{Table: from.GetTable(), Key: from.GetKey()}, from.GetValue()
		op.IfPresent, op.IfAbsent = from.GetIfPresent(), from.GetIfAbsent()
		if from.IfVersion != nil {
			version := base.Version(from.GetIfVersion())
			op.IfMatch = &version
		}
		if from.GetKind() < uint32(worker.OpGet) || from.GetKind() > uint32(worker.OpAppend) {
			return nil, base.Invalidf("request", "ops[%d]: operation %d is not known", i, from.GetKind())
		}
		if err := op.Key.Validate(); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// replyTo gives the reply to req its form on the wire. The bytes are not copied.
func replyTo(req *worker.Request, r *worker.Reply) *rpcpb.ExecuteReply {
	out := &rpcpb.ExecuteReply{Replayed: r.Replayed, Attempts: uint32(r.Attempts)}
	out.IdHigh, out.IdLow = idTo(r.ID)
	if r.Err != nil {
		out.Error = errorTo(r.Err)
	}
	size := len(r.Output)
	if sent := len(r.Results) > 0 && len(r.Results) == len(req.Ops); !sent {
		out.Output = r.Output
	} else {
		size = 0
		memory := make([]rpcpb.WorkerOpResult, len(r.Results))
		out.Results = make([]*rpcpb.WorkerOpResult, len(r.Results))
		for i := range r.Results {
			from, to := &r.Results[i], &memory[i]
			to.Found, to.Version = from.Found, uint64(from.Version)
			if req.Ops[i].Kind != worker.OpPut {
				to.Value = from.Value
			}
			out.Results[i] = to
			size += len(to.Value) + perOp
		}
	}
	if size > MaxBodyBytes {
		out.Output, out.Results = nil, nil
		out.Error = errorTo(base.Errorf(base.TooLarge, "the invocation is committed, but what it returned has %d bytes, and at most %d travel: ask for less", size, MaxBodyBytes))
	}
	return out
}

// replyFrom reads the reply to req.
func replyFrom(req *worker.Request, out *rpcpb.ExecuteReply) worker.Reply {
	r := worker.Reply{ID: idFrom(out.GetIdHigh(), out.GetIdLow()), Output: out.GetOutput(), Replayed: out.GetReplayed(), Attempts: int(out.GetAttempts())}
	if e := out.GetError(); e != nil {
		r.Err = errorFrom(e)
	}
	results := out.GetResults()
	if len(results) == 0 {
		return r
	}
	if len(results) != len(req.Ops) {
		return worker.Reply{ID: req.ID, Err: &base.Error{Kind: base.Internal, Unknown: true, Detail: "a worker gave another number of results than there are operations: is it of another release?"}}
	}
	r.Results = make([]worker.OpResult, len(results))
	for i, from := range results {
		r.Results[i] = worker.OpResult{Value: from.GetValue(), Found: from.GetFound(), Version: base.Version(from.GetVersion())}
		if req.Ops[i].Kind == worker.OpPut {
			r.Results[i].Value = req.Ops[i].Value
		}
	}
	r.Output = worker.AppendResults(nil, r.Results)
	return r
}

func errorTo(e *base.Error) *rpcpb.WorkerError {
	out := &rpcpb.WorkerError{
		Kind: e.Kind.String(), Subject: e.Subject, Detail: []byte(e.Detail), Reason: []byte(e.Reason),
		Unknown: e.Unknown, RetryAfterNs: int64(e.RetryAfter),
	}
	if e.Err != nil {
		out.Cause = []byte(e.Err.Error())
	}
	return out
}

func errorFrom(in *rpcpb.WorkerError) *base.Error {
	kind, _ := base.ParseKind(in.GetKind()) // a kind of a later release is Internal to us
	e := &base.Error{
		Kind: kind, Subject: in.GetSubject(), Detail: string(in.GetDetail()), Reason: string(in.GetReason()),
		Unknown: in.GetUnknown(), RetryAfter: time.Duration(in.GetRetryAfterNs()),
	}
	if cause := in.GetCause(); len(cause) > 0 {
		e.Err = errors.New(string(cause))
	}
	return e
}

func recordTo(r *worker.Record) *rpcpb.RecordReply {
	out := &rpcpb.RecordReply{
		Workflow: []byte(r.Workflow), State: r.State, Attempts: uint32(r.Attempts), Worker: []byte(r.Worker),
		StartedNs: r.Started.UnixNano(), EndedNs: r.Ended.UnixNano(), Output: r.Output,
	}
	if r.Err != nil {
		out.Error = errorTo(r.Err)
	}
	return out
}

func recordFrom(id base.InvocationID, in *rpcpb.RecordReply) worker.Record {
	r := worker.Record{
		ID: id, Workflow: string(in.GetWorkflow()), State: in.GetState(), Attempts: int(in.GetAttempts()), Worker: string(in.GetWorker()),
		Started: time.Unix(0, in.GetStartedNs()), Ended: time.Unix(0, in.GetEndedNs()), Output: in.GetOutput(),
	}
	if e := in.GetError(); e != nil {
		r.Err = errorFrom(e)
	}
	return r
}

func knowledgeTo(k lease.Knowledge) *rpcpb.LeaseKnowledge {
	out := &rpcpb.LeaseKnowledge{
		View: uint32(k.View), Home: uint32(k.Home), Word: uint64(k.Word), State: k.State, Ticket: uint32(k.Ticket), Successor: uint32(k.Successor),
		Users: uint32(k.Users), Writers: uint32(k.Writers), Queue: uint32(k.Queue), Blocked: k.Blocked, Undurable: k.Undurable,
	}
	for _, r := range k.Readers {
		out.Readers = append(out.Readers, uint32(r))
	}
	return out
}

func knowledgeFrom(in *rpcpb.LeaseKnowledge) lease.Knowledge {
	k := lease.Knowledge{
		View: base.View(in.GetView()), Home: lease.Worker(in.GetHome()), Word: lease.Word(in.GetWord()), State: in.GetState(),
		Ticket: lease.Ticket(in.GetTicket()), Successor: lease.Worker(in.GetSuccessor()),
		Users: int(in.GetUsers()), Writers: int(in.GetWriters()), Queue: int(in.GetQueue()), Blocked: in.GetBlocked(), Undurable: in.GetUndurable(),
	}
	for _, r := range in.GetReaders() {
		k.Readers = append(k.Readers, lease.Worker(r))
	}
	return k
}

// linesTo gives as many lines as fit into a reply their form on the wire.
func linesTo(lines []worker.LogEntry) []*rpcpb.WorkerLogLine {
	var out []*rpcpb.WorkerLogLine
	size := 0
	for i := range lines {
		l := &lines[i]
		if size += len(l.Message) + len(l.Workflow) + len(l.Step) + len(l.Trace) + perOp; i > 0 && size > maxLogsBytes {
			break
		}
		to := &rpcpb.WorkerLogLine{
			Seq: l.Seq, TimeNs: l.Time.UnixNano(), Workflow: []byte(l.Workflow), Step: []byte(l.Step),
			Message: []byte(l.Message), Trace: []byte(l.Trace),
		}
		to.IdHigh, to.IdLow = idTo(l.Invocation)
		out = append(out, to)
	}
	return out
}

func linesFrom(in []*rpcpb.WorkerLogLine) []worker.LogEntry {
	lines := make([]worker.LogEntry, len(in))
	for i, l := range in {
		lines[i] = worker.LogEntry{Seq: l.GetSeq(), LogLine: worker.LogLine{
			Time: time.Unix(0, l.GetTimeNs()), Invocation: idFrom(l.GetIdHigh(), l.GetIdLow()),
			Workflow: string(l.GetWorkflow()), Step: string(l.GetStep()), Message: string(l.GetMessage()), Trace: string(l.GetTrace()),
		}}
	}
	return lines
}
