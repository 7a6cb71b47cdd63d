// Package leases measures what leases cost between processes, on one machine.
//
// Each figure has a cluster of its own: a leasemgr, workers and gateways, which are
// child processes with plain connections over loopback, and a directory that is
// removed at the end. What is sent comes over the public API; what workers know
// alone comes from the metrics of the gateway and from their logs.
//
//	Transfer   one key alternates between two workers whose home is a third
//	Takeover   a worker dies that holds the leases of many keys
//	Growth     a worker joins under load, and is drained
//
// Invariants:
//   - On every way out, panics excepted, all children have ended and their
//     directory is removed; on Linux they die with this process.
//   - Every request and every wait is bounded.
//   - A request that fails is counted or is an error, never left out.
//
// Start reading at Options and Run.
package leases
