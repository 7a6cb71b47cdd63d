package workflow

import (
	"fmt"
	"iter"
	"math/bits"

	"github.com/tenure-faas/tenure/base"
)

// StepSet is a set of steps by index. A word is enough because a workflow has
// at most MaxSteps of them, and it makes every question about order a few
// instructions without memory of its own.
type StepSet uint64

// Has reports whether step i is in the set.
func (s StepSet) Has(i int) bool { return s>>uint(i)&1 == 1 }

// Len returns the number of steps in the set.
func (s StepSet) Len() int { return bits.OnesCount64(uint64(s)) }

// All yields the steps in ascending order, which is the definition's.
func (s StepSet) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(bits.TrailingZeros64(uint64(s))) {
				return
			}
		}
	}
}

// Edge says that step To may start only when step From has ended.
type Edge struct{ From, To int }

// Schedule is the progress of one attempt of a workflow: what may start, what
// has ended. It is a value of a few words; copying it forks the progress. It
// is not safe for concurrent use: the goroutine that owns the attempt asks.
//
// Ready gives the steps to begin with, and Done, called once for each step
// that ended, gives those that this made ready. Together they hand out every
// step exactly once, each after all of its predecessors; when nothing is
// running and nothing was handed out, Finished is true, so an attempt cannot
// hang.
type Schedule struct {
	before  []StepSet // all predecessors of each step; shared with the Workflow, or private to this schedule
	started StepSet   // handed out by Ready or Done
	done    StepSet   // reported by Done
}

// Schedule returns the schedule of one attempt. Steps are ordered by the
// definition's DAG, and beyond it two steps without an order between them are
// serialised when they conflict: when uses has the same key for both and one
// of them writes it. The one that stands earlier in the definition goes first.
// Then come the extra edges, in the order given, for conflicts that an earlier
// attempt found with keys nobody declared.
//
// An edge whose opposite already follows is dropped: the two are serialised
// all the same, and a schedule can have no cycle. This can turn a pair against
// the definition's order only where `after` does: with a written before b and
// c, `a after c`, and conflicts a-b and b-c, not all three can hold.
//
// Indexes must be steps of the workflow. uses and extra are not kept. A Linear
// workflow has nothing to add to its order: it ignores both, and allocates
// nothing.
func (w *Workflow) Schedule(uses []KeyUse, extra []Edge) Schedule {
	s := Schedule{before: w.before}
	if w.Linear {
		return s
	}
	conflicts := conflicting(uses)
	for from := range w.Steps {
		for to := range conflicts[from].All() {
			s.order(w, from, to)
		}
	}
	for _, e := range extra {
		s.order(w, e.From, e.To)
	}
	return s
}

// conflicting returns, for each step, the steps not before it in the
// definition that use a key of it where one of the two writes. A step may be
// among its own.
func conflicting(uses []KeyUse) [MaxSteps]StepSet {
	var found [MaxSteps]StepSet
	type users struct{ readers, writers StepSet }
	seen := make(map[base.Key]users)
	for _, u := range uses {
		others := seen[u.Key]
		clash := others.writers
		if u.Write {
			clash |= others.readers
			others.writers |= 1 << uint(u.Step)
		} else {
			others.readers |= 1 << uint(u.Step)
		}
		seen[u.Key] = others
		for other := range clash.All() {
			found[min(u.Step, other)] |= 1 << uint(max(u.Step, other))
		}
	}
	return found
}

// order adds an edge unless the two are one step, or ordered already. The first edge
// copies the workflow's order, which all schedules share.
func (s *Schedule) order(w *Workflow, from, to int) {
	if from == to || s.before[to].Has(from) || s.before[from].Has(to) {
		return
	}
	if &s.before[0] == &w.before[0] {
		s.before = append([]StepSet(nil), w.before...)
	}
	addEdge(s.before, from, to)
}

// addEdge keeps before transitively closed: whatever precedes from, and from
// itself, now precedes to and all that follows it. The caller has made sure
// that to does not precede from.
func addEdge(before []StepSet, from, to int) {
	gained := before[from] | 1<<uint(from)
	for i := range before {
		if i == to || before[i].Has(to) {
			before[i] |= gained
		}
	}
}

// Ready returns the steps that may start and were not handed out before:
// called first, those without predecessors.
func (s *Schedule) Ready() StepSet {
	var ready StepSet
	for i, before := range s.before {
		if !s.started.Has(i) && before&^s.done == 0 {
			ready |= 1 << uint(i)
		}
	}
	s.started |= ready
	return ready
}

// Done records that a step has ended and returns the steps which may start
// now. It panics if the step was not handed out or has ended before: the
// caller would run a step out of order.
func (s *Schedule) Done(step int) StepSet {
	if step < 0 || step >= len(s.before) || !s.started.Has(step) || s.done.Has(step) {
		panic(fmt.Sprintf("workflow: step %d ended but was not running (started %b, done %b)", step, s.started, s.done))
	}
	s.done |= 1 << uint(step)
	return s.Ready()
}

// Before returns the steps that are ordered before a step in this attempt, by
// the definition or by a conflict, directly or through others.
func (s *Schedule) Before(step int) StepSet { return s.before[step] }

// Finished reports whether every step has ended.
func (s *Schedule) Finished() bool { return s.done.Len() == len(s.before) }
