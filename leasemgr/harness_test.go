package leasemgr_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/workflow"
)

// fakeLoader loads modules that are just the names of their handlers, one of
// them a word "#..." that only makes the module a different one.
type fakeLoader struct {
	loads   int
	bundles []*fakeBundle
}

func (l *fakeLoader) Load(_ context.Context, name string, module []byte, isolate bool) (runtime.Bundle, error) {
	l.loads++
	if strings.HasPrefix(string(module), "broken") {
		return nil, base.Invalidf("module", "module of %q is broken", name)
	}
	b := &fakeBundle{module: string(module), isolate: isolate}
	for word := range strings.FieldsSeq(string(module)) {
		if !strings.HasPrefix(word, "#") {
			b.handlers = append(b.handlers, word)
		}
	}
	slices.Sort(b.handlers)
	l.bundles = append(l.bundles, b)
	return b, nil
}

// fakeBundle answers with its module. Like the real ones it refuses calls after
// Close.
type fakeBundle struct {
	module   string
	handlers []string
	isolate  bool
	closed   int
}

func (b *fakeBundle) Handlers() []string { return b.handlers }

func (b *fakeBundle) Invoke(_ context.Context, c runtime.Call) ([]byte, error) {
	if b.closed > 0 {
		return nil, base.Errorf(base.Unavailable, "bundle %q is closed", b.module)
	}
	return []byte(c.Handler + " of " + b.module), nil
}

func (b *fakeBundle) Close() error {
	b.closed++
	return nil
}

// bed is a catalogue over an in-memory store.
type bed struct {
	t      *testing.T
	engine *pebble.Engine
	loader *fakeLoader
	cat    *leasemgr.Catalogue
}

func openEngine(t *testing.T, fs vfs.FS) *pebble.Engine {
	t.Helper()
	engine, err := pebble.Open(pebble.Options{Dir: "db", FS: fs, CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// open opens the store and reads the catalogue.
func open(t *testing.T, fs vfs.FS, native map[string]runtime.Bundle) *bed {
	t.Helper()
	b := &bed{t: t, engine: openEngine(t, fs), loader: &fakeLoader{}}
	cat, err := leasemgr.NewCatalogue(t.Context(), b.engine, b.loader, native, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("read the catalogue: %v", err)
	}
	b.cat = cat
	return b
}

// close closes both and checks that every bundle has been closed just once.
func (b *bed) close() {
	b.t.Helper()
	if err := b.cat.Close(); err != nil {
		b.t.Errorf("close the catalogue: %v", err)
	}
	for _, f := range b.loader.bundles {
		if f.closed != 1 {
			b.t.Errorf("the bundle of %q was closed %d times", f.module, f.closed)
		}
	}
	if err := b.engine.Close(); err != nil {
		b.t.Errorf("close the store: %v", err)
	}
}

func newBed(t *testing.T) *bed {
	b := open(t, vfs.NewMem(), nil)
	t.Cleanup(b.close)
	return b
}

func (b *bed) deploy(name, module string) leasemgr.FunctionInfo {
	b.t.Helper()
	info, _, err := b.cat.DeployFunction(b.t.Context(), name, []byte(module), false)
	if err != nil {
		b.t.Fatalf("deploy %s as %q: %v", name, module, err)
	}
	return info
}

func (b *bed) put(name, definition string) leasemgr.WorkflowInfo {
	b.t.Helper()
	info, _, err := b.cat.PutWorkflow(b.t.Context(), name, []byte(definition), workflow.YAML)
	if err != nil {
		b.t.Fatalf("put workflow %s: %v", name, err)
	}
	return info
}

// oneStep is the definition of a workflow that runs one handler.
func oneStep(function, handler string) string {
	return fmt.Sprintf("functions: {step: {function: %s, handler: %s}}", function, handler)
}

// run runs the first step of a program.
func run(p *leasemgr.Program) string {
	step := p.Flow.Steps[0]
	out, err := p.Bundles[0].Invoke(context.Background(), runtime.Call{Handler: step.Handler})
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// answer returns what the workflow answers now, or why it does not.
func (b *bed) answer(name string) string {
	p, err := b.cat.Program(name)
	if err != nil {
		return base.KindOf(err).String()
	}
	return run(p)
}

// visible is all that the catalogue shows, as text.
func (b *bed) visible() string {
	b.t.Helper()
	raw, err := json.Marshal(struct {
		Functions []leasemgr.FunctionInfo
		Workflows []leasemgr.WorkflowInfo
	}{b.cat.Functions(), b.cat.Workflows()})
	if err != nil {
		b.t.Fatal(err)
	}
	return string(raw)
}

// stored is all that the store holds, as text.
func (b *bed) stored() string {
	b.t.Helper()
	var out strings.Builder
	err := b.engine.Scan([]byte{0}, []byte{0xff}, func(key, value []byte) bool {
		fmt.Fprintf(&out, "%q: %q\n", key, value)
		return true
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

// modules returns the versions whose modules are in the store, sorted.
func (b *bed) modules() (versions []string) {
	b.t.Helper()
	lo := store.ModuleKey("")
	err := b.engine.Scan(lo, []byte{lo[0] + 1}, func(key, _ []byte) bool {
		versions = append(versions, string(key[len(lo):]))
		return true
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return versions
}

// named returns the versions that the functions name, sorted, each once.
func (b *bed) named() (versions []string) {
	for _, f := range b.cat.Functions() {
		for _, v := range f.Versions {
			versions = append(versions, v.Version)
		}
	}
	slices.Sort(versions)
	return slices.Compact(versions)
}

// unchanged runs a change that must be refused with kind and change nothing.
func (b *bed) unchanged(what string, kind base.Kind, change func() error) {
	b.t.Helper()
	visible, stored := b.visible(), b.stored()
	if err := change(); err == nil || base.KindOf(err) != kind {
		b.t.Errorf("%s: %v, want kind %v", what, err, kind)
	}
	if got := b.visible(); got != visible {
		b.t.Errorf("%s was refused and changed the catalogue from\n%s\nto\n%s", what, visible, got)
	}
	if got := b.stored(); got != stored {
		b.t.Errorf("%s was refused and changed the store from\n%s\nto\n%s", what, stored, got)
	}
}
