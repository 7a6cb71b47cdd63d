package leasemgr

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/workflow"
)

// versionsKept bounds the versions of a function whose modules are kept.
const versionsKept = 10

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

// change takes the turn for a change, to be ended with unlock, and returns what
// the change begins with.
func (c *Catalogue) change(ctx context.Context) (*snapshot, error) {
	if c.engine == nil {
		return nil, errors.New("leasemgr: a replica of the catalogue was asked for a change, which only its owner makes")
	}
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	if c.closed {
		c.unlock()
		return nil, errClosed()
	}
	if c.doubtful {
		if _, err := c.reread(ctx); err != nil {
			c.unlock()
			return nil, err
		}
		c.doubtful = false
	}
	return c.snap.Load(), nil
}

// DeployFunction compiles, checks and stores a module and makes it the current
// version; invocations that run go on with the version they began with.
// created is false if the same module was current already.
func (c *Catalogue) DeployFunction(ctx context.Context, name string, module []byte, isolate bool) (FunctionInfo, bool, error) {
	if err := base.ValidateName("function", name); err != nil {
		return FunctionInfo{}, false, err
	}
	s, err := c.change(ctx)
	if err != nil {
		return FunctionInfo{}, false, err
	}
	defer c.unlock()
	old := s.functions[name]
	if old != nil && old.info.Runtime == "native" {
		return FunctionInfo{}, false, base.Errorf(base.InUse, "function %q is compiled into this server and cannot be replaced", name)
	}
	sum := sha256.Sum256(module)
	version := hex.EncodeToString(sum[:])
	if old != nil && old.info.Version == version && old.info.Isolate == isolate && old.fault == nil {
		return old.info, false, nil
	}
	bundle, err := c.loader.Load(ctx, name, module, isolate)
	if err != nil {
		return FunctionInfo{}, false, err
	}
	stored := storedFunction{Version: version, Isolate: isolate, Sequence: s.sequence + 1}
	if old != nil {
		stored.Versions = slices.DeleteFunc(slices.Clone(old.info.Versions), func(v FunctionVersion) bool { return v.Version == version })
	}
	stored.Versions = append(stored.Versions, FunctionVersion{version, time.Now().UTC()})
	stored.Versions = stored.Versions[max(0, len(stored.Versions)-versionsKept):]
	functions := maps.Clone(s.functions)
	functions[name] = c.newFunction(stored.info(name, bundle), bundle, stored.Sequence)
	next, err := c.with(s, functions)
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
// whose time has come. The caller has the turn.
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

// store makes a change durable and counts it, drops modules that nothing names
// any more, and publishes the snapshot.
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
	for name, f := range next.hidden {
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
	b.Set(sequenceKey(), encodeSequence(next.sequence))
	if err := c.engine.Apply(b); err != nil {
		c.doubtful = true
		return err
	}
	c.publish(next)
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
func (c *Catalogue) RemoveFunction(ctx context.Context, name string) error {
	s, err := c.change(ctx)
	if err != nil {
		return err
	}
	defer c.unlock()
	f := s.functions[name]
	if f == nil {
		return notFound("function", name)
	}
	if f.info.Runtime == "native" {
		return base.Errorf(base.InUse, "function %q is compiled into this server and cannot be removed", name)
	}
	functions := maps.Clone(s.functions)
	delete(functions, name)
	next, err := c.with(s, functions)
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

// PutWorkflow parses, checks and stores a definition. created is true for a
// name that had none; an equal definition changes nothing.
func (c *Catalogue) PutWorkflow(ctx context.Context, name string, definition []byte, format workflow.Format) (WorkflowInfo, bool, error) {
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
	s, err := c.change(ctx)
	if err != nil {
		return WorkflowInfo{}, false, err
	}
	defer c.unlock()
	info := WorkflowInfo{Name: name, Revision: 1, Definition: canonical}
	old := s.workflows[name]
	if old != nil {
		if string(old.info.Definition) == string(canonical) {
			return old.info, false, nil
		}
		info.Revision = old.info.Revision + 1
	}
	next := s.next()
	next.workflows = maps.Clone(s.workflows)
	stored := storedWorkflow{info, next.sequence}
	if err := c.add(next, stored, def); err != nil {
		return WorkflowInfo{}, false, err
	}
	err = c.store(next, func(b store.Batch) error { return setJSON(b, store.WorkflowKey(name), stored) })
	return info, old == nil, err
}

// RemoveWorkflow removes a workflow; invocations that run are not touched.
func (c *Catalogue) RemoveWorkflow(ctx context.Context, name string) error {
	s, err := c.change(ctx)
	if err != nil {
		return err
	}
	defer c.unlock()
	if s.workflows[name] == nil {
		return notFound("workflow", name)
	}
	next := s.next()
	next.workflows = maps.Clone(s.workflows)
	delete(next.workflows, name)
	return c.store(next, func(b store.Batch) error {
		b.Delete(store.WorkflowKey(name))
		return nil
	})
}
