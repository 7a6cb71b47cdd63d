package leasemgr

import (
	"cmp"
	"context"
	"encoding/binary"
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

// storedFunction is a function's entry in the store.
type storedFunction struct {
	Version  string            `json:"version"`
	Isolate  bool              `json:"isolate"`
	Versions []FunctionVersion `json:"versions"`
	// Sequence is the number of its last change.
	Sequence uint64 `json:"sequence,omitempty"`
}

func (f storedFunction) info(name string, b runtime.Bundle) FunctionInfo {
	return FunctionInfo{Name: name, Version: f.Version, Handlers: b.Handlers(), Runtime: "wasm", Isolate: f.Isolate, Versions: f.Versions}
}

// storedWorkflow is a workflow's entry in the store.
type storedWorkflow struct {
	WorkflowInfo
	// Sequence is the number of its last change.
	Sequence uint64 `json:"sequence,omitempty"`
}

// sequenceKey is where the number of the last change is.
func sequenceKey() []byte { return store.MetaKey("catalogue") }

func encodeSequence(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// readSequence reads the number of the last change; 0 in a store without one.
func readSequence(r store.Reader) (uint64, error) {
	raw, found, err := r.Get(nil, sequenceKey())
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the sequence number of the catalogue: %w", err)
	case !found:
		return 0, nil
	case len(raw) != 8:
		return 0, fmt.Errorf("the sequence number of the catalogue has %d bytes, not 8: the store is corrupt or from a newer version", len(raw))
	}
	return binary.BigEndian.Uint64(raw), nil
}

// Sequence is the number of the last change in the current snapshot; it grows
// by one a change. It does not block.
func (c *Catalogue) Sequence() uint64 { return c.snap.Load().sequence }

// Await waits until there is a later change than known in the current snapshot,
// and returns its number, or that of the last one at the end of ctx. The error is
// Unavailable when the catalogue is closed.
func (c *Catalogue) Await(ctx context.Context, known uint64) (uint64, error) {
	for {
		s := c.snap.Load()
		if s.functions == nil {
			return 0, errClosed()
		}
		if s.sequence > known {
			return s.sequence, nil
		}
		select {
		case <-s.replaced:
		case <-ctx.Done():
			return s.sequence, nil
		}
	}
}

// Refresh reads what others have changed in the store and publishes a snapshot
// with it; changed is false if there was nothing. Bundles of versions that are
// still current are kept, those that are not any more are closed when nothing
// can be running them. What cannot be loaded here is logged: the function keeps
// its old version for what runs it, and using it is Unavailable until it is
// deployed again. On an error everything is as it was.
//
// It blocks for the store and for modules that it compiles, at most about until
// the end of ctx, and for others that refresh.
func (c *Catalogue) Refresh(ctx context.Context) (changed bool, err error) {
	if err := c.lock(ctx); err != nil {
		return false, err
	}
	defer c.unlock()
	if c.closed {
		return false, errClosed()
	}
	now, err := readSequence(c.reader)
	if err != nil || now == c.Sequence() {
		return false, err
	}
	return c.reread(ctx)
}

// Reach is Refresh unless the change with a number has been read already, by
// this call or by another that it waits for. The error is Unavailable if the
// store does not have that change.
func (c *Catalogue) Reach(ctx context.Context, sequence uint64) error {
	if c.Sequence() >= sequence {
		return nil
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if c.Sequence() >= sequence {
		return nil
	}
	if c.closed {
		return errClosed()
	}
	if _, err := c.reread(ctx); err != nil {
		return err
	}
	if have := c.Sequence(); have < sequence {
		return base.Errorf(base.Unavailable, "change %d of the catalogue is not in the store, which has %d", sequence, have)
	}
	return nil
}

// maxRereads bounds how often the catalogue is read again because it was
// changed meanwhile.
const maxRereads = 16

// errMoved says that the catalogue was changed while it was read.
var errMoved = errors.New("the catalogue is being changed")

// reread reads the store's catalogue and publishes it. The caller has the turn.
func (c *Catalogue) reread(ctx context.Context) (changed bool, err error) {
	for range maxRereads {
		next, err := c.read(ctx)
		switch {
		case err == nil:
			old := c.snap.Load()
			c.publish(next)
			c.retireReplaced(old, next)
			return next.sequence != old.sequence, nil
		case !errors.Is(err, errMoved):
			return false, err
		}
	}
	return false, &base.Error{Kind: base.Unavailable, Detail: fmt.Sprintf("the catalogue was changed %d times while it was read", maxRereads), Err: errMoved}
}

// read makes a snapshot of what is in the store; errMoved if it is changed
// meanwhile.
func (c *Catalogue) read(ctx context.Context) (*snapshot, error) {
	e, err := readEntries(c.reader)
	if err != nil {
		return nil, err
	}
	return c.build(ctx, e)
}

func (c *Catalogue) retireReplaced(old, next *snapshot) {
	for name, f := range old.functions {
		if n := next.functions[name]; n == nil || n.bundle != f.bundle {
			c.retire(f.bundle)
		}
	}
}

// entries is the catalogue in the store at one moment.
type entries struct {
	sequence  uint64
	functions map[string]storedFunction
	workflows map[string]storedWorkflow
}

// readEntries reads the entries between two reads of the sequence number. Every
// change writes the number in its batch, so that if the two agree nothing was
// changed in between and what was read is of one moment.
func readEntries(r store.Reader) (*entries, error) {
	before, err := readSequence(r)
	if err != nil {
		return nil, err
	}
	e := &entries{before, map[string]storedFunction{}, map[string]storedWorkflow{}}
	lo, hi := store.FunctionRange()
	if err := scanJSON(r, lo, hi, e.functions); err != nil {
		return nil, err
	}
	lo, hi = store.WorkflowRange()
	if err := scanJSON(r, lo, hi, e.workflows); err != nil {
		return nil, err
	}
	after, err := readSequence(r)
	if err == nil && after != before {
		err = errMoved
	}
	return e, err
}

// scanJSON decodes every value in a range of one-byte-prefixed names.
func scanJSON[T any](r store.Reader, lo, hi []byte, into map[string]T) error {
	var fault error
	err := r.Scan(lo, hi, func(key, raw []byte) bool {
		var v T
		if fault = json.Unmarshal(raw, &v); fault != nil {
			fault = fmt.Errorf("catalogue entry %q is not readable: %w", key, fault)
			return false
		}
		into[string(key[1:])] = v
		return true
	})
	return cmp.Or(err, fault)
}

// build makes a snapshot of entries with the bundles that are loaded already.
func (c *Catalogue) build(ctx context.Context, e *entries) (*snapshot, error) {
	old := c.snap.Load()
	s := &snapshot{sequence: e.sequence, functions: maps.Clone(c.native), workflows: map[string]*flow{}, hidden: map[string]hidden{}}
	var loaded []runtime.Bundle
	for _, name := range slices.Sorted(maps.Keys(e.functions)) {
		b, err := c.enter(ctx, s, old.functions[name], name, e.functions[name])
		if b != nil {
			loaded = append(loaded, b)
		}
		if err != nil {
			for _, b := range loaded {
				err = errors.Join(err, b.Close())
			}
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.workflows)) {
		c.enterWorkflow(s, old.workflows[name], name, e.workflows[name])
	}
	return s, nil
}

// enter puts a stored function into a snapshot that is built; old is what the
// last one has, or nil. It returns a bundle if it has loaded one.
func (c *Catalogue) enter(ctx context.Context, s *snapshot, old *function, name string, f storedFunction) (runtime.Bundle, error) {
	if c.native[name] != nil {
		s.hidden[name] = hidden{storedFunction: f}
		return nil, nil
	}
	if old != nil && old.info.Version == f.Version && old.info.Isolate == f.Isolate {
		if old.changed == f.Sequence && old.fault == nil {
			s.functions[name] = old
		} else {
			s.functions[name] = c.newFunction(f.info(name, old.bundle), old.bundle, f.Sequence)
		}
		return nil, nil
	}
	module, err := c.module(name, f.Version, s.sequence)
	if err != nil {
		return nil, err
	}
	bundle, err := c.loader.Load(ctx, name, module, f.Isolate)
	switch {
	case err == nil:
		s.functions[name] = c.newFunction(f.info(name, bundle), bundle, f.Sequence)
		return bundle, nil
	case ctx.Err() != nil: // that says nothing about the module
		return nil, &base.Error{Kind: base.Timeout, Detail: fmt.Sprintf("the time was over while function %q was loaded", name), Err: ctx.Err()}
	}
	c.logger.Error("a deployed function cannot be loaded; deploy it again", "function", name, "version", f.Version, "err", err)
	if old == nil {
		s.hidden[name] = hidden{f, err}
		return nil, nil
	}
	stays := *old
	stays.fault = err
	s.functions[name] = &stays
	return nil, nil
}

// module reads a module that was current at a sequence number. One that is not
// there has been replaced since.
func (c *Catalogue) module(name, version string, sequence uint64) ([]byte, error) {
	module, found, err := c.reader.Get(nil, store.ModuleKey(version))
	if err == nil && !found {
		now, failed := readSequence(c.reader)
		if err = failed; err == nil && now != sequence {
			return nil, errMoved
		}
	}
	if err != nil || !found {
		return nil, fmt.Errorf("module %s of function %q is not in the store: %w", version, name, cmp.Or(err, errors.New("not found")))
	}
	return module, nil
}

// enterWorkflow puts a stored workflow into a snapshot that is built; old is
// what the last one has, or nil.
func (c *Catalogue) enterWorkflow(s *snapshot, old *flow, name string, stored storedWorkflow) {
	var def *workflow.Definition
	var err error
	if old != nil && old.def != nil && string(old.info.Definition) == string(stored.Definition) {
		def = old.def
	} else {
		def, err = workflow.Parse(stored.Definition, workflow.JSON)
	}
	if err == nil {
		err = c.add(s, stored, def)
	}
	if err != nil {
		c.logger.Error("a workflow cannot run", "workflow", name, "err", err)
		s.workflows[name] = &flow{info: stored.WorkflowInfo, changed: stored.Sequence, def: def, fault: err}
	}
}
