package check

import (
	"fmt"
	"slices"
	"strings"
)

// elemID names an append: elements are unique per key.
type elemID struct {
	key  int32
	elem int64
}

// write is one append of the history, whatever its outcome.
type write struct {
	elem int64
	txn  int32
	// final: the transaction appends nothing more to the key. A committed state of the list shows a transaction's final
	// append as soon as it shows any.
	final bool
	seen  bool  // some trusted read contains it
	stamp int32 // the last observation, counted from 1, in which it was met; finds duplicates without a set per list
}

// keyState is what the check knows about one key.
type keyState struct {
	name    string
	list    bool
	counter bool
	added   uint64  // sum of the magnitudes of all additions, at most maxAdded
	appends []int32 // indices in writes, in history order

	// order is the longest list that a trusted read returned (owned by the history), and orderTxn who read it.
	order    []int64
	orderTxn int32
	// broken: the reads of this key contradict each other or show elements that cannot be there, so order proves nothing
	// and only wr dependencies are drawn.
	broken bool
}

// maxAdded bounds what may be added to one counter, so that no sum of additions can overflow an int64.
const maxAdded = 1 << 61

// index gives keys and appends their numbers and checks the rules of History.
func (a *analysis) index() {
	a.internKeys()
	ids := make(map[int]struct{}, len(a.h))
	for i := range a.h {
		t := &a.h[i]
		if _, twice := ids[t.ID]; twice {
			a.malformed(t, "its id is used twice")
		}
		ids[t.ID] = struct{}{}
		switch {
		case t.Outcome < OK || t.Outcome > Unknown:
			a.malformed(t, "it has no outcome")
		case t.Outcome == OK && t.Return < t.Call:
			a.malformed(t, fmt.Sprintf("it returned at %d, before its call at %d", t.Return, t.Call))
		}
		for j := range t.Ops {
			a.indexOp(int32(i), &t.Ops[j])
		}
		a.committed[i] = t.Outcome == OK
	}
	for k := range a.keys {
		a.indexKey(&a.keys[k])
	}
}

// internKeys numbers the keys in byte order, so that the keys below a prefix are consecutive numbers.
func (a *analysis) internKeys() {
	a.keyID = make(map[string]int32)
	for i := range a.h {
		for j := range a.h[i].Ops {
			op := &a.h[i].Ops[j]
			if op.Kind != Scan {
				a.keyID[op.Key] = 0
				continue
			}
			for _, f := range op.Found {
				a.keyID[f.Key] = 0
			}
		}
	}
	names := make([]string, 0, len(a.keyID))
	for name := range a.keyID {
		names = append(names, name)
	}
	slices.Sort(names)
	a.keys = make([]keyState, len(names))
	for k, name := range names {
		a.keys[k].name = name
		a.keyID[name] = int32(k)
	}
	a.byElem = make(map[elemID]int32)
}

func (a *analysis) indexOp(txn int32, op *Op) {
	t := &a.h[txn]
	switch op.Kind {
	case Append:
		k := a.keyID[op.Key]
		key := &a.keys[k]
		key.list = true
		id := elemID{k, op.Element}
		if w, twice := a.byElem[id]; twice {
			a.malformed(t, fmt.Sprintf("it appends %d to %q, as T%d does", op.Element, op.Key, a.h[a.writes[w].txn].ID))
			return
		}
		a.byElem[id] = int32(len(a.writes))
		key.appends = append(key.appends, int32(len(a.writes)))
		a.writes = append(a.writes, write{elem: op.Element, txn: txn})
	case Read:
		a.keys[a.keyID[op.Key]].list = true
	case Scan:
		for _, f := range op.Found {
			a.keys[a.keyID[f.Key]].list = true
		}
	case ReadCounter:
		a.keys[a.keyID[op.Key]].counter = true
	case Add:
		key := &a.keys[a.keyID[op.Key]]
		key.counter = true
		size := uint64(op.Delta)
		if op.Delta < 0 {
			size = -size
		}
		if key.added += min(size, maxAdded+1); key.added > maxAdded {
			a.malformed(t, fmt.Sprintf("the additions to counter %q sum to more than 2^61", op.Key))
			key.added = maxAdded
		}
	default:
		a.malformed(t, fmt.Sprintf("it has an operation of kind %v", op.Kind))
	}
}

// indexKey marks final appends, and refuses a key that is list and counter.
func (a *analysis) indexKey(key *keyState) {
	if key.list && key.counter {
		a.add(Anomaly{Kind: Malformed, Text: fmt.Sprintf("key %q is used as a list and as a counter", key.name)})
	}
	for i, w := range key.appends {
		// The appends of one transaction stand together because the index walks transaction by transaction.
		last := i == len(key.appends)-1
		a.writes[w].final = last || a.writes[key.appends[i+1]].txn != a.writes[w].txn
	}
}

func (a *analysis) malformed(t *Txn, what string) {
	a.add(Anomaly{Kind: Malformed, Txns: []int{t.ID}, Text: fmt.Sprintf("T%d: %s", t.ID, what)})
}

// writeOf finds the append of an element; ok is false for garbage.
func (a *analysis) writeOf(key int32, elem int64) (w *write, ok bool) {
	i, ok := a.byElem[elemID{key, elem}]
	if !ok {
		return nil, false
	}
	return &a.writes[i], true
}

// claimed returns the range of key numbers [lo, hi) about which a scan makes a claim.
func (a *analysis) claimed(op *Op) (lo, hi int32) {
	lo = a.lowerBound(op.Prefix)
	n, _ := slices.BinarySearchFunc(a.keys[lo:], op.Prefix, func(k keyState, prefix string) int {
		if strings.HasPrefix(k.name, prefix) {
			return -1
		}
		return 1
	})
	hi = lo + int32(n)
	if op.Truncated {
		if len(op.Found) == 0 {
			return lo, lo
		}
		hi = min(hi, a.keyID[op.Found[len(op.Found)-1].Key]+1)
	}
	return lo, hi
}

func (a *analysis) lowerBound(name string) int32 {
	n, _ := slices.BinarySearchFunc(a.keys, name, func(k keyState, name string) int { return strings.Compare(k.name, name) })
	return int32(n)
}
