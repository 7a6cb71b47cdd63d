package check

import (
	"cmp"
	"slices"
)

// unseen is what the graph needs to know about the appends of one key that are committed and in no read.
type unseen struct {
	appends []int32 // indices in writes, ascending by transaction
	hub     int32   // auxiliary node from the readers of the whole order to the appends; 0 is none
	direct  int     // readers that got direct edges instead
}

// maxDirect bounds the readers of one key with direct edges to its unseen appends; two already prove the history wrong.
const maxDirect = 8

// buildGraph draws who must come before whom among the committed transactions.
//
// For a key with order [e1 e2 ... en], with w(e) the transaction that appended e:
//
//	ww  w(e1) -> w(e2) -> ... -> w(en)
//	wr  w(ei) -> R            for a read R of the prefix that ends in ei
//	rw  R -> w(ei+1)          for the same read
//
// The appends of committed transactions that no read shows are the delicate part, because losing an acknowledged append
// is the worst fault of a durable store. They must have come after every read of the longest list that was seen, in an
// order among themselves which is open:
//
//	rw  R -> each of them     for a read R of the whole order
//
// If R was called after such an append was acknowledged, real time closes the cycle, and the lost append is reported as
// [GSingleRealTime]. That w(en) precedes them too needs no edge: it does through some R.
func (a *analysis) buildGraph() *graph {
	g := &graph{txns: len(a.h), nodes: len(a.h)}
	hidden := make([]unseen, len(a.keys))
	for k := range a.keys {
		if key := &a.keys[k]; !key.broken {
			a.connectWriters(g, int32(k))
			hidden[k].appends = a.unseenAppends(key)
			if last := a.lastWriter(int32(k)); last >= 0 && last == key.orderTxn {
				// Perhaps only the last writer itself read the whole order, its own append included. Such a read is not
				// among the external ones.
				a.connectAll(g, edge{from: last, key: int32(k), kind: rw}, hidden[k].appends)
			}
		}
	}
	for i := range a.reads {
		r := &a.reads[i]
		if n := len(r.base); n > 0 {
			elem := r.base[n-1]
			if w, ok := a.writeOf(r.key, elem); ok && a.committed[w.txn] {
				g.connect(edge{from: w.txn, to: r.txn, key: r.key, kind: wr, elem: elem})
			}
		}
		if a.keys[r.key].broken {
			continue
		}
		if order := a.keys[r.key].order; len(r.base) < len(order) {
			elem := order[len(r.base)]
			w, _ := a.writeOf(r.key, elem)
			g.connect(edge{from: r.txn, to: w.txn, key: r.key, kind: rw, elem: elem})
			continue
		}
		a.connectToUnseen(g, r, &hidden[r.key])
	}
	if len(a.absences) > 0 {
		a.connectAbsences(g, hidden)
	}
	if !a.opt.IgnoreRealTime {
		a.connectRealTime(g)
	}
	g.freeze()
	return g
}

// connect adds an edge; a transaction does not depend on itself.
func (g *graph) connect(e edge) {
	if e.from != e.to {
		g.edges = append(g.edges, e)
	}
}

// unseenAppends returns the committed appends to key, by index in writes, that are in no read.
func (a *analysis) unseenAppends(key *keyState) []int32 {
	var unseen []int32
	for _, w := range key.appends {
		if !a.writes[w].seen && a.committed[a.writes[w].txn] {
			unseen = append(unseen, w)
		}
	}
	return unseen
}

func (a *analysis) connectWriters(g *graph, k int32) {
	last := int32(-1)
	for _, elem := range a.keys[k].order {
		w, _ := a.writeOf(k, elem)
		if last >= 0 {
			g.connect(edge{from: last, to: w.txn, key: k, kind: ww, elem: elem})
		}
		last = w.txn
	}
}

// lastWriter returns the transaction that appended the last element of a key's order, -1 if the order is empty.
func (a *analysis) lastWriter(k int32) int32 {
	order := a.keys[k].order
	if len(order) == 0 {
		return -1
	}
	w, _ := a.writeOf(k, order[len(order)-1])
	return w.txn
}

// connectToUnseen draws the rw edges of a read of the whole order. All such readers precede all unseen appends; a hub
// makes that a sum of edges instead of a product. A reader that made one of the unseen appends itself cannot use the
// hub, which would lead it back to itself, and gets direct edges. There is at most one such reader in a sound history:
// two of them each missed the other's append, which is a lost update.
func (a *analysis) connectToUnseen(g *graph, r *externalRead, hidden *unseen) {
	if len(hidden.appends) == 0 {
		return
	}
	_, own := slices.BinarySearchFunc(hidden.appends, r.txn, func(u, txn int32) int {
		return cmp.Compare(a.writes[u].txn, txn)
	})
	if own {
		if hidden.direct++; hidden.direct <= maxDirect {
			a.connectAll(g, edge{from: r.txn, key: r.key, kind: rw}, hidden.appends)
		}
		return
	}
	if hidden.hub == 0 {
		hidden.hub = g.newNode()
		a.connectAll(g, edge{from: hidden.hub, key: r.key, kind: link}, hidden.appends)
	}
	g.connect(edge{from: r.txn, to: hidden.hub, key: r.key, kind: rw})
}

// connectAll completes e with the transaction and the element of each append.
func (a *analysis) connectAll(g *graph, e edge, appends []int32) {
	for _, w := range appends {
		e.to, e.elem = a.writes[w].txn, a.writes[w].elem
		g.connect(e)
	}
}

// connectAbsences draws the rw edges of scans to the first appends of the keys that they did not find. Each scan times
// each absent key would be too many edges, so the keys in byte order become the leaves of a binary tree of auxiliary
// nodes, and a scan has edges to the few subtrees that make up a range of absent keys. No such range holds a key to
// which the scanning transaction appends, so the tree never leads a transaction back to itself.
func (a *analysis) connectAbsences(g *graph, hidden []unseen) {
	leaves := int32(len(a.keys))
	root := int32(g.nodes) - 1 // subtree i has the node root+i; its children are 2i and 2i+1, its leaves leaves..2*leaves-1
	g.nodes += int(2*leaves - 1)
	for i := int32(2); i < 2*leaves; i++ {
		g.connect(edge{from: root + i/2, to: root + i, kind: link})
	}
	for k := range leaves {
		e := edge{from: root + leaves + k, key: k, kind: link}
		switch key := &a.keys[k]; {
		case key.broken:
		case len(key.order) == 0:
			a.connectAll(g, e, hidden[k].appends)
		default:
			w, _ := a.writeOf(k, key.order[0])
			e.to, e.elem = w.txn, w.elem
			g.connect(e)
		}
	}
	for _, x := range a.absences {
		for lo, hi := x.lo+leaves, x.hi+leaves; lo < hi; lo, hi = lo/2, hi/2 {
			if lo%2 == 1 {
				g.connect(edge{from: x.txn, to: root + lo, kind: rw})
				lo++
			}
			if hi%2 == 1 {
				hi--
				g.connect(edge{from: x.txn, to: root + hi, kind: rw})
			}
		}
	}
}
