package leasemgr

import (
	"errors"
	"maps"
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/workflow"
)

// function is one in a snapshot; immutable.
type function struct {
	info     FunctionInfo
	bundle   runtime.Bundle
	programs map[string]*Program // by handler
	// changed is the sequence number of its last change.
	changed uint64
	// fault says why a later version than this one could not be loaded here; it
	// is kept for the invocations that run it and for its name.
	fault error
}

// flow is a workflow in a snapshot; immutable.
type flow struct {
	info    WorkflowInfo
	changed uint64
	def     *workflow.Definition
	// program is nil, and fault says why, if what the workflow needs was not
	// there when the catalogue was read.
	program *Program
	fault   error
}

// hidden is a stored function that is not in a snapshot, because a native one
// shadows it or, with a fault, it could not be loaded. Its modules are kept.
type hidden struct {
	storedFunction
	fault error
}

// snapshot is the catalogue at one moment. It is immutable.
type snapshot struct {
	// sequence is the number of the last change in it.
	sequence  uint64
	functions map[string]*function
	workflows map[string]*flow
	hidden    map[string]hidden
	// replaced is closed when there is a later snapshot.
	replaced chan struct{}
}

// next returns a snapshot, to be changed, which is one change later and so far
// has the same in it.
func (s *snapshot) next() *snapshot {
	return &snapshot{sequence: s.sequence + 1, functions: s.functions, workflows: s.workflows, hidden: s.hidden}
}

// publish makes next what readers see. The caller has the turn.
func (c *Catalogue) publish(next *snapshot) {
	next.replaced = make(chan struct{})
	close(c.snap.Swap(next).replaced)
}

// Handlers implements workflow.Resolver.
func (s *snapshot) Handlers(name string) ([]string, bool) {
	f, ok := s.functions[name]
	if !ok {
		return nil, false
	}
	return f.info.Handlers, true
}

// usable returns a function that can run.
func (s *snapshot) usable(name string) (*function, error) {
	f := s.functions[name]
	fault := s.hidden[name].fault
	if f != nil {
		fault = f.fault
	}
	switch {
	case fault != nil:
		return nil, base.Errorf(base.Unavailable, "the current version of function %q cannot be loaded here: %v", name, fault)
	case f == nil:
		return nil, notFound("function", name)
	}
	return f, nil
}

func (c *Catalogue) newFunction(info FunctionInfo, b runtime.Bundle, changed uint64) *function {
	f := &function{info: info, bundle: b, changed: changed, programs: make(map[string]*Program, len(info.Handlers))}
	for _, h := range info.Handlers {
		f.programs[h] = &Program{Flow: workflow.Single(info.Name, h), Bundles: []runtime.Bundle{b}, Changed: changed, catalogue: c}
	}
	return f
}

// add compiles a workflow against the snapshot and enters it. Only while the
// snapshot is being built.
func (c *Catalogue) add(s *snapshot, stored storedWorkflow, def *workflow.Definition) error {
	w, err := workflow.Compile(stored.Name, def, s)
	if err != nil {
		return err
	}
	p := &Program{Flow: w, Bundles: make([]runtime.Bundle, len(w.Steps)), Changed: stored.Sequence, catalogue: c}
	for i := range w.Steps {
		f, err := s.usable(w.Steps[i].Function)
		if err != nil {
			return err
		}
		p.Bundles[i] = f.bundle
		p.Changed = max(p.Changed, f.changed)
	}
	s.workflows[stored.Name] = &flow{info: stored.WorkflowInfo, changed: stored.Sequence, def: def, program: p}
	return nil
}

// with returns the snapshot one change later with other functions, and with
// every workflow compiled anew against them.
func (c *Catalogue) with(s *snapshot, functions map[string]*function) (*snapshot, error) {
	next := s.next()
	next.functions, next.workflows = functions, make(map[string]*flow, len(s.workflows))
	next.hidden = maps.Clone(s.hidden)
	maps.DeleteFunc(next.hidden, func(name string, h hidden) bool { return h.fault != nil && functions[name] != nil })
	for _, name := range slices.Sorted(maps.Keys(s.workflows)) {
		f := s.workflows[name]
		if f.def == nil {
			next.workflows[name] = f
			continue
		}
		err := c.add(next, storedWorkflow{f.info, f.changed}, f.def)
		switch {
		case err != nil && f.program == nil:
			next.workflows[name] = &flow{info: f.info, changed: f.changed, def: f.def, fault: err}
		case err != nil:
			return nil, base.Errorf(base.InUse, "workflow %q needs what this would remove: %v", name, err)
		}
	}
	return next, nil
}

// errClosed is the answer of a catalogue after Close.
func errClosed() error {
	return &base.Error{Kind: base.Unavailable, Detail: "this server is stopping", Err: errors.New("the catalogue is closed")}
}
