package leasemgr

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/workflow"
)

type function struct {
	info     FunctionInfo
	bundle   runtime.Bundle
	programs map[string]*Program // by handler
}

type flow struct {
	info WorkflowInfo
	def  *workflow.Definition
	// program is nil, and fault says why, if what the workflow needs was not
	// there when the catalogue was read.
	program *Program
	fault   error
}

// snapshot is the catalogue at one moment. It is immutable.
type snapshot struct {
	functions map[string]*function
	workflows map[string]*flow
}

// Handlers implements workflow.Resolver.
func (s *snapshot) Handlers(name string) ([]string, bool) {
	f, ok := s.functions[name]
	if !ok {
		return nil, false
	}
	return f.info.Handlers, true
}

// storedFunction is a function's entry in the store.
type storedFunction struct {
	Version  string            `json:"version"`
	Isolate  bool              `json:"isolate"`
	Versions []FunctionVersion `json:"versions"`
}

func (c *Catalogue) readFunctions(ctx context.Context, s *snapshot) error {
	stored := map[string]storedFunction{}
	lo, hi := store.FunctionRange()
	err := scanJSON(c.engine, lo, hi, func(name string, f storedFunction) { stored[name] = f })
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		f := stored[name]
		if _, shadowed := s.functions[name]; shadowed {
			c.hidden[name] = f
			continue
		}
		module, found, err := c.engine.Get(nil, store.ModuleKey(f.Version))
		if err != nil || !found {
			return fmt.Errorf("module %s of function %q is not in the store: %w", f.Version, name, cmp.Or(err, errors.New("not found")))
		}
		bundle, err := c.loader.Load(ctx, name, module, f.Isolate)
		if err != nil {
			c.logger.Error("a deployed function cannot be loaded; deploy it again", "function", name, "version", f.Version, "err", err)
			c.hidden[name] = f
			continue
		}
		s.functions[name] = newFunction(f.info(name, bundle), bundle)
	}
	return nil
}

func (f storedFunction) info(name string, b runtime.Bundle) FunctionInfo {
	return FunctionInfo{Name: name, Version: f.Version, Handlers: b.Handlers(), Runtime: "wasm", Isolate: f.Isolate, Versions: f.Versions}
}

func newFunction(info FunctionInfo, b runtime.Bundle) *function {
	f := &function{info: info, bundle: b, programs: make(map[string]*Program, len(info.Handlers))}
	for _, h := range info.Handlers {
		f.programs[h] = &Program{Flow: workflow.Single(info.Name, h), Bundles: []runtime.Bundle{b}}
	}
	return f
}

func (c *Catalogue) readWorkflows(s *snapshot) error {
	lo, hi := store.WorkflowRange()
	return scanJSON(c.engine, lo, hi, func(name string, info WorkflowInfo) {
		def, err := workflow.Parse(info.Definition, workflow.JSON)
		if err == nil {
			err = s.add(info, def)
		}
		if err != nil {
			c.logger.Error("a workflow cannot run", "workflow", name, "err", err)
			s.workflows[name] = &flow{info: info, def: def, fault: err}
		}
	})
}

// scanJSON decodes every value in a range of one-byte-prefixed names.
func scanJSON[T any](r store.Reader, lo, hi []byte, visit func(name string, v T)) error {
	var fault error
	err := r.Scan(lo, hi, func(key, raw []byte) bool {
		var v T
		if fault = json.Unmarshal(raw, &v); fault != nil {
			fault = fmt.Errorf("catalogue entry %q is not readable: %w", key, fault)
			return false
		}
		visit(string(key[1:]), v)
		return true
	})
	return cmp.Or(err, fault)
}

// add compiles a workflow against the snapshot and enters it. Only while the
// snapshot is being built.
func (s *snapshot) add(info WorkflowInfo, def *workflow.Definition) error {
	w, err := workflow.Compile(info.Name, def, s)
	if err != nil {
		return err
	}
	p := &Program{Flow: w, Bundles: make([]runtime.Bundle, len(w.Steps))}
	for i := range w.Steps {
		p.Bundles[i] = s.functions[w.Steps[i].Function].bundle
	}
	s.workflows[info.Name] = &flow{info: info, def: def, program: p}
	return nil
}

// with returns a copy of the snapshot whose functions are replaced, with every
// workflow compiled anew against them.
func (s *snapshot) with(functions map[string]*function) (*snapshot, error) {
	next := &snapshot{functions: functions, workflows: make(map[string]*flow, len(s.workflows))}
	for _, name := range slices.Sorted(maps.Keys(s.workflows)) {
		f := s.workflows[name]
		if f.def == nil {
			next.workflows[name] = f
			continue
		}
		err := next.add(f.info, f.def)
		switch {
		case err != nil && f.program == nil:
			next.workflows[name] = &flow{info: f.info, def: f.def, fault: err}
		case err != nil:
			return nil, base.Errorf(base.InUse, "workflow %q needs what this would remove: %v", name, err)
		}
	}
	return next, nil
}
