package service_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/worker"
)

// executor is what gateways need and is of no interest here; the rest is nil.
type executor struct{ gateway.Executor }

func (executor) Workers() []gateway.Status        { return nil }
func (executor) Lease(base.Key) gateway.LeaseInfo { return gateway.LeaseInfo{} }

// near is a worker in the gateway's process.
type near struct {
	executor
	*worker.Worker
}

func (n near) Lease(k base.Key) gateway.LeaseInfo { return n.executor.Lease(k) }

// far is one behind its service.
type far struct {
	executor
	b *bed
}

func (f far) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	return f.b.Execute(ctx, req)
}
func (f far) Load(ctx context.Context, list []worker.Op) error { return f.b.Load(ctx, list) }
func (f far) Record(id base.InvocationID) (worker.Record, error) {
	return f.b.Record(f.b.t.Context(), id)
}
func (f far) Logs(after int64) ([]worker.LogEntry, <-chan struct{}) { return f.b.logs.After(after) }

func serve(t *testing.T, e gateway.Executor, c gateway.Catalogue) http.Handler {
	t.Helper()
	g, err := gateway.New(gateway.Options{Logger: slog.New(slog.DiscardHandler)}, e, c, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	g.Serve()
	return g.Handler()
}

// TestSameAnswers sends the same requests to a gateway whose worker and catalogue
// are in its process and to one that has a stub and a replica: users see no
// difference.
func TestSameAnswers(t *testing.T) {
	here, there := newBed(t), newBed(t)
	one := serve(t, near{Worker: here.w}, here.owner)
	two := serve(t, far{b: there}, there.here)
	ask := func(h http.Handler, method, target, body string, header []string) (*httptest.ResponseRecorder, string) {
		req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		id := w.Header().Get("Tenure-Invocation")
		text := w.Body.String()
		if id != "" {
			text = strings.ReplaceAll(text, id, "ID")
			w.Header().Set("Tenure-Invocation", "ID")
		}
		return w, text
	}
	for _, row := range []struct {
		method, target, body string
		header               []string
		status               int
	}{
		{"PUT", "/v1/functions/f", "one", nil, 201},
		{"PUT", "/v1/functions/f", "broken", nil, 400},
		{"PUT", "/v1/functions/test", "one", nil, 409},
		{"PUT", "/v1/workflows/w", "functions: {a: {function: f, handler: run}}\noutput: a", nil, 201},
		{"PUT", "/v1/workflows/w", "functions: {a: {function: f, handler: nothing}}", nil, 400},
		{"PUT", "/v1/workflows/big", strings.Repeat(" ", 6<<20+1), nil, 413},
		{"DELETE", "/v1/functions/f", "", nil, 409},
		{"DELETE", "/v1/workflows/none", "", nil, 404},
		{"POST", "/v1/workflows/w/invoke", "{}", nil, 200},
		{"POST", "/v1/workflows/none/invoke", "{}", nil, 404},
		{"POST", "/v1/functions/f/run/invoke", "{}", nil, 200},
		{"PUT", "/v1/functions/f", "two", nil, 201},
		{"POST", "/v1/workflows/w/invoke", "{}", nil, 200},
		{"POST", "/v1/functions/test/abort/invoke", "{}", nil, 409},
		{"POST", "/v1/functions/test/panic/invoke", "{}", nil, 422},
		{"POST", "/v1/functions/test/bytes/invoke", "{}", nil, 200},
		{"POST", "/v1/functions/test/count/invoke", "{}", []string{"Idempotency-Key: a"}, 200},
		{"POST", "/v1/functions/test/count/invoke", "{}", []string{"Idempotency-Key: a"}, 200},
		{"POST", "/v1/functions/test/count/invoke", "{ }", []string{"Idempotency-Key: a"}, 422},
		{"PUT", "/v1/state/t/k", "v", nil, 204},
		{"PUT", "/v1/state/t/k", "w", []string{"Idempotency-Key: b"}, 204},
		{"PUT", "/v1/state/t/k", "w", []string{"Idempotency-Key: b"}, 204},
		{"PUT", "/v1/state/t/k", "x", []string{"If-None-Match: *"}, 412},
		{"GET", "/v1/state/t/k", "", nil, 200},
		{"GET", "/v1/state/t/n", "", nil, 200},
		{"GET", "/v1/state/t/none", "", nil, 404},
		{"DELETE", "/v1/state/t/k", "", []string{`If-Match: "2"`}, 204},
		{"POST", "/v1/state", `{"table":"t","key":"l","value":1}`, nil, 200},
		{"POST", "/v1/txn", `{"ops":[{"op":"put","table":"t","key":"x","value":"<\u00e9>"},{"op":"add","table":"t","key":"n","value":2},{"op":"get","table":"t","key":"x"}]}`, []string{"Idempotency-Key: c"}, 200},
		{"POST", "/v1/txn", `{"ops":[{"op":"put","table":"t","key":"x","value":"<\u00e9>"},{"op":"add","table":"t","key":"n","value":2},{"op":"get","table":"t","key":"x"}]}`, []string{"Idempotency-Key: c"}, 200},
		{"POST", "/v1/txn", `{"ops":[{"op":"add","table":"t","key":"x","value":2}]}`, nil, 422},
	} {
		what := row.method + " " + row.target
		a, aText := ask(one, row.method, row.target, row.body, row.header)
		b, bText := ask(two, row.method, row.target, row.body, row.header)
		if a.Code != row.status || b.Code != row.status || aText != bText {
			t.Errorf("%s: %d %q with a worker here, %d %q with one elsewhere, want %d", what, a.Code, aText, b.Code, bText, row.status)
		}
		for _, name := range []string{"Content-Type", "Etag", "Retry-After", "Tenure-Replayed", "Tenure-Invocation"} {
			if here, there := a.Header().Get(name), b.Header().Get(name); here != there {
				t.Errorf("%s: %s is %q with a worker here, %q with one elsewhere", what, name, here, there)
			}
		}
	}
}

var _ gateway.Catalogue = (*leasemgr.Replica)(nil)
