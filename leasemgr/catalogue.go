package leasemgr

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/workflow"
)

// Loader makes a runnable bundle of a module: runtime/wasm in production.
type Loader interface {
	// Load compiles and checks a module. It blocks, for seconds if the module
	// is large and new. The error is Invalid with subject module.
	Load(ctx context.Context, name string, module []byte, isolate bool) (runtime.Bundle, error)
}

// FunctionInfo describes a deployed function.
type FunctionInfo struct {
	Name string `json:"name" doc:"The function's name"`
	// Version is the hexadecimal SHA-256 of the module; empty for native ones.
	Version  string            `json:"version" doc:"Current version: the hexadecimal SHA-256 of the module"`
	Handlers []string          `json:"handlers" doc:"Names of the exported handlers, sorted"`
	Runtime  string            `json:"runtime" doc:"What runs it: wasm or native"`
	Isolate  bool              `json:"isolate" doc:"Whether every invocation gets an instance with fresh memory"`
	Versions []FunctionVersion `json:"versions" doc:"The versions that are kept, oldest first"`
}

// FunctionVersion is one version of a function.
type FunctionVersion struct {
	Version  string    `json:"version" doc:"Hexadecimal SHA-256 of the module"`
	Deployed time.Time `json:"deployed" doc:"When it was deployed last"`
}

// WorkflowInfo describes a deployed workflow.
type WorkflowInfo struct {
	Name string `json:"name" doc:"The workflow's name"`
	// Revision counts the changes of the definition, from 1.
	Revision int `json:"revision" doc:"Counts the changes of the definition, from 1"`
	// Definition is its canonical JSON form.
	Definition json.RawMessage `json:"definition" doc:"The definition in its canonical JSON form"`
}

// Program is a compiled workflow with the bundle of each step, pinned when the
// snapshot was made. It is immutable.
type Program struct {
	Flow *workflow.Workflow
	// Bundles has the bundle of each step of Flow, by step index.
	Bundles []runtime.Bundle
}

// versionsKept bounds the versions of a function whose modules are kept.
const versionsKept = 10

// Catalogue is what is deployed. Readers take an immutable snapshot and never
// wait; writers are serialised, make their change durable, then publish.
type Catalogue struct {
	engine store.Engine
	loader Loader
	logger *slog.Logger

	// hidden are stored functions that are not in the snapshot, because a native
	// one shadows them or they could not be loaded. Their modules are kept.
	hidden map[string]storedFunction

	mu      sync.Mutex // serialises writers; held while a module compiles
	retired []retired  // oldest first; guarded by mu
	snap    atomic.Pointer[snapshot]
}

// retired is a bundle that was replaced or removed. Invocations that began
// before still run it.
type retired struct {
	bundle runtime.Bundle
	since  time.Time
}

const (
	// retiredFor is how long a retired bundle stays open: longer than the
	// longest invocation.
	retiredFor = workflow.MaxTimeout + time.Minute
	// retiredMost bounds how many stay open. An invocation whose bundle is
	// closed before ends as unavailable; nothing is lost.
	retiredMost = 16
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

// NewCatalogue reads the catalogue from the store and loads every function in
// it. native are functions compiled into this process; they shadow deployed
// ones of the same name and cannot be replaced over the API. What cannot be
// loaded is logged and unavailable until it is deployed again; it does not keep
// the rest from being served. It blocks while modules are loaded (milliseconds
// each with a warm compile cache).
func NewCatalogue(ctx context.Context, engine store.Engine, loader Loader, native map[string]runtime.Bundle, logger *slog.Logger) (*Catalogue, error) {
	c := &Catalogue{engine: engine, loader: loader, logger: logger, hidden: map[string]storedFunction{}}
	s := &snapshot{functions: map[string]*function{}, workflows: map[string]*flow{}}
	for name, bundle := range native {
		s.functions[name] = newFunction(FunctionInfo{Name: name, Runtime: "native", Handlers: bundle.Handlers()}, bundle)
	}
	if err := c.readFunctions(ctx, s); err != nil {
		return nil, err
	}
	if err := c.readWorkflows(s); err != nil {
		return nil, err
	}
	c.snap.Store(s)
	return c, nil
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

// DeployFunction compiles, checks and stores a module and makes it the current
// version; invocations that run go on with the version they began with.
// created is false if the same module was current already.
func (c *Catalogue) DeployFunction(ctx context.Context, name string, module []byte, isolate bool) (FunctionInfo, bool, error) {
	if err := base.ValidateName("function", name); err != nil {
		return FunctionInfo{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snap.Load()
	old := s.functions[name]
	if old != nil && old.info.Runtime == "native" {
		return FunctionInfo{}, false, base.Errorf(base.InUse, "function %q is compiled into this server and cannot be replaced", name)
	}
	sum := sha256.Sum256(module)
	version := hex.EncodeToString(sum[:])
	if old != nil && old.info.Version == version && old.info.Isolate == isolate {
		return old.info, false, nil
	}
	bundle, err := c.loader.Load(ctx, name, module, isolate)
	if err != nil {
		return FunctionInfo{}, false, err
	}
	stored := storedFunction{Version: version, Isolate: isolate}
	if old != nil {
		stored.Versions = slices.DeleteFunc(slices.Clone(old.info.Versions), func(v FunctionVersion) bool { return v.Version == version })
	}
	stored.Versions = append(stored.Versions, FunctionVersion{version, time.Now().UTC()})
	stored.Versions = stored.Versions[max(0, len(stored.Versions)-versionsKept):]
	functions := maps.Clone(s.functions)
	functions[name] = newFunction(stored.info(name, bundle), bundle)
	next, err := s.with(functions)
	if err == nil {
		err = c.store(next, func(b store.Batch) error {
			b.Set(store.ModuleKey(version), module)
			return setJSON(b, store.FunctionKey(name), stored)
		})
	}
	if err != nil {
		return FunctionInfo{}, false, errors.Join(err, bundle.Close())
	}
	if old != nil {
		c.retire(old.bundle)
	}
	return functions[name].info, true, nil
}

// retire closes a bundle once nothing can be running it any more, and those
// whose time has come. The caller holds mu.
func (c *Catalogue) retire(b runtime.Bundle) {
	now := time.Now()
	c.retired = append(c.retired, retired{b, now})
	for len(c.retired) > retiredMost || now.Sub(c.retired[0].since) > retiredFor {
		if err := c.retired[0].bundle.Close(); err != nil {
			c.logger.Warn("close a replaced bundle", "err", err)
		}
		c.retired = c.retired[1:]
	}
}

// store makes a change durable, drops modules that nothing names any more, and
// publishes the snapshot.
func (c *Catalogue) store(next *snapshot, change func(store.Batch) error) error {
	b := c.engine.NewBatch()
	defer b.Release()
	if err := change(b); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, f := range next.functions {
		for _, v := range f.info.Versions {
			named[v.Version] = true
		}
	}
	for name, f := range c.hidden {
		if next.functions[name] == nil || next.functions[name].info.Runtime == "native" {
			for _, v := range f.Versions {
				named[v.Version] = true
			}
		}
	}
	for _, f := range c.snap.Load().functions {
		for _, v := range f.info.Versions {
			if !named[v.Version] {
				b.Delete(store.ModuleKey(v.Version))
			}
		}
	}
	if err := c.engine.Apply(b); err != nil {
		return err
	}
	c.snap.Store(next)
	return nil
}

func setJSON(b store.Batch, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode catalogue entry %q: %w", key, err)
	}
	b.Set(key, raw)
	return nil
}

// RemoveFunction removes a function and its versions. InUse while a workflow
// needs it.
func (c *Catalogue) RemoveFunction(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snap.Load()
	f := s.functions[name]
	if f == nil {
		return notFound("function", name)
	}
	if f.info.Runtime == "native" {
		return base.Errorf(base.InUse, "function %q is compiled into this server and cannot be removed", name)
	}
	functions := maps.Clone(s.functions)
	delete(functions, name)
	next, err := s.with(functions)
	if err != nil {
		return err
	}
	err = c.store(next, func(b store.Batch) error {
		b.Delete(store.FunctionKey(name))
		return nil
	})
	if err == nil {
		c.retire(f.bundle)
	}
	return err
}

func notFound(what, name string) error { return base.Errorf(base.NotFound, "no %s %q", what, name) }

// Functions returns all functions by name.
func (c *Catalogue) Functions() []FunctionInfo {
	s := c.snap.Load()
	infos := make([]FunctionInfo, 0, len(s.functions))
	for _, name := range slices.Sorted(maps.Keys(s.functions)) {
		infos = append(infos, s.functions[name].info)
	}
	return infos
}

// Function returns one function.
func (c *Catalogue) Function(name string) (FunctionInfo, error) {
	if f := c.snap.Load().functions[name]; f != nil {
		return f.info, nil
	}
	return FunctionInfo{}, notFound("function", name)
}

// PutWorkflow parses, checks and stores a definition. created is true for a
// name that had none; an equal definition changes nothing.
func (c *Catalogue) PutWorkflow(_ context.Context, name string, definition []byte, format workflow.Format) (WorkflowInfo, bool, error) {
	if err := base.ValidateName("workflow", name); err != nil {
		return WorkflowInfo{}, false, err
	}
	def, err := workflow.Parse(definition, format)
	if err != nil {
		return WorkflowInfo{}, false, err
	}
	canonical, err := def.MarshalJSON()
	if err != nil {
		return WorkflowInfo{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snap.Load()
	info := WorkflowInfo{Name: name, Revision: 1, Definition: canonical}
	old := s.workflows[name]
	if old != nil {
		if string(old.info.Definition) == string(canonical) {
			return old.info, false, nil
		}
		info.Revision = old.info.Revision + 1
	}
	next := &snapshot{functions: s.functions, workflows: maps.Clone(s.workflows)}
	if err := next.add(info, def); err != nil {
		return WorkflowInfo{}, false, err
	}
	err = c.store(next, func(b store.Batch) error { return setJSON(b, store.WorkflowKey(name), info) })
	return info, old == nil, err
}

// RemoveWorkflow removes a workflow; invocations that run are not touched.
func (c *Catalogue) RemoveWorkflow(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snap.Load()
	if s.workflows[name] == nil {
		return notFound("workflow", name)
	}
	next := &snapshot{functions: s.functions, workflows: maps.Clone(s.workflows)}
	delete(next.workflows, name)
	return c.store(next, func(b store.Batch) error {
		b.Delete(store.WorkflowKey(name))
		return nil
	})
}

// Workflows returns all workflows by name.
func (c *Catalogue) Workflows() []WorkflowInfo {
	s := c.snap.Load()
	infos := make([]WorkflowInfo, 0, len(s.workflows))
	for _, name := range slices.Sorted(maps.Keys(s.workflows)) {
		infos = append(infos, s.workflows[name].info)
	}
	return infos
}

// Workflow returns one workflow.
func (c *Catalogue) Workflow(name string) (WorkflowInfo, error) {
	if f := c.snap.Load().workflows[name]; f != nil {
		return f.info, nil
	}
	return WorkflowInfo{}, notFound("workflow", name)
}

// Program returns a workflow ready to run. It does not block.
func (c *Catalogue) Program(name string) (*Program, error) {
	f := c.snap.Load().workflows[name]
	switch {
	case f == nil:
		return nil, notFound("workflow", name)
	case f.program == nil:
		return nil, base.Errorf(base.Unavailable, "workflow %q cannot run here: %v", name, f.fault)
	}
	return f.program, nil
}

// HandlerProgram returns one handler as a workflow of its own. It does not
// block.
func (c *Catalogue) HandlerProgram(name, handler string) (*Program, error) {
	f := c.snap.Load().functions[name]
	if f == nil {
		return nil, notFound("function", name)
	}
	if p := f.programs[handler]; p != nil {
		return p, nil
	}
	return nil, base.Errorf(base.NotFound, "function %q has no handler %q; it has %v", name, handler, f.info.Handlers)
}

// Bundle returns the current bundle of a function. It does not block.
func (c *Catalogue) Bundle(name string) (runtime.Bundle, error) {
	if f := c.snap.Load().functions[name]; f != nil {
		return f.bundle, nil
	}
	return nil, notFound("function", name)
}

// Close frees every bundle. No invocation may start afterwards.
func (c *Catalogue) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range c.snap.Load().functions {
		errs = append(errs, f.bundle.Close())
	}
	for _, r := range c.retired {
		errs = append(errs, r.bundle.Close())
	}
	c.retired = nil
	c.snap.Store(&snapshot{})
	return errors.Join(errs...)
}
