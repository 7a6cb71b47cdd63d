package check

import (
	"fmt"
	"math"
)

// OpKind says what an operation does. The zero value is not a kind.
type OpKind uint8

// The kinds of operations. A key is a list (Append, Read, Scan) or a counter (Add, ReadCounter), never both.
const (
	Append      OpKind = iota + 1 // appends Element to the list at Key
	Read                          // returned List for Key
	Add                           // adds Delta to the counter at Key
	ReadCounter                   // returned Value for the counter at Key; an absent counter is 0
	Scan                          // returned Found for the list keys that begin with Prefix
)

// Op is one operation of a transaction. Only the fields which its Kind names are meaningful.
type Op struct {
	Kind OpKind
	Key  string

	// Element is what an Append adds. No two appends to one key in a history may share an element, not even when one of
	// them failed: the element is how a read tells whose write it saw.
	Element int64
	// List is what a Read returned. Nil and empty both mean that the key is absent.
	List []int64

	Delta int64 // of an Add
	Value int64 // of a ReadCounter

	// Prefix, Found and Truncated describe a Scan. It claims that Found is everything below Prefix: a key that the history
	// knows and the scan leaves out counts as read and absent. With Truncated the claim ends at the last key of Found,
	// and a truncated scan that found nothing claims nothing. Counters are invisible to scans.
	Prefix    string
	Found     []Found
	Truncated bool
}

// Found is one key that a Scan returned, with its list. A Scan returns its keys in ascending byte order.
type Found struct {
	Key  string
	List []int64
}

// Outcome is what the client knows about the end of a transaction. The zero value is not an outcome, so that a recorder
// which forgets to fill it in is told so.
type Outcome uint8

// The outcomes of a transaction.
const (
	// OK was acknowledged: it committed between Call and Return. Only its reads are trusted.
	OK Outcome = iota + 1
	// Failed certainly did not commit and never will: it was refused or aborted, or never reached the service.
	Failed
	// Unknown may have committed at any time after Call, or may yet. It counts as committed once a trusted read saw one
	// of its appends, and is left out otherwise. Its reads are never trusted: the attempt that committed may be another
	// than the one whose reads the client heard of.
	Unknown
)

// String names the outcome as it stands in an encoded history.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Failed:
		return "failed"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// String names the kind as it stands in an encoded history.
func (k OpKind) String() string {
	switch k {
	case Append:
		return "append"
	case Read:
		return "read"
	case Add:
		return "add"
	case ReadCounter:
		return "readCounter"
	case Scan:
		return "scan"
	}
	return fmt.Sprintf("OpKind(%d)", uint8(k))
}

// Txn is one transaction as its client saw it.
type Txn struct {
	ID     int // unique in the history; reports call the transaction T<ID>
	Client int // who ran it; informative, the order of a client's transactions follows from their intervals

	// Call and Return bound the interval in which the transaction ran, in nanoseconds of one monotonic clock that is
	// common to all clients. T1 precedes T2 in real time when T1.Return < T2.Call; equal instants count as concurrent.
	// Return is ignored when the outcome is Unknown (the interval never ends) or Failed (there is no effect to order).
	Call, Return int64

	Outcome Outcome
	Ops     []Op // in program order
}

// History is a set of transactions; their order in the slice has no meaning except that reports follow it.
//
// The recorder must keep these rules, and Check reports [Malformed] where it can see that one is broken: unique
// transaction ids, unique elements per key, Return not before Call, and every transaction that may have had an effect
// is in the history. Reading an element of a transaction that the recorder left out is a [GarbageRead].
type History []Txn

// end is when t ends for the purposes of real-time order.
func (t *Txn) end() int64 {
	if t.Outcome == Unknown {
		return math.MaxInt64
	}
	return t.Return
}
