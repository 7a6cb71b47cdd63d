package acceptance

import (
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/node"
)

// TestInvalid is the row 400: the words that no other test has.
func TestInvalid(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	const invoke = "/v1/functions/hostile/echo/invoke"
	for _, test := range []struct{ method, path, body, header, word string }{
		{"POST", invoke, "{", "", "invalid-input"},
		{"POST", invoke, "{} {}", "", "invalid-input"},
		{"POST", "/v1/workflows/transfer/invoke", `{"to":"bob"}`, "", "invalid-input"},
		{"POST", invoke, "", "Tenure-Timeout: soon", "invalid-timeout"},
		{"POST", invoke, "", "Tenure-Timeout: -1s", "invalid-timeout"},
		{"POST", invoke, "", "Tenure-Timeout: 24h", "invalid-timeout"},
		{"POST", invoke, "", "Idempotency-Key: " + strings.Repeat("k", 257), "invalid-idempotency-key"},
		{"POST", "/v1/functions/a%20b/echo/invoke", "", "", "invalid-name"},
		{"GET", "/v1/state/t/a//b", "", "", "invalid-key"},
		{"PUT", "/v1/functions/hostile?isolate=maybe", "", "", "invalid-query"},
	} {
		r := s.call(t, test.method, test.path, test.body, test.header)
		r.refused(t, 400, test.word)
		if invokes := strings.HasSuffix(test.path, "/invoke"); invokes && r.header.Get("Tenure-Invocation") == "" {
			t.Errorf("%s: no Tenure-Invocation", r.of)
		}
	}
	s.serves(t)
}

// TestCredentials are the rows 401 and 403.
func TestCredentials(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{Gateway: gateway.Options{Token: "full", ReadToken: "read"}})
	for _, test := range []struct {
		method, path, token string
		status              int
		word                string
	}{
		{"GET", "/v1/cluster", "", 401, "unauthorized"},
		{"GET", "/v1/cluster", "wrong", 401, "unauthorized"},
		{"PUT", "/v1/state/t/k", "", 401, "unauthorized"},
		{"POST", "/v1/txn", "wrong", 401, "unauthorized"},
		{"GET", "/v1/state/t/k", "read", 404, "not-found"},
		{"GET", "/v1/cluster", "read", 200, ""},
		{"PUT", "/v1/state/t/k", "read", 403, "forbidden"},
		{"PUT", "/v1/functions/f", "read", 403, "forbidden"},
		{"POST", "/v1/workflows/w/invoke", "read", 403, "forbidden"},
		{"PUT", "/v1/state/t/k", "full", 204, ""},
		{"GET", "/healthz", "", 200, ""},
		{"GET", "/metrics", "", 200, ""},
	} {
		var header []string
		if test.token != "" {
			header = append(header, "Authorization: Bearer "+test.token)
		}
		r := s.call(t, test.method, test.path, "", header...).want(t, test.status)
		if test.word != "" {
			r.refused(t, test.status, test.word)
		}
		if (test.status == 401) != (r.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: status %d, WWW-Authenticate %q", r.of, r.status, r.header.Get("WWW-Authenticate"))
		}
	}
	s.call(t, "PUT", "/v1/state/t/k", "", "Authorization: Bearer full", "Sec-Fetch-Site: cross-site").refused(t, 403, "forbidden")
}

// TestNotFound is the row 404.
func TestNotFound(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	for _, path := range []string{
		"GET /v1/functions/casino", "GET /v1/workflows/casino", "POST /v1/functions/casino/echo/invoke",
		"POST /v1/functions/hostile/casino/invoke", "POST /v1/workflows/casino/invoke", "GET /v1/state/t/casino",
		"GET /v1/invocations/" + strings.Repeat("0", 26), "GET /casino", "GET /",
	} {
		method, path, _ := strings.Cut(path, " ")
		s.call(t, method, path, "").refused(t, 404, "not-found")
	}
	s.serves(t)
}

// TestAborted is the row 409: the reason is the function's, and what an earlier
// step wrote is gone.
func TestAborted(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	s.call(t, "PUT", "/v1/state/accounts/ann", "10").want(t, 204)
	const tooMuch = `{"from":"ann","to":"bob","amount":11}`
	r := s.call(t, "POST", "/v1/workflows/transfer/invoke", tooMuch, "Idempotency-Key: rent")
	if p := r.refused(t, 409, "aborted"); p.Reason != "insufficient funds" {
		t.Errorf("the reason is %q", p.Reason)
	}
	const giveBack = `{"functions":{"withdraw":{"function":"hostile","writes":["accounts/{from}"]},
		"refuse":{"function":"hostile","handler":"fail","after":["withdraw"]}}}`
	s.call(t, "PUT", "/v1/workflows/regret", giveBack).want(t, 201)
	p := s.call(t, "POST", "/v1/workflows/regret/invoke", `{"from":"ann","amount":3}`).refused(t, 409, "aborted")
	if p.Reason != "I would rather not" {
		t.Errorf("the reason is %q", p.Reason)
	}
	s.call(t, "GET", "/v1/state/accounts/ann", "").gives(t, "10")
	// An abort is an outcome: its key replays it though the money is there now.
	s.call(t, "PUT", "/v1/state/accounts/ann", "1000").want(t, 204)
	again := s.call(t, "POST", "/v1/workflows/transfer/invoke", tooMuch, "Idempotency-Key: rent")
	again.refused(t, 409, "aborted")
	if again.header.Get("Tenure-Replayed") != "true" || again.header.Get("Tenure-Invocation") != r.header.Get("Tenure-Invocation") {
		t.Errorf("the second answer has the headers %v", again.header)
	}
}

// TestTooLarge is the row 413 with the default limits, one byte over and not.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{Gateway: gateway.Options{MaxModuleBytes: 4 << 20}})
	big := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/v1/state/t/" + big(1<<10), "v", 204},
		{"PUT", "/v1/state/t/" + big(1<<10+1), "v", 413},
		{"GET", "/v1/leases/t/" + big(1<<10+1), "", 413},
		{"PUT", "/v1/state/t/k", big(1 << 20), 204},
		{"PUT", "/v1/state/t/k", big(1<<20 + 1), 413},
		{"POST", "/v1/txn", `{"ops":[{"op":"put","table":"t","key":"k","value":"` + big(1<<20+1) + `"}]}`, 413},
		{"POST", "/v1/txn", `{"ops":[{"op":"get","table":"t","key":"` + big(1<<10+1) + `"}]}`, 413},
		{"POST", "/v1/state", `{"table":"t","key":"k","value":"` + big(1<<20+1) + `"}`, 413},
		{"POST", "/v1/functions/hostile/echo/invoke", `"` + big(6<<20-2) + `"`, 200},
		{"POST", "/v1/functions/hostile/echo/invoke", `"` + big(6<<20-1) + `"`, 413},
		{"PUT", "/v1/workflows/w", big(6<<20 + 1), 413},
		{"PUT", "/v1/functions/f", big(4<<20 + 1), 413},
	} {
		if r := s.call(t, test.method, test.path, test.body).want(t, test.status); test.status == 413 {
			r.refused(t, 413, "too-large")
		}
	}
	s.serves(t)
}

// TestFunctionErrors is the row 422 for functions that break a rule; those that
// crash are in functions_test.go.
func TestFunctionErrors(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	// A value that a function writes over the limit is not the client's fault.
	r := s.call(t, "POST", "/v1/functions/hostile/large/invoke", "")
	if p := r.refused(t, 422, "function-error"); !strings.Contains(p.Detail, "2097152 bytes") {
		t.Errorf("the detail is %s", p.Detail)
	}
	s.call(t, "GET", "/v1/state/t/large", "").refused(t, 404, "not-found")
	s.serves(t)
}

// TestIdempotency covers the other 422 and what the header does: one effect, the
// first answer again, for every call that takes it.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	for _, test := range []struct{ name, method, path, body, other string }{
		{"workflow", "POST", "/v1/workflows/transfer/invoke", `{"from":"ann","to":"bob","amount":1}`, `{"from":"ann","to":"bob","amount":2}`},
		{"handler", "POST", "/v1/functions/hostile/open/invoke", `{"account":"cy","amount":1}`, `{"account":"cy","amount":2}`},
		{"txn", "POST", "/v1/txn", `{"ops":[{"op":"add","table":"t","key":"n","value":1}]}`, `{"ops":[{"op":"add","table":"t","key":"n","value":2}]}`},
		{"put", "PUT", "/v1/state/t/put", "1", "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.call(t, "PUT", "/v1/state/accounts/ann", "10").want(t, 204)
			key := "Idempotency-Key: key of " + test.name
			first := s.call(t, test.method, test.path, test.body, key)
			if first.status >= 300 || first.header.Get("Tenure-Replayed") != "" {
				t.Fatalf("status %d, %v: %s", first.status, first.header, first.body)
			}
			again := s.call(t, test.method, test.path, test.body, key).want(t, first.status)
			if again.body != first.body || again.header.Get("Tenure-Replayed") != "true" || again.header.Get("ETag") != first.header.Get("ETag") ||
				again.header.Get("Tenure-Invocation") != first.header.Get("Tenure-Invocation") {
				t.Errorf("again: %v %s, first: %v %s", again.header, again.body, first.header, first.body)
			}
			s.call(t, test.method, test.path, test.other, key).refused(t, 422, "idempotency-mismatch")
		})
	}
	for path, want := range map[string]string{"accounts/ann": "10", "accounts/bob": "1", "accounts/cy": "1", "t/n": "1", "t/put": "1"} {
		s.call(t, "GET", "/v1/state/"+path, "").gives(t, want)
	}
	s.call(t, "DELETE", "/v1/state/t/put", "", "Idempotency-Key: delete").want(t, 204)
	s.call(t, "PUT", "/v1/state/t/put", "new").want(t, 204)
	if r := s.call(t, "DELETE", "/v1/state/t/put", "", "Idempotency-Key: delete").want(t, 204); r.header.Get("Tenure-Replayed") != "true" {
		t.Errorf("headers %v", r.header)
	}
	s.call(t, "GET", "/v1/state/t/put", "").gives(t, "new")
}
