// Package verbs is the provider over libibverbs: an RNIC, or SoftRoCE (rxe)
// anywhere. It keeps the contract of package rdma on queue pairs of type RC.
//
// It is built with CGO_ENABLED=1 and the tag rdma on Linux, see cgo/ibverbs.
// Built otherwise, Open and Devices fail with rdma.ErrNotSupported, and what is
// pure (addresses, statuses, choice of a GID) is there all the same.
//
//	Post ── one crossing ──▶ send queue ─▶ device ─▶ completion queue of the device
//	  │ remembers request                                 │ Poll, Wait: one crossing for many
//	  ▼                                                   ▼
//	ring of the queue pair ◀──── retires up to ───── wr_id {slot, generation, sequence}
//
// # What the provider adds to the verbs
//
// Selective signalling. Requests need not be Signaled; the provider signals one
// at least every half queue, keeps its completion to itself, and so gets the
// slots of those before it back. A Post that finds the queue full looks at the
// completion queue before it refuses.
//
// One end. A queue pair breaks for one of many reasons: a request failed, the
// peer misbehaved, the device said so, Revoke, Close. All of them lead to one
// teardown, in a goroutine of its own: move to ERR, collect what completed,
// destroy, collect, and complete the rest as flushed. The device flushes, too,
// but may forget some, and its completions of a queue pair that is gone are
// recognised by the generation in their wr_id. It is the destruction that makes
// Revoke true. ERR does not wait for what is in progress, and neither does RESET
// in rxe of Linux 6.1: it waits for the driver's own threads, while the packet of
// a peer on the same machine is executed by the thread that posts it.
//
// Receives. Doorbells need receive requests without memory. As many as
// ReceiveDepth are posted, and each polled doorbell is replaced at the end of the
// Poll, so that the limit is exact.
//
// Trust in the device is tested: Open connects a queue pair to itself and checks
// what CAS, FAA and READ after WRITE do and in which byte order, because a device
// that gets this wrong loses updates silently.
//
// # Goroutines
//
//	events of the device   provider           ends in Provider.Close
//	events of a queue      completion queue   ends in CompletionQueue.Close
//	teardown               queue pair         Revoke and Close wait for it
//	look (a timer's)       queue pair         stopped by the teardown
//
// # Locks
//
// region.mu (over all of its Close), then queuePair.mu, then completionQueue.mu;
// Provider.mu and regions.mu are leaves. The device is called under all but the
// leaves: posts of one queue pair must be in the order of its ring, and
// completions in that of the device. Teardowns are waited for under region.mu
// only.
//
// Start reading at Open in provider.go, then queuepair.go and completions.go.
package verbs
