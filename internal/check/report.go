package check

import (
	"fmt"
	"strings"
)

// Kind names an anomaly. Smaller kinds are more severe, or more direct evidence, and come first in a report.
type Kind uint8

// The kinds of anomalies. ww, wr and rw are the dependencies between transactions: T2 overwrote, read or was missed by
// what T1 wrote or read. A cycle of dependencies has no serial order.
const (
	// Malformed: the history breaks the rules of [History], so nothing can be concluded from it.
	Malformed Kind = iota
	// GarbageRead: a read saw an element that no transaction appended.
	GarbageRead
	// DuplicateElement: a read saw one element twice, so an append took effect twice.
	DuplicateElement
	// Internal: a transaction contradicts itself: it misses its own append, sees it too early, or sees a key change
	// between two of its reads.
	Internal
	// BadScan: a scan returned a key outside of its prefix, or out of order.
	BadScan
	// G1a is the aborted read: a read saw an element of a transaction that failed.
	G1a
	// IncompatibleOrder: two reads of a key, neither of which is a prefix of the other.
	IncompatibleOrder
	// G1b is the intermediate read: a read saw some but not all of what another transaction appended to the key.
	G1b
	// CounterBound: a counter's value cannot be reached by any choice among the concurrent adds.
	CounterBound

	// G0 is a cycle of ww alone: writes interleave.
	G0
	// G1c is a cycle of ww and wr: circular information flow.
	G1c
	// GSingle is a cycle with exactly one rw: read skew, lost update.
	GSingle
	// G2 is a cycle with two or more rw: write skew, phantoms.
	G2

	// G0RealTime is a cycle of ww and real-time order: appends took effect in the reverse of their real-time order.
	G0RealTime
	// G1cRealTime is a cycle of ww, wr and real-time order: a read from the future.
	G1cRealTime
	// GSingleRealTime is a cycle of one rw with others and real-time order: a stale read, a lost acknowledged append.
	GSingleRealTime
	// G2RealTime is a cycle of several rw with real-time order: serializable, but only in an order that clients can refute.
	G2RealTime

	kindEnd // not a kind: the number of kinds
)

// String returns the name under which the literature knows the anomaly, with "-realtime" where real-time order is
// part of the cycle.
func (k Kind) String() string {
	names := [kindEnd]string{
		Malformed: "malformed", GarbageRead: "garbage-read", DuplicateElement: "duplicate-element", Internal: "internal",
		BadScan: "bad-scan", G1a: "G1a", IncompatibleOrder: "incompatible-order", G1b: "G1b", CounterBound: "counter-bound",
		G0: "G0", G1c: "G1c", GSingle: "G-single", G2: "G2",
		G0RealTime: "G0-realtime", G1cRealTime: "G1c-realtime", GSingleRealTime: "G-single-realtime", G2RealTime: "G2-realtime",
	}
	if k < kindEnd {
		return names[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Dependency is why one transaction must come before another.
type Dependency uint8

// The dependencies of T2 on T1: why T1 comes before T2.
const (
	WW       Dependency = iota + 1 // T2's append follows T1's in the list
	WR                             // T2 read T1's append
	RW                             // T1's read does not contain T2's append
	RealTime                       // T1 returned before T2 was called
)

// String names the dependency in two letters.
func (d Dependency) String() string {
	switch d {
	case WW:
		return "ww"
	case WR:
		return "wr"
	case RW:
		return "rw"
	case RealTime:
		return "rt"
	}
	return fmt.Sprintf("Dependency(%d)", uint8(d))
}

// Edge is one step of a cycle: From must come before To.
type Edge struct {
	From, To   int // transaction ids
	Dependency Dependency
	Key        string // empty for RealTime
	Element    int64  // the append of To for WW and RW, of From for WR; 0 for RealTime
	Reason     string // the evidence, in words
}

// Anomaly is one reason why the history is not strictly serializable.
type Anomaly struct {
	Kind Kind
	// Txns are the ids of the transactions involved; for a cycle in its order, smallest id first.
	Txns []int
	// Text is the evidence in words. For a cycle it names the transactions and Cycle holds the evidence.
	Text string
	// Cycle is empty for anomalies that are not cycles. Each edge ends where the next begins, the last where the first
	// begins.
	Cycle []Edge
}

// String renders the anomaly on one line, and one more for each edge of its cycle.
func (x Anomaly) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s", x.Kind, x.Text)
	for _, e := range x.Cycle {
		fmt.Fprintf(&b, "\n    T%d -%v-> T%d: %s", e.From, e.Dependency, e.To, e.Reason)
	}
	return b.String()
}

// Report is the result of a check.
type Report struct {
	Txns      int // transactions in the history
	Committed int // of these, acknowledged or observed: the ones that were judged
	Ops       int // operations in the history
	Keys      int // distinct keys
	Edges     int // edges of the dependency graph, including the auxiliary ones for real time

	Anomalies []Anomaly // most severe kind first
	// Omitted counts anomalies that were found and not described, see [Options].MaxPerKind.
	Omitted int
}

// OK reports whether no anomaly was found.
func (r Report) OK() bool { return len(r.Anomalies) == 0 }

// String renders the report for people: the verdict, then every anomaly.
func (r Report) String() string {
	var b strings.Builder
	verdict := "no anomaly"
	if n := len(r.Anomalies) + r.Omitted; n > 0 {
		verdict = fmt.Sprintf("%d anomalies", n)
		if n == 1 {
			verdict = "1 anomaly"
		}
	}
	fmt.Fprintf(&b, "%s in %d transactions (%d committed), %d operations, %d keys, %d edges\n",
		verdict, r.Txns, r.Committed, r.Ops, r.Keys, r.Edges)
	for _, x := range r.Anomalies {
		fmt.Fprintf(&b, "  %v\n", x)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(&b, "  and %d more that are not described\n", r.Omitted)
	}
	return b.String()
}

// listText renders what a read saw. Only the end of a long list matters: that is where reads differ.
func listText(list []int64) string {
	const shown = 8
	if len(list) == 0 {
		return "absent"
	}
	if len(list) <= shown {
		return fmt.Sprint(list)
	}
	tail := fmt.Sprint(list[len(list)-shown:])
	return fmt.Sprintf("[%d elements ... %s", len(list), tail[1:])
}
