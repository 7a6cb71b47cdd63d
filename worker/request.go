package worker

import (
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/workflow"
)

// Request is one invocation: either a program (Flow) or a list of operations
// (Ops), run as one transaction.
type Request struct {
	// ID names the invocation; the gateway makes it.
	ID base.InvocationID
	// Name is the workflow's name in records and metrics: the name of the
	// workflow, "function/handler" for a handler on its own, "txn" or "state".
	Name string
	// Workflow, or else Function and Handler, say what Flow was made of, for a
	// worker in another process: it finds Flow, Bundles and Lookup for itself.
	Workflow, Function, Handler string
	// Changed is the last change of the catalogue that Flow and Bundles are made
	// of, and Deployed the last one that the caller knows (leasemgr.Program): no
	// older ones run, and none older are called.
	Changed, Deployed uint64
	// Flow is the compiled workflow; nil when Ops is used.
	Flow *workflow.Workflow
	// Bundles has the pinned bundle of each step of Flow, by step index.
	Bundles []runtime.Bundle
	// Lookup finds the current bundle of a function for Host.Call. It is safe
	// for concurrent use; a miss is a *base.Error of kind NotFound.
	Lookup func(function string) (runtime.Bundle, error)
	// Keys are the keys that Flow declares for Input, if they are computed already;
	// otherwise nil.
	Keys []workflow.KeyUse
	// Input is the invocation's input, valid JSON. The worker keeps it until
	// Execute returns and does not modify it.
	Input []byte
	// Ops are run in order when Flow is nil.
	Ops []Op
	// IdempotencyKey makes the invocation unique within 24 hours; empty: none.
	IdempotencyKey string
	// Digest is a hash of everything that must be equal when the key is used
	// again: target, method and body.
	Digest [32]byte
	// Deadline ends the invocation; the zero time means Options.Timeout from now.
	Deadline time.Time
	// Ephemeral keeps no record of the invocation (reads of single values, bulk
	// loads). It goes with Ops and without IdempotencyKey.
	Ephemeral bool
	// Trace is the trace id of the caller's traceparent, for logs; may be empty.
	Trace string
}

// OpKind is the kind of an Op.
type OpKind uint8

// The operations of POST /v1/txn and of the state calls.
const (
	// OpGet reads a value.
	OpGet OpKind = iota + 1
	// OpPut writes a value.
	OpPut
	// OpDelete removes a key.
	OpDelete
	// OpAdd adds a decimal int64 (Value) to a decimal int64 and returns the sum.
	OpAdd
	// OpAppend adds one JSON element (Value) to a JSON array and returns the array.
	OpAppend
)

// Op is one operation of a transaction without user code.
type Op struct {
	Kind  OpKind
	Key   base.Key
	Value []byte
	// IfMatch makes a put or delete conditional on the key being present with
	// this version; nil: no condition. A failure is Precondition.
	IfMatch *base.Version
	// IfPresent (If-Match: *) requires any value to be present.
	IfPresent bool
	// IfAbsent (If-None-Match: *) requires the key to be absent.
	IfAbsent bool
}

// OpResult is what one Op returns: after a write the state it left behind.
type OpResult struct {
	Value   []byte
	Found   bool
	Version base.Version
}

// AppendResults appends the JSON answer of a list of operations to dst: what
// Reply.Output is for Ops.
func AppendResults(dst []byte, results []OpResult) []byte { return appendResults(dst, results) }

// Reply is the outcome of an invocation. When Err is nil the invocation is
// committed and durable. Any reply, error or not, is given only after all
// that it depends on is durable.
type Reply struct {
	// ID names the invocation whose outcome this is: the request's own, or on
	// a replay the first one's.
	ID base.InvocationID
	// Output is the workflow's output; for Ops the JSON object
	// {"results":[{"value"|"value_base64","found","version"}]}.
	Output []byte
	// Results are the results of Ops; nil on a replay (Output has them).
	Results []OpResult
	// Replayed says that an earlier invocation with the same idempotency key
	// gave this outcome.
	Replayed bool
	// Attempts counts how often the transaction was tried, from 1.
	Attempts int
	// Err is the failure; nil means success.
	Err *base.Error
}

// Record is what is kept of an invocation for Options.Retention.
type Record struct {
	ID       base.InvocationID
	Workflow string
	// State is "completed", "aborted" or "failed".
	State    string
	Attempts int
	Worker   string
	Started  time.Time
	Ended    time.Time
	// Output is set when State is completed.
	Output []byte
	// Err is set otherwise.
	Err *base.Error
}

// LogLine is one line that a function wrote.
type LogLine struct {
	Time       time.Time         `json:"time"`
	Invocation base.InvocationID `json:"-"`
	Workflow   string            `json:"workflow"`
	Step       string            `json:"step"`
	Message    string            `json:"message"`
	Trace      string            `json:"trace,omitempty"`
}
