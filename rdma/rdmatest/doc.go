// Package rdmatest is the suite that holds every provider of rdma to the
// contract: one set of behaviours, run over providers in this process, in
// processes of their own that can be killed, and on another machine.
//
//	driver (go test)                         node
//	Run ── behaviour ── node ──── link ────▶ agent ── rdma.Provider
//	                     │   operations      │ regions, queues, queue pairs
//	                     ◀──── answers ──────┘ by number
//
// A behaviour is a script. It tells nodes what to do through operations: plain
// values that either run here (InProcess) or travel over net/rpc to an agent
// (Processes, Remote), and that the agent carries out on its provider. What must
// be fast or close to the memory is an operation as a whole: a stream of
// requests, an observer of a word. Addresses of queue pairs and descriptions of
// regions travel through the driver, as over a control plane.
//
// The suite demands what the contract promises and nothing more: where the
// contract leaves a choice, each choice passes, and no provider is known by its
// name. It never sleeps to wait for something; a bound (Options.Bound) turns
// what hangs into a failure.
//
// To use it, a provider's tests call Main from TestMain, and Run. To read it,
// start with behaviours in suite.go, then data.go; operations.go and stream.go
// have what nodes can do. The tests of the package run the suite over a small
// provider of its own and over broken copies of that one, each of which the
// suite must find out.
package rdmatest
