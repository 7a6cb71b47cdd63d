// Package txn is what a transaction is inside one worker: locks on keys, gates
// against phantoms, and the set of keys that an attempt has read and written.
//
// It is a core: it starts no goroutine, does no I/O, reads no clock and takes
// no mutex. The worker calls it inline under the latch of a shard and carries
// out what it returns.
//
// # Concurrency control
//
// Strict two-phase locking. A lock is shared (reads), additive (commutative
// adds: compatible with one another and with nothing else) or exclusive
// (writes). Queues are first come, first served; a request that is compatible
// with the holders still waits behind an incompatible one that came earlier,
// so nobody starves.
//
// Deadlock is impossible because waits follow one global order: first the
// gates of tables by name, then keys by slot, table and key (base.Key.Compare).
// An attempt waits only for something greater than everything it holds. What it
// needs out of order it gets at once or not at all; in the second case the
// attempt is given up and repeated, and the repetition takes everything that
// earlier attempts touched in order, before any function runs (Footprint).
// Wait-for edges therefore only ever point upwards, and a cycle would have to
// come down (lease_protocol.md section 11).
//
// # Phantoms
//
// A Gate a table. A transaction passes the gate of a table before it writes
// there (with the keys it will write) or scans there (with the prefixes it will
// scan); a scan and a write conflict if the key begins with the prefix. So
// nothing can appear in or vanish from a scanned range before the scanner has
// committed, while writers outside of the range do not notice the scan.
//
// # Values
//
// An Entry holds the lock and, if it fits in the budget, the newest value of
// the key with its version and the number of the batch that wrote it (Dirty),
// so that a reader knows what must be durable before its answer may leave. The
// values of a slot come and go with its lease (slot.go).
//
// Invariants: while the lease is here a value changes only under an exclusive
// lock, or under an additive one inside the worker's commit section, and its
// version grows by one at each change; an entry with holders or waiters never
// leaves the table.
//
// Start reading at Table.Acquire, then Gate.Enter, then Set.
package txn
