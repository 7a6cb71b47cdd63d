// Package remote lets several workers share one durable engine over gRPC.
//
// Register serves an engine, usually store/pebble's; Dial returns a
// store.Engine for one member (a worker number and one start of it) whose
// batches travel through a pipeline:
//
//	Append -> numbered and put into the pipeline, under one lock
//	       -> frames on the member's one stream, in the order of the numbers
//	       -> server: next number?  view >= seal?  -> engine.Append, with the number in the batch
//	       <- acknowledged: the highest durable number; one sync covers what queued up
//
// A number is assigned under the lock that puts the batch into the pipeline, and
// one stream carries them in order, so that the order of a member's batches in
// the log is the order of their numbers, whoever appended them.
//
// Invariants (lease_protocol.md section 9):
//
//   - a member's batches are applied in the order of their numbers, without gap
//     and each once: the last number is part of the same engine batch, so that
//     no crash separates the two, and a repeat is dropped and answered;
//   - a batch of a view older than the seal is refused, and nothing behind it
//     is taken until it has come again, relabelled;
//   - once an incarnation of a worker has committed or only opened its stream,
//     earlier ones are refused for good, also after a restart of the server;
//   - a batch leaves the client's pipeline only when it is durable, so that a
//     broken connection and a crash of the server cost a resend and no data;
//   - a member's reads see everything that it has appended before.
//
// The view changes under a pipeline (section 8): the store is sealed first, so
// batches under way may be refused although their sender is a member of the next
// view. They wait in the pipeline until SetView relabels and resends them, or
// Evict gives them up.
//
// What one member has appended and is not durable yet may be invisible to
// another for as long as it is under way; workers hand over durable values only.
//
// Start reading at Engine (client.go) and server (server.go); pipeline.go is
// the client's bookkeeping, session.go the server's.
package remote

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// Member is one start of one worker.
type Member struct {
	// Worker is the worker's number, 1..MaxWorker. Two workers never share one.
	Worker uint16
	// Incarnation counts the starts of the worker from 1 and never returns.
	Incarnation uint32
}

// MaxWorker is the greatest worker number.
const MaxWorker = 4094

// String returns the member as worker/incarnation.
func (m Member) String() string { return fmt.Sprintf("%d/%d", m.Worker, m.Incarnation) }

func (m Member) check() error {
	if m.Worker == 0 || m.Worker > MaxWorker || m.Incarnation == 0 {
		return base.Invalidf("member", "worker %d in incarnation %d: numbers are 1..%d, incarnations begin at 1", m.Worker, m.Incarnation, MaxWorker)
	}
	return nil
}

func (m Member) wire() *rpcpb.StoreMember {
	return &rpcpb.StoreMember{Worker: uint32(m.Worker), Incarnation: m.Incarnation}
}

// memberFrom reads a member that came over the wire.
func memberFrom(in *rpcpb.StoreMember) (Member, error) {
	if in.GetWorker() > MaxWorker {
		return Member{}, base.Invalidf("member", "worker %d, the greatest number is %d", in.GetWorker(), MaxWorker)
	}
	m := Member{uint16(in.GetWorker()), in.GetIncarnation()}
	return m, m.check()
}

// Limits of what travels.
const (
	// MaxBatchBytes bounds the operations of one batch; a module of the
	// catalogue fits.
	MaxBatchBytes = 72 << 20
	// MessageBytes is the MaxMessage of rpc.Options that the server needs.
	MessageBytes = MaxBatchBytes + 1<<20
	// MaxKeyBytes bounds a key of the engine.
	MaxKeyBytes = 64 << 10
	// maxFrameBytes and maxFrameBatches bound what a client puts into one
	// frame, unless a single batch is larger.
	maxFrameBytes   = 256 << 10
	maxFrameBatches = 1024
)
