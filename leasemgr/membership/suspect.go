package membership

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/lease"
)

// Two members that the leasemgr hears, and between which there is no link, would
// hold up whatever both want for as long as that lasts: a lease that is granted over
// the link is nobody's, a copy beyond it cannot be invalidated. So one of them has to
// go. It is asked to, because it lives: it stops, and leaves.

// patience is how long a complaint must last, while both are heard: what passes by
// itself costs nobody its membership.
func (c *Core) patience() time.Duration { return c.options.TTL / 3 }

// How long a name that had to yield is not admitted again: a number of TTLs that
// doubles each time that it happens soon after the admission.
const (
	barFirst, barMost = 2, 10
	// barForget is how many TTLs a membership must last so that earlier ones do not
	// count.
	barForget = 40
)

// suspect takes what a member cannot reach, and returns who has to leave for it, or
// nil. One leaves at a time, as that may be what the others complain about.
func (c *Core) suspect(w *worker, unreachable []lease.Member) *worker {
	me := w.current
	if len(unreachable) == 0 {
		me.cut = nil
		return nil
	}
	cut := make(map[lease.Member]time.Duration, len(unreachable))
	for _, x := range unreachable {
		if x.Worker == w.number || c.Standing(x) != In {
			continue
		}
		since, known := me.cut[x]
		if !known {
			since = c.now
		}
		cut[x] = since
	}
	me.cut = cut
	if len(cut) == 0 || c.anyYields() {
		return nil
	}
	for _, x := range slices.SortedFunc(maps.Keys(cut), func(a, b lease.Member) int { return cmp.Compare(a.Worker, b.Worker) }) {
		other := c.numbers[x.Worker]
		// One that is not heard goes by itself, or is back soon.
		if c.now-cut[x] < c.patience() || c.now-other.current.renewed > c.options.TTL/3 {
			continue
		}
		loser := w
		if c.before(w, other) {
			loser = other
		}
		loser.current.yields = true
		return loser
	}
	return nil
}

func (c *Core) anyYields() bool {
	for _, w := range c.names {
		if w.current != nil && w.current.yields {
			return true
		}
	}
	return false
}

// before says whether a stays rather than b: who has more links, then who has been a
// member for longer.
func (c *Core) before(a, b *worker) bool {
	return cmp.Or(cmp.Compare(c.cuts(a), c.cuts(b)), cmp.Compare(a.current.since, b.current.since), cmp.Compare(a.number, b.number)) < 0
}

// cuts is with how many members there is no link, in either direction.
func (c *Core) cuts(w *worker) (n int) {
	me := lease.Member{Worker: w.number, Incarnation: w.current.incarnation}
	for number, other := range c.numbers {
		if other == w || other.current == nil {
			continue
		}
		_, mine := w.current.cut[lease.Member{Worker: number, Incarnation: other.current.incarnation}]
		_, its := other.current.cut[me]
		if mine || its {
			n++
		}
	}
	return n
}

// Yields says whether a member has to leave.
func (c *Core) Yields(m lease.Member) bool {
	return c.Standing(m) == In && c.numbers[m.Worker].current.yields
}

// strike bars the name of a member that goes because it had to yield.
func (c *Core) strike(w *worker) {
	m := w.current
	if !m.yields {
		w.strikes = 0
		return
	}
	if c.now-m.admitted > barForget*c.options.TTL {
		w.strikes = 0
	}
	w.barred = c.now + time.Duration(min(barFirst<<min(w.strikes, 8), barMost))*c.options.TTL
	w.strikes++
}
