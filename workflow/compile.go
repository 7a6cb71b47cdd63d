package workflow

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/tenure-faas/tenure/base"
)

// Resolver knows what is deployed. Compile calls it and does not keep it.
type Resolver interface {
	// Handlers returns the handlers of a deployed function; ok is false when
	// there is none of that name. Compile does not modify the slice.
	Handlers(function string) (handlers []string, ok bool)
}

// Compile checks a definition against the deployed functions and prepares it
// to run. Besides all that Parse refuses it refuses unknown functions and
// handlers, steps in `after` and `output` that do not exist, cycles, bad key
// expressions, and kinds that are still to come. Errors are as with Parse. d
// is not modified and not kept.
func Compile(name string, d *Definition, r Resolver) (*Workflow, error) {
	if err := checkName("name", "workflow", name); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if kind := cmp.Or(d.Kind, KindTransaction); kind != KindTransaction {
		return nil, invalid("kind", "%s comes later; only %s is supported", kind, KindTransaction)
	}
	w := &Workflow{Name: name, Output: -1, Timeout: d.Timeout}
	for i := range d.Steps {
		step, err := compileStep(d, &d.Steps[i], r)
		if err != nil {
			return nil, err
		}
		w.Steps = append(w.Steps, step)
	}
	if d.Output != "" {
		found := false
		if w.Output, found = w.Index(d.Output); !found {
			return nil, invalid("output", "there is no step %q", d.Output)
		}
	}
	if err := w.sort(); err != nil {
		return nil, err
	}
	w.link()
	return w, nil
}

func compileStep(d *Definition, s *StepDefinition, r Resolver) (Step, error) {
	place := "functions." + s.Name
	step := Step{Name: s.Name, Function: s.Function, Handler: cmp.Or(s.Handler, s.Name), Isolate: s.Isolate}
	handlers, ok := r.Handlers(s.Function)
	if !ok {
		return step, invalid(place+".function", "no function %q is deployed; deploy it first", s.Function)
	}
	if !slices.Contains(handlers, step.Handler) {
		return step, invalid(place+".handler", "function %q has no handler %q; it has %s", s.Function, step.Handler, clip(strings.Join(handlers, ", ")))
	}
	for i, after := range s.After {
		index := slices.IndexFunc(d.Steps, func(s StepDefinition) bool { return s.Name == after })
		if index < 0 {
			return step, invalid(fmt.Sprintf("%s.after[%d]", place, i), "there is no step %q", after)
		}
		step.After = append(step.After, index)
	}
	var err error
	if step.Reads, err = compileKeyExprs(place+".reads", s.Reads); err != nil {
		return step, err
	}
	step.Writes, err = compileKeyExprs(place+".writes", s.Writes)
	return step, err
}

func compileKeyExprs(place string, sources []string) ([]KeyExpr, error) {
	var exprs []KeyExpr
	for i, source := range sources {
		e, err := compileKeyExpr(source)
		if err != nil {
			return nil, invalid(fmt.Sprintf("%s[%d]", place, i), "%s", detail(err))
		}
		exprs = append(exprs, e)
	}
	return exprs, nil
}

// sort sets Order, Linear and the closure of the steps' order. Of the steps
// that may come next it takes the one that stands first in the definition.
func (w *Workflow) sort() error {
	w.before = make([]StepSet, len(w.Steps))
	w.Linear = true
	var placed StepSet
	for len(w.Order) < len(w.Steps) {
		next := w.nextStep(placed)
		if next < 0 {
			return w.cycle(placed)
		}
		for _, a := range w.Steps[next].After {
			w.before[next] |= w.before[a] | 1<<uint(a)
		}
		// Everything placed so far must precede it, or some pair has no order.
		w.Linear = w.Linear && w.before[next] == placed
		placed |= 1 << uint(next)
		w.Order = append(w.Order, next)
	}
	return nil
}

// nextStep returns the first step that is not placed and waits only for placed
// ones; -1 if there is none.
func (w *Workflow) nextStep(placed StepSet) int {
	for i := range w.Steps {
		waits := slices.ContainsFunc(w.Steps[i].After, func(a int) bool { return !placed.Has(a) })
		if !placed.Has(i) && !waits {
			return i
		}
	}
	return -1
}

// cycle returns the error for steps that wait for each other. Every step that
// is not placed waits for another such step, so a walk along `after` from any
// of them comes back to where it has been.
func (w *Workflow) cycle(placed StepSet) error {
	unplaced := func(a int) bool { return !placed.Has(a) }
	at := bits.TrailingZeros64(uint64(^placed))
	var walk []int
	for !slices.Contains(walk, at) {
		walk = append(walk, at)
		after := w.Steps[at].After
		at = after[slices.IndexFunc(after, unplaced)]
	}
	walk = walk[slices.Index(walk, at):]
	names := make([]string, 0, len(walk)+1)
	for _, i := range append(walk, at) {
		names = append(names, w.Steps[i].Name)
	}
	return invalid("functions."+names[0]+".after", "steps wait for each other in a cycle: %s", strings.Join(names, " after "))
}

// link collects the input fields that the expressions begin with and numbers
// them, so that DeclaredKeys finds all of them in one pass over the input.
func (w *Workflow) link() {
	for p := range w.rootPaths {
		w.roots = append(w.roots, p[0].name)
	}
	slices.Sort(w.roots)
	w.roots = slices.Compact(w.roots)
	for p := range w.rootPaths {
		p[0].index, _ = slices.BinarySearch(w.roots, p[0].name)
	}
}

// rootPaths yields the paths of all expressions that start at the input.
func (w *Workflow) rootPaths(yield func(path) bool) {
	for i := range w.Steps {
		for _, exprs := range [][]KeyExpr{w.Steps[i].Reads, w.Steps[i].Writes} {
			for n := range exprs {
				for p := range exprs[n].rootPaths {
					if !yield(p) {
						return
					}
				}
			}
		}
	}
}

// detail returns an error's message without the word of its kind.
func detail(err error) string {
	if e, ok := errors.AsType[*base.Error](err); ok {
		return e.Detail
	}
	return err.Error()
}
