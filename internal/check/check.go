// Package check decides whether what clients saw is strictly serializable.
//
// The input is a [History]: every transaction with the interval in which it ran, its outcome and what its reads returned.
// The writes are appends of unique elements to lists, because a list tells more than a register: a single read of
// [1 2 3] reveals the whole order in which the key was written. From those orders [Check] draws the dependencies between
// transactions and looks for cycles. The method is the one of Adya's isolation levels and of Elle (Kingsbury and Alvaro,
// VLDB 2020); the names of the anomalies are theirs.
//
// What a verdict means:
//
//   - No false alarm: every reported [Anomaly] shows why no serial order, or none that respects real time, can explain
//     the history. The one precondition is that the history itself is honest, see [History].
//   - No miss on lists: if appends, reads and scans show no anomaly, then a serial order exists which explains every read
//     and respects real time. Tests compare this with an exhaustive search and with porcupine.
//   - Counters ([Add], [ReadCounter]) are held to an interval only. Adds commute, so a counter does not reveal an order;
//     a wrong value inside the interval is not seen.
//
// Lists only grow: deleting a key is not modelled. And the check cannot judge what clients did not observe: an append
// may be lost without a trace if no later read of its key follows. End every test with a read of all keys, after all
// other transactions returned.
//
// The package is pure: no goroutine, no I/O, no clock, no randomness; equal histories give equal reports. It does not
// record histories and does not shrink them.
//
// Start reading at [Check], which is the list of the steps; then dependencies.go (what depends on what) and cycles.go
// (how a cycle is found and named).
package check

import (
	"cmp"
	"slices"
)

// Options tunes a check. The zero value is the full check of strict serializability.
type Options struct {
	// IgnoreRealTime checks plain serializability: a serial order need not agree with the intervals. Counter bounds rest
	// on intervals and are then skipped too. Default: false.
	IgnoreRealTime bool

	// MaxPerKind bounds how many anomalies of one kind are described; the rest is counted in [Report].Omitted. One is
	// enough to condemn a history, and a broken run may hold a hundred thousand. Default: 10.
	MaxPerKind int

	// SearchBudget bounds the work of finding the *shortest* cycle and its most severe class, in visited edges over the
	// whole check. It never decides whether a cycle is reported. Default: 50 million, about a second.
	SearchBudget int
}

func (o *Options) ensureDefaults() {
	if o.MaxPerKind <= 0 {
		o.MaxPerKind = 10
	}
	if o.SearchBudget <= 0 {
		o.SearchBudget = 50_000_000
	}
}

// analysis is the state of one check. Transactions are named by their index in the history and keys by their rank in
// byte order, both as int32, so that a history of millions of operations stays in a few flat slices.
type analysis struct {
	h   History
	opt Options

	keys   []keyState
	keyID  map[string]int32
	writes []write
	byElem map[elemID]int32 // index in writes

	observed []observation // every non-empty list that a trusted read returned
	reads    []externalRead
	absences []absence
	counts   []counterRead

	committed []bool // by transaction: acknowledged, or unknown with an observed append

	anomalies []Anomaly
	perKind   [kindEnd]int
	omitted   int
}

// Check analyses a history. It reads h, keeps nothing of it except the strings in the report, and takes time and memory
// about linear in the size of h.
//
// The report lists the anomalies with the most severe kind first. A history that breaks the rules of [History] gets
// [Malformed] anomalies and nothing else, because any other finding could be the recorder's fault.
func Check(h History, opt Options) Report {
	opt.ensureDefaults()
	a := &analysis{h: h, opt: opt, committed: make([]bool, len(h))}

	a.index()
	var g *graph
	if len(a.anomalies) == 0 {
		a.walkReads()
		a.inferOrders()
		g = a.buildGraph()
		a.findCycles(g)
		if !opt.IgnoreRealTime {
			a.checkCounters()
		}
	}

	slices.SortStableFunc(a.anomalies, func(x, y Anomaly) int { return cmp.Compare(x.Kind, y.Kind) })
	r := Report{Txns: len(h), Keys: len(a.keys), Anomalies: a.anomalies, Omitted: a.omitted}
	for i := range h {
		r.Ops += len(h[i].Ops)
		if a.committed[i] {
			r.Committed++
		}
	}
	if g != nil {
		r.Edges = len(g.edges)
	}
	return r
}

// add records an anomaly unless enough of its kind are recorded already.
func (a *analysis) add(x Anomaly) {
	if a.perKind[x.Kind] >= a.opt.MaxPerKind {
		a.omitted++
		return
	}
	a.perKind[x.Kind]++
	a.anomalies = append(a.anomalies, x)
}
