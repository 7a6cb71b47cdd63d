package leasemgr_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/workflow"
)

// replica is one process that uses the catalogue of another.
type replica struct {
	*leasemgr.Replica
	loader *localLoader
}

// localLoader is a loader to which some modules are broken that the owner's loads.
type localLoader struct {
	fakeLoader
	refuse string
	before func(ctx context.Context) error
}

func (l *localLoader) Load(ctx context.Context, name string, module []byte, isolate bool) (runtime.Bundle, error) {
	if l.before != nil {
		if err := l.before(ctx); err != nil {
			return nil, err
		}
	}
	if l.refuse != "" && strings.Contains(string(module), l.refuse) {
		return nil, base.Invalidf("module", "not for this machine")
	}
	return l.fakeLoader.Load(ctx, name, module, isolate)
}

// newReplica opens a replica of b's catalogue that reads from r.
func (b *bed) newReplica(conn rpc.Conn, r store.Reader) *replica {
	b.t.Helper()
	loader := &localLoader{}
	rep, err := leasemgr.NewReplica(b.t.Context(), r, loader, nil, slog.New(slog.DiscardHandler), conn)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := rep.Close(); err != nil {
			b.t.Error(err)
		}
		for _, f := range loader.bundles {
			if f.closed != 1 {
				b.t.Errorf("a replica closed the bundle of %q %d times", f.module, f.closed)
			}
		}
	})
	return &replica{rep, loader}
}

// view is a bed of the replica's catalogue, for what a bed shows.
func (r *replica) view(b *bed) *bed { return &bed{t: b.t, engine: b.engine, cat: r.Catalogue} }

// run runs a replica until the end of the test.
func (b *bed) run(r *replica) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() { cancel(); running.Wait() })
}

// served returns an owner's bed and a connection to it.
func served(t *testing.T) (*bed, rpc.Conn) {
	t.Helper()
	b := newBed(t)
	return b, serveOn(t, func(s *grpc.Server) { leasemgr.RegisterCatalogue(s, b.cat) })
}

// await waits until a catalogue has what another one has.
func await(t *testing.T, c *leasemgr.Catalogue, sequence uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := c.Await(ctx, sequence-1); err != nil || got < sequence {
		t.Fatalf("the catalogue has change %d after a minute (%v), want %d", got, err, sequence)
	}
}

func TestReplicaSeesWhatItChanges(t *testing.T) {
	b, conn := served(t)
	b.deploy("old", "pay")
	here, there := b.newReplica(conn, b.engine), b.newReplica(conn, b.engine)
	b.run(there)
	if got := here.view(b).visible(); got != b.visible() {
		t.Errorf("at first the replica has\n%s\nwant\n%s", got, b.visible())
	}
	info, created, err := here.DeployFunction(t.Context(), "bank", []byte("pay audit"), true)
	if err != nil || !created || !info.Isolate {
		t.Fatalf("deployed as %+v, %v, %v", info, created, err)
	}
	if owned, err := b.cat.Function("bank"); err != nil || fmt.Sprint(owned) != fmt.Sprint(info) {
		t.Errorf("the replica says %+v, the owner %+v, %v", info, owned, err)
	}
	w, created, err := here.PutWorkflow(t.Context(), "transfer", []byte(oneStep("bank", "pay")), workflow.YAML)
	if err != nil || !created || w.Revision != 1 {
		t.Fatalf("put as %+v, %v, %v", w, created, err)
	}
	if owned, err := b.cat.Workflow("transfer"); err != nil || fmt.Sprint(owned) != fmt.Sprint(w) {
		t.Errorf("the replica says %+v, the owner %+v, %v", w, owned, err)
	}
	if got := here.view(b).answer("transfer"); got != "pay of pay audit" {
		t.Errorf("right after the change the replica answers %q", got)
	}
	if _, created, err := here.DeployFunction(t.Context(), "bank", []byte("pay audit"), true); err != nil || created || here.loader.loads != 2 {
		t.Errorf("the same module again: created %v, %v, %d loads", created, err, here.loader.loads)
	}
	if err := here.RemoveFunction(t.Context(), "old"); err != nil {
		t.Error(err)
	}
	await(t, there.Catalogue, b.cat.Sequence())
	for what, r := range map[string]*replica{"this": here, "the other": there} {
		if got := r.view(b).visible(); got != b.visible() {
			t.Errorf("%s replica has\n%s\nwant\n%s", what, got, b.visible())
		}
	}
	p, err := here.Program("transfer")
	if err != nil || p.Changed != 3 || p.Deployed() != 4 {
		t.Errorf("the program was changed by %d of %d changes, %v", p.Changed, p.Deployed(), err)
	}
	if err := here.RemoveWorkflow(t.Context(), "transfer"); err != nil {
		t.Error(err)
	}
	if got := here.view(b).answer("transfer"); got != "not-found" {
		t.Errorf("after its removal the workflow answers %q", got)
	}
}

// changer is a catalogue or a replica.
type changer interface {
	DeployFunction(context.Context, string, []byte, bool) (leasemgr.FunctionInfo, bool, error)
	RemoveFunction(context.Context, string) error
	PutWorkflow(context.Context, string, []byte, workflow.Format) (leasemgr.WorkflowInfo, bool, error)
	RemoveWorkflow(context.Context, string) error
}

// TestReplicaErrors shows that refusals are the owner's, word for word.
func TestReplicaErrors(t *testing.T) {
	b, conn := served(t)
	r := b.newReplica(conn, b.engine)
	b.deploy("bank", "pay")
	b.put("transfer", oneStep("bank", "pay"))
	changes := map[string]func(c changer) error{}
	changes["in use"] = func(c changer) error { return c.RemoveFunction(t.Context(), "bank") }
	changes["no function"] = func(c changer) error { return c.RemoveFunction(t.Context(), "none") }
	changes["no workflow"] = func(c changer) error { return c.RemoveWorkflow(t.Context(), "none") }
	changes["broken"] = func(c changer) error {
		_, _, err := c.DeployFunction(t.Context(), "bank", []byte("broken"), false)
		return err
	}
	changes["bad name"] = func(c changer) error {
		_, _, err := c.DeployFunction(t.Context(), "a/b", []byte("pay"), false)
		return err
	}
	changes["a handler that is needed"] = func(c changer) error {
		_, _, err := c.DeployFunction(t.Context(), "bank", []byte("audit"), false)
		return err
	}
	changes["bad definition"] = func(c changer) error {
		_, _, err := c.PutWorkflow(t.Context(), "w", []byte(oneStep("bank", "none")), workflow.YAML)
		return err
	}
	for what, change := range changes {
		var here, there *base.Error
		if !errors.As(change(b.cat), &there) || !errors.As(change(r), &here) {
			t.Errorf("%s: no error with a kind", what)
			continue
		}
		if here.Word() != there.Word() || here.Detail != there.Detail || here.Unknown {
			t.Errorf("%s: here %v, at the owner %v", what, here, there)
		}
	}
	if _, _, err := r.DeployFunction(t.Context(), "big", make([]byte, leasemgr.MaxModuleBytes+1), false); base.KindOf(err) != base.TooLarge {
		t.Errorf("a module over the limit: %v", err)
	}
	if _, _, err := r.Catalogue.DeployFunction(t.Context(), "bank", []byte("pay"), false); err == nil {
		t.Error("a replica has changed the catalogue by itself")
	}
}

// TestRefreshKeepsBundles shows that a refresh loads what is new and nothing else,
// and that what ran before goes on.
func TestRefreshKeepsBundles(t *testing.T) {
	b, conn := served(t)
	b.deploy("bank", "pay")
	b.deploy("shop", "order")
	b.put("transfer", oneStep("bank", "pay"))
	r := b.newReplica(conn, b.engine)
	old, err := r.Program("transfer")
	if err != nil {
		t.Fatal(err)
	}
	shop, err := r.Bundle("shop")
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := r.Refresh(t.Context()); changed || err != nil {
		t.Errorf("nothing was changed: %v, %v", changed, err)
	}
	b.deploy("bank", "pay #2")
	if changed, err := r.Refresh(t.Context()); !changed || err != nil {
		t.Errorf("a function was changed: %v, %v", changed, err)
	}
	if again, _ := r.Bundle("shop"); again != shop || r.loader.loads != 3 {
		t.Errorf("after %d loads the unchanged function has another bundle: %v", r.loader.loads, again != shop)
	}
	if was, is := run(old), r.view(b).answer("transfer"); was != "pay of pay" || is != "pay of pay #2" {
		t.Errorf("the old program answers %q, the new one %q", was, is)
	}
	b.deploy("bank", "pay #3")
	b.deploy("bank", "pay #2")
	if _, err := r.Refresh(t.Context()); err != nil || r.loader.loads != 3 || r.view(b).visible() != b.visible() {
		t.Errorf("back at the same version: %v, %d loads,\n%s\nwant\n%s", err, r.loader.loads, r.view(b).visible(), b.visible())
	}
}

// TestModuleThatDoesNotLoadHere has versions that only the owner can load.
func TestModuleThatDoesNotLoadHere(t *testing.T) {
	b, conn := served(t)
	b.deploy("bank", "pay")
	b.deploy("shop", "order")
	b.put("transfer", oneStep("bank", "pay"))
	b.put("sale", oneStep("shop", "order"))
	r := b.newReplica(conn, b.engine)
	r.loader.refuse = "#bad"
	good, err := r.Function("bank")
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, bank, added string) {
		t.Helper()
		if _, err := r.Refresh(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		kind := func(_ any, err error) string {
			if err == nil {
				return "runs"
			}
			return base.KindOf(err).String()
		}
		for _, use := range []struct{ what, got, want string }{
			{"workflow", kind(r.Program("transfer")), bank},
			{"handler", kind(r.HandlerProgram("bank", "pay")), bank},
			{"bundle", kind(r.Bundle("bank")), bank},
			{"added", kind(r.Bundle("added")), added},
			{"other", kind(r.Program("sale")), "runs"},
		} {
			if use.got != use.want {
				t.Errorf("%s: %s: %s, want %s", what, use.what, use.got, use.want)
			}
		}
	}
	check("at first", "runs", "not-found")
	b.deploy("bank", "pay #bad")
	b.deploy("added", "pay #bad")
	check("what does not load", "unavailable", "unavailable")
	if f, err := r.Function("bank"); err != nil || f.Version != good.Version {
		t.Errorf("the function is shown as %+v, %v, want its old version %s", f, err, good.Version)
	}
	b.deploy("shop", "order #2")
	check("another change", "unavailable", "unavailable")
	b.deploy("bank", "pay #good")
	b.deploy("added", "pay #good")
	check("a better version", "runs", "runs")
	b.deploy("bank", "pay #bad")
	check("the bad one again", "unavailable", "runs")
	b.deploy("bank", "pay #good")
	check("and back", "runs", "runs")
}

// meddler is a reader during whose reads the catalogue is changed.
type meddler struct {
	store.Reader
	meddle func()
}

func (m *meddler) Scan(lo, hi []byte, visit func(key, value []byte) bool) error {
	err := m.Reader.Scan(lo, hi, visit)
	m.meddle()
	return err
}

func (m *meddler) Get(dst, key []byte) ([]byte, bool, error) {
	if key[0] == 'm' {
		m.meddle()
	}
	return m.Reader.Get(dst, key)
}

// TestChangesWhileReading changes the catalogue between any two reads of a
// refresh: what comes of it is one of the states, whole.
func TestChangesWhileReading(t *testing.T) {
	b, conn := served(t)
	reader := &meddler{Reader: b.engine, meddle: func() {}}
	b.deploy("bank", "a b")
	b.put("w", oneStep("bank", "a"))
	r := b.newReplica(conn, reader)
	left, n := 0, 0
	change := func() {
		if left == 0 {
			return
		}
		left--
		n++
		// The workflow moves to the handler that the next version keeps.
		next := []string{"a", "b", "c"}[n%3]
		if n%2 == 1 {
			b.deploy("bank", fmt.Sprintf("a b c #%d", n))
		} else {
			b.put("w", oneStep("bank", next))
		}
	}
	reader.meddle = change
	for round := range 30 {
		left = 1 + round%7
		n++
		b.deploy("bank", fmt.Sprintf("a b c #%d", n))
		if changed, err := r.Refresh(t.Context()); err != nil || !changed {
			t.Fatalf("round %d: %v, %v", round, changed, err)
		}
		if left > 0 {
			t.Errorf("round %d: %d changes were not made: the test sees too little", round, left)
		}
		if got, want := r.view(b).visible(), b.visible(); got != want || r.Sequence() != b.cat.Sequence() {
			t.Fatalf("round %d: the replica has\n%s\nwant\n%s", round, got, want)
		}
	}

	before := r.view(b).visible()
	left = 1 << 30
	b.deploy("bank", "a b c #last")
	if _, err := r.Refresh(t.Context()); base.KindOf(err) != base.Unavailable {
		t.Errorf("a catalogue that never stands still: %v", err)
	}
	left = 0
	if got := r.view(b).visible(); got != before {
		t.Errorf("a refresh that failed has changed the replica to\n%s", got)
	}
}

// TestModuleGoneWhileReading replaces a version so often, between the reading of
// the entries and of the module, that its module is dropped.
func TestModuleGoneWhileReading(t *testing.T) {
	b, conn := served(t)
	b.deploy("bank", "pay #0")
	var once sync.Once
	late := b.newReplica(conn, &moduleHook{Reader: b.engine, before: func() {
		once.Do(func() {
			for i := range 11 {
				b.deploy("bank", fmt.Sprintf("pay #%d", i+1))
			}
		})
	}})
	if got := late.view(b).visible(); got != b.visible() || late.Sequence() != 12 {
		t.Errorf("after %d changes the replica has\n%s\nwant\n%s", late.Sequence(), got, b.visible())
	}
}

// moduleHook calls before ahead of every read of a module.
type moduleHook struct {
	store.Reader
	before func()
}

func (m *moduleHook) Get(dst, key []byte) ([]byte, bool, error) {
	if key[0] == 'm' {
		m.before()
	}
	return m.Reader.Get(dst, key)
}

// TestNoUpdateIsLost has several processes change the catalogue at once.
func TestNoUpdateIsLost(t *testing.T) {
	b, conn := served(t)
	b.deploy("bank", "pay")
	const replicas, rounds = 4, 25
	var all []*replica
	var changing sync.WaitGroup
	for i := range replicas {
		r := b.newReplica(conn, b.engine)
		all = append(all, r)
		b.run(r)
		changing.Go(func() {
			for j := range rounds {
				name := fmt.Sprintf("f%d-%d", i, j)
				if _, created, err := r.DeployFunction(t.Context(), name, []byte("pay #"+name), false); err != nil || !created {
					t.Errorf("deploy %s: %v, %v", name, created, err)
				}
				if _, _, err := r.PutWorkflow(t.Context(), "shared", []byte(oneStep(name, "pay")), workflow.YAML); err != nil {
					t.Errorf("put after %s: %v", name, err)
				}
				if p, err := r.HandlerProgram(name, "pay"); err != nil || run(p) != "pay of pay #"+name {
					t.Errorf("%s is not there where it was deployed: %v", name, err)
				}
			}
		})
	}
	changing.Wait()
	const changes = 1 + 2*replicas*rounds
	w, err := b.cat.Workflow("shared")
	if err != nil || w.Revision != replicas*rounds || b.cat.Sequence() != changes || len(b.cat.Functions()) != 1+replicas*rounds {
		t.Errorf("revision %d, %v, %d changes, %d functions; want %d, %d, %d", w.Revision, err, b.cat.Sequence(), len(b.cat.Functions()), replicas*rounds, changes, 1+replicas*rounds)
	}
	for i, r := range all {
		await(t, r.Catalogue, changes)
		if got := r.view(b).visible(); got != b.visible() {
			t.Errorf("replica %d has\n%s\nwant\n%s", i, got, b.visible())
		}
	}
}

// TestReach asks for changes that are there, that come, and that never come.
func TestReach(t *testing.T) {
	b, conn := served(t)
	b.deploy("bank", "pay")
	r := b.newReplica(conn, b.engine)
	b.deploy("bank", "pay #2")
	if err := r.Reach(t.Context(), 1); err != nil || r.Sequence() != 1 {
		t.Errorf("a change that is there: %v, now at %d", err, r.Sequence())
	}
	if err := r.Reach(t.Context(), 2); err != nil || r.Sequence() != 2 {
		t.Errorf("a change in the store: %v, now at %d", err, r.Sequence())
	}
	if err := r.Reach(t.Context(), 3); base.KindOf(err) != base.Unavailable || r.Sequence() != 2 {
		t.Errorf("a change that is nowhere: %v, now at %d", err, r.Sequence())
	}

	// Who gives up while a module compiles leaves everything as it was.
	b.deploy("bank", "pay #3")
	ctx, cancel := context.WithCancel(t.Context())
	r.loader.before = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if err := r.Reach(ctx, 3); base.KindOf(err) != base.Timeout || r.Sequence() != 2 {
		t.Errorf("given up: %v, now at %d", err, r.Sequence())
	}
	r.loader.before = nil
	if err := r.Reach(t.Context(), 3); err != nil {
		t.Error(err)
	}
	if _, err := r.Bundle("bank"); err != nil {
		t.Errorf("a load that was given up counts as a fault: %v", err)
	}
}

// TestOwnerAway shows that a replica serves and reads without its owner, and that
// changes fail as what they are.
func TestOwnerAway(t *testing.T) {
	b := newBed(t)
	l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := rpc.Dial(l.Addr().String(), rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	b.deploy("bank", "pay")
	r := b.newReplica(conn, b.engine)
	b.run(r)
	if _, _, err := r.DeployFunction(t.Context(), "bank", []byte("pay #2"), false); base.KindOf(err) != base.Unavailable {
		t.Errorf("a change without the owner: %v", err)
	}
	b.deploy("bank", "pay #2")
	await(t, r.Catalogue, 2)
}

// doubtful is an engine whose Apply fails after it has applied.
type doubtful struct {
	store.Engine
	fail bool
}

func (d *doubtful) Apply(b store.Batch) error {
	err := d.Engine.Apply(b)
	if err == nil && d.fail {
		return errors.New("no answer")
	}
	return err
}

// TestChangeOfUnknownOutcome shows that a change which failed, and is in the store
// nevertheless, is not overwritten by the next.
func TestChangeOfUnknownOutcome(t *testing.T) {
	engine := &doubtful{Engine: openEngine(t, vfs.NewMem())}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	loader := &fakeLoader{}
	cat, err := leasemgr.NewCatalogue(t.Context(), engine, loader, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	deploy := func(name string) error {
		_, _, err := cat.DeployFunction(t.Context(), name, []byte("pay #"+name), false)
		return err
	}
	if err := deploy("a"); err != nil {
		t.Fatal(err)
	}
	engine.fail = true
	if err := deploy("b"); err == nil {
		t.Fatal("the store did not answer, and the change succeeded")
	}
	if cat.Sequence() != 1 {
		t.Errorf("a change whose outcome is unknown is visible: %d", cat.Sequence())
	}
	engine.fail = false
	if err := deploy("c"); err != nil {
		t.Fatal(err)
	}
	if n := len(cat.Functions()); n != 3 || cat.Sequence() != 3 {
		t.Errorf("%d functions after %d changes, want 3 after 3", n, cat.Sequence())
	}
	if err := cat.Close(); err != nil {
		t.Error(err)
	}
	if _, err := cat.Refresh(t.Context()); base.KindOf(err) != base.Unavailable {
		t.Errorf("refresh of a closed catalogue: %v", err)
	}
	if _, err := cat.Await(t.Context(), 99); base.KindOf(err) != base.Unavailable {
		t.Errorf("wait for a closed catalogue: %v", err)
	}
	if err := deploy("d"); base.KindOf(err) != base.Unavailable {
		t.Errorf("deploy into a closed catalogue: %v", err)
	}
}
