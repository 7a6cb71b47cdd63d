package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

const (
	invokePath = "/v1/workflows/transfer/invoke"
	getTxn     = `{"ops":[{"op":"get","table":"t","key":"k"}]}`
)

// TestTokens shows who may do what.
func TestTokens(t *testing.T) {
	for _, row := range []struct {
		header, method, path string
		status               int
	}{
		{"X: y", "GET", "/v1/cluster", 401},
		{"X: y", "POST", invokePath, 401},
		{"X: y", "GET", "/v1/unknown", 401},
		{"X: y", "GET", "/v1//x", 401},
		{"Authorization: Bearer full", "POST", invokePath, 200},
		{"Authorization: bearer full", "GET", "/v1/cluster", 200},
		{"Authorization: Bearer read", "GET", "/v1/cluster", 200},
		{"Authorization: Bearer read", "HEAD", "/v1/state/t/k", 404},
		{"Authorization: Bearer read", "POST", invokePath, 403},
		{"Authorization: Bearer read", "PUT", "/v1/state/t/k", 403},
		{"Authorization: Bearer read", "DELETE", "/v1/functions/bank", 403},
		{"Authorization: Bearer fulL", "GET", "/v1/cluster", 401},
		{"Authorization: Bearer ", "GET", "/v1/cluster", 401},
		{"Authorization: Basic full", "GET", "/v1/cluster", 401},
		{"Authorization: full", "GET", "/v1/cluster", 401},
		{"X: y", "GET", "/healthz", 200},
		{"X: y", "GET", "/readyz", 200},
		{"X: y", "GET", "/metrics", 200},
		{"X: y", "GET", "/openapi.json", 200},
		{"X: y", "GET", "/ui/", 200},
	} {
		r := newRig(t, Options{Token: "full", ReadToken: "read"})
		w := r.do(row.method, row.path, "", row.header)
		word(t, w)
		if w.Code != row.status || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %s %s: status %d, want %d", row.header, row.method, row.path, w.Code, row.status)
		}
	}
	// Without a read token an empty one is not a token.
	if w := newRig(t, Options{Token: "full"}).do("GET", "/v1/cluster", "", "Authorization: Bearer  "); w.Code != 401 {
		t.Errorf("status %d", w.Code)
	}
}

// TestCrossOrigin refuses what a page of another origin makes a browser send.
func TestCrossOrigin(t *testing.T) {
	r := newRig(t, Options{})
	for header, status := range map[string]int{
		"Sec-Fetch-Site: cross-site": 403, "Sec-Fetch-Site: same-origin": 200, "Origin: http://evil.example": 403, "Origin: http://example.com": 200,
	} {
		w := r.do("POST", invokePath, "", header)
		if word(t, w); w.Code != status {
			t.Errorf("%s: status %d, want %d", header, w.Code, status)
		}
	}
}

// TestPanics checks that a panic becomes a problem without a stack trace,
// is logged, and ends what it was counted as.
func TestPanics(t *testing.T) {
	r := newRig(t, Options{})
	r.executor.run = func(context.Context, *worker.Request) worker.Reply { panic("kaboom") }
	w := r.do("POST", invokePath, "{}")
	if word(t, w) != "internal" || strings.Contains(w.Body.String(), "kaboom") {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
	if !strings.Contains(r.log.String(), "kaboom") || !strings.Contains(r.log.String(), w.Header().Get("Tenure-Invocation")) {
		t.Errorf("the log has: %s", r.log)
	}
	if r.inFlight.Load() != 0 {
		t.Error("the invocation is still counted")
	}
}

// TestStates walks a gateway from starting to drained.
func TestStates(t *testing.T) {
	g, err := New(Options{}, newFakeExecutor(), newFakeCatalogue(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Gateway: g}
	refused := func(when string) {
		t.Helper()
		for _, call := range [][3]string{{"GET", "/readyz", ""}, {"POST", invokePath, ""}, {"POST", "/v1/txn", getTxn}, {"GET", "/v1/state/t/k", ""}, {"POST", "/v1/state", ""}} {
			if w := r.do(call[0], call[1], call[2]); w.Code != 503 || word(t, w) != "unavailable" {
				t.Errorf("%s: %s is answered %d", when, call[1], w.Code)
			}
		}
		for _, path := range []string{"/healthz", "/v1/cluster", "/metrics"} {
			if w := r.do("GET", path, ""); w.Code != 200 {
				t.Errorf("%s: %s is answered %d", when, path, w.Code)
			}
		}
	}
	refused("starting")
	g.Serve()
	if w := r.do("GET", "/readyz", ""); w.Code != 200 {
		t.Errorf("serving: /readyz is answered %d", w.Code)
	}
	if w := r.do("POST", invokePath, ""); w.Code != 200 {
		t.Errorf("serving: invoke is answered %d", w.Code)
	}
	if err := g.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	refused("drained")
	g.Serve()
	refused("after a late Serve")
	if err := g.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDrainWaits drains while an invocation runs whose client has left: Drain
// waits for it, and it is not cancelled.
func TestDrainWaits(t *testing.T) {
	r := newRig(t, Options{MaxInFlight: 1})
	running, release := make(chan context.Context), make(chan struct{})
	r.executor.run = func(ctx context.Context, req *worker.Request) worker.Reply {
		running <- ctx
		<-release
		return worker.Reply{ID: req.ID, Output: []byte("{}")}
	}
	address := r.listen(t)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+address+invokePath, nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		w, err := http.DefaultClient.Do(req)
		if err == nil {
			err = w.Body.Close()
		}
		left <- err
	}()
	invocation := <-running
	if w := r.do("POST", invokePath, ""); w.Code != 429 || word(t, w) != "overloaded" {
		t.Errorf("one more is answered %d", w.Code)
	}
	hangUp()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Drain(expired); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain returned %v with an invocation running", err)
	}
	if invocation.Err() != nil {
		t.Errorf("the invocation was ended by its client or by Drain: %v", invocation.Err())
	}
	close(release)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDeadlineEndsInvocation checks that the executor's context ends at the
// deadline.
func TestDeadlineEndsInvocation(t *testing.T) {
	r := newRig(t, Options{})
	r.executor.run = func(ctx context.Context, req *worker.Request) worker.Reply {
		<-ctx.Done()
		return worker.Reply{ID: req.ID, Err: asError(ctx.Err())}
	}
	w := r.do("POST", invokePath, "", "Tenure-Timeout: 1ms")
	if p := problem(t, w.Header(), w.Code, w.Body.Bytes()); w.Code != 504 || !strings.Contains(p.Detail, "unknown: ask again with the same Idempotency-Key") {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
}

// TestFollowLogs follows the log over a real connection until the gateway
// drains.
func TestFollowLogs(t *testing.T) {
	r := newRig(t, Options{})
	address := r.listen(t)
	r.executor.log("other", "skipped")
	r.executor.log("transfer", "one")
	w, err := http.Get("http://" + address + "/v1/logs?follow=true&workflow=transfer")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(w.Body)
	next := func() (line logLine) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the log ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	}
	if line := next(); line.Seq != 2 || line.Message != "one" || line.Workflow != "transfer" {
		t.Errorf("line %+v", line)
	}
	for _, message := range []string{"two", "three"} {
		r.executor.log("transfer", message)
		if line := next(); line.Message != message {
			t.Errorf("line %+v", line)
		}
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() {
		t.Errorf("after Drain came %s", lines.Text())
	}
	if err := w.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if body := r.do("GET", "/v1/logs?after=2", "").Body.String(); strings.Count(body, "\n") != 2 {
		t.Errorf("after=2: %s", body)
	}
}

// TestMetrics checks that outcomes are counted and that the number of labels
// is bounded.
func TestMetrics(t *testing.T) {
	r := newRig(t, Options{})
	r.do("POST", invokePath, "", "Idempotency-Key: k")
	r.do("POST", invokePath, "", "Idempotency-Key: k")
	r.do("POST", "/v1/functions/bank/deposit/invoke", "")
	r.do("POST", "/v1/txn", getTxn)
	r.do("POST", "/v1/workflows/unknown/invoke", "")
	metrics := r.do("GET", "/metrics", "").Body.String()
	for _, line := range []string{
		`tenure_invocations_total{outcome="completed",workflow="transfer"} 1`,
		`tenure_invocations_total{outcome="replayed",workflow="transfer"} 1`,
		`tenure_invocations_total{outcome="completed",workflow="bank/deposit"} 1`,
		`tenure_invocations_total{outcome="completed",workflow="txn"} 1`,
		`tenure_invocations_local_total 11`, `tenure_lease_pulls_total 13`, `tenure_invocation_seconds_count 4`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if strings.Contains(metrics, "unknown") {
		t.Error("a workflow that does not exist has a label")
	}
	for i := range 2 * maxSeries {
		r.metrics.series(strings.Repeat("w", i%100)+time.Duration(i).String()).count(r.metrics, outcomeCompleted)
	}
	metrics = r.do("GET", "/metrics", "").Body.String()
	if n := strings.Count(metrics, "tenure_invocations_total{"); n > maxSeries+2 || !strings.Contains(metrics, `workflow="other"`) {
		t.Errorf("there are %d series", n)
	}
}

// TestOptions shows which options are refused, and that the text of options
// does not have the tokens.
func TestOptions(t *testing.T) {
	for _, row := range []struct {
		opt  Options
		want string
	}{
		{Options{}, ""},
		{Options{Token: "s3cret", ReadToken: "r3ad"}, ""},
		{Options{MaxOps: -1, Timeout: -1}, "MaxOps is -1"},
		{Options{MaxOps: -1, Timeout: -1}, "Timeout is -1ns"},
		{Options{ReadToken: "r3ad"}, "nobody could write"},
		{Options{Token: "same", ReadToken: "same"}, "it would allow writes"},
		{Options{MaxKeyBytes: 2000}, "the key format allows 1024"},
		{Options{Timeout: time.Hour}, "longer than MaxTimeout"},
		{Options{MaxTimeout: time.Hour}, "WriteTimeout"},
	} {
		_, err := New(row.opt, newFakeExecutor(), newFakeCatalogue(), prometheus.NewRegistry())
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %q", row.opt, err, row.want)
		}
		asJSON, jsonErr := json.Marshal(Options{Token: row.opt.Token, ReadToken: row.opt.ReadToken})
		if text := row.opt.String() + string(asJSON); jsonErr != nil || strings.Contains(text, "s3cret") || strings.Contains(text, "r3ad") {
			t.Errorf("the text shows a token: %s, %v", text, jsonErr)
		}
	}
	if _, err := New(Options{}, newFakeExecutor(), newFakeCatalogue(), nil); err == nil {
		t.Error("a missing registry is accepted")
	}
	registry := prometheus.NewRegistry()
	for _, want := range []bool{true, false} {
		if _, err := New(Options{}, newFakeExecutor(), newFakeCatalogue(), registry); (err == nil) != want {
			t.Errorf("registering: %v", err)
		}
	}
}

// TestIsolate checks that the query of a deployment reaches the catalogue.
func TestIsolate(t *testing.T) {
	r := newRig(t, Options{})
	for query, want := range map[string]bool{"?isolate=true": true, "?isolate=false": false, "": false} {
		if w := r.do("PUT", "/v1/functions/f"+strings.ReplaceAll(query, "?", "?x=1&"), "\x00asm"+query); w.Code != 201 || r.catalogue.isolate != want {
			t.Errorf("%q: status %d, isolate %t", query, w.Code, r.catalogue.isolate)
		}
	}
	if first, again := r.do("PUT", "/v1/functions/g", "\x00asm"), r.do("PUT", "/v1/functions/g", "\x00asm"); first.Code != 201 || again.Code != 200 || first.Body.String() != again.Body.String() {
		t.Errorf("deployed twice: %d, %d", first.Code, again.Code)
	}
	if w := r.do("DELETE", "/v1/functions/g", ""); w.Code != 204 {
		t.Errorf("removed: %d", w.Code)
	}
}

// TestOpenAPIHasEveryRow compares /openapi.json with the API's own table.
func TestOpenAPIHasEveryRow(t *testing.T) {
	var spec struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			RequestBody *struct{ Content map[string]any }
			Parameters  []struct{ Name, In string }
			Responses   map[string]struct {
				Content map[string]any
				Headers map[string]any
			}
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(newRig(t, Options{}).do("GET", "/openapi.json", "").Body.Bytes(), &spec); err != nil {
		t.Fatal(err)
	}
	if spec.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", spec.OpenAPI)
	}
	invocation := []string{"400", "401", "403", "429", "500", "503", "504"}
	rows := []struct {
		method, path string
		statuses     []string
	}{
		{"put", "/v1/functions/{name}", []string{"200", "201", "400", "413"}},
		{"get", "/v1/functions", []string{"200"}},
		{"get", "/v1/functions/{name}", []string{"200", "404"}},
		{"delete", "/v1/functions/{name}", []string{"204", "404", "409"}},
		{"put", "/v1/workflows/{name}", []string{"200", "201", "400", "413"}},
		{"get", "/v1/workflows", []string{"200"}},
		{"get", "/v1/workflows/{name}", []string{"200", "404"}},
		{"delete", "/v1/workflows/{name}", []string{"204", "404"}},
		{"post", "/v1/workflows/{name}/invoke", append([]string{"200", "404", "409", "413", "422"}, invocation...)},
		{"post", "/v1/functions/{name}/{handler}/invoke", append([]string{"200", "404", "409", "413", "422"}, invocation...)},
		{"get", "/v1/invocations/{id}", []string{"200", "404"}},
		{"get", "/v1/state/{table}/{key}", append([]string{"200", "404"}, invocation...)},
		{"put", "/v1/state/{table}/{key}", append([]string{"204", "412", "413", "422"}, invocation...)},
		{"delete", "/v1/state/{table}/{key}", append([]string{"204", "412", "422"}, invocation...)},
		{"post", "/v1/state", []string{"200", "400", "413", "429", "503", "504"}},
		{"post", "/v1/txn", append([]string{"200", "413", "422"}, invocation...)},
		{"get", "/v1/cluster", []string{"200"}},
		{"get", "/v1/leases/{table}/{key}", []string{"200"}},
		{"post", "/v1/workers/{name}/drain", []string{"204", "404", "409", "504"}},
		{"get", "/v1/logs", []string{"200"}},
		{"get", "/healthz", []string{"200"}},
		{"get", "/readyz", []string{"200", "503"}},
		{"get", "/metrics", []string{"200"}},
		{"get", "/openapi.json", []string{"200"}},
		{"get", "/ui/", []string{"200"}},
		{"get", "/ui", []string{"200"}},
	}
	described := 0
	for _, methods := range spec.Paths {
		described += len(methods)
	}
	if described != len(rows) {
		t.Errorf("%d operations are described, the table has %d", described, len(rows))
	}
	for _, row := range rows {
		op, ok := spec.Paths[row.path][row.method]
		if !ok {
			t.Errorf("%s %s is not described", row.method, row.path)
			continue
		}
		drain := strings.HasSuffix(row.path, "/drain") // no invocation, and no body
		for _, status := range row.statuses {
			answer, ok := op.Responses[status]
			switch {
			case !ok:
				t.Errorf("%s %s: status %s is not described", row.method, row.path, status)
			case status >= "400" && answer.Content[typeProblem] == nil:
				t.Errorf("%s %s: status %s is not described as a problem", row.method, row.path, status)
			case (status == "429" || status == "503") && answer.Headers["Retry-After"] == nil:
				t.Errorf("%s %s: status %s has no Retry-After", row.method, row.path, status)
			case slices.Contains(row.statuses, "504") && row.path != "/v1/state" && !drain && answer.Headers["Tenure-Invocation"] == nil:
				t.Errorf("%s %s: status %s has no Tenure-Invocation", row.method, row.path, status)
			}
		}
		for _, part := range strings.Split(row.path, "/") {
			if name, ok := strings.CutPrefix(part, "{"); ok && !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.In == "path" && p.Name+"}" == name }) {
				t.Errorf("%s %s: parameter %s is not described", row.method, row.path, part)
			}
		}
		if (row.method == "put" || row.method == "post" && !drain) != (op.RequestBody != nil) {
			t.Errorf("%s %s: the body is not described", row.method, row.path)
		}
	}
	if spec.Components.Schemas["Problem"] == nil || spec.Components.Schemas["TxnBody"] == nil {
		t.Error("schemas are missing")
	}
}

// TestPage checks that the page's policy covers its own script and style.
func TestPage(t *testing.T) {
	w := newRig(t, Options{}).do("GET", "/ui/", "")
	policy := w.Header().Get("Content-Security-Policy")
	if strings.Count(policy, "'sha256-") != 2 || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("policy %s", policy)
	}
	page := w.Body.String()
	for _, tag := range []string{"<script", "<style", "</script>", "</style>"} {
		if strings.Count(page, tag) != 1 {
			t.Errorf("the page has %d of %s", strings.Count(page, tag), tag)
		}
	}
	for _, inline := range []string{" onclick=", " style=", "javascript:", "innerHTML"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %s, which the policy forbids or scripts could abuse", inline)
		}
	}
}

// TestErrorsOfOthers maps errors that are no *base.Error.
func TestErrorsOfOthers(t *testing.T) {
	for err, want := range map[error]base.Kind{context.DeadlineExceeded: base.Timeout, errors.New("x"): base.Internal, &loadError{err: base.Errorf(base.Conflict, "x")}: base.Conflict} {
		if got := asError(err).Kind; got != want {
			t.Errorf("%v is %v", err, got)
		}
	}
}
