package check

import (
	"fmt"
	"slices"
	"strings"
)

// observation is a non-empty list which a trusted transaction returned, its own appends included.
type observation struct {
	txn, key int32
	list     []int64 // owned by the history
}

// externalRead is the state of a key that a trusted transaction found, before its own appends.
type externalRead struct {
	txn, key int32
	base     []int64 // owned by the history
}

// absence is a scan's claim that every key with a number in [lo, hi) is absent. The transaction does nothing else with
// these keys.
type absence struct{ txn, lo, hi int32 }

// counterRead is the value of a counter that a trusted transaction found, before its own additions.
type counterRead struct {
	txn, key int32
	base     int64
}

// local is what one transaction has done with one key so far.
type local struct {
	key  int32
	own  []int64 // all its appends to the key, in program order
	done int     // how many of own came before the current operation

	known bool // the key was read before
	base  []int64
	sum   int64 // what it has added to the counter
	value int64 // the counter that its first read found, before its own additions
}

// walker walks one transaction after the other. The slots give constant-time access to the locals of the current
// transaction without clearing anything between transactions.
type walker struct {
	*analysis
	txn     int32
	slots   []slot // by key
	locals  []local
	touched []int32 // scratch of scan
}

type slot struct{ txn, local int32 }

// walkReads holds each trusted transaction against itself, and collects what it found of others.
func (a *analysis) walkReads() {
	w := &walker{analysis: a, slots: make([]slot, len(a.keys))}
	for k := range w.slots {
		w.slots[k].txn = -1
	}
	for i := range a.h {
		if a.h[i].Outcome == OK {
			w.walk(int32(i))
		}
	}
}

func (w *walker) walk(txn int32) {
	w.txn = txn
	w.locals = w.locals[:0]
	ops := w.h[txn].Ops
	for j := range ops {
		switch op := &ops[j]; op.Kind {
		case Append:
			l := w.local(w.keyID[op.Key])
			l.own = append(l.own, op.Element)
		case Scan:
			for _, f := range op.Found {
				w.local(w.keyID[f.Key])
			}
		default:
			w.local(w.keyID[op.Key])
		}
	}
	for j := range ops {
		op := &ops[j]
		switch op.Kind {
		case Append:
			w.local(w.keyID[op.Key]).done++
		case Read:
			w.readList(w.keyID[op.Key], op.List)
		case Scan:
			w.scan(op)
		case Add:
			w.local(w.keyID[op.Key]).sum += op.Delta
		case ReadCounter:
			w.readCounter(w.keyID[op.Key], op.Value)
		}
	}
}

// local returns the state of a key in the current transaction. The pointer is valid until the next call.
func (w *walker) local(key int32) *local {
	s := &w.slots[key]
	if s.txn != w.txn {
		*s = slot{txn: w.txn, local: int32(len(w.locals))}
		w.locals = append(w.locals, local{key: key})
	}
	return &w.locals[s.local]
}

func (w *walker) readList(key int32, list []int64) {
	if len(list) > 0 {
		w.observed = append(w.observed, observation{w.txn, key, list})
	}
	l := w.local(key)
	own := l.own[:l.done]
	base, whole := cutSuffix(list, own)
	switch {
	case !whole && !l.known:
		w.internal(key, fmt.Sprintf("read %s after it had appended %v itself", listText(list), own))
	case !whole || l.known && !slices.Equal(base, l.base):
		w.internal(key, fmt.Sprintf("read %s where its earlier read and its own appends make %s",
			listText(list), listText(slices.Concat(l.base, own))))
	case l.known:
		// Said already.
	case slices.ContainsFunc(base, func(e int64) bool { return slices.Contains(l.own, e) }):
		w.internal(key, fmt.Sprintf("read %s, with an element of its own that it appends only later, or twice", listText(list)))
	default:
		l.known, l.base = true, base
		w.reads = append(w.reads, externalRead{w.txn, key, base})
	}
}

// cutSuffix takes own off the end of list; ok is false if list does not end with own.
func cutSuffix(list, own []int64) (base []int64, ok bool) {
	n := len(list) - len(own)
	if n < 0 || !slices.Equal(list[n:], own) {
		return nil, false
	}
	return list[:n], true
}

// scan reads every key that the scan returned, and as absent every key that it claims is not there. The keys that the
// transaction does nothing else with are absent in whole ranges, so that a scan does not cost as much as it has keys
// below its prefix.
func (w *walker) scan(op *Op) {
	if fault := scanFault(op); fault != "" {
		id := w.h[w.txn].ID
		w.add(Anomaly{Kind: BadScan, Txns: []int{id}, Text: fmt.Sprintf("T%d scanned %q: %s", id, op.Prefix, fault)})
		for _, f := range op.Found {
			w.readList(w.keyID[f.Key], f.List)
		}
		return
	}
	lo, hi := w.claimed(op)
	w.touched = w.touched[:0]
	for i := range w.locals {
		if key := w.locals[i].key; key >= lo && key < hi {
			w.touched = append(w.touched, key)
		}
	}
	slices.Sort(w.touched)
	found := op.Found
	for _, key := range w.touched {
		w.absent(lo, key)
		lo = key + 1
		switch k := &w.keys[key]; {
		case len(found) > 0 && found[0].Key == k.name:
			w.readList(key, found[0].List)
			found = found[1:]
		case k.list:
			w.readList(key, nil)
		}
	}
	w.absent(lo, hi)
}

func (w *walker) absent(lo, hi int32) {
	if lo < hi {
		w.absences = append(w.absences, absence{w.txn, lo, hi})
	}
}

// scanFault says what is wrong with the keys of a scan, or nothing.
func scanFault(op *Op) string {
	for i, f := range op.Found {
		if !strings.HasPrefix(f.Key, op.Prefix) {
			return fmt.Sprintf("it returned %q", f.Key)
		}
		if i > 0 && f.Key <= op.Found[i-1].Key {
			return fmt.Sprintf("it returned %q after %q", f.Key, op.Found[i-1].Key)
		}
	}
	return ""
}

func (w *walker) readCounter(key int32, value int64) {
	l := w.local(key)
	base := value - l.sum
	switch {
	case !l.known:
		l.known, l.value = true, base
		w.counts = append(w.counts, counterRead{w.txn, key, base})
	case base != l.value:
		w.internal(key, fmt.Sprintf("read %d where its earlier read and its own additions make %d", value, l.value+l.sum))
	}
}

func (w *walker) internal(key int32, what string) {
	id := w.h[w.txn].ID
	w.add(Anomaly{Kind: Internal, Txns: []int{id}, Text: fmt.Sprintf("T%d, key %q: %s", id, w.keys[key].name, what)})
}
