// Package workflow reads, checks and compiles definitions of workflows, and
// answers the two questions a worker has about one: which keys does this input
// declare, and which steps may start now.
//
// A definition (API.md, "Workflow definition") goes through two stages. Parse
// turns JSON or YAML into a Definition: syntax, field names, limits. Compile
// turns a Definition into a Workflow against the functions that are deployed:
// meaning. Only a Workflow runs; it is immutable and safe for concurrent use,
// and its methods are on the hot path of every invocation.
//
//	bytes --Parse--> Definition --Compile--> Workflow --DeclaredKeys--> []KeyUse
//	                     |                      |                          |
//	               MarshalJSON: what is         +--------Schedule----------+
//	               stored and shown                         |
//	                                          StepSet by StepSet, as steps end
//
// Invariants. Whatever Parse accepts is within the limits of this package, and
// MarshalJSON writes it in a form that Parse reads back as an equal value. The
// order of a Workflow is acyclic. The same arguments give the same answer,
// errors included: nothing depends on the order of a map. No definition and no
// input makes the package panic or recurse without a bound.
//
// The package is a core: it starts no goroutine, does no I/O and reads no
// clock. It does not run steps, hold locks or know where keys live; that is
// the worker's part. Declared keys are a fast path and a promise of nothing,
// so nothing here is needed for the correctness of a transaction.
//
// Start reading at Definition, then Workflow, then Schedule.
package workflow
