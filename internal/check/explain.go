package check

import (
	"fmt"
	"slices"
	"strings"
)

// describe names a cycle, which begins at a transaction, and puts it in words.
func (a *analysis) describe(g *graph, cycle []edge) Anomaly {
	var out []Edge
	var kinds edgeMask
	rws := 0
	for i := 0; i < len(cycle); i++ {
		e := cycle[i]
		for g.auxiliary(cycle[i].to) {
			i++
		}
		kinds |= e.kind
		if e.kind == rw {
			rws++
		}
		// The key and the element stand on the last edge, the kind on the first.
		e.to, e.key, e.elem = cycle[i].to, cycle[i].key, cycle[i].elem
		out = append(out, a.explain(e))
	}
	first := 0
	for i := range out {
		if out[i].From < out[first].From {
			first = i
		}
	}
	out = slices.Concat(out[first:], out[:first])

	x := Anomaly{Kind: cycleKind(kinds, rws), Cycle: out}
	var text strings.Builder
	for _, e := range out {
		x.Txns = append(x.Txns, e.From)
		fmt.Fprintf(&text, "T%d -%v-> ", e.From, e.Dependency)
	}
	fmt.Fprintf(&text, "T%d", out[0].From)
	x.Text = text.String()
	return x
}

func cycleKind(kinds edgeMask, rws int) Kind {
	kind := G0
	switch {
	case rws > 1:
		kind = G2
	case rws == 1:
		kind = GSingle
	case kinds&wr != 0:
		kind = G1c
	}
	if kinds&rt != 0 {
		kind += G0RealTime - G0
	}
	return kind
}

// explain puts an edge between two transactions in words.
func (a *analysis) explain(e edge) Edge {
	from, to := &a.h[e.from], &a.h[e.to]
	out := Edge{From: from.ID, To: to.ID}
	if e.kind == rt {
		out.Dependency = RealTime
		out.Reason = fmt.Sprintf("T%d returned at %d, before T%d was called at %d", from.ID, from.Return, to.ID, to.Call)
		return out
	}
	out.Key, out.Element = a.keys[e.key].name, e.elem
	switch e.kind {
	case wr:
		out.Dependency = WR
		out.Reason = fmt.Sprintf("T%d read T%d's append of %d to %q", to.ID, from.ID, e.elem, out.Key)
	case ww:
		out.Dependency = WW
		out.Reason = fmt.Sprintf("T%d appended %d to %q after T%d did", to.ID, e.elem, out.Key, from.ID)
	default:
		out.Dependency = RW
		list, where := a.keys[e.key].order, ", which is in no read"
		if w, _ := a.writeOf(e.key, e.elem); w.seen {
			list, where = nil, "" // a scan that did not find the key is not among the reads
			for _, r := range a.reads {
				if r.txn == e.from && r.key == e.key {
					list = r.base
				}
			}
		}
		out.Reason = fmt.Sprintf("T%d read %q as %s, without T%d's append of %d%s",
			from.ID, out.Key, listText(list), to.ID, e.elem, where)
	}
	return out
}
