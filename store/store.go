// Package store is the contract of the durable engine under the workers, and
// the layout of what they keep in it.
//
// An Engine is an ordered key-value engine with atomic batches. Two kinds of
// writer use it. A worker appends batches: Append fixes a batch's place in the
// log, makes it visible and numbers it, WaitDurable later says that the number
// survives a crash; between the two the worker has already released the
// transaction's locks (early lock release). The catalogue and the membership
// use Apply, which returns when its batch is durable.
//
// Invariants every implementation keeps (lease_protocol.md section 9):
//
//   - a batch is applied as a whole or not at all, also across a crash;
//   - a batch whose Append began after another's had returned is behind it in
//     the log: a crash that leaves the later one leaves the earlier one;
//   - a batch of a view older than the seal is refused;
//   - numbers begin at 1 and have no gap;
//   - an engine that cannot sync never reports a batch as durable again: it
//     stops the process.
//
// The package does not know what a transaction is. Start reading at Engine;
// keys.go has the layout; sub-package pebble is the embedded engine.
package store

import (
	"context"

	"github.com/tenure-faas/tenure/base"
)

// Reader reads what has been appended or applied, durable or not.
type Reader interface {
	// Get appends the value of key to dst and returns the extended slice;
	// found is false for an absent key. The result belongs to the caller.
	Get(dst, key []byte) (value []byte, found bool, err error)
	// Scan calls visit for each key in [lo, hi) in ascending order until visit
	// returns false. The slices are valid during the call only. What is
	// written while it runs may or may not be seen.
	Scan(lo, hi []byte, visit func(key, value []byte) (more bool)) error
}

// Batch collects writes. It is not safe for concurrent use. Keys and values
// are copied.
type Batch interface {
	// Set writes a value.
	Set(key, value []byte)
	// Delete removes a key; absent keys are no error.
	Delete(key []byte)
	// DeleteRange removes the keys in [lo, hi).
	DeleteRange(lo, hi []byte)
	// Len returns the size of the batch in bytes.
	Len() int
	// Release returns the batch's memory; it may not be used afterwards.
	Release()
}

// Engine is a durable engine. It is safe for concurrent use.
type Engine interface {
	Reader
	// NewBatch returns an empty batch, to be released by the caller.
	NewBatch() Batch
	// Append gives a worker's batch its place in the log, makes it visible and
	// returns its number. It does not wait for the disk. An error (kind
	// Unavailable) means that nothing happened: the view is sealed, or the
	// engine is closed.
	Append(view base.View, b Batch) (base.Number, error)
	// Appended returns the greatest number that Append has returned.
	Appended() base.Number
	// Durable returns the number up to which every batch is durable.
	Durable() base.Number
	// WaitDurable returns nil once Durable() >= n, or ctx's error. Concurrent
	// callers share one sync of the disk (group commit).
	WaitDurable(ctx context.Context, n base.Number) error
	// Apply applies a batch and returns when it is durable.
	Apply(b Batch) error
	// Seal refuses from now on every Append of a view older than v. It returns
	// when the seal and all that was accepted before it are durable.
	Seal(v base.View) error
	// Sealed returns the seal; 0 for a new store.
	Sealed() base.View
	// Close releases the engine after the last use. Appended batches are made
	// durable.
	Close() error
}
