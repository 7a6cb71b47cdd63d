package check

import (
	"fmt"
	"slices"
)

// inferOrders finds for every key the order of its appends, judges each list by itself, and decides which of the
// unknown transactions committed.
//
// Lists only grow, so the longest list that anybody read holds the order and every other list must be a prefix of it.
// Elements are looked up for the longest list and for lists that are not a prefix, never for a prefix: that keeps the
// check linear in the input although a long list is read over and over.
func (a *analysis) inferOrders() {
	for _, o := range a.observed {
		if k := &a.keys[o.key]; len(o.list) > len(k.order) {
			k.order, k.orderTxn = o.list, o.txn
		}
	}
	var stamp int32
	for key := range a.keys {
		if k := &a.keys[key]; len(k.order) > 0 {
			stamp++
			a.checkElements(observation{k.orderTxn, int32(key), k.order}, stamp)
		}
	}
	for _, o := range a.observed {
		k := &a.keys[o.key]
		if slices.Equal(o.list, k.order[:len(o.list)]) {
			continue
		}
		stamp++
		a.checkElements(o, stamp)
		k.broken = true
		a.add(a.pair(IncompatibleOrder, o.txn, k.orderTxn, fmt.Sprintf("T%d read %q as %s and T%d read it as %s",
			a.h[o.txn].ID, k.name, listText(o.list), a.h[k.orderTxn].ID, listText(k.order))))
	}
	for i := range a.writes {
		if w := &a.writes[i]; w.seen && a.h[w.txn].Outcome == Unknown {
			a.committed[w.txn] = true
		}
	}
	a.checkIntermediate()
}

// checkElements judges the elements of one list: each must come from a transaction that may have committed, and only
// once. The stamp is unique to the call.
func (a *analysis) checkElements(o observation, stamp int32) {
	k := &a.keys[o.key]
	reader := a.h[o.txn].ID
	for _, elem := range o.list {
		w, ok := a.writeOf(o.key, elem)
		if !ok {
			k.broken = true
			a.add(Anomaly{Kind: GarbageRead, Txns: []int{reader}, Text: fmt.Sprintf(
				"T%d read %q as %s; no transaction appended %d", reader, k.name, listText(o.list), elem)})
			continue
		}
		if w.stamp == stamp {
			k.broken = true
			a.add(Anomaly{Kind: DuplicateElement, Txns: []int{reader}, Text: fmt.Sprintf(
				"T%d read %q as %s, with %d more than once", reader, k.name, listText(o.list), elem)})
		}
		if a.h[w.txn].Outcome == Failed && w.stamp != stamp {
			k.broken = true
			a.add(a.pair(G1a, o.txn, w.txn, fmt.Sprintf("T%d read %q as %s; %d was appended by T%d, which failed",
				reader, k.name, listText(o.list), elem, a.h[w.txn].ID)))
		}
		w.stamp, w.seen = stamp, true
	}
}

// checkIntermediate finds reads that end in the middle of another transaction.
func (a *analysis) checkIntermediate() {
	for _, r := range a.reads {
		if len(r.base) == 0 {
			continue
		}
		elem := r.base[len(r.base)-1]
		w, ok := a.writeOf(r.key, elem)
		if !ok || w.final || !a.committed[w.txn] {
			continue
		}
		a.add(a.pair(G1b, r.txn, w.txn, fmt.Sprintf("T%d read %q as %s; T%d appended %d and then more to it",
			a.h[r.txn].ID, a.keys[r.key].name, listText(r.base), a.h[w.txn].ID, elem)))
	}
}

// pair makes an anomaly between two transactions, given by their indices.
func (a *analysis) pair(kind Kind, x, y int32, text string) Anomaly {
	return Anomaly{Kind: kind, Txns: []int{a.h[x].ID, a.h[y].ID}, Text: text}
}
