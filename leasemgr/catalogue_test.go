package leasemgr_test

import (
	"fmt"
	"log/slog"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/workflow"
)

func TestDeploy(t *testing.T) {
	b := newBed(t)
	info, created, err := b.cat.DeployFunction(t.Context(), "bank", []byte("pay audit"), false)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	// printf 'pay audit' | sha256sum
	const version = "72dce21b69ab580a5364d0cb03fc515ed444b168b83830153c0d98699304b982"
	if info.Name != "bank" || info.Version != version || info.Runtime != "wasm" || info.Isolate || !slices.Equal(info.Handlers, []string{"audit", "pay"}) {
		t.Errorf("deployed as %+v", info)
	}
	if len(info.Versions) != 1 || info.Versions[0].Version != version || info.Versions[0].Deployed.IsZero() {
		t.Errorf("versions are %+v", info.Versions)
	}
	p, err := b.cat.HandlerProgram("bank", "audit")
	if err != nil || run(p) != "audit of pay audit" {
		t.Errorf("the handler as a program: %v, %v", p, err)
	}
	bundle, err := b.cat.Bundle("bank")
	if err != nil || bundle != p.Bundles[0] {
		t.Errorf("the bundle is %v, %v, the program has %v", bundle, err, p.Bundles[0])
	}

	stored := b.stored()
	again, created, err := b.cat.DeployFunction(t.Context(), "bank", []byte("pay audit"), false)
	if err != nil || created || again.Version != version || b.loader.loads != 1 || b.stored() != stored {
		t.Errorf("the same module again: created %v, %v, %d loads", created, err, b.loader.loads)
	}
	isolated, created, err := b.cat.DeployFunction(t.Context(), "bank", []byte("pay audit"), true)
	if err != nil || !created || !isolated.Isolate || len(isolated.Versions) != 1 {
		t.Errorf("the same module, isolated: created %v, %v, %+v", created, err, isolated)
	}
	if first, second := b.loader.bundles[0], b.loader.bundles[1]; first.closed != 0 || second.closed != 0 || !second.isolate {
		t.Errorf("the replaced bundle was closed %d times, the new one %d", first.closed, second.closed)
	}
}

func TestUnknownNames(t *testing.T) {
	b := newBed(t)
	b.deploy("bank", "pay")
	for what, ask := range map[string]func() error{
		"function":         func() error { _, err := b.cat.Function("x"); return err },
		"bundle":           func() error { _, err := b.cat.Bundle("x"); return err },
		"workflow":         func() error { _, err := b.cat.Workflow("x"); return err },
		"program":          func() error { _, err := b.cat.Program("x"); return err },
		"handler program":  func() error { _, err := b.cat.HandlerProgram("x", "pay"); return err },
		"unknown handler":  func() error { _, err := b.cat.HandlerProgram("bank", "x"); return err },
		"removed function": func() error { return b.cat.RemoveFunction(t.Context(), "x") },
		"removed workflow": func() error { return b.cat.RemoveWorkflow(t.Context(), "x") },
	} {
		b.unchanged(what, base.NotFound, ask)
	}
	deploy := func(name, module string) func() error {
		return func() error {
			_, _, err := b.cat.DeployFunction(t.Context(), name, []byte(module), false)
			return err
		}
	}
	b.unchanged("a bad name", base.Invalid, deploy("a/b", "pay"))
	b.unchanged("a broken module", base.Invalid, deploy("bank", "broken"))
	b.unchanged("a broken first module", base.Invalid, deploy("new", "broken"))
}

// TestRedeployKeepsWorkflowsWhole shows that a version that lacks a handler
// which a workflow needs is refused, and one that has it takes over.
func TestRedeployKeepsWorkflowsWhole(t *testing.T) {
	b := newBed(t)
	b.deploy("bank", "pay audit")
	b.put("transfer", oneStep("bank", "pay"))
	b.unchanged("a version without pay", base.InUse, func() error {
		_, _, err := b.cat.DeployFunction(t.Context(), "bank", []byte("audit"), false)
		if err != nil && !strings.Contains(err.Error(), `"transfer"`) {
			t.Errorf("%v does not name the workflow", err)
		}
		return err
	})
	if refused := b.loader.bundles[1]; refused.closed != 1 {
		t.Errorf("the refused bundle was closed %d times", refused.closed)
	}
	if got := b.answer("transfer"); got != "pay of pay audit" {
		t.Errorf("after the refusal the workflow answers %q", got)
	}
	b.deploy("bank", "pay")
	if got := b.answer("transfer"); got != "pay of pay" {
		t.Errorf("after a redeployment the workflow answers %q", got)
	}
	if _, err := b.cat.HandlerProgram("bank", "audit"); base.KindOf(err) != base.NotFound {
		t.Errorf("a handler that is gone: %v", err)
	}
}

// TestProgramOutlivesItsVersion takes a program as the gateway does before it
// reads the body of a request, and runs it after a redeployment.
func TestProgramOutlivesItsVersion(t *testing.T) {
	b := newBed(t)
	b.deploy("bank", "pay")
	b.put("transfer", oneStep("bank", "pay"))
	pinned, err := b.cat.Program("transfer")
	if err != nil {
		t.Fatal(err)
	}
	b.deploy("bank", "pay #2")
	if got := run(pinned); got != "pay of pay" {
		t.Errorf("an invocation that began before a redeployment gets %q", got)
	}
}

func TestRemove(t *testing.T) {
	b := newBed(t)
	b.deploy("bank", "pay")
	b.put("transfer", oneStep("bank", "pay"))
	b.unchanged("a function in use", base.InUse, func() error { return b.cat.RemoveFunction(t.Context(), "bank") })
	if got := b.answer("transfer"); got != "pay of pay" {
		t.Errorf("after the refusal the workflow answers %q", got)
	}
	if err := b.cat.RemoveWorkflow(t.Context(), "transfer"); err != nil {
		t.Fatal(err)
	}
	if got := b.answer("transfer"); got != "not-found" {
		t.Errorf("a removed workflow answers %q", got)
	}
	if err := b.cat.RemoveFunction(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	const count = `"Mcatalogue": "\x00\x00\x00\x00\x00\x00\x00\x04"` + "\n" // of changes: it only grows
	if stored := b.stored(); stored != count || len(b.cat.Functions())+len(b.cat.Workflows()) > 0 {
		t.Errorf("all is removed and the catalogue shows %s, the store\n%s", b.visible(), stored)
	}
}

func TestWorkflowRevisions(t *testing.T) {
	b := newBed(t)
	b.deploy("bank", "pay audit")
	put := func(definition string, format workflow.Format) (int, bool) {
		t.Helper()
		info, created, err := b.cat.PutWorkflow(t.Context(), "transfer", []byte(definition), format)
		if err != nil {
			t.Fatal(err)
		}
		return info.Revision, created
	}
	const inJSON = `{"functions": {"step": {"handler": "pay", "function": "bank"}}}`
	for _, test := range []struct {
		what, definition string
		format           workflow.Format
		revision         int
		created          bool
	}{
		{"first", oneStep("bank", "pay"), workflow.YAML, 1, true},
		{"equal", oneStep("bank", "pay"), workflow.YAML, 1, false},
		{"equal in meaning", inJSON, workflow.JSON, 1, false},
		{"changed", oneStep("bank", "audit"), workflow.YAML, 2, false},
		{"changed back", inJSON, workflow.JSON, 3, false},
	} {
		if revision, created := put(test.definition, test.format); revision != test.revision || created != test.created {
			t.Errorf("%s: revision %d, created %v; want %d, %v", test.what, revision, created, test.revision, test.created)
		}
	}
	for what, definition := range map[string]string{
		"no function": oneStep("nobody", "pay"), "no handler": oneStep("bank", "nothing"), "no definition": "{",
	} {
		b.unchanged(what, base.Invalid, func() error {
			_, _, err := b.cat.PutWorkflow(t.Context(), "transfer", []byte(definition), workflow.YAML)
			return err
		})
	}
	b.unchanged("a bad name", base.Invalid, func() error {
		_, _, err := b.cat.PutWorkflow(t.Context(), "", []byte(inJSON), workflow.JSON)
		return err
	})
}

// TestRestart shows that a catalogue that is read back is the one that was
// written, down to definitions with characters that JSON may escape.
func TestRestart(t *testing.T) {
	fs := vfs.NewMem()
	b := open(t, fs, nil)
	b.deploy("bank", "pay audit")
	b.deploy("bank", "pay audit #2")
	if _, _, err := b.cat.DeployFunction(t.Context(), "shop", []byte("order"), true); err != nil {
		t.Fatal(err)
	}
	b.put("transfer", oneStep("bank", "audit"))
	b.put("transfer", oneStep("bank", "pay"))
	const odd = `functions: {step: {function: shop, handler: order, reads: ["t/<a> & \u2028 é"]}}`
	b.put("odd", odd)
	visible, stored := b.visible(), b.stored()
	b.close()

	b = open(t, fs, nil)
	defer b.close()
	if got := b.visible(); got != visible {
		t.Errorf("read back:\n%s\nwant:\n%s", got, visible)
	}
	if got := b.stored(); got != stored {
		t.Errorf("reading changed the store from\n%s\nto\n%s", stored, got)
	}
	if got := b.answer("transfer"); got != "pay of pay audit #2" {
		t.Errorf("the workflow answers %q", got)
	}
	if f, err := b.cat.Function("shop"); err != nil || !f.Isolate {
		t.Errorf("%+v, %v is not isolated", f, err)
	}
	loads := b.loader.loads
	if info := b.put("odd", odd); info.Revision != 1 {
		t.Errorf("an equal definition after a restart has revision %d", info.Revision)
	}
	if info := b.deploy("bank", "pay audit #2"); len(info.Versions) != 2 || b.loader.loads != loads {
		t.Errorf("an equal module after a restart: %+v, %d loads", info.Versions, b.loader.loads-loads)
	}
}

// TestReadersSeeWholeSnapshots deploys and changes a workflow in turns while
// others read: every program they get has the handlers that it runs.
func TestReadersSeeWholeSnapshots(t *testing.T) {
	b := newBed(t)
	names := []string{"a", "b", "c"}
	b.deploy("bank", "a b")
	b.put("turn", oneStep("bank", "a"))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := b.cat.Program("turn")
				if err != nil {
					t.Error(err)
					return
				}
				if step := p.Flow.Steps[0].Handler; !slices.Contains(p.Bundles[0].Handlers(), step) {
					t.Errorf("a program runs handler %q, its bundle has %v", step, p.Bundles[0].Handlers())
					return
				}
				b.cat.Functions()
				b.cat.Workflows()
				goruntime.Gosched()
			}
		})
	}
	for i := range 60 {
		next := names[(i+1)%3]
		b.put("turn", oneStep("bank", next))
		b.deploy("bank", next+" "+names[(i+2)%3])
	}
	close(stop)
	readers.Wait()
}

// TestUnavailablePartsDoNotStopTheRest shows that a module that does not load,
// or a handler that is gone, makes its workflows unavailable and nothing else.
func TestUnavailablePartsDoNotStopTheRest(t *testing.T) {
	for spoil, module := range map[string]string{"does not load any more": "broken", "has lost a handler": "other"} {
		t.Run(spoil, func(t *testing.T) {
			fs := vfs.NewMem()
			b := open(t, fs, nil)
			version := b.deploy("bank", "pay").Version
			b.put("transfer", oneStep("bank", "pay"))
			b.deploy("branch", "audit")
			b.put("count", oneStep("branch", "audit"))
			batch := b.engine.NewBatch()
			batch.Set([]byte("m"+version), []byte(module))
			if err := b.engine.Apply(batch); err != nil {
				t.Fatal(err)
			}
			batch.Release()
			b.close()

			b = open(t, fs, nil)
			defer b.close()
			if _, err := b.cat.Program("transfer"); base.KindOf(err) != base.Unavailable {
				t.Errorf("the workflow that cannot run: %v", err)
			}
			if _, err := b.cat.Program("count"); err != nil {
				t.Errorf("the other workflow: %v", err)
			}
			b.deploy("bank", "pay refund")
			if _, err := b.cat.Program("transfer"); err != nil {
				t.Errorf("the workflow after the function was deployed again: %v", err)
			}
		})
	}
}

// TestUnreadableStore shows that a catalogue that cannot be read as a whole is
// not read in part.
func TestUnreadableStore(t *testing.T) {
	for spoil, name := range map[string]string{
		"f": "function entry",
		"w": "workflow entry",
		"m": "module that is gone",
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			b := open(t, fs, nil)
			version := b.deploy("bank", "pay").Version
			b.put("transfer", oneStep("bank", "pay"))
			batch := b.engine.NewBatch()
			switch spoil {
			case "f":
				batch.Set([]byte("fbank"), []byte("{"))
			case "w":
				batch.Set([]byte("wtransfer"), []byte("{"))
			case "m":
				batch.Delete([]byte("m" + version))
			}
			if err := b.engine.Apply(batch); err != nil {
				t.Fatal(err)
			}
			batch.Release()
			b.close()

			engine := openEngine(t, fs)
			defer closeEngine(t, engine)
			_, err := leasemgr.NewCatalogue(t.Context(), engine, &fakeLoader{}, nil, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), "bank") && !strings.Contains(err.Error(), "transfer") {
				t.Errorf("read with %v, want an error that names the entry", err)
			}
		})
	}
}

// TestVersionsAreBounded deploys more versions than are kept: the oldest go,
// and their modules with them unless somebody else names them.
func TestVersionsAreBounded(t *testing.T) {
	b := newBed(t)
	const kept, deployed = 10, 15
	var versions []string
	for i := range deployed {
		versions = append(versions, b.deploy("bank", fmt.Sprintf("pay #%d", i)).Version)
	}
	b.deploy("branch", "pay #0")
	b.deploy("branch", "pay #14")
	check := func(what string, want []string) {
		t.Helper()
		f, err := b.cat.Function("bank")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range f.Versions {
			got = append(got, v.Version)
		}
		if !slices.Equal(got, want) || f.Version != want[len(want)-1] {
			t.Errorf("%s: versions %v, current %s, want %v", what, got, f.Version, want)
		}
		if modules := b.modules(); !slices.Equal(modules, b.named()) {
			t.Errorf("%s: the store has the modules %v, named are %v", what, modules, b.named())
		}
	}
	want := versions[deployed-kept:]
	check("after 15 deployments", want)

	// An old version that comes back is the newest, and there is once.
	b.deploy("bank", "pay #7")
	i := slices.Index(want, versions[7])
	want = append(slices.Delete(slices.Clone(want), i, i+1), versions[7])
	check("after deploying an old version", want)

	// A module that two functions name outlives one of them.
	if err := b.cat.RemoveFunction(t.Context(), "branch"); err != nil {
		t.Fatal(err)
	}
	check("after removing the other function", want)
	if modules := b.modules(); slices.Contains(modules, versions[0]) || !slices.Contains(modules, versions[14]) {
		t.Errorf("modules left: %v", modules)
	}
}

// TestNativeShadows shows that a function compiled in goes before a deployed one
// of its name, cannot be changed, and leaves the deployed one as it was.
func TestNativeShadows(t *testing.T) {
	fs := vfs.NewMem()
	b := open(t, fs, nil)
	b.deploy("bank", "pay")
	b.put("transfer", oneStep("bank", "pay"))
	visible := b.visible()
	b.close()

	native := &fakeBundle{module: "native", handlers: []string{"pay"}}
	b = open(t, fs, map[string]runtime.Bundle{"bank": native})
	if got := b.answer("transfer"); got != "pay of native" {
		t.Errorf("the workflow answers %q", got)
	}
	if f, err := b.cat.Function("bank"); err != nil || f.Runtime != "native" || f.Version != "" {
		t.Errorf("%+v, %v", f, err)
	}
	b.unchanged("deploying over a native function", base.InUse, func() error {
		_, _, err := b.cat.DeployFunction(t.Context(), "bank", []byte("pay #2"), false)
		return err
	})
	b.unchanged("removing a native function", base.InUse, func() error { return b.cat.RemoveFunction(t.Context(), "bank") })
	b.close()
	if native.closed != 1 {
		t.Errorf("the native bundle was closed %d times", native.closed)
	}

	b = open(t, fs, nil)
	defer b.close()
	if got := b.visible(); got != visible {
		t.Errorf("without the native function the catalogue is\n%s\nwant\n%s", got, visible)
	}
}

// TestShadowedModuleIsKept removes, while a native function shadows a deployed
// one, another function with the same module: the deployed one still needs it.
func TestShadowedModuleIsKept(t *testing.T) {
	fs := vfs.NewMem()
	b := open(t, fs, nil)
	version := b.deploy("bank", "pay").Version
	b.deploy("branch", "pay")
	b.close()

	b = open(t, fs, map[string]runtime.Bundle{"bank": &fakeBundle{module: "native", handlers: []string{"pay"}}})
	if err := b.cat.RemoveFunction(t.Context(), "branch"); err != nil {
		t.Fatal(err)
	}
	if modules := b.modules(); !slices.Contains(modules, version) {
		t.Errorf("the module of the shadowed function is gone: the catalogue cannot be read without the native one any more")
	}
	b.close()
}
