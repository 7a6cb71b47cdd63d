// Package worker runs workflows as transactions: leases and locks in,
// functions run, commit out.
//
// # Life of an invocation
//
//	Execute   idempotency (a flight for duplicates in progress, a record for those that ended), admission
//	attempt   take the footprint in order: gates, then locks           (txn decides, attempt.go waits)
//	run       the functions, through a Host each; or the operations     (steps.go, host.go, ops.go)
//	commit    one batch: writes, invocation record, idempotency record  (commit.go)
//	release   locks and gates, as soon as the batch has its place in the log
//	barrier   wait until everything the answer depends on is durable
//
// # Invariants
//
//   - A reply leaves only when the invocation's own batch and every batch that
//     wrote a value it read are durable, whether it succeeded or not.
//   - The writes, the result and the idempotency record of an invocation are
//     in one batch: all or nothing.
//   - Locks are released after the append, so a batch that depends on another is
//     behind it in the log: durable order extends the order of locks.
//   - An attempt that fails changes nothing; an invocation has one outcome.
//
// # Locks, in the order in which they are taken
//
//	flights.mu                        (alone)
//	invocation.mu -> gate latch       one at a time, never while waiting for a transaction
//	invocation.mu -> shard latch      one at a time
//	commitMu -> shard latch           the commit section of additive effects
//
// An invocation's own mutex is held while it waits for another transaction:
// its parallel steps then wait with it, which keeps one wait at a time.
//
// The worker starts no goroutine for a linear workflow: everything runs on the
// caller's. Parallel branches run on goroutines that the invocation waits for;
// Run owns the sweeper. It does not speak HTTP (gateway) and does not know
// what is deployed (leasemgr).
package worker
