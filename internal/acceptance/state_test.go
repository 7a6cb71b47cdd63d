package acceptance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// TestState covers the three calls on one value, with their conditions.
func TestState(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	etag := func(r reply) string {
		t.Helper()
		if r.header.Get("Tenure-Invocation") == "" {
			t.Errorf("%s: no Tenure-Invocation", r.of)
		}
		return r.header.Get("ETag")
	}
	const path = "/v1/state/t/a/b"
	s.call(t, "GET", path, "").refused(t, 404, "not-found")
	if tag := etag(s.call(t, "PUT", path, "one\x00\xff", "If-None-Match: *").want(t, 204)); tag != `"1"` {
		t.Errorf("the first version is %s", tag)
	}
	r := s.call(t, "GET", "/v1/state/t/a%2Fb", "").gives(t, "one\x00\xff")
	if etag(r) != `"1"` || r.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("headers %v", r.header)
	}
	if r := s.call(t, "GET", path, "", `If-None-Match: "1"`).want(t, 304); r.body != "" {
		t.Errorf("304 with the body %q", r.body)
	}
	s.call(t, "PUT", path, "two", `If-Match: "1"`).want(t, 204)
	for _, refused := range []struct{ method, header string }{
		{"PUT", `If-Match: "1"`}, {"DELETE", `If-Match: "1"`}, {"PUT", "If-None-Match: *"},
	} {
		s.call(t, refused.method, path, "three", refused.header).refused(t, 412, "precondition")
	}
	s.call(t, "PUT", "/v1/state/t/absent", "x", "If-Match: *").refused(t, 412, "precondition")
	s.call(t, "PUT", path, "x", "If-Match: 2").refused(t, 400, "invalid-precondition")
	s.call(t, "GET", path, "").gives(t, "two")
	s.call(t, "DELETE", path, "", `If-Match: "2"`).want(t, 204)
	s.call(t, "DELETE", path, "").want(t, 204)
	s.call(t, "GET", path, "").refused(t, 404, "not-found")
}

func TestBulkLoad(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	var lines strings.Builder
	const count = 1500
	for i := range count {
		fmt.Fprintf(&lines, `{"table":"t","key":"k%d","value":{"n": %d}}`+"\n", i, i)
	}
	lines.WriteString("\n" + `{"table":"t","key":"text","value":"é"}` + "\n" + `{"table":"t","key":"bytes","value_base64":"/wA="}`)
	s.call(t, "POST", "/v1/state", lines.String(), "Content-Type: application/x-ndjson").gives(t, fmt.Sprintf("{\"loaded\":%d}\n", count+2))
	s.call(t, "GET", "/v1/state/t/k1499", "").gives(t, `{"n":1499}`)
	s.call(t, "GET", "/v1/state/t/text", "").gives(t, "é")
	s.call(t, "GET", "/v1/state/t/bytes", "").gives(t, "\xff\x00")

	good := `{"table":"t","key":"before","value":1}` + "\n"
	p := s.call(t, "POST", "/v1/state", good+`{"table":"t","key":"bad"}`+"\n"+`{"table":"t","key":"after","value":1}`).refused(t, 400, "invalid-ndjson")
	if p.Loaded == nil || *p.Loaded != 1 || !strings.Contains(p.Detail, "line 2") {
		t.Errorf("the problem is %+v", p)
	}
	s.call(t, "GET", "/v1/state/t/before", "").gives(t, "1")
	s.call(t, "GET", "/v1/state/t/after", "").refused(t, 404, "not-found")
}

func TestTransaction(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	const ops = `{"ops":[
		{"op":"get","table":"t","key":"a"},
		{"op":"put","table":"t","key":"a","value":"text"},
		{"op":"get","table":"t","key":"a"},
		{"op":"put","table":"t","key":"b","value":{"x": [1, 2]}},
		{"op":"get","table":"t","key":"b"},
		{"op":"put","table":"t","key":"c","value_base64":"/wA="},
		{"op":"get","table":"t","key":"c"},
		{"op":"add","table":"t","key":"n","value":41},
		{"op":"add","table":"t","key":"n","value":"1"},
		{"op":"append","table":"t","key":"l","value":"e"},
		{"op":"append","table":"t","key":"l","value":{"f": 1}},
		{"op":"delete","table":"t","key":"a"},
		{"op":"get","table":"t","key":"a"}]}`
	type result struct {
		Value       *string
		ValueBase64 *string `json:"value_base64"`
		Found       bool
		Version     int
	}
	r := s.call(t, "POST", "/v1/txn", ops, "Content-Type: application/json").want(t, 200)
	results := into[struct{ Results []result }](t, r).Results
	if len(results) != 13 || r.header.Get("Tenure-Invocation") == "" {
		t.Fatalf("headers %v, results %s", r.header, r.body)
	}
	if results[0].Found || results[0].Version != 0 || results[12].Found {
		t.Errorf("an absent value is found: %s", r.body)
	}
	for i, want := range map[int]string{2: "text", 4: `{"x":[1,2]}`} {
		if !results[i].Found || results[i].Value == nil || *results[i].Value != want {
			t.Errorf("result %d is not %q: %s", i, want, r.body)
		}
	}
	if results[6].ValueBase64 == nil || *results[6].ValueBase64 != "/wA=" || results[6].Value != nil {
		t.Errorf("bytes that are no text: %s", r.body)
	}
	s.call(t, "GET", "/v1/state/t/n", "").gives(t, "42")
	s.call(t, "GET", "/v1/state/t/l", "").gives(t, `["e",{"f":1}]`)

	for _, test := range []struct{ body, place string }{
		{`{"ops":[]}`, "ops"},
		{`{"ops":[{"op":"get","table":"t","key":"k"},{"op":"frob","table":"t","key":"k"}]}`, "ops[1].op"},
		{`{"ops":[{"op":"put","table":"t","key":"k"}]}`, "ops[0].value"},
		{`{"ops":[{"op":"put","table":"t t","key":"k","value":1}]}`, "ops[0].table"},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":1.5}]}`, "ops[0].value"},
		{`{"ops":[{"op":"get","table":"t","key":"k","if":1}]}`, "ops[0].if"},
		{`{}`, "ops"}, {`[`, ""}, {``, ""},
	} {
		if p := s.call(t, "POST", "/v1/txn", test.body).refused(t, 400, "invalid-txn"); !strings.Contains(p.Detail, test.place) {
			t.Errorf("%s: the detail does not name %s: %s", test.body, test.place, p.Detail)
		}
	}
	// One operation that cannot be done undoes the others.
	const half = `{"ops":[{"op":"put","table":"t","key":"z","value":1},{"op":"add","table":"t","key":"l","value":1}]}`
	s.call(t, "POST", "/v1/txn", half).refused(t, 422, "function-error")
	s.call(t, "GET", "/v1/state/t/z", "").refused(t, 404, "not-found")
}

func TestClusterAndLeases(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	type member struct {
		ID, Address, Provider string
		Load                  int
	}
	c := into[struct {
		View, Homes, Leases int
		Workers             []member
	}](t, s.call(t, "GET", "/v1/cluster", "").want(t, 200))
	if c.View == 0 || c.Homes == 0 || c.Leases == 0 || len(c.Workers) != 1 || c.Workers[0].ID == "" ||
		"http://"+c.Workers[0].Address != s.url || c.Workers[0].Provider == "" || c.Workers[0].Load != 0 {
		t.Errorf("the cluster is %+v", c)
	}
	l := into[lease](t, s.call(t, "GET", "/v1/leases/accounts/ann", "").want(t, 200))
	if l.Holder != c.Workers[0].ID || l.Home != l.Holder || l.Mode == "" || l.Epoch == 0 || l.Why == "" || l.Queue != 0 {
		t.Errorf("the lease is %+v", l)
	}
}

type lease struct {
	Holder, Mode, Home, Why string
	Epoch, Queue            int
}

// TestOpenCalls covers the calls that machines make.
func TestOpenCalls(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	s.call(t, "POST", "/v1/functions/hostile/log/invoke", "").want(t, 200)
	for _, test := range []struct{ path, contentType, want string }{
		{"/healthz", "application/json", `"ok"`},
		{"/readyz", "application/json", `"ok"`},
		{"/metrics", "text/plain", `tenure_invocations_total{outcome="completed",workflow="hostile/log"} 1`},
		{"/metrics", "text/plain", "tenure_invocations_local_total"},
		{"/metrics", "text/plain", "tenure_lease_pulls_total"},
		{"/metrics", "text/plain", "tenure_invocation_seconds_count"},
		{"/openapi.json", "application/json", `"/v1/functions/{name}/{handler}/invoke"`},
		{"/ui/", "text/html", "<html"},
		{"/v1/logs", "application/x-ndjson", `"message":"hello 7"`},
	} {
		r := s.call(t, "GET", test.path, "").want(t, 200)
		if !strings.HasPrefix(r.header.Get("Content-Type"), test.contentType) || !strings.Contains(r.body, test.want) {
			t.Errorf("%s: %s without %s", test.path, r.header.Get("Content-Type"), test.want)
		}
		if r := s.call(t, "HEAD", test.path, "").want(t, 200); r.body != "" {
			t.Errorf("HEAD %s has a body", test.path)
		}
	}
	if r := s.call(t, "POST", "/healthz", ""); r.refused(t, 405, "method-not-allowed").Status != 405 || r.header.Get("Allow") == "" {
		t.Errorf("headers %v", r.header)
	}
}
