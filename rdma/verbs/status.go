package verbs

import (
	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

// statusTable maps each status of a work completion to the contract's. Only a
// responder that refused can say that nothing was done: it checks key, bounds and
// form before it executes, but by the packet, see statusOfRequest. Everything else
// leaves the outcome open, because it is the way back that may have failed.
var statusTable = [...]rdma.Status{
	ibverbs.Success: rdma.StatusOK,
	// Flushed requests may be on the wire already.
	ibverbs.Flushed: rdma.StatusFlushed,
	// What the requester found wrong with its own memory or queue; for READs and
	// atomics this is found when the answer comes, so the peer has executed them.
	ibverbs.LocalLength:       rdma.StatusLocal,
	ibverbs.LocalQPOperation:  rdma.StatusLocal,
	ibverbs.LocalEECOperation: rdma.StatusLocal,
	ibverbs.LocalProtection:   rdma.StatusLocal,
	ibverbs.LocalAccess:       rdma.StatusLocal,
	ibverbs.LocalRDDViolation: rdma.StatusLocal,
	ibverbs.MemoryWindowBind:  rdma.StatusLocal,
	// NAKs of the responder.
	ibverbs.RemoteAccess:           rdma.StatusRemoteAccess,
	ibverbs.RemoteInvalidRequest:   rdma.StatusRemoteInvalid,
	ibverbs.RemoteInvalidRDRequest: rdma.StatusRemoteInvalid,
	ibverbs.RemoteOperation:        rdma.StatusRemoteOperation,
	ibverbs.RemoteAborted:          rdma.StatusRemoteOperation,
	// An answer came, and it makes no sense.
	ibverbs.BadResponse:      rdma.StatusRemoteOperation,
	ibverbs.RetryExceeded:    rdma.StatusUnreachable,
	ibverbs.ResponseTimeout:  rdma.StatusUnreachable,
	ibverbs.RNRRetryExceeded: rdma.StatusReceiverNotReady,
	ibverbs.InvalidEECNumber: rdma.StatusFatal,
	ibverbs.InvalidEECState:  rdma.StatusFatal,
	ibverbs.Fatal:            rdma.StatusFatal,
	ibverbs.General:          rdma.StatusFatal,
}

// statusOfRequest maps the status of a request whose payload of length bytes
// crosses in packets of mtu bytes. A responder checks each packet of a WRITE when
// it comes, and executes it before it sees the next: if the region goes away in
// between, the refusal of a later packet comes after the bytes of earlier ones have
// landed. The completion does not tell which packet was refused.
func statusOfRequest(s ibverbs.Status, op rdma.Opcode, length uint32, mtu int) rdma.Status {
	status := statusOf(s)
	written := op == rdma.OpWrite || op == rdma.OpWriteImm
	if status.Outcome() == rdma.NotDone && written && int64(length) > int64(mtu) {
		return rdma.StatusRemoteOperation
	}
	return status
}

// statusOf maps a status; one that is not known says nothing about the outcome.
func statusOf(s ibverbs.Status) rdma.Status {
	if int(s) < len(statusTable) {
		return statusTable[s]
	}
	return rdma.StatusFatal
}
