package wasm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// The exports of a guest.
const (
	exportMemory   = "memory"
	exportInit     = "_initialize"
	exportHandlers = "tenure_handlers"
	exportInvoke   = "tenure_invoke"
)

// maxHandlers and maxHandlersBytes bound what a module may register.
const (
	maxHandlers      = 1000
	maxHandlersBytes = maxHandlers * (base.MaxNameBytes + 1)
)

// Load makes a function's module ready to run. It takes about a second of CPU for a Go module that is not in the cache.
// name is for messages; isolate asks for isolation of every call. code is not changed and not kept.
//
// The error is a *base.Error: Invalid with subject module if the module is at fault, and then the detail is for its
// author; Unavailable if no instance may be built now.
//
// The engine validates only the rewritten module. That is enough, because the rewriter decodes strictly and what it adds
// cannot make an invalid module valid (see package meter), and it saves compiling the original.
func (r *Runtime) Load(ctx context.Context, name string, code []byte, isolate bool) (runtime.Bundle, error) {
	if len(code) < 8 || string(code[:4]) != "\x00asm" {
		return nil, invalid("this is not a WebAssembly module: it does not begin with \\0asm")
	}
	metered, err := meter.Rewrite(code, meter.Options{Slice: r.opt.Slice})
	if err != nil {
		return nil, invalid("%v", err)
	}
	metered.Code, err = limitTables(metered.Code)
	if err != nil {
		return nil, invalid("%v", err)
	}
	compiled, err := r.engine.CompileModule(ctx, metered.Code)
	if err != nil {
		return nil, invalid("%s", firstLine(err.Error()))
	}
	b := &Bundle{
		runtime:    r,
		name:       name,
		compiled:   compiled,
		isolate:    isolate,
		globals:    metered.SnapshotGlobals,
		resettable: metered.Snapshotable,
		freed:      make(chan struct{}),
	}
	if err := b.prepare(ctx); err != nil {
		_ = compiled.Close(ctx) // always nil
		return nil, err
	}
	return b, nil
}

// prepare checks the compiled module, starts the first instance and registers the bundle.
func (b *Bundle) prepare(ctx context.Context) error {
	if err := b.runtime.checkImports(b.compiled); err != nil {
		return err
	}
	if err := checkExports(b.compiled); err != nil {
		return err
	}
	r := b.runtime
	if !r.reserve(b) {
		return full()
	}
	in, err := r.start(ctx, b)
	if err != nil {
		r.unreserve()
		return invalid("the module does not start: %s", err)
	}
	if err := b.readHandlers(in); err != nil {
		in.close()
		r.unreserve()
		return err
	}
	if b.isolate && b.resettable {
		b.snapshot = in.save()
	}
	b.idle = append(b.idle, in)
	b.alive, b.stats.Instantiations = 1, 1
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.bundles[b] = struct{}{}
	}
	r.mu.Unlock()
	if closed {
		in.close()
		r.unreserve()
		return base.Errorf(base.Unavailable, "the wasm runtime is closed")
	}
	return nil
}

// checkImports refuses a module that imports what is not provided.
func (r *Runtime) checkImports(compiled wazero.CompiledModule) error {
	var bad []string
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		if module == meter.YieldModule {
			continue // the rewriter's own
		}
		want, ok := r.imports[importName{module, name}]
		switch {
		case !ok:
			bad = append(bad, module+"."+name)
		case !slices.Equal(want.params, f.ParamTypes()) || !slices.Equal(want.results, f.ResultTypes()):
			bad = append(bad, fmt.Sprintf("%s.%s (it is %s, not %s)", module, name,
				signature(want.params, want.results), signature(f.ParamTypes(), f.ResultTypes())))
		}
	}
	for _, m := range compiled.ImportedMemories() {
		module, name, _ := m.Import()
		bad = append(bad, module+"."+name+" (a memory)")
	}
	if len(bad) == 0 {
		return nil
	}
	more := ""
	if len(bad) > 5 {
		more = fmt.Sprintf(" and %d more", len(bad)-5)
		bad = bad[:5]
	}
	return invalid("the module imports what is not provided: %s%s", strings.Join(bad, ", "), more)
}

// checkExports refuses a module that lacks a part of the ABI.
func checkExports(compiled wazero.CompiledModule) error {
	const hint = "; a Go module is built with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared and imports the package tenure"
	if _, ok := compiled.ExportedMemories()[exportMemory]; !ok {
		return invalid("the module has no export %q of a memory%s", exportMemory, hint)
	}
	exports := compiled.ExportedFunctions()
	for _, want := range []struct {
		name            string
		params, results []api.ValueType
		optional        bool
	}{
		{exportHandlers, nil, []api.ValueType{api.ValueTypeI64}, false},
		{exportInvoke, []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}, false},
		{exportInit, nil, nil, true},
	} {
		f, ok := exports[want.name]
		if !ok {
			if want.optional {
				continue
			}
			return invalid("the module has no export %q of a function%s", want.name, hint)
		}
		if !slices.Equal(want.params, f.ParamTypes()) || !slices.Equal(want.results, f.ResultTypes()) {
			return invalid("the export %q is %s, it must be %s", want.name,
				signature(f.ParamTypes(), f.ResultTypes()), signature(want.params, want.results))
		}
	}
	return nil
}

// readHandlers asks the first instance for its handlers.
func (b *Bundle) readHandlers(in *instance) error {
	text, err := in.handlers()
	if err != nil {
		return invalid("%s does not answer: %s", exportHandlers, err)
	}
	if text == "" {
		return invalid("the module registers no handler: call tenure.Handle in an init function")
	}
	names := strings.Split(text, "\n")
	if len(names) > maxHandlers {
		return invalid("the module registers %d handlers, the limit is %d", len(names), maxHandlers)
	}
	b.indices = make(map[string]int32, len(names))
	for i, name := range names {
		if err := base.ValidateName("handler", name); err != nil {
			return invalid("%v", err)
		}
		if _, twice := b.indices[name]; twice {
			return invalid("the module registers the handler %q twice", name)
		}
		b.indices[name] = int32(i)
	}
	b.names = slices.Sorted(slices.Values(names))
	return nil
}

func invalid(format string, args ...any) error { return base.Invalidf("module", format, args...) }

func signature(params, results []api.ValueType) string {
	names := func(types []api.ValueType) string {
		s := make([]string, len(types))
		for i, t := range types {
			s[i] = api.ValueTypeName(t)
		}
		return "(" + strings.Join(s, ", ") + ")"
	}
	return names(params) + " -> " + names(results)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
