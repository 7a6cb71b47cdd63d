// Package service is a worker as other processes call it: a gateway hands it
// invocations over gRPC and gets the same replies as from a worker in its own
// process.
//
// Register serves a worker; a Client is the stub of one. What runs is named on
// the wire and never sent: the worker finds the compiled workflow and its bundles
// in its own catalogue (Programs). The two catalogues need not be equally new.
// Each request has the number of the last change that its program is made of; a
// worker that has not read that change reads it before it runs anything, so that
// whoever was told that a deployment is done gets what was deployed.
//
// # Outcomes
//
// An error of an invocation is part of the reply, whole. When the call itself
// fails, what the reply says depends on how far it came:
//
//	no stream to the worker was made     Unavailable: nothing was started
//	it was, and only reads were asked    Unavailable: nothing was changed
//	it was                               Timeout, Unknown: ask again with the same Idempotency-Key
//
// A worker goes on with what it has begun when the caller is gone, until the
// deadline: a retry finds the outcome. Deadlines travel as remaining time, so
// that clocks may differ, and the caller waits a little longer than that: the
// worker knows better what has become of an invocation in time.
//
// The service trusts its callers, which rpc authenticates; it checks what would
// do harm in the store.
//
// Start reading at Client.Execute and server.Execute; wire.go has the encoding.
package service
