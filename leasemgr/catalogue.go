package leasemgr

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
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
	// Changed is the sequence number of the last change of the workflow or of a
	// function in it: a catalogue that has read this one has no older program.
	Changed uint64

	catalogue *Catalogue // that made it
}

// Deployed is the sequence number of the last change that the catalogue which
// made the program has seen by now; 0 if no catalogue made it.
func (p *Program) Deployed() uint64 {
	if p.catalogue == nil {
		return 0
	}
	return p.catalogue.Sequence()
}

// Catalogue is what is deployed. Readers take an immutable snapshot and never
// wait; writers are serialised, make their change durable, then publish.
//
// One process owns the catalogue and changes it: the one that has the engine
// open. A store.Engine has no conditional write, so two owners could lose each
// other's changes; others therefore have a Replica, which cannot write at all.
// Every change counts a sequence number in the store, in the batch that makes
// it, by which a reader knows that what it has read is whole and the newest.
type Catalogue struct {
	reader store.Reader
	engine store.Engine // nil for a replica
	loader Loader
	native map[string]*function
	logger *slog.Logger

	// turn has a token while somebody changes or refreshes; it is held while a
	// module compiles. It guards what follows and the writing of snap.
	turn    chan struct{}
	retired []retired // oldest first
	// doubtful says that a change failed and may be in the store nevertheless.
	doubtful, closed bool

	snap atomic.Pointer[snapshot]
}

// NewCatalogue reads the catalogue from the store and loads every function in
// it; the caller becomes its owner. native are functions compiled into this
// process; they shadow deployed ones of the same name and cannot be replaced
// over the API. What cannot be loaded is logged and unavailable until it is
// deployed again; it does not keep the rest from being served. It blocks while
// modules are loaded (milliseconds each with a warm compile cache).
func NewCatalogue(ctx context.Context, engine store.Engine, loader Loader, native map[string]runtime.Bundle, logger *slog.Logger) (*Catalogue, error) {
	return newCatalogue(ctx, engine, engine, loader, native, logger)
}

func newCatalogue(ctx context.Context, r store.Reader, engine store.Engine, loader Loader, native map[string]runtime.Bundle, logger *slog.Logger) (*Catalogue, error) {
	c := &Catalogue{reader: r, engine: engine, loader: loader, logger: logger, native: map[string]*function{}, turn: make(chan struct{}, 1)}
	for name, bundle := range native {
		c.native[name] = c.newFunction(FunctionInfo{Name: name, Runtime: "native", Handlers: bundle.Handlers()}, bundle, 0)
	}
	c.snap.Store(&snapshot{replaced: make(chan struct{})})
	if _, err := c.reread(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// lock takes the turn; it waits for one who compiles a module.
func (c *Catalogue) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &base.Error{Kind: base.Timeout, Detail: "the time was over while another change of the catalogue was made; nothing was changed", Err: ctx.Err()}
	}
}

func (c *Catalogue) unlock() { <-c.turn }

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
	f, err := c.snap.Load().usable(name)
	if err != nil {
		return nil, err
	}
	if p := f.programs[handler]; p != nil {
		return p, nil
	}
	return nil, base.Errorf(base.NotFound, "function %q has no handler %q; it has %v", name, handler, f.info.Handlers)
}

// Bundle returns the current bundle of a function. It does not block.
func (c *Catalogue) Bundle(name string) (runtime.Bundle, error) {
	f, err := c.snap.Load().usable(name)
	if err != nil {
		return nil, err
	}
	return f.bundle, nil
}

// RunWorkflow is Program in the words of the packages below.
func (c *Catalogue) RunWorkflow(name string) (*workflow.Workflow, []runtime.Bundle, error) {
	p, err := c.Program(name)
	if err != nil {
		return nil, nil, err
	}
	return p.Flow, p.Bundles, nil
}

// RunHandler is HandlerProgram in the words of the packages below.
func (c *Catalogue) RunHandler(name, handler string) (*workflow.Workflow, []runtime.Bundle, error) {
	p, err := c.HandlerProgram(name, handler)
	if err != nil {
		return nil, nil, err
	}
	return p.Flow, p.Bundles, nil
}

// Close frees every bundle. No invocation may start afterwards.
func (c *Catalogue) Close() error {
	c.turn <- struct{}{}
	defer c.unlock()
	var errs []error
	for _, f := range c.snap.Load().functions {
		errs = append(errs, f.bundle.Close())
	}
	for _, r := range c.retired {
		errs = append(errs, r.bundle.Close())
	}
	c.retired, c.closed = nil, true
	c.publish(&snapshot{sequence: c.Sequence()})
	return errors.Join(errs...)
}
