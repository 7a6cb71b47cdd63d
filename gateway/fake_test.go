package gateway

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/sha256"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// TestMain looks for leaks. A connection that net/http closes after a refused body
// sleeps for half a second, longer than goleak waits: if its test is the last one, it is
// still there.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// fakeExecutor keeps values in a map. run, if set, replaces what Execute does.
type fakeExecutor struct {
	mu      sync.Mutex
	run     func(context.Context, *worker.Request) worker.Reply
	load    func(context.Context, []worker.Op) error
	last    worker.Request // of Execute, with a copy of the input
	values  map[base.Key][]byte
	version map[base.Key]base.Version
	replays map[string]worker.Reply
	records map[base.InvocationID]worker.Record
	loads   []int // sizes of the transactions of bulk loads
	lines   []LogEntry
	more    chan struct{}
}

func newFakeExecutor() *fakeExecutor {
	return &fakeExecutor{
		values: map[base.Key][]byte{}, version: map[base.Key]base.Version{}, replays: map[string]worker.Reply{},
		records: map[base.InvocationID]worker.Record{}, more: make(chan struct{}),
	}
}

func (f *fakeExecutor) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	f.mu.Lock()
	f.last = *req
	f.last.Input = append([]byte(nil), req.Input...)
	run := f.run
	f.mu.Unlock()
	if run != nil {
		return run(ctx, req)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if reply, ok := f.replays[req.IdempotencyKey]; ok && req.IdempotencyKey != "" {
		return reply
	}
	reply := worker.Reply{ID: req.ID, Attempts: 1}
	if req.Flow != nil {
		reply.Output = append([]byte(`{"echo":`), append(append([]byte(nil), req.Input...), '}')...)
	}
	for i := range req.Ops {
		result, err := f.apply(&req.Ops[i])
		if err != nil {
			return worker.Reply{ID: req.ID, Attempts: 1, Err: err}
		}
		reply.Results = append(reply.Results, result)
	}
	if req.Ops != nil {
		reply.Output = fakeResults(reply.Results)
	}
	replay := reply
	replay.Replayed, replay.Results = true, nil
	f.replays[req.IdempotencyKey] = replay
	return reply
}

func (f *fakeExecutor) apply(op *worker.Op) (worker.OpResult, *base.Error) {
	value, found := f.values[op.Key]
	if op.IfPresent && !found || op.IfAbsent && found || op.IfMatch != nil && (!found || *op.IfMatch != f.version[op.Key]) {
		return worker.OpResult{}, base.Errorf(base.Precondition, "%s has version %d", op.Key, f.version[op.Key])
	}
	switch op.Kind {
	case worker.OpGet:
		return worker.OpResult{Value: value, Found: found, Version: f.version[op.Key]}, nil
	case worker.OpDelete:
		if !found {
			return worker.OpResult{Version: f.version[op.Key]}, nil
		}
		delete(f.values, op.Key)
		f.version[op.Key]++
		return worker.OpResult{Version: f.version[op.Key]}, nil
	case worker.OpAdd:
		old, _ := strconv.ParseInt(string(value), 10, 64)
		delta, err := strconv.ParseInt(string(op.Value), 10, 64)
		if err != nil {
			panic(err)
		}
		value = strconv.AppendInt(nil, old+delta, 10)
	case worker.OpAppend:
		list := []json.RawMessage{}
		if found {
			if err := json.Unmarshal(value, &list); err != nil {
				panic(err)
			}
		}
		value, _ = json.Marshal(append(list, op.Value))
	case worker.OpPut:
		value = op.Value
	}
	f.values[op.Key] = value
	f.version[op.Key]++
	return worker.OpResult{Value: value, Found: true, Version: f.version[op.Key]}, nil
}

func fakeResults(results []worker.OpResult) []byte {
	answer := txnAnswer{Results: []txnResult{}}
	for _, r := range results {
		answer.Results = append(answer.Results, txnResult{Value: string(r.Value), Found: r.Found, Version: uint64(r.Version)})
	}
	out, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	return out
}

func (f *fakeExecutor) Record(id base.InvocationID) (worker.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if record, ok := f.records[id]; ok {
		return record, nil
	}
	return worker.Record{}, base.Errorf(base.NotFound, "no record")
}

func (f *fakeExecutor) Load(ctx context.Context, ops []worker.Op) error {
	f.mu.Lock()
	load := f.load
	f.mu.Unlock()
	if load != nil {
		if err := load(ctx, ops); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loads = append(f.loads, len(ops))
	for i := range ops {
		f.values[ops[i].Key] = ops[i].Value
		f.version[ops[i].Key]++
	}
	return nil
}

func (f *fakeExecutor) DrainWorker(_ context.Context, name string) error {
	switch name {
	case "w1":
		return base.Errorf(base.InUse, "worker w1 is the last one")
	case "w2":
		return nil
	}
	return base.Errorf(base.NotFound, "no worker %q", name)
}

func (f *fakeExecutor) Workers() []Status {
	return []Status{{Name: "w1", Address: "127.0.0.1:1", Provider: "shm", View: 3, Running: 2, Queued: 1, Homes: 7, Leases: 5, LocalInvocations: 11, LeasePulls: 13}}
}

func (f *fakeExecutor) Lease(key base.Key) LeaseInfo {
	return LeaseInfo{Holder: "w1", Mode: "exclusive", Epoch: 4, Home: "w1", Why: "the only worker (" + key.String() + ")"}
}

func (f *fakeExecutor) Logs(after int64) ([]LogEntry, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.lines {
		if f.lines[i].Seq > after {
			return f.lines[i:len(f.lines):len(f.lines)], f.more
		}
	}
	return nil, f.more
}

// log appends a line and wakes followers.
func (f *fakeExecutor) log(workflow, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, LogEntry{Seq: int64(len(f.lines) + 1), LogLine: worker.LogLine{Workflow: workflow, Step: "s", Message: message}})
	close(f.more)
	f.more = make(chan struct{})
}

// fakeCatalogue has the workflow "transfer" and the function "bank" with the
// handlers deposit and withdraw, and what is put.
type fakeCatalogue struct {
	mu        sync.Mutex
	functions map[string]FunctionInfo
	workflows map[string]WorkflowInfo
	format    workflow.Format
	isolate   bool
	err       error // if set, the answer of the calls that change something
	timeout   time.Duration
	program   *Program
}

func newFakeCatalogue() *fakeCatalogue {
	return &fakeCatalogue{
		program:   &Program{Flow: workflow.Single("bank", "withdraw")},
		functions: map[string]FunctionInfo{"bank": {Name: "bank", Version: "v", Handlers: []string{"deposit", "withdraw"}, Runtime: "native"}},
		workflows: map[string]WorkflowInfo{"transfer": {Name: "transfer", Revision: 1, Definition: json.RawMessage(`{"functions":{}}`)}},
	}
}

func (f *fakeCatalogue) DeployFunction(_ context.Context, name string, module []byte, isolate bool) (FunctionInfo, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return FunctionInfo{}, false, f.err
	}
	if !strings.HasPrefix(string(module), "\x00asm") {
		return FunctionInfo{}, false, base.Invalidf("module", "not wasm")
	}
	f.isolate = isolate
	sum := sha256.Sum256(module)
	info := FunctionInfo{Name: name, Version: hex.EncodeToString(sum[:]), Handlers: []string{"h"}, Runtime: "wasm"}
	created := f.functions[name].Version != info.Version
	f.functions[name] = info
	return info, created, nil
}

func (f *fakeCatalogue) Functions() []FunctionInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []FunctionInfo
	for _, info := range f.functions {
		list = append(list, info)
	}
	return list
}

func (f *fakeCatalogue) Function(name string) (FunctionInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if info, ok := f.functions[name]; ok {
		return info, nil
	}
	return FunctionInfo{}, base.Errorf(base.NotFound, "there is no function %q", name)
}

func (f *fakeCatalogue) RemoveFunction(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "bank" {
		return base.Errorf(base.InUse, "workflow transfer needs it")
	}
	if _, ok := f.functions[name]; !ok {
		return base.Errorf(base.NotFound, "there is no function %q", name)
	}
	delete(f.functions, name)
	return nil
}

func (f *fakeCatalogue) PutWorkflow(_ context.Context, name string, definition []byte, format workflow.Format) (WorkflowInfo, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.format = format
	if len(definition) == 0 {
		return WorkflowInfo{}, false, base.Invalidf("workflow", "functions: there is none")
	}
	info, there := f.workflows[name]
	info = WorkflowInfo{Name: name, Revision: info.Revision + 1, Definition: json.RawMessage(`{}`)}
	f.workflows[name] = info
	return info, !there, nil
}

func (f *fakeCatalogue) Workflows() []WorkflowInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []WorkflowInfo
	for _, info := range f.workflows {
		list = append(list, info)
	}
	return list
}

func (f *fakeCatalogue) Workflow(name string) (WorkflowInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if info, ok := f.workflows[name]; ok {
		return info, nil
	}
	return WorkflowInfo{}, base.Errorf(base.NotFound, "there is no workflow %q", name)
}

func (f *fakeCatalogue) RemoveWorkflow(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.workflows[name]; !ok {
		return base.Errorf(base.NotFound, "there is no workflow %q", name)
	}
	delete(f.workflows, name)
	return nil
}

func (f *fakeCatalogue) Program(name string) (*Program, error) {
	if name != "transfer" {
		return nil, base.Errorf(base.NotFound, "there is no workflow %q", name)
	}
	f.program.Flow.Timeout = f.timeout
	return f.program, nil
}

func (f *fakeCatalogue) HandlerProgram(function, handler string) (*Program, error) {
	if function != "bank" || handler != "deposit" {
		return nil, base.Errorf(base.NotFound, "there is no handler %s/%s", function, handler)
	}
	return &Program{Flow: workflow.Single(function, handler)}, nil
}

func (f *fakeCatalogue) Bundle(function string) (runtime.Bundle, error) {
	return nil, base.Errorf(base.NotFound, "there is no function %q", function)
}

// rig is a serving gateway on fakes.
type rig struct {
	*Gateway
	executor  *fakeExecutor
	catalogue *fakeCatalogue
	log       *strings.Builder
}

func newRig(t testing.TB, opt Options) *rig {
	t.Helper()
	r := &rig{executor: newFakeExecutor(), catalogue: newFakeCatalogue(), log: &strings.Builder{}}
	opt.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil))
	var err error
	if r.Gateway, err = New(opt, r.executor, r.catalogue, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	r.Serve()
	return r
}

// lockedWriter makes a writer safe for concurrent use.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// do sends one request to the handler. header has lines "Name: value".
func (r *rig) do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// word returns the last word of a problem's type, and "" for other answers.
// It fails the test for an answer that must be a problem and is not.
func word(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Code < 400 {
		return ""
	}
	p := problem(t, w.Header(), w.Code, w.Body.Bytes())
	return strings.TrimPrefix(p.Type, problemBase)
}

// problem checks that an answer is a complete problem and returns it.
func problem(t testing.TB, h http.Header, status int, body []byte) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("status %d: body %q is no problem: %v", status, body, err)
	}
	switch {
	case h.Get("Content-Type") != typeProblem:
		t.Fatalf("status %d has Content-Type %q", status, h.Get("Content-Type"))
	case p.Status != status || p.Title == "" || p.Detail == "" || !strings.HasPrefix(p.Type, problemBase):
		t.Fatalf("status %d: incomplete problem %s", status, body)
	case p.Invocation != h.Get("Tenure-Invocation"):
		t.Fatalf("problem names invocation %q, the header %q", p.Invocation, h.Get("Tenure-Invocation"))
	case (status == 429 || status == 503) && h.Get("Retry-After") == "":
		t.Fatalf("status %d without Retry-After", status)
	case strings.Contains(string(body), "goroutine ") || strings.Contains(string(body), ".go:"):
		t.Fatalf("the problem shows a stack trace: %s", body)
	}
	return p
}

func (r *rig) put(key, value string) {
	table, k, _ := strings.Cut(key, "/")
	r.executor.values[base.Key{Table: table, Key: k}] = []byte(value)
	r.executor.version[base.Key{Table: table, Key: k}]++
}

func (r *rig) value(key string) string {
	table, k, _ := strings.Cut(key, "/")
	return fmt.Sprintf("%s", r.executor.values[base.Key{Table: table, Key: k}])
}
