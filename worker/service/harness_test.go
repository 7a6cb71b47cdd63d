package service_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/service"
	"github.com/tenure-faas/tenure/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what has to happen at all; no test depends on its length.
const patience = time.Minute

// bed is a worker behind its service, the owner of the catalogue that both its
// process and the caller's have a replica of, and the caller's stub.
type bed struct {
	t      testing.TB
	engine *pebble.Engine
	w      *worker.Worker
	now    atomic.Pointer[worker.Worker] // what the service serves
	logs   *worker.Logs
	owner  *leasemgr.Catalogue
	// here is the caller's catalogue, there the worker's; nobody refreshes them but
	// those who need it.
	here, there *leasemgr.Replica
	server      *grpc.Server
	address     string
	*service.Client
	// entered has a token for each call of the handler "hold", which ends when
	// release is closed.
	entered, release chan struct{}
}

func rpcOptions() rpc.Options { return rpc.Options{MaxMessage: service.MessageBytes} }

// listen serves on loopback until the end of the test.
func listen(t testing.TB, register func(*grpc.Server)) (*grpc.Server, string) {
	t.Helper()
	l, err := rpc.Listen("127.0.0.1:0", rpcOptions())
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(rpcOptions())
	register(s)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return s, l.Addr().String()
}

func dial(t testing.TB, address string) rpc.Conn {
	t.Helper()
	conn, err := rpc.Dial(address, rpcOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func newBed(t testing.TB) *bed {
	t.Helper()
	b := &bed{t: t, logs: worker.NewLogs(4096), entered: make(chan struct{}, 16), release: make(chan struct{})}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if b.engine, err = pebble.Open(pebble.Options{Dir: "db", FS: vfs.NewMem()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.engine.Seal(1); err != nil {
		t.Fatal(err)
	}
	if b.w, err = worker.New(worker.Options{View: 1, Name: "w1", Logs: b.logs, Logger: quiet}, b.engine); err != nil {
		t.Fatal(err)
	}
	b.now.Store(b.w)
	bundle, err := native.New(b.handlers())
	if err != nil {
		t.Fatal(err)
	}
	compiled := map[string]runtime.Bundle{"test": bundle}
	if b.owner, err = leasemgr.NewCatalogue(t.Context(), b.engine, words{}, compiled, quiet); err != nil {
		t.Fatal(err)
	}
	_, owner := listen(t, func(s *grpc.Server) { leasemgr.RegisterCatalogue(s, b.owner) })
	replicas := []**leasemgr.Replica{&b.here, &b.there}
	for _, r := range replicas {
		if *r, err = leasemgr.NewReplica(t.Context(), b.engine, words{}, compiled, quiet, dial(t, owner)); err != nil {
			t.Fatal(err)
		}
	}
	b.server, b.address = listen(t, func(s *grpc.Server) {
		service.Register(s, service.Options{Worker: b.now.Load, Programs: b.there, Logs: b.logs})
	})
	b.Client = service.NewClient(dial(t, b.address))
	return b
}

// words loads modules "answer ..." whose handlers answer with the module, or call
// another function: "call NAME".
type words struct{}

func (words) Load(_ context.Context, name string, module []byte, _ bool) (runtime.Bundle, error) {
	text := string(module)
	if strings.HasPrefix(text, "broken") {
		return nil, base.Invalidf("module", "module of %q is broken", name)
	}
	return native.New(map[string]tenure.Handler{"run": func(ctx *tenure.Context) ([]byte, error) {
		if target, calls := strings.CutPrefix(text, "call "); calls {
			return ctx.Call(target, "run", nil)
		}
		return []byte(`"` + text + `"`), nil
	}})
}

// handlers are those of the function "test".
func (b *bed) handlers() map[string]tenure.Handler {
	return map[string]tenure.Handler{
		"echo":  func(ctx *tenure.Context) ([]byte, error) { return ctx.Input(), nil },
		"abort": func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Abort("no funds \xff") },
		"panic": func(*tenure.Context) ([]byte, error) { panic("bug") },
		"bytes": func(*tenure.Context) ([]byte, error) { return []byte{0, 0xff, '"'}, nil },
		"log": func(ctx *tenure.Context) ([]byte, error) {
			ctx.Log("said %s", ctx.Input())
			return nil, nil
		},
		"count": func(ctx *tenure.Context) ([]byte, error) {
			n, err := ctx.GetInt("t", "n")
			if err != nil {
				return nil, err
			}
			return []byte("null"), ctx.PutInt("t", "n", n+1)
		},
		"hold": func(ctx *tenure.Context) ([]byte, error) {
			if err := ctx.Put("t", "held", ctx.Input()); err != nil {
				return nil, err
			}
			b.entered <- struct{}{}
			<-b.release
			return ctx.Input(), nil
		},
	}
}

func newID() base.InvocationID {
	return base.NewInvocationID(time.Now(), uint16(rand.Uint32()), rand.Uint64())
}

// handler is a request as the gateway makes it.
func (b *bed) handler(function, handler, input string) *worker.Request {
	b.t.Helper()
	p, err := b.here.HandlerProgram(function, handler)
	if err != nil {
		b.t.Fatal(err)
	}
	return &worker.Request{
		ID: newID(), Name: function + "/" + handler, Function: function, Handler: handler, Changed: p.Changed, Deployed: p.Deployed(),
		Flow: p.Flow, Bundles: p.Bundles, Lookup: b.here.Bundle, Input: []byte(input),
	}
}

func (b *bed) workflow(name, input string) *worker.Request {
	b.t.Helper()
	p, err := b.here.Program(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return &worker.Request{
		ID: newID(), Name: name, Workflow: name, Changed: p.Changed, Deployed: p.Deployed(),
		Flow: p.Flow, Bundles: p.Bundles, Lookup: b.here.Bundle, Input: []byte(input),
	}
}

func ops(list ...worker.Op) *worker.Request {
	return &worker.Request{ID: newID(), Name: "txn", Ops: list}
}

func key(k string) base.Key  { return base.Key{Table: "t", Key: k} }
func get(k string) worker.Op { return worker.Op{Kind: worker.OpGet, Key: key(k)} }
func put(k string, v []byte) worker.Op {
	return worker.Op{Kind: worker.OpPut, Key: key(k), Value: v}
}

// deploy changes a function at the owner, of which no replica hears.
func (b *bed) deploy(name, module string) {
	b.t.Helper()
	if _, _, err := b.owner.DeployFunction(b.t.Context(), name, []byte(module), false); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) define(name, definition string) {
	b.t.Helper()
	if _, _, err := b.owner.PutWorkflow(b.t.Context(), name, []byte(definition), workflow.YAML); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) refresh(r *leasemgr.Replica) {
	b.t.Helper()
	if _, err := r.Refresh(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// hold runs a request for "hold" with a client until the function has begun, and
// returns how to wait for the reply.
func (b *bed) hold(c *service.Client, change func(*worker.Request)) (reply func() worker.Reply) {
	b.t.Helper()
	req := b.handler("test", "hold", `1`)
	change(req)
	var running sync.WaitGroup
	var r worker.Reply
	running.Go(func() { r = c.Execute(context.Background(), req) })
	select {
	case <-b.entered:
	case <-time.After(patience):
		b.t.Fatal("the function did not begin")
	}
	return func() worker.Reply { running.Wait(); return r }
}
