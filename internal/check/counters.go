package check

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// addition is what one transaction adds to one counter, as a whole: it takes effect entirely or not at all.
type addition struct {
	txn       int32
	call, end int64 // ns; end is infinite unless the addition was acknowledged
	delta     int64
}

// sums are running totals over a sorted list of additions.
type sums struct{ positive, negative int64 }

func (s sums) plus(delta int64) sums {
	if delta > 0 {
		s.positive += delta
	} else {
		s.negative += delta
	}
	return s
}

// tally answers, for one counter, what was added by a given instant.
type tally struct {
	byCall, byEnd     []addition
	upToCall, upToEnd []sums // upToCall[i] covers byCall[:i]
	own               map[int32]int64
}

// checkCounters holds every counter that a trusted transaction found against the interval of values that real time
// allows: what was acknowledged before the transaction was called is in it; what was called after it returned is not;
// each of the others may be or not. With nothing concurrent the interval is a single value.
func (a *analysis) checkCounters() {
	if len(a.counts) == 0 {
		return
	}
	tallies := a.tallies()
	for _, r := range a.counts {
		t := &a.h[r.txn]
		lo, hi := tallies[r.key].bounds(r.txn, t.Call, t.Return)
		if r.base >= lo && r.base <= hi {
			continue
		}
		allowed := fmt.Sprintf("between %d and %d", lo, hi)
		if lo == hi {
			allowed = fmt.Sprint(lo)
		}
		a.add(Anomaly{Kind: CounterBound, Txns: []int{t.ID}, Text: fmt.Sprintf(
			"T%d found counter %q at %d; the additions before and during [%d, %d] make it %s",
			t.ID, a.keys[r.key].name, r.base, t.Call, t.Return, allowed)})
	}
}

// tallies collects the additions that may have committed, by key.
func (a *analysis) tallies() []tally {
	tallies := make([]tally, len(a.keys))
	for i := range a.h {
		t := &a.h[i]
		if t.Outcome == Failed {
			continue
		}
		for j := range t.Ops {
			if op := &t.Ops[j]; op.Kind == Add {
				tallies[a.keyID[op.Key]].record(addition{int32(i), t.Call, t.end(), op.Delta})
			}
		}
	}
	for k := range tallies {
		tallies[k].freeze()
	}
	return tallies
}

// record adds an addition; those of one transaction must be recorded one after the other.
func (c *tally) record(x addition) {
	if n := len(c.byCall); n > 0 && c.byCall[n-1].txn == x.txn {
		c.byCall[n-1].delta += x.delta
		return
	}
	c.byCall = append(c.byCall, x)
}

func (c *tally) freeze() {
	c.own = make(map[int32]int64, len(c.byCall))
	for _, x := range c.byCall {
		c.own[x.txn] = x.delta
	}
	c.byEnd = slices.Clone(c.byCall)
	slices.SortFunc(c.byCall, func(x, y addition) int { return cmp.Compare(x.call, y.call) })
	slices.SortFunc(c.byEnd, func(x, y addition) int { return cmp.Compare(x.end, y.end) })
	c.upToCall, c.upToEnd = runningSums(c.byCall), runningSums(c.byEnd)
}

func runningSums(list []addition) []sums {
	out := make([]sums, 1, len(list)+1)
	for i, x := range list {
		out = append(out, out[i].plus(x.delta))
	}
	return out
}

// bounds returns the least and the greatest value that a transaction which ran in [call, ret] may find before its own
// additions.
func (c *tally) bounds(txn int32, call, ret int64) (lo, hi int64) {
	before := c.upToEnd[sort.Search(len(c.byEnd), func(i int) bool { return c.byEnd[i].end >= call })]
	started := c.upToCall[sort.Search(len(c.byCall), func(i int) bool { return c.byCall[i].call > ret })]
	// The transaction's own addition has started and has not ended before its call, so it is in started only.
	started.positive -= max(c.own[txn], 0)
	started.negative -= min(c.own[txn], 0)
	certain := before.positive + before.negative
	return certain + started.negative - before.negative, certain + started.positive - before.positive
}
