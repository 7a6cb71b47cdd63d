package gateway

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// TestEveryRow has at least one row for each row of the API, in its order.
func TestEveryRow(t *testing.T) {
	known := base.NewInvocationID(time.UnixMilli(1_700_000_000_000), 1, 2)
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	recordText := `{"id":"` + known.String() + `","workflow":"transfer","state":"completed","attempts":2,"worker":"w1",` +
		`"started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:06Z","output":{"a":1}}` + "\n"
	module := "\x00asm bytes"
	for _, row := range []struct {
		name, method, target, body string
		header                     []string
		status                     int
		word                       string // of the problem
		want                       string // the body, if no problem; "~x" contains x
	}{
		{"deploy", "PUT", "/v1/functions/f", module, []string{"Content-Type: application/wasm"}, 201, "",
			`{"name":"f","version":"25a5ecbfd6dae1f7bcb4c2ba2b6b3bce3e04ed2aae5c1f1b2a4cd2e7f2d3a6b8","handlers":["h"]}`},
		{"deploy octets", "PUT", "/v1/functions/f", module, []string{"Content-Type: application/octet-stream"}, 201, "", "~handlers"},
		{"deploy untyped", "PUT", "/v1/functions/f", module, nil, 201, "", "~version"},
		{"deploy as curl does", "PUT", "/v1/functions/f", module, []string{"Content-Type: application/x-www-form-urlencoded"}, 201, "", "~version"},
		{"deploy a form", "PUT", "/v1/functions/f", module, []string{"Content-Type: multipart/form-data; boundary=x"}, 400, "invalid-module", ""},
		{"deploy text", "PUT", "/v1/functions/f", "hello", nil, 400, "invalid-module", ""},
		{"deploy nothing", "PUT", "/v1/functions/f", "", nil, 400, "invalid-module", ""},
		{"deploy, bad name", "PUT", "/v1/functions/-f", module, nil, 400, "invalid-name", ""},
		{"deploy, bad query", "PUT", "/v1/functions/f?isolate=maybe", module, nil, 400, "invalid-query", ""},
		{"list functions", "GET", "/v1/functions", "", nil, 200, "", `{"functions":[{"name":"bank","version":"v","handlers":["deposit","withdraw"],"runtime":"native","isolate":false,"versions":[]}]}` + "\n"},
		{"show function", "GET", "/v1/functions/bank", "", nil, 200, "", `~"versions":[]`},
		{"show no function", "GET", "/v1/functions/none", "", nil, 404, "not-found", ""},
		{"remove function", "DELETE", "/v1/functions/bank", "", nil, 409, "in-use", ""},
		{"remove no function", "DELETE", "/v1/functions/none", "", nil, 404, "not-found", ""},
		{"define", "PUT", "/v1/workflows/w", "{}", nil, 201, "", `{"name":"w","revision":1}` + "\n"},
		{"define again", "PUT", "/v1/workflows/transfer", "{}", nil, 200, "", `{"name":"transfer","revision":2}` + "\n"},
		{"define nothing", "PUT", "/v1/workflows/w", "", nil, 400, "invalid-workflow", ""},
		{"list workflows", "GET", "/v1/workflows", "", nil, 200, "", `{"workflows":[{"name":"transfer","revision":1,"definition":{"functions":{}}}]}` + "\n"},
		{"show workflow", "GET", "/v1/workflows/transfer", "", nil, 200, "", `{"name":"transfer","revision":1,"definition":{"functions":{}}}` + "\n"},
		{"show no workflow", "GET", "/v1/workflows/none", "", nil, 404, "not-found", ""},
		{"remove workflow", "DELETE", "/v1/workflows/transfer", "", nil, 204, "", ""},
		{"remove no workflow", "DELETE", "/v1/workflows/none", "", nil, 404, "not-found", ""},
		{"invoke", "POST", "/v1/workflows/transfer/invoke", `{"a":1}`, nil, 200, "", `{"echo":{"a":1}}`},
		{"invoke, empty body", "POST", "/v1/workflows/transfer/invoke", "", nil, 200, "", `{"echo":{}}`},
		{"invoke, no JSON", "POST", "/v1/workflows/transfer/invoke", "{", nil, 400, "invalid-input", ""},
		{"invoke, two texts", "POST", "/v1/workflows/transfer/invoke", "{}{}", nil, 400, "invalid-input", ""},
		{"invoke, no UTF-8", "POST", "/v1/workflows/transfer/invoke", "\"\xff\"", nil, 400, "invalid-input", ""},
		{"invoke nothing", "POST", "/v1/workflows/none/invoke", "{}", nil, 404, "not-found", ""},
		{"invoke handler", "POST", "/v1/functions/bank/deposit/invoke", "1", nil, 200, "", `{"echo":1}`},
		{"invoke no handler", "POST", "/v1/functions/bank/none/invoke", "1", nil, 404, "not-found", ""},
		{"invoke, bad handler", "POST", "/v1/functions/bank/a%20b/invoke", "1", nil, 400, "invalid-name", ""},
		{"record", "GET", "/v1/invocations/" + known.String(), "", nil, 200, "", recordText},
		{"no record", "GET", "/v1/invocations/" + (base.InvocationID{}).String(), "", nil, 404, "not-found", ""},
		{"bad id", "GET", "/v1/invocations/x", "", nil, 400, "invalid-invocation", ""},
		{"read", "GET", "/v1/state/t/a%2Fb/c", "", nil, 200, "", "value"},
		{"read absent", "GET", "/v1/state/t/none", "", nil, 404, "not-found", ""},
		{"read unchanged", "GET", "/v1/state/t/a/b/c", "", []string{`If-None-Match: "1"`}, 304, "", ""},
		{"write", "PUT", "/v1/state/t/new", "x", nil, 204, "", ""},
		{"write nothing", "PUT", "/v1/state/t/new", "", nil, 204, "", ""},
		{"write if absent", "PUT", "/v1/state/t/a/b/c", "x", []string{"If-None-Match: *"}, 412, "precondition", ""},
		{"write if version", "PUT", "/v1/state/t/a/b/c", "x", []string{`If-Match: "1"`}, 204, "", ""},
		{"write if other version", "PUT", "/v1/state/t/a/b/c", "x", []string{`If-Match: "2"`}, 412, "precondition", ""},
		{"write if any", "PUT", "/v1/state/t/none", "x", []string{"If-Match: *"}, 412, "precondition", ""},
		{"write, weak tag", "PUT", "/v1/state/t/k", "x", []string{`If-Match: W/"2"`}, 400, "invalid-precondition", ""},
		{"delete", "DELETE", "/v1/state/t/a/b/c", "", nil, 204, "", ""},
		{"delete absent", "DELETE", "/v1/state/t/none", "", nil, 204, "", ""},
		{"delete if other version", "DELETE", "/v1/state/t/a/b/c", "", []string{`If-Match: "9"`}, 412, "precondition", ""},
		{"load", "POST", "/v1/state", `{"table":"t","key":"k","value":1}`, nil, 200, "", `{"loaded":1}` + "\n"},
		{"load nothing", "POST", "/v1/state", "", nil, 200, "", `{"loaded":0}` + "\n"},
		{"txn", "POST", "/v1/txn", `{"ops":[{"op":"get","table":"t","key":"a/b/c"}]}`, nil, 200, "", `{"results":[{"value":"value","found":true,"version":1}]}`},
		{"no txn", "POST", "/v1/txn", "", nil, 400, "invalid-txn", ""},
		{"cluster", "GET", "/v1/cluster", "", nil, 200, "", `{"view":3,"workers":[{"id":"w1","address":"127.0.0.1:1","provider":"shm","load":3}],"homes":7,"leases":5}` + "\n"},
		{"drain", "POST", "/v1/workers/w2/drain", "", nil, 204, "", ""},
		{"drain the last", "POST", "/v1/workers/w1/drain", "", nil, 409, "in-use", ""},
		{"drain nobody", "POST", "/v1/workers/w3/drain", "", nil, 404, "not-found", ""},
		{"drain, bad name", "POST", "/v1/workers/a%20b/drain", "", nil, 400, "invalid-name", ""},
		{"lease", "GET", "/v1/leases/t/a/b", "", nil, 200, "", `{"holder":"w1","mode":"exclusive","epoch":4,"queue":0,"home":"w1","why":"the only worker (t/a/b)"}` + "\n"},
		{"logs", "GET", "/v1/logs?workflow=transfer", "", nil, 200, "", `~"message":"hello"`},
		{"logs, bad place", "GET", "/v1/logs?after=x", "", nil, 400, "invalid-query", ""},
		{"logs, bad follow", "GET", "/v1/logs?follow=1", "", nil, 400, "invalid-query", ""},
		{"live", "GET", "/healthz", "", nil, 200, "", `{"status":"ok"}` + "\n"},
		{"ready", "GET", "/readyz", "", nil, 200, "", `{"status":"ok"}` + "\n"},
		{"metrics", "GET", "/metrics", "", nil, 200, "", "~tenure_lease_pulls_total 13"},
		{"openapi", "GET", "/openapi.json", "", nil, 200, "", `~"openapi":"3.1.0"`},
		{"page", "GET", "/ui/", "", nil, 200, "", "~<title>Tenure</title>"},
		{"page without slash", "GET", "/ui", "", nil, 200, "", "~<title>Tenure</title>"},
		{"root", "GET", "/", "", nil, 404, "not-found", ""},
		{"wrong method", "POST", "/v1/cluster", "", nil, 405, "method-not-allowed", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.put("t/a/b/c", "value")
			r.executor.log("transfer", "hello")
			r.executor.records[known] = worker.Record{
				ID: known, Workflow: "transfer", State: "completed", Attempts: 2, Worker: "w1",
				Started: started, Ended: started.Add(time.Second), Output: []byte(`{"a":1}`),
			}
			w := r.do(row.method, row.target, row.body, row.header...)
			if w.Code != row.status || word(t, w) != row.word {
				t.Fatalf("status %d [%s], want %d [%s]: %s", w.Code, word(t, w), row.status, row.word, w.Body)
			}
			checkBody(t, w, row.want)
			running := row.method == "POST" && (strings.HasSuffix(row.target, "/invoke") || row.target == "/v1/txn") || strings.HasPrefix(row.target, "/v1/state/")
			if id := w.Header().Get("Tenure-Invocation"); (id != "") != running {
				t.Errorf("Tenure-Invocation is %q", id)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Error("browsers may guess the type")
			}
		})
	}
}

// checkBody compares a success's body; the version of the deploy row depends
// on the module and is checked by its form only.
func checkBody(t *testing.T, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	got := w.Body.String()
	switch {
	case w.Code >= 400:
	case strings.HasPrefix(want, "~"):
		if !strings.Contains(got, want[1:]) {
			t.Errorf("body %s does not contain %s", got, want[1:])
		}
	case strings.Contains(want, `"version":"25a5`):
		var answer map[string]any
		if err := json.Unmarshal([]byte(got), &answer); err != nil || len(answer) != 3 || len(answer["version"].(string)) != 64 {
			t.Errorf("body %s: %v", got, err)
		}
	case got != want:
		t.Errorf("body %q, want %q", got, want)
	}
}

// TestEveryKind has each kind of error as the outcome of an invocation.
func TestEveryKind(t *testing.T) {
	for _, row := range []struct {
		err    base.Error
		status int
		word   string
		detail string // contained
	}{
		{base.Error{Kind: base.Internal, Detail: "secret /path"}, 500, "internal", "its log has the details"},
		{base.Error{Kind: base.Invalid, Subject: "input", Detail: "steps.a: x"}, 400, "invalid-input", "steps.a"},
		{base.Error{Kind: base.Unauthorized}, 401, "unauthorized", ""},
		{base.Error{Kind: base.Forbidden}, 403, "forbidden", ""},
		{base.Error{Kind: base.NotFound, Detail: "no function x"}, 404, "not-found", "no function x"},
		{base.Error{Kind: base.InUse}, 409, "in-use", ""},
		{base.Error{Kind: base.Aborted, Reason: "too poor"}, 409, "aborted", "nothing was changed"},
		{base.Error{Kind: base.Precondition}, 412, "precondition", ""},
		{base.Error{Kind: base.TooLarge}, 413, "too-large", ""},
		{base.Error{Kind: base.FunctionError, Detail: "unreachable"}, 422, "function-error", "unreachable"},
		{base.Error{Kind: base.IdempotencyMismatch}, 422, "idempotency-mismatch", ""},
		{base.Error{Kind: base.Overloaded}, 429, "overloaded", ""},
		{base.Error{Kind: base.Unavailable}, 503, "unavailable", ""},
		{base.Error{Kind: base.Conflict, RetryAfter: 1500 * time.Millisecond}, 503, "conflict", ""},
		{base.Error{Kind: base.Timeout}, 504, "timeout", "unchanged"},
		{base.Error{Kind: base.Timeout, Detail: "lock wait"}, 504, "timeout", "lock wait; the outcome is unchanged"},
		{base.Error{Kind: base.Timeout, Unknown: true}, 504, "timeout", "unknown: ask again with the same Idempotency-Key"},
		{base.Error{Kind: base.MethodNotAllowed}, 405, "method-not-allowed", ""},
		{base.Error{Kind: base.Kind(200)}, 500, "internal", ""},
	} {
		t.Run(row.err.Word()+row.err.Detail, func(t *testing.T) {
			r := newRig(t, Options{RetryAfter: 7 * time.Second})
			r.executor.run = func(_ context.Context, req *worker.Request) worker.Reply {
				return worker.Reply{ID: req.ID, Err: &row.err}
			}
			w := r.do("POST", "/v1/workflows/transfer/invoke", "{}")
			p := problem(t, w.Header(), w.Code, w.Body.Bytes())
			if w.Code != row.status || p.Type != problemBase+row.word || !strings.Contains(p.Detail, row.detail) || p.Reason != row.err.Reason {
				t.Fatalf("status %d, problem %+v", w.Code, p)
			}
			if p.Invocation == "" || strings.Contains(w.Body.String(), "secret") {
				t.Errorf("problem %s", w.Body)
			}
			switch after := w.Header().Get("Retry-After"); row.status {
			case 429, 503:
				want := "7"
				if row.err.RetryAfter > 0 {
					want = "2"
				}
				if after != want {
					t.Errorf("Retry-After %q, want %q", after, want)
				}
			default:
				if after != "" {
					t.Errorf("Retry-After %q with status %d", after, row.status)
				}
			}
			if logged := strings.Contains(r.log.String(), "secret"); logged != (row.err.Detail == "secret /path") {
				t.Errorf("the log has: %s", r.log)
			}
			line := `tenure_invocations_total{outcome="` + row.err.Kind.String() + `",workflow="transfer"} 1`
			if metrics := r.do("GET", "/metrics", "").Body.String(); !strings.Contains(metrics, line) {
				t.Errorf("the metrics do not have %s", line)
			}
		})
	}
}

// TestRecordOutputs shows how outputs that are not JSON stand in records, and
// that a failure stands there as its problem.
func TestRecordOutputs(t *testing.T) {
	id := base.NewInvocationID(time.UnixMilli(1), 1, 1)
	for _, row := range []struct {
		record worker.Record
		want   string
	}{
		{worker.Record{Output: []byte(`[1]`)}, `"output":[1]}`},
		{worker.Record{Output: []byte(`hi "you"`)}, `"output":"hi \"you\""}`},
		{worker.Record{Output: nil}, `"output":""}`},
		{worker.Record{Output: []byte(strings.Repeat("[", 100_000))}, `"output":"[[[[`},
		{worker.Record{Output: []byte{0xff}}, `"output_base64":"/w=="}`},
		{worker.Record{State: "aborted", Err: &base.Error{Kind: base.Aborted, Reason: "poor"}},
			`"error":{"type":"https://tenure.dev/problems/aborted","title":"The function aborted","status":409,` +
				`"detail":"the function gave up, nothing was changed","invocation":"` + id.String() + `","reason":"poor"}}`},
	} {
		r := newRig(t, Options{})
		row.record.ID = id
		r.executor.records[id] = row.record
		w := r.do("GET", "/v1/invocations/"+id.String(), "")
		if w.Code != 200 || !strings.Contains(w.Body.String(), row.want) {
			t.Errorf("status %d, body %.300s, want %s", w.Code, w.Body, row.want)
		}
	}
}

// TestDefinitionFormat shows how the format of a definition is chosen.
func TestDefinitionFormat(t *testing.T) {
	for _, row := range []struct {
		mediaType, body string
		want            workflow.Format
	}{
		{"application/json", "{}", workflow.JSON},
		{"application/json; charset=utf-8", "a: b", workflow.JSON},
		{"application/yaml", "{}", workflow.YAML},
		{"application/x-yaml", "{}", workflow.YAML},
		{"", " \n{}", workflow.JSON},
		{"", "functions:", workflow.YAML},
		{"application/x-www-form-urlencoded", "functions:", workflow.YAML},
		{"text/plain", `{"functions":{}}`, workflow.JSON},
	} {
		r := newRig(t, Options{})
		w := r.do("PUT", "/v1/workflows/w", row.body, "Content-Type: "+row.mediaType)
		if w.Code != 201 || r.catalogue.format != row.want {
			t.Errorf("%q %q: status %d, format %v, want %v", row.mediaType, row.body, w.Code, r.catalogue.format, row.want)
		}
	}
}

// TestOutputIsPassedOn checks the media type of outputs and that a replay is
// marked and names the first invocation.
func TestOutputIsPassedOn(t *testing.T) {
	r := newRig(t, Options{})
	for output, mediaType := range map[string]string{`{"a":1}`: typeJSON, "": typeBytes, "hello": typeBytes, "\xff": typeBytes, strings.Repeat("[", 1<<20): typeBytes} {
		r.executor.run = func(_ context.Context, req *worker.Request) worker.Reply {
			return worker.Reply{ID: req.ID, Output: []byte(output)}
		}
		w := r.do("POST", "/v1/workflows/transfer/invoke", "{}")
		if w.Code != 200 || w.Body.String() != output || w.Header().Get("Content-Type") != mediaType {
			t.Errorf("output %.20q: status %d, type %s", output, w.Code, w.Header().Get("Content-Type"))
		}
	}
	r.executor.run = nil
	for _, call := range [][3]string{
		{"POST", "/v1/workflows/transfer/invoke", "{}"}, {"POST", "/v1/txn", `{"ops":[{"op":"put","table":"t","key":"k","value":1}]}`},
		{"PUT", "/v1/state/t/p", "x"}, {"DELETE", "/v1/state/t/p", ""},
	} {
		key := "Idempotency-Key: " + call[1] + call[0]
		first := r.do(call[0], call[1], call[2], key)
		again := r.do(call[0], call[1], call[2], key)
		if first.Code != again.Code || first.Body.String() != again.Body.String() || first.Header().Get("Etag") != again.Header().Get("Etag") ||
			first.Header().Get("Tenure-Replayed") != "" || again.Header().Get("Tenure-Replayed") != "true" ||
			first.Header().Get("Tenure-Invocation") != again.Header().Get("Tenure-Invocation") {
			t.Errorf("%v: first %d %v, then %d %v", call, first.Code, first.Header(), again.Code, again.Header())
		}
	}
	if first, second := r.do("GET", "/v1/state/t/k", "", "Idempotency-Key: g"), r.do("GET", "/v1/state/t/k", "", "Idempotency-Key: g"); second.Header().Get("Tenure-Replayed") != "" ||
		first.Header().Get("Tenure-Invocation") == second.Header().Get("Tenure-Invocation") {
		t.Error("a read was replayed")
	}
}
