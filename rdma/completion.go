package rdma

import "fmt"

// Outcome is what is known about the effect of a request.
type Outcome uint8

const (
	// Unknown: it may have happened, may never, or may still.
	Unknown Outcome = iota
	// Done: it has happened, once.
	Done
	// NotDone: it has not happened and never will.
	NotDone
)

var outcomeNames = [...]string{Unknown: "unknown", Done: "done", NotDone: "not done"}

// String returns the words of the outcome.
func (o Outcome) String() string { return outcomeNames[o] }

// Status is the result of a request. It is an error unless it is StatusOK.
type Status uint8

// The statuses; statuses below says what each means for the outcome.
const (
	// StatusOK: done.
	StatusOK Status = iota
	// StatusFlushed: an earlier failure, Revoke or Close took the queue pair away.
	StatusFlushed
	// StatusLocal: the local memory was not what its key allows, or the region
	// is closed. The remote side may have executed the request.
	StatusLocal
	// StatusRemoteAccess: the peer has no such key, or the address is outside of
	// its region.
	StatusRemoteAccess
	// StatusRemoteInvalid: the peer refused the form of the request.
	StatusRemoteInvalid
	// StatusRemoteOperation: the peer failed, or closed the region, while it
	// executed the request.
	StatusRemoteOperation
	// StatusUnreachable: the peer did not answer in time.
	StatusUnreachable
	// StatusReceiverNotReady: the peer had no room for a doorbell for too long.
	StatusReceiverNotReady
	// StatusFatal: the device failed.
	StatusFatal
)

var statuses = [...]struct {
	text    string
	outcome Outcome
}{
	StatusOK:               {"done", Done},
	StatusFlushed:          {"flushed: the queue pair broke before the request completed", Unknown},
	StatusLocal:            {"local memory: wrong key or bounds, or its region was closed", Unknown},
	StatusRemoteAccess:     {"refused by the peer: unknown key, or outside of its region", NotDone},
	StatusRemoteInvalid:    {"refused by the peer: malformed request", NotDone},
	StatusRemoteOperation:  {"the peer failed in the middle of the request", Unknown},
	StatusUnreachable:      {"no answer from the peer in time", Unknown},
	StatusReceiverNotReady: {"the peer takes no doorbells: too many are unpolled there", Unknown},
	StatusFatal:            {"the device failed", Unknown},
}

// Outcome says what is known about a request with this status.
func (s Status) Outcome() Outcome {
	if int(s) < len(statuses) {
		return statuses[s].outcome
	}
	return Unknown
}

// Error says what happened and what is known about the outcome.
func (s Status) Error() string {
	if int(s) >= len(statuses) {
		return fmt.Sprintf("status-%d (outcome unknown)", uint8(s))
	}
	return fmt.Sprintf("rdma: %s (outcome %v)", statuses[s].text, s.Outcome())
}

// Completion is the end of a request, or a doorbell of the peer.
type Completion struct {
	// ID is the request's; 0 for OpReceive.
	ID uint64
	// QP is the number of the queue pair it was posted on or arrived at.
	QP uint32
	// Imm is the doorbell's; 0 otherwise.
	Imm uint32
	// Length of the doorbell's payload, in bytes; 0 otherwise.
	Length uint32
	// Op is the request's opcode, or OpReceive.
	Op Opcode
	// Status is StatusOK for OpReceive.
	Status Status
}

// Err is nil for StatusOK and the Status otherwise.
func (c *Completion) Err() error {
	if c.Status == StatusOK {
		return nil
	}
	return c.Status
}
