// Package ibverbs is a thin binding of libibverbs: one Go call for one verb, and
// one crossing into C for a batch of posts or polls. It knows nothing of Tenure;
// the contract is kept by rdma/verbs, which is its only user.
//
// It is built with
//
//	CGO_ENABLED=1 go build -tags rdma
//
// on Linux, where a C compiler and the headers of libibverbs are (on Debian: gcc
// and libibverbs-dev). Anywhere else only the types of this package exist, and
// Built is false. The library itself is opened at run time (libibverbs.so.1, on
// Debian in libibverbs1), so that a program built with it runs on machines
// without it, too; Load says what is missing.
//
// # Ownership
//
// Handles are closed by whoever opened them, in the reverse order of opening:
// the library refuses, or worse, otherwise. The methods of a handle may be called
// concurrently, but nothing may be in progress on a handle that is being closed,
// save the waits that Shut ends. Memory that is registered must not be Go
// memory. No Go pointer stays in C after a call.
//
// # Waiting
//
// File descriptors of the device (events of a completion queue, asynchronous
// events) wait in Go's poller: a goroutine that waits holds no thread.
//
// Start reading at Descriptor, then shim.h, which is all that Go calls.
package ibverbs
