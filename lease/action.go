package lease

import (
	"github.com/tenure-faas/tenure/base"
)

// ActionKind says what the shell has to do.
type ActionKind uint8

const (
	// CAS posts a CAS of the slot's word at its home (To) from Expect to New, and
	// reports the outcome to Swung with Ticket.
	CAS ActionKind = iota + 1
	// Release posts a CAS like CAS, and reports the outcome to Released.
	Release
	// ReadWord reads the slot's word at its home (To), by a CAS that cannot succeed
	// because a READ may be torn, and reports to WordRead with Ticket.
	ReadWord
	// ReadTail is ReadWord for a copy, and reports to TailRead with Nonce.
	ReadTail
	// Send sends Record to To. It is repeated on a new queue pair until it is
	// known to have arrived, unless the view ends.
	Send
	// Load fetches the values that are wanted from the store and reports to
	// Loaded with Ticket.
	Load
	// Forget drops the values of the slot: what held them valid is gone.
	Forget
	// Wake tells User that it has its turn.
	Wake
	// Abort tells User, which has a pin, that its copy is gone with the view: its
	// attempt must be given up, then released.
	Abort
)

// Action is something that the shell does for the core. Actions of one slot are
// carried out in order; nothing else is promised to their effects.
type Action struct {
	Kind   ActionKind
	Slot   base.Slot
	To     Worker
	Ticket Ticket
	Nonce  uint32
	// Expect and New are for CAS.
	Expect, New Word
	// Record is for Send.
	Record Record
	// User is for Wake and Abort.
	User *User
}

// Kind is the kind of a record between workers; section 3 of the protocol.
type Kind uint8

const (
	// Req asks the predecessor (ticket Pred) for the lease, for ticket Ticket.
	Req Kind = iota + 1
	// Grant gives the lease to ticket Ticket, with the list of readers; the shell
	// adds the values.
	Grant
	// ReadReq asks the holder (ticket Ticket) for a copy, as request Nonce.
	ReadReq
	// Copy answers request Nonce with a copy of Stamp; the shell adds the values.
	Copy
	// Nack answers request Nonce: read the word again.
	Nack
	// Inval invalidates copies older than Stamp.
	Inval
	// InvalAck says that copies older than Stamp are gone.
	InvalAck
)

var kindNames = [...]string{Req: "REQ", Grant: "GRANT", ReadReq: "RREQ", Copy: "COPY", Nack: "NACK", Inval: "INVAL", InvalAck: "INVACK"}

// String is the name in the protocol.
func (k Kind) String() string { return kindNames[k] }

// Record is a message between workers. View, From and Slot are always set.
type Record struct {
	Kind   Kind
	From   Worker
	View   base.View
	Slot   base.Slot
	Pred   Ticket
	Ticket Ticket
	Nonce  uint32
	Stamp  Stamp
	// Readers are those of a Grant.
	Readers []ReaderEntry
	// Dep is what a Grant or Copy depends on: 0, for values leave a worker only
	// when they are durable. Speculation will use it.
	Dep uint64
}

// ReaderEntry is a reader in a Grant.
type ReaderEntry struct {
	Worker Worker
	// View in which its copy was made.
	View base.View
}
