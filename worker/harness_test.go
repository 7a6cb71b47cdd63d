package worker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlers is a runtime.Bundle of plain functions: what native does, without
// the SDK in between, so that the tests here are about the worker alone.
type handlers map[string]func(h runtime.Host, input []byte) ([]byte, error)

func (b handlers) Handlers() []string { return slices.Sorted(maps.Keys(b)) }
func (b handlers) Close() error       { return nil }

func (b handlers) Invoke(_ context.Context, c runtime.Call) ([]byte, error) {
	out, err := b[c.Handler](c.Host, c.Input)
	if err != nil {
		return nil, &base.Error{Kind: base.Aborted, Reason: err.Error()}
	}
	return out, nil
}

// bed is a worker over an in-memory store, with one function "f".
type bed struct {
	t      testing.TB
	w      *worker.Worker
	pick   func() *worker.Worker // of a cluster, where w is nil
	calm   func()                // nil, or ends the faults
	engine *pebble.Engine
	fs     *vfs.MemFS
	fns    handlers
}

func newBed(t testing.TB, opt worker.Options, fns handlers) *bed {
	t.Helper()
	b := openBed(t, vfs.NewCrashableMem(), opt, fns)
	t.Cleanup(func() {
		if err := b.engine.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return b
}

// openBed opens a worker on a file system; the caller closes the engine.
func openBed(t testing.TB, fs *vfs.MemFS, opt worker.Options, fns handlers) *bed {
	t.Helper()
	engine, err := pebble.Open(pebble.Options{Dir: "db", FS: fs, CacheBytes: 8 << 20, MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	opt.View = engine.Sealed() + 1
	if err := engine.Seal(opt.View); err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(opt, engine)
	if err != nil {
		t.Fatal(err)
	}
	return &bed{t: t, w: w, engine: engine, fs: fs, fns: fns}
}

// Handlers implements workflow.Resolver.
func (b *bed) Handlers(function string) ([]string, bool) { return b.fns.Handlers(), function == "f" }

func (b *bed) lookup(function string) (runtime.Bundle, error) {
	if function != "f" {
		return nil, base.Errorf(base.NotFound, "no function %q", function)
	}
	return b.fns, nil
}

// flow compiles a YAML definition.
func (b *bed) flow(definition string) *workflow.Workflow {
	b.t.Helper()
	def, err := workflow.Parse([]byte(definition), workflow.YAML)
	if err != nil {
		b.t.Fatal(err)
	}
	w, err := workflow.Compile("w", def, b)
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

func newID() base.InvocationID {
	return base.NewInvocationID(time.Now(), uint16(rand.Uint32()), rand.Uint64())
}

// invoke runs a workflow.
func (b *bed) invoke(flow *workflow.Workflow, input string, change ...func(*worker.Request)) worker.Reply {
	req := &worker.Request{ID: newID(), Name: flow.Name, Flow: flow, Lookup: b.lookup, Input: []byte(input)}
	for range flow.Steps {
		req.Bundles = append(req.Bundles, b.fns)
	}
	for _, c := range change {
		c(req)
	}
	return b.worker().Execute(context.Background(), req)
}

// call runs one handler as a workflow of its own.
func (b *bed) call(handler, input string, change ...func(*worker.Request)) worker.Reply {
	return b.invoke(workflow.Single("f", handler), input, change...)
}

func (b *bed) ops(ops ...worker.Op) worker.Reply {
	return b.worker().Execute(context.Background(), &worker.Request{ID: newID(), Name: "txn", Ops: ops})
}

// worker is the one worker, or one of many at random.
func (b *bed) worker() *worker.Worker {
	if b.w != nil {
		return b.w
	}
	return b.pick()
}

func keyOf(table, k string) base.Key { return base.Key{Table: table, Key: k} }

func key(s string) base.Key { return keyOf("t", s) }

func put(k, v string) worker.Op { return worker.Op{Kind: worker.OpPut, Key: key(k), Value: []byte(v)} }
func get(k string) worker.Op    { return worker.Op{Kind: worker.OpGet, Key: key(k)} }

// value reads a key; "<absent>" if there is none.
func (b *bed) value(k string) string {
	b.t.Helper()
	r := b.ops(get(k))
	if r.Err != nil {
		b.t.Fatalf("get %s: %v", k, r.Err)
	}
	if !r.Results[0].Found {
		return "<absent>"
	}
	return string(r.Results[0].Value)
}

func (b *bed) set(kv ...string) {
	b.t.Helper()
	for i := 0; i < len(kv); i += 2 {
		if r := b.ops(put(kv[i], kv[i+1])); r.Err != nil {
			b.t.Fatalf("put %s: %v", kv[i], r.Err)
		}
	}
}

// want fails the test unless the reply has the kind of error, or none for "".
func (b *bed) want(r worker.Reply, word string) {
	b.t.Helper()
	got := ""
	if r.Err != nil {
		got = r.Err.Word()
	}
	if got != word {
		b.t.Fatalf("got error %q (%v), want %q", got, r.Err, word)
	}
}

func within(d time.Duration) func(*worker.Request) {
	return func(r *worker.Request) { r.Deadline = time.Now().Add(d) }
}

func idempotent(k, body string) func(*worker.Request) {
	return func(r *worker.Request) {
		r.IdempotencyKey = k
		copy(r.Digest[:], body)
	}
}

func number(v []byte) (n int) {
	if _, err := fmt.Sscan(string(v), &n); err != nil {
		return 0
	}
	return n
}
