package check

import (
	"cmp"
	"slices"
)

// instant is the call or the return of a transaction.
type instant struct {
	at  int64 // ns
	ret bool
	txn int32
}

// connectRealTime draws the real-time order of the committed transactions with about three edges for each of them,
// where the order itself has a quadratic number of pairs. The returns between two calls share one auxiliary node, a
// barrier; the barriers form a chain in time:
//
//	T1 returns --> barrier --> barrier --> ...
//	                  |           |
//	                  v           v
//	              T2 called   T3 called
//
// T reaches T' over barriers exactly if T.Return < T'.Call. At equal instants the calls are sorted first, which makes
// the two concurrent.
func (a *analysis) connectRealTime(g *graph) {
	instants := make([]instant, 0, 2*len(a.h))
	for i := range a.h {
		if !a.committed[i] {
			continue
		}
		t := &a.h[i]
		instants = append(instants, instant{at: t.Call, txn: int32(i)})
		if t.Outcome == OK {
			instants = append(instants, instant{at: t.Return, ret: true, txn: int32(i)})
		}
	}
	slices.SortFunc(instants, func(x, y instant) int {
		if c := cmp.Compare(x.at, y.at); c != 0 || x.ret == y.ret {
			return cmp.Or(c, cmp.Compare(x.txn, y.txn))
		}
		if x.ret {
			return 1
		}
		return -1
	})

	const none = -1
	past, open := int32(none), int32(none) // the last barrier with a call behind it; the one that collects returns
	for _, now := range instants {
		if now.ret {
			if open == none {
				open = g.newNode()
				if past != none {
					g.connect(edge{from: past, to: open, kind: rt})
				}
			}
			g.connect(edge{from: now.txn, to: open, kind: rt})
			continue
		}
		if open != none {
			past, open = open, none
		}
		if past != none {
			g.connect(edge{from: past, to: now.txn, kind: rt})
		}
	}
}
