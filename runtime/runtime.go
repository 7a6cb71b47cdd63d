// Package runtime is what the worker needs of user code, and what user code
// needs of the worker.
//
// A Bundle is one deployed version of a function: a set of named handlers. The
// worker calls Bundle.Invoke once for each step of an attempt and hands it a
// Host, through which the handler reads and writes inside the transaction.
// Siblings implement Bundle: wasm (sandboxed, the default for deployed code)
// and native (Go handlers compiled into the server: trusted).
//
// Invariants: a Bundle never touches state but through the Host; Invoke
// returns soon (see wasm for the bound) after ctx is done; after an error that
// leaves an instance in doubt the instance is discarded, never reused.
package runtime

import (
	"context"
	"time"

	"github.com/tenure-faas/tenure/base"
)

// Bundle is one version of a deployed function, ready to run. It is safe for
// concurrent use.
type Bundle interface {
	// Handlers returns the names of the handlers, sorted. The caller may not
	// modify the slice.
	Handlers() []string
	// Invoke runs one handler to its end on the calling goroutine. The result
	// belongs to the caller. An error is a *base.Error of kind Aborted (the
	// handler gave up), FunctionError (it crashed, ran out of memory, broke a
	// rule), Timeout (ctx ended first) or Unavailable (no instance could be
	// had). When a Host method has returned ErrAttemptOver, what Invoke
	// returns does not matter: the worker repeats the attempt.
	Invoke(ctx context.Context, call Call) ([]byte, error)
	// Close frees the bundle after running invocations have ended.
	Close() error
}

// Call is one call of a handler.
type Call struct {
	// Handler names the handler; it must be one of Bundle.Handlers.
	Handler string
	// Input is the handler's input: owned by the caller, not to be modified,
	// valid until Invoke returns.
	Input []byte
	// Host is the transaction that the handler runs in.
	Host Host
	// Isolate asks for an instance whose memory no earlier invocation touched.
	Isolate bool
}

// Host is the view a running handler has of its transaction: it sees its own
// writes and nothing that is uncommitted elsewhere. Methods are called by one
// goroutine at a time. Every error is a *base.Error or ErrAttemptOver; after
// ErrAttemptOver every further call returns it too and the handler should
// return as soon as it can. Methods may block on locks until ctx of Invoke is
// done.
type Host interface {
	// Get returns the value of a key, or found == false. The value may not be
	// modified and is valid until the handler returns.
	Get(table, key string) (value []byte, found bool, err error)
	// Put sets a value; the bytes are copied.
	Put(table, key string, value []byte) error
	// Delete removes a key; absent keys are no error.
	Delete(table, key string) error
	// Add adds delta to a decimal int64 (absent counts as 0) without reading
	// it: concurrent adds of one key do not wait for each other.
	Add(table, key string, delta int64) error
	// Scan returns up to limit entries (0: the largest allowed number) whose key begins
	// with prefix, in byte order of the keys. No key can appear in or vanish
	// from the range before the transaction ends.
	Scan(table, prefix string, limit int) ([]Entry, error)
	// Call runs a handler of another function in the same transaction.
	Call(function, handler string, input []byte) ([]byte, error)
	// Result returns the output of an earlier step of the workflow; found is
	// false for a step that is unknown, or not ordered before this one.
	Result(step string) (output []byte, found bool)
	// Abort records that the handler gives the transaction up, with a reason
	// for the caller. It holds whatever the handler returns afterwards.
	Abort(reason string)
	// Now returns a time that is fixed within an attempt.
	Now() time.Time
	// Rand returns 64 random bits.
	Rand() uint64
	// Log writes one line to the invocation's log; long lines are cut.
	Log(message string)
	// InvocationID names the invocation.
	InvocationID() base.InvocationID
}

// Entry is one entry of a scan. Key and Value may not be modified.
type Entry struct {
	Key   string
	Value []byte
}

// ErrAttemptOver is returned by Host methods when the attempt cannot commit
// any more (it would deadlock, or its deadline passed). The worker decides
// what happens next; the handler just returns.
var ErrAttemptOver error = &attemptOverError{}

type attemptOverError struct{}

// Error says that the attempt is over.
func (*attemptOverError) Error() string { return "the attempt is over: return from the handler" }
