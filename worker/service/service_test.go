package service_test

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/service"
)

// same compares what two replies say; what they are made of may differ.
func same(t *testing.T, what string, got, want worker.Reply) {
	t.Helper()
	if string(got.Output) != string(want.Output) || got.Replayed != want.Replayed || got.Attempts != want.Attempts || len(got.Results) != len(want.Results) {
		t.Errorf("%s: reply %+v, want %+v", what, got, want)
		return
	}
	for i := range got.Results {
		g, w := got.Results[i], want.Results[i]
		if string(g.Value) != string(w.Value) || g.Found != w.Found || g.Version != w.Version {
			t.Errorf("%s: result %d is %+v, want %+v", what, i, g, w)
		}
	}
	if (got.Err == nil) != (want.Err == nil) {
		t.Errorf("%s: error %v, want %v", what, got.Err, want.Err)
		return
	}
	if got.Err == nil {
		return
	}
	g, w := *got.Err, *want.Err
	if fmt.Sprint(g.Err) != fmt.Sprint(w.Err) {
		t.Errorf("%s: cause %v, want %v", what, g.Err, w.Err)
	}
	g.Err, w.Err = nil, nil
	elapsed := regexp.MustCompile(`after \d+ms`)
	g.Detail, w.Detail = elapsed.ReplaceAllString(g.Detail, "after a while"), elapsed.ReplaceAllString(w.Detail, "after a while")
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s: error %#v, want %#v", what, g, w)
	}
}

// TestSameReplies runs the same requests through the service of one worker and
// directly on another: every reply is the same.
func TestSameReplies(t *testing.T) {
	far, near := newBed(t), newBed(t)
	for _, b := range []*bed{far, near} {
		b.define("both", "functions: {a: {function: test, handler: echo}, b: {function: test, handler: echo, after: [a]}}")
		b.define("declared", "functions: {a: {function: test, handler: echo, writes: ['t/{key}']}}")
		b.refresh(b.here)
	}
	version := func(n base.Version) *base.Version { return &n }
	op := func(kind worker.OpKind, k, v string) worker.Op {
		return worker.Op{Kind: kind, Key: key(k), Value: []byte(v)}
	}
	once := func(r *worker.Request) *worker.Request {
		r.IdempotencyKey, r.Digest = "key", [32]byte{1, 31: 2}
		return r
	}
	other := func(r *worker.Request) *worker.Request {
		r.IdempotencyKey = "other key"
		return r
	}
	conditional := func(change func(*worker.Op)) *worker.Request {
		o := put("a", []byte("changed"))
		change(&o)
		return ops(o)
	}
	for _, row := range []struct {
		what string
		req  func(b *bed) *worker.Request
		word string
	}{
		{"workflow", func(b *bed) *worker.Request { return b.workflow("both", `{"a":1}`) }, ""},
		{"declared keys", func(b *bed) *worker.Request { return b.workflow("declared", `{"key":"x"}`) }, ""},
		{"declared keys, bad input", func(b *bed) *worker.Request { return b.workflow("declared", `{}`) }, "invalid-input"},
		{"handler", func(b *bed) *worker.Request { return b.handler("test", "echo", `"<é>"`) }, ""},
		{"abort", func(b *bed) *worker.Request { return b.handler("test", "abort", `1`) }, "aborted"},
		{"panic", func(b *bed) *worker.Request { return b.handler("test", "panic", `1`) }, "function-error"},
		{"bytes", func(b *bed) *worker.Request { return b.handler("test", "bytes", `1`) }, ""},
		{"puts", func(*bed) *worker.Request {
			return ops(put("a", []byte("v\xff")), put("b", nil), op(worker.OpAdd, "n", "-5"), op(worker.OpAppend, "l", `{"x":1}`))
		}, ""},
		{"gets", func(*bed) *worker.Request { return ops(get("a"), get("b"), get("n"), get("l"), get("none")) }, ""},
		{"delete", func(*bed) *worker.Request { return ops(op(worker.OpDelete, "b", ""), get("b")) }, ""},
		{"add to no number", func(*bed) *worker.Request { return ops(get("b"), op(worker.OpAdd, "a", "1")) }, "function-error"},
		{"version", func(*bed) *worker.Request { return conditional(func(o *worker.Op) { o.IfMatch = version(1) }) }, ""},
		{"version 0", func(*bed) *worker.Request { return conditional(func(o *worker.Op) { o.IfMatch = version(0) }) }, "precondition"},
		{"present", func(*bed) *worker.Request { return conditional(func(o *worker.Op) { o.IfPresent = true }) }, ""},
		{"absent", func(*bed) *worker.Request { return conditional(func(o *worker.Op) { o.IfAbsent = true }) }, "precondition"},
		{"first of a key", func(b *bed) *worker.Request { return once(b.handler("test", "count", `1`)) }, ""},
		{"again", func(b *bed) *worker.Request { return once(b.handler("test", "count", `1`)) }, ""},
		{"mismatch", func(b *bed) *worker.Request {
			r := once(b.handler("test", "count", `1`))
			r.Digest[0] = 7
			return r
		}, "idempotency-mismatch"},
		{"deadline", func(b *bed) *worker.Request {
			r := b.handler("test", "echo", `1`)
			r.Deadline = time.Now().Add(time.Minute)
			return r
		}, ""},
		{"ephemeral", func(*bed) *worker.Request {
			r := ops(get("a"))
			r.Ephemeral = true
			return r
		}, ""},
		{"operations of a key", func(*bed) *worker.Request { return other(ops(put("a", []byte("x")), get("n"))) }, ""},
		{"operations again", func(*bed) *worker.Request { return other(ops(put("a", []byte("x")), get("n"))) }, ""},
	} {
		there, here := row.req(far), row.req(near)
		got, want := far.Execute(t.Context(), there), near.w.Execute(t.Context(), here)
		word := ""
		if want.Err != nil {
			word = want.Err.Word()
		}
		if word != row.word {
			t.Errorf("%s: the worker itself says %v, want %q", row.what, want.Err, row.word)
		}
		same(t, row.what, got, want)
		if strings.HasSuffix(row.what, "again") {
			if !got.Replayed || got.ID == there.ID {
				t.Errorf("a replay is %v with id %v", got.Replayed, got.ID)
			}
		} else if got.ID != there.ID {
			t.Errorf("%s: id %v, want %v", row.what, got.ID, there.ID)
		}
		gotRecord, gotErr := far.Record(t.Context(), there.ID)
		wantRecord, wantErr := near.w.Record(here.ID)
		if base.KindOf(gotErr) != base.KindOf(wantErr) || gotRecord.State != wantRecord.State || gotRecord.Workflow != wantRecord.Workflow ||
			string(gotRecord.Output) != string(wantRecord.Output) || fmt.Sprint(gotRecord.Err) != fmt.Sprint(wantRecord.Err) || gotRecord.Worker != wantRecord.Worker {
			t.Errorf("%s: record %+v, %v; want %+v, %v", row.what, gotRecord, gotErr, wantRecord, wantErr)
		}
		if own, err := far.w.Record(there.ID); err == nil && fmt.Sprint(own) != fmt.Sprint(gotRecord) {
			t.Errorf("%s: record %+v, the worker has %+v", row.what, gotRecord, own)
		}
	}
}

// TestCaughtUp deploys what the worker has not read: it runs what the caller's
// catalogue has, and not what its own had.
func TestCaughtUp(t *testing.T) {
	b := newBed(t)
	b.deploy("f", "one")
	b.deploy("g", "call f")
	b.define("w", "functions: {a: {function: f, handler: run}}\noutput: a")
	b.refresh(b.here)
	run := func(what, want string, req *worker.Request) {
		t.Helper()
		if r := b.Execute(t.Context(), req); r.Err != nil || string(r.Output) != want {
			t.Errorf("%s: %s, %v; want %s", what, r.Output, r.Err, want)
		}
	}
	run("a new workflow", `"one"`, b.workflow("w", "1"))
	run("a new function", `"one"`, b.handler("f", "run", "1"))
	old := b.workflow("w", "1")
	b.deploy("f", "two")
	b.refresh(b.here)
	run("a workflow of a new version", `"two"`, b.workflow("w", "1"))
	run("a caller that is behind", `"two"`, old)
	b.deploy("f", "three")
	b.refresh(b.here)
	// g is as it was: only its call of f needs the change.
	behind := b.there.Sequence()
	run("a function that calls", `"three"`, b.handler("g", "run", "1"))
	if b.there.Sequence() == behind {
		t.Error("the test does not test: the worker had the change before")
	}

	b.define("x", "functions: {a: {function: test, handler: echo}}")
	b.refresh(b.here)
	behind = b.there.Sequence()
	run("what was not changed", `5`, b.handler("test", "echo", "5"))
	if b.there.Sequence() != behind {
		t.Error("the worker read a change for a program that it has no part in")
	}

	gone := b.workflow("w", "1")
	if err := b.owner.RemoveWorkflow(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	b.refresh(b.there)
	if r := b.Execute(t.Context(), gone); r.Err == nil || r.Err.Kind != base.NotFound || !strings.Contains(r.Err.Detail, `no workflow "w"`) {
		t.Errorf("a workflow that the worker knows to be gone: %v", r.Err)
	}
}

// TestNotCaughtUp names changes that are not in the worker's store.
func TestNotCaughtUp(t *testing.T) {
	b := newBed(t)
	req := b.handler("test", "count", "1")
	req.Changed = 99
	r := b.Execute(t.Context(), req)
	if r.Err == nil || r.Err.Kind != base.Unavailable || r.Err.Unknown || r.Err.RetryAfter <= 0 || !strings.Contains(r.Err.Detail, "nothing was started") {
		t.Errorf("a change from nowhere: %#v", r.Err)
	}
	if r := b.Execute(t.Context(), ops(get("n"))); r.Err != nil || r.Results[0].Found {
		t.Errorf("it was started: %+v", r)
	}
}

func TestUnreachable(t *testing.T) {
	b := newBed(t)
	l, err := rpc.Listen("127.0.0.1:0", rpcOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := service.NewClient(dial(t, l.Addr().String()))
	for what, do := range map[string]func() *base.Error{
		"execute": func() *base.Error { return c.Execute(t.Context(), b.handler("test", "count", "1")).Err },
		"put":     func() *base.Error { return c.Execute(t.Context(), ops(put("a", nil))).Err },
		"load":    func() *base.Error { return c.Load(t.Context(), []worker.Op{put("a", nil)}).(*base.Error) },
	} {
		if err := do(); err == nil || err.Kind != base.Unavailable || err.Unknown || err.RetryAfter <= 0 || !strings.Contains(err.Detail, "nothing was started") {
			t.Errorf("%s: %#v", what, err)
		}
	}
	if _, err := c.Status(t.Context()); base.KindOf(err) != base.Unavailable {
		t.Errorf("status: %v", err)
	}
	late := b.handler("test", "count", "1")
	late.Deadline = time.Now().Add(-time.Second)
	if r := b.Execute(t.Context(), late); r.Err == nil || r.Err.Kind != base.Timeout || r.Err.Unknown || !strings.Contains(r.Err.Detail, "unchanged") {
		t.Errorf("a deadline that has passed: %#v", r.Err)
	}
	b.now.Store(nil)
	r := b.Execute(t.Context(), ops(get("a")))
	if err := b.Load(t.Context(), []worker.Op{put("a", nil)}); r.Err == nil || r.Err.Kind != base.Unavailable || r.Err.RetryAfter <= 0 || base.KindOf(err) != base.Unavailable {
		t.Errorf("a process without a worker: %v, load %v", r.Err, err)
	}
}

// TestLostConnection loses the connection while a function runs. The outcome is
// unknown, the worker goes on, and the retry finds what came of it.
func TestLostConnection(t *testing.T) {
	b := newBed(t)
	server, address := listen(t, func(s *grpc.Server) {
		service.Register(s, service.Options{Worker: b.now.Load, Programs: b.there, Logs: b.logs})
	})
	c := service.NewClient(dial(t, address))
	once := func(r *worker.Request) { r.IdempotencyKey = "k" }
	first := b.hold(c, once)

	// A read waits behind it.
	var reading sync.WaitGroup
	var read worker.Reply
	reading.Go(func() { read = c.Execute(context.Background(), ops(get("held"))) })
	for b.waiting("held") == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the read does not come to wait")
		}
	}
	var stopping sync.WaitGroup
	stopping.Go(server.Stop) // cuts the connections, then waits for the functions
	r := first()
	if r.Err == nil || r.Err.Kind != base.Timeout || !r.Err.Unknown || !strings.Contains(r.Err.Detail, "unknown: ask again with the same Idempotency-Key") {
		t.Errorf("a function ran when the connection was lost: %#v", r.Err)
	}
	reading.Wait()
	if e := read.Err; e == nil || e.Kind != base.Unavailable || e.Unknown || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "nothing was changed") {
		t.Errorf("a read waited when the connection was lost: %#v", e)
	}
	close(b.release)
	stopping.Wait()
	again := b.handler("test", "hold", "1")
	once(again)
	if r := b.Execute(t.Context(), again); r.Err != nil || !r.Replayed || string(r.Output) != "1" {
		t.Errorf("the retry: %+v", r)
	}
}

// waiting is how many transactions wait for a key.
func (b *bed) waiting(k string) int {
	b.t.Helper()
	l, err := b.Lease(b.t.Context(), key(k))
	if err != nil {
		b.t.Fatal(err)
	}
	return l.Lock.Waiting
}

// TestDeadlines shows who ends what: the worker in time, the stub if the worker
// does not, the caller by cancelling.
func TestDeadlines(t *testing.T) {
	b := newBed(t)
	holder := b.hold(b.Client, func(*worker.Request) {})
	soon := func(r *worker.Request) *worker.Request {
		r.Deadline = time.Now().Add(100 * time.Millisecond)
		return r
	}
	got := b.Execute(t.Context(), soon(ops(put("held", nil))))
	want := b.w.Execute(t.Context(), soon(ops(put("held", nil))))
	if want.Err == nil || want.Err.Kind != base.Timeout || want.Err.Unknown {
		t.Errorf("the worker itself: %v", want.Err)
	}
	same(t, "waits for a lock", got, want)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	same(t, "the caller's deadline", b.Execute(ctx, ops(put("held", nil))), want)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	var cancelled worker.Reply
	running.Go(func() { cancelled = b.Execute(ctx, soonest(ops(put("held", nil)))) })
	for b.waiting("held") == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the put does not come to wait")
		}
	}
	cancel()
	running.Wait()
	if e := cancelled.Err; e == nil || e.Kind != base.Timeout || !e.Unknown {
		t.Errorf("cancelled: %#v", e)
	}
	close(b.release)
	if r := holder(); r.Err != nil {
		t.Errorf("the holder: %v", r.Err)
	}
}

func soonest(r *worker.Request) *worker.Request {
	r.Deadline = time.Now().Add(patience)
	return r
}

// TestStuckFunction has a function that does not end at its deadline: the outcome
// is unknown a little later.
func TestStuckFunction(t *testing.T) {
	b := newBed(t)
	reply := b.hold(b.Client, func(r *worker.Request) { r.Deadline = time.Now().Add(50 * time.Millisecond) })
	if e := reply().Err; e == nil || e.Kind != base.Timeout || !e.Unknown || !strings.Contains(e.Detail, "unknown: ask again with the same Idempotency-Key") {
		t.Errorf("stuck: %#v", e)
	}
	close(b.release)
}

func TestLimits(t *testing.T) {
	b := newBed(t)
	body := bytes.Repeat([]byte("x"), 6<<20)
	copy(body, `"`)
	body[len(body)-1] = '"'
	if r := b.Execute(t.Context(), b.handler("test", "echo", string(body))); r.Err != nil || !bytes.Equal(r.Output, body) {
		t.Errorf("an input and output of 6 MiB: %d bytes, %v", len(r.Output), r.Err)
	}
	value := bytes.Repeat([]byte("v"), 1<<20)
	var puts, gets []worker.Op
	for i := range 31 {
		puts, gets = append(puts, put(fmt.Sprint(i), bytes.Clone(value))), append(gets, get(fmt.Sprint(i)))
	}
	if r := b.Execute(t.Context(), ops(puts...)); r.Err != nil || len(r.Results) != 31 || !bytes.Equal(r.Results[30].Value, value) {
		t.Errorf("31 MiB of values: %d results, %v", len(r.Results), r.Err)
	}
	if r := b.Execute(t.Context(), ops(gets...)); r.Err != nil || !bytes.Equal(r.Results[30].Value, value) || len(r.Output) < 31<<20 {
		t.Errorf("read back: %d results, %v", len(r.Results), r.Err)
	}
	if err := b.Load(t.Context(), puts[:4]); err != nil {
		t.Errorf("load: %v", err)
	}
	for range 34 {
		gets = append(gets, gets[0])
	}
	if r := b.Execute(t.Context(), ops(gets...)); r.Err == nil || r.Err.Kind != base.TooLarge || r.Results != nil {
		t.Errorf("results over the limit: %d, %v", len(r.Results), r.Err)
	}
	if r := b.Execute(t.Context(), b.handler("test", "echo", strings.Repeat(" ", service.MaxBodyBytes+1))); r.Err == nil || r.Err.Kind != base.TooLarge {
		t.Errorf("an input over the limit: %v", r.Err)
	}
	var big []worker.Op
	for range 65 {
		big = append(big, put("k", value))
	}
	if r := b.Execute(t.Context(), ops(big...)); r.Err == nil || r.Err.Kind != base.TooLarge {
		t.Errorf("operations over the limit: %v", r.Err)
	}
	if err := b.Load(t.Context(), big); base.KindOf(err) != base.TooLarge {
		t.Errorf("a load over the limit: %v", err)
	}
}

func TestLoad(t *testing.T) {
	b := newBed(t)
	if err := b.Load(t.Context(), []worker.Op{put("a", []byte("1")), put("b", []byte("2"))}); err != nil {
		t.Fatal(err)
	}
	if r := b.w.Execute(t.Context(), ops(get("a"), get("b"))); r.Err != nil || string(r.Results[1].Value) != "2" {
		t.Errorf("%+v", r)
	}
	large := put("c", make([]byte, base.MaxValueBytes+1))
	got, want := b.Load(t.Context(), []worker.Op{large}), b.w.Load(t.Context(), []worker.Op{large})
	if want == nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a value over the limit: %v, the worker itself: %v", got, want)
	}
	holder := b.hold(b.Client, func(*worker.Request) {})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Load(ctx, []worker.Op{put("held", nil)}); base.KindOf(err) != base.Timeout {
		t.Errorf("at the deadline: %v", err)
	}
	close(b.release)
	holder()
}

// TestBadMessages sends what no stub sends.
func TestBadMessages(t *testing.T) {
	b := newBed(t)
	c := rpcpb.NewWorkerClient(dial(t, b.address))
	op := &rpcpb.WorkerOp{Kind: 2, Table: "t", Key: "k"}
	for what, in := range map[string]*rpcpb.ExecuteRequest{
		"nothing":             {},
		"a function only":     {Function: "test"},
		"two programs":        {Workflow: "w", Ops: []*rpcpb.WorkerOp{op}},
		"no such operation":   {Ops: []*rpcpb.WorkerOp{{Kind: 9, Table: "t", Key: "k"}}},
		"kind 258 is not 2":   {Ops: []*rpcpb.WorkerOp{{Kind: 258, Table: "t", Key: "k"}}},
		"an empty key":        {Ops: []*rpcpb.WorkerOp{{Kind: 2, Table: "t"}}},
		"a bad table":         {Ops: []*rpcpb.WorkerOp{{Kind: 2, Table: "t/x", Key: "k"}}},
		"no digest":           {Ops: []*rpcpb.WorkerOp{op}, IdempotencyKey: "k"},
		"a program no record": {Function: "test", Handler: "echo", Ephemeral: true},
	} {
		if _, err := c.Execute(t.Context(), in); base.KindOf(err) != base.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r, err := b.Lease(t.Context(), base.Key{Table: "t"}); base.KindOf(err) != base.Invalid {
		t.Errorf("the lease of no key: %+v, %v", r, err)
	}
	if _, err := b.Record(t.Context(), newID()); base.KindOf(err) != base.NotFound || !strings.Contains(err.Error(), "no invocation") {
		t.Errorf("no record: %v", err)
	}
}

func TestStatus(t *testing.T) {
	b := newBed(t)
	holder := b.hold(b.Client, func(*worker.Request) {})
	s, err := b.Status(t.Context())
	if want := (service.Status{Status: worker.Status{Name: "w1", View: 1, Running: 1}}); err != nil || s != want {
		t.Errorf("status %+v, %v; want %+v", s, err, want)
	}
	l, err := b.Lease(t.Context(), key("held"))
	if want := (worker.Lease{Mode: "exclusive", Holders: 1, View: 1}); err != nil || l.Lock != want || l.Among {
		t.Errorf("lease %+v, %v; want the lock %+v", l, err, want)
	}
	close(b.release)
	holder()
}

func TestLogs(t *testing.T) {
	b := newBed(t)
	lines, place, err := b.Logs(t.Context(), service.LogPlace{}, 0)
	if err != nil || len(lines) != 0 || place.Log == 0 {
		t.Fatalf("at first %v, %v, %v", lines, place, err)
	}
	say := func(what string) base.InvocationID {
		req := b.handler("test", "log", what)
		req.Trace = "abc"
		if r := b.Execute(t.Context(), req); r.Err != nil {
			t.Fatal(r.Err)
		}
		return req.ID
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		var err error
		if lines, place, err = b.Logs(t.Context(), place, patience); err != nil {
			t.Error(err)
		}
	})
	id := say(`1`)
	waiting.Wait()
	own, _ := b.logs.After(0)
	if len(lines) != 1 || place.Seq != 1 || lines[0].Message != "said 1" || lines[0].Invocation != id || lines[0].Trace != "abc" || !lines[0].Time.Equal(own[0].Time) {
		t.Errorf("lines %+v at %v, the worker has %+v", lines, place, own)
	}
	old := service.LogPlace{Log: place.Log + 2, Seq: 1000}
	if lines, now, err := b.Logs(t.Context(), old, 0); err != nil || len(lines) != 1 || now != place {
		t.Errorf("after a place of an earlier run: %v, %v, %v", lines, now, err)
	}
	long := strings.Repeat("x", 8000)
	const many = 200
	for range many {
		say(`"` + long + `"`)
	}
	calls := 0
	for seen := 0; seen < many; calls++ {
		if lines, place, err = b.Logs(t.Context(), place, 0); err != nil || len(lines) == 0 {
			t.Fatalf("after %d lines: %v", seen, err)
		}
		seen += len(lines)
	}
	if calls < 2 || place.Seq != many+1 {
		t.Errorf("%d lines in %d replies, then at %v", many, calls, place)
	}
}

func TestDrain(t *testing.T) {
	b := newBed(t)
	asked := 0
	_, address := listen(t, func(s *grpc.Server) {
		service.Register(s, service.Options{Worker: b.now.Load, Programs: b.there, Logs: b.logs, Drain: func() { asked++ }})
	})
	c := service.NewClient(dial(t, address))
	for range 2 {
		if err := c.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if asked != 2 {
		t.Errorf("the process was asked %d times, want 2", asked)
	}
	if err := b.w.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "a worker that leaves", b.Execute(t.Context(), ops(put("a", nil))), b.w.Execute(t.Context(), ops(put("a", nil))))
}

// TestClosedConnection closes the caller's own connection, as it does when a
// worker is no member any more, during a call and before one.
func TestClosedConnection(t *testing.T) {
	b := newBed(t)
	conn, err := rpc.Dial(b.address, rpcOptions())
	if err != nil {
		t.Fatal(err)
	}
	c := service.NewClient(conn)
	running := b.hold(b.Client, func(*worker.Request) {})
	var writing sync.WaitGroup
	var written worker.Reply
	writing.Go(func() { written = c.Execute(context.Background(), ops(put("held", []byte("2")))) })
	for b.waiting("held") == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the put does not come to wait")
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	if e := written.Err; e == nil || e.Kind != base.Timeout || !e.Unknown {
		t.Errorf("during a call: %#v", e)
	}
	if e := c.Execute(t.Context(), ops(put("a", nil))).Err; e == nil || e.Kind != base.Unavailable || e.Unknown || !strings.Contains(e.Detail, b.address) {
		t.Errorf("before a call: %#v", e)
	}
	close(b.release)
	if r := running(); r.Err != nil {
		t.Errorf("the other caller: %v", r.Err)
	}
	// The worker goes on with what it has begun: a read waits behind it.
	if r := b.Execute(t.Context(), ops(get("held"))); r.Err != nil || string(r.Results[0].Value) != "2" {
		t.Errorf("what was begun before the connection was closed: %+v", r)
	}
}
