package gateway

import (
	"context"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// Executor is the worker, or what routes to workers. Its methods are safe for
// concurrent use.
type Executor interface {
	// Execute runs one invocation and blocks until its outcome, and all that
	// the outcome depends on, is durable, or until ctx is done. It owns the
	// bytes of req.Ops from the call on; req.Input it may read until it
	// returns. The reply's bytes belong to the gateway, which only reads them.
	Execute(ctx context.Context, req *worker.Request) worker.Reply
	// Record returns what is kept of an ended invocation. The error is a
	// *base.Error of kind NotFound when nothing is.
	Record(id base.InvocationID) (worker.Record, error)
	// Load puts all of ops (only OpPut, without conditions) as one
	// transaction without a record and blocks until it is durable. It owns
	// the bytes of ops from the call on, not the slice.
	Load(ctx context.Context, ops []worker.Op) error
	// Workers returns a snapshot of each worker, by name. It does not block.
	Workers() []Status
	// DrainWorker takes a worker out of the cluster: its invocations end, no more
	// are sent to it, and what it holds is free. It blocks until then. The error is a
	// *base.Error: NotFound; InUse for the last worker; Timeout at the end of ctx, and
	// then it goes on.
	DrainWorker(ctx context.Context, name string) error
	// Lease says who may use a key now. It does not block.
	Lease(key base.Key) LeaseInfo
	// Logs returns the lines with Seq > after that are still kept, oldest
	// first, and a channel that is closed when a later line exists. It does
	// not block; the caller may not modify the lines.
	Logs(after int64) (lines []LogEntry, more <-chan struct{})
}

// FunctionCatalogue is the part of the catalogue that keeps functions. Errors
// are *base.Error; the methods that change something block until the change
// is durable.
type FunctionCatalogue interface {
	// DeployFunction compiles, checks and stores a module. created is false
	// when the same bytes were the current version already. The module's
	// bytes belong to the catalogue from the call on.
	DeployFunction(ctx context.Context, name string, module []byte, isolate bool) (info FunctionInfo, created bool, err error)
	// Functions returns all functions, sorted by name.
	Functions() []FunctionInfo
	// Function returns one function; NotFound if there is none.
	Function(name string) (FunctionInfo, error)
	// RemoveFunction removes one; InUse while a workflow needs it.
	RemoveFunction(ctx context.Context, name string) error
}

// WorkflowCatalogue is the part of the catalogue that keeps definitions.
// Errors are *base.Error; the methods that change something block until the
// change is durable.
type WorkflowCatalogue interface {
	// PutWorkflow parses, checks and stores a definition. created is true
	// for a name that had none.
	PutWorkflow(ctx context.Context, name string, definition []byte, format workflow.Format) (info WorkflowInfo, created bool, err error)
	// Workflows returns all workflows, sorted by name.
	Workflows() []WorkflowInfo
	// Workflow returns one; NotFound if there is none.
	Workflow(name string) (WorkflowInfo, error)
	// RemoveWorkflow removes one; NotFound if there is none.
	RemoveWorkflow(ctx context.Context, name string) error
}

// ProgramCatalogue gives what an invocation runs. All three are on the hot
// path: they do not block, and their results are immutable.
type ProgramCatalogue interface {
	// Program returns a workflow, compiled, with its current bundles.
	Program(name string) (*Program, error)
	// HandlerProgram returns one handler as a workflow of its own.
	HandlerProgram(function, handler string) (*Program, error)
	// Bundle returns the current bundle of a function.
	Bundle(function string) (runtime.Bundle, error)
}

// Catalogue is what is deployed.
type Catalogue interface {
	FunctionCatalogue
	WorkflowCatalogue
	ProgramCatalogue
}

// What is deployed is described in the words of the catalogue that keeps it.
type (
	// Program is a compiled workflow with the bundle of each step.
	Program = leasemgr.Program
	// FunctionInfo describes a deployed function.
	FunctionInfo = leasemgr.FunctionInfo
	// FunctionVersion is one version of a function.
	FunctionVersion = leasemgr.FunctionVersion
	// WorkflowInfo describes a deployed workflow.
	WorkflowInfo = leasemgr.WorkflowInfo
	// LogEntry is a log line with its place in the worker's log.
	LogEntry = worker.LogEntry
)

// Status is a snapshot of a worker.
type Status struct {
	// Name is the worker's id.
	Name string
	// Address is where other workers reach it; may be empty on one machine.
	Address string
	// Provider is the RDMA provider in use: verbs, shm, tcp or sim.
	Provider string
	// View is the membership that the worker has installed.
	View base.View
	// Running and Queued count invocations.
	Running, Queued int
	// Homes counts the slots whose home this worker is; Leases those it holds.
	Homes, Leases int
	// LocalInvocations counts, since the start, the invocations for which
	// every lease was held already; LeasePulls the leases fetched from others.
	LocalInvocations, LeasePulls uint64
}

// LeaseInfo says who may use a key.
type LeaseInfo struct {
	Holder string `json:"holder" doc:"The worker that holds the lease; empty: nobody does"`
	Mode   string `json:"mode" doc:"exclusive, shared or none"`
	Epoch  uint64 `json:"epoch" doc:"Grows whenever the lease changes hands"`
	Queue  int    `json:"queue" doc:"How many wait for it"`
	Home   string `json:"home" doc:"The worker whose memory has the lease word"`
	Why    string `json:"why" doc:"Why the plan put it there"`
}
