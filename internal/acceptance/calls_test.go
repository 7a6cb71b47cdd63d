package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// deployed is the answer to a deployment.
type deployed struct {
	Name, Version string
	Handlers      []string
}

func TestDeployFunction(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	module := must(t, module1)
	sum := sha256.Sum256([]byte(module))
	first := into[deployed](t, s.deploy(t, module, "").want(t, 201))
	if first.Name != "hostile" || first.Version != hex.EncodeToString(sum[:]) ||
		!slices.IsSorted(first.Handlers) || !slices.Contains(first.Handlers, "withdraw") {
		t.Errorf("deployed %+v", first)
	}
	again := into[deployed](t, s.deploy(t, module, "").want(t, 200))
	if again.Version != first.Version {
		t.Errorf("the same bytes are version %s and then %s", first.Version, again.Version)
	}
	s.call(t, "POST", "/v1/functions/hostile/version/invoke", "").gives(t, "1")
	second := into[deployed](t, s.deploy(t, must(t, module2), "").want(t, 201))
	if second.Version == first.Version {
		t.Error("other bytes are the same version")
	}
	s.call(t, "POST", "/v1/functions/hostile/version/invoke", "").gives(t, "2")
	s.call(t, "PUT", "/v1/functions/hostile", module, "Content-Type: application/json").refused(t, 400, "invalid-module")
}

func TestListShowAndRemoveFunctions(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	type shown struct {
		Name, Version, Runtime string
		Handlers               []string
		Isolate                bool
		Versions               []struct{ Version, Deployed string }
	}
	list := func() []shown {
		return into[struct{ Functions []shown }](t, s.call(t, "GET", "/v1/functions", "").want(t, 200)).Functions
	}
	if l := list(); len(l) != 0 {
		t.Errorf("a new server has the functions %v", l)
	}
	first := into[deployed](t, s.deploy(t, must(t, module1), "").want(t, 201))
	second := into[deployed](t, s.deploy(t, must(t, module2), "?isolate=true").want(t, 201))
	one := into[shown](t, s.call(t, "GET", "/v1/functions/hostile", "").want(t, 200))
	if one.Version != second.Version || one.Runtime != "wasm" || !one.Isolate || len(one.Handlers) == 0 ||
		len(one.Versions) != 2 || one.Versions[0].Version != first.Version || one.Versions[1].Version != second.Version {
		t.Errorf("the function is %+v", one)
	}
	if l := list(); len(l) != 1 || l[0].Version != second.Version {
		t.Errorf("the functions are %+v", l)
	}

	s.call(t, "PUT", "/v1/workflows/transfer", transfer).want(t, 201)
	if p := s.call(t, "DELETE", "/v1/functions/hostile", "").refused(t, 409, "in-use"); !strings.Contains(p.Detail, "transfer") {
		t.Errorf("the detail does not name the workflow: %s", p.Detail)
	}
	s.call(t, "DELETE", "/v1/workflows/transfer", "").want(t, 204)
	s.call(t, "DELETE", "/v1/functions/hostile", "").want(t, 204)
	for _, method := range []string{"GET", "DELETE"} {
		s.call(t, method, "/v1/functions/hostile", "").refused(t, 404, "not-found")
	}
	s.call(t, "POST", "/v1/functions/hostile/echo/invoke", "").refused(t, 404, "not-found")
}

func TestDefineWorkflow(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	s.deploy(t, must(t, module1), "").want(t, 201)
	const asJSON = `{"functions":{"a":{"function":"hostile","handler":"echo"}},"output":"a"}`
	const asYAML = "functions:\n  a: {function: hostile, handler: echo}   # a comment\noutput: a\n"
	put := func(body, contentType string, status, revision int) {
		t.Helper()
		r := s.call(t, "PUT", "/v1/workflows/w", body, "Content-Type: "+contentType).want(t, status)
		got := into[struct {
			Name     string
			Revision int
		}](t, r)
		if got.Name != "w" || got.Revision != revision {
			t.Errorf("%s: %+v, want revision %d", body, got, revision)
		}
	}
	put(asJSON, "application/json", 201, 1)
	put(asYAML, "application/yaml", 200, 1) // the same definition
	put(asYAML+"timeout: 5s\n", "text/plain", 200, 2)
	s.call(t, "POST", "/v1/workflows/w/invoke", `{"x":1}`).gives(t, `{"x":1}`)

	for _, test := range []struct{ definition, place string }{
		{`{"functions":{"a":{"function":"casino"}}}`, "functions.a.function"},
		{`{"functions":{"a":{"function":"hostile"}}}`, "functions.a.handler"},
		{`{"functions":{"echo":{"function":"hostile","after":["count"]},"count":{"function":"hostile","after":["echo"]}}}`, "count"},
		{`{"functions":{"echo":{"function":"hostile","writes":["accounts/{from"]}}}`, "functions.echo.writes[0]"},
		{`{"functions":{"echo":{"function":"hostile","writes":["accounts"]}}}`, "functions.echo.writes[0]"},
		{`{"functions":{"echo":{"function":"hostile"}},"output":"nothing"}`, "output"},
		{`{"kind":"saga","functions":{"echo":{"function":"hostile"}}}`, "kind"},
		{`{"functions":{"echo":{"function":"hostile","wrties":["a/b"]}}}`, "functions.echo.wrties"},
		{"functions: [", ""}, {"", ""}, {"hello", ""}, {`{"functions":`, ""},
	} {
		p := s.call(t, "PUT", "/v1/workflows/w", test.definition).refused(t, 400, "invalid-workflow")
		if !strings.Contains(p.Detail, test.place) {
			t.Errorf("%s: the detail does not name %s: %s", test.definition, test.place, p.Detail)
		}
	}
	s.call(t, "POST", "/v1/workflows/w/invoke", `{"x":2}`).gives(t, `{"x":2}`)
}

func TestListShowAndRemoveWorkflows(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	type shown struct {
		Name       string
		Revision   int
		Definition json.RawMessage
	}
	one := into[shown](t, s.call(t, "GET", "/v1/workflows/transfer", "").want(t, 200))
	if one.Name != "transfer" || one.Revision != 1 || !strings.Contains(string(one.Definition), `"withdraw"`) {
		t.Errorf("the workflow is %+v", one)
	}
	all := into[struct{ Workflows []shown }](t, s.call(t, "GET", "/v1/workflows", "").want(t, 200)).Workflows
	if len(all) != 1 || string(all[0].Definition) != string(one.Definition) {
		t.Errorf("the workflows are %+v", all)
	}
	// What is shown can be put again.
	s.call(t, "PUT", "/v1/workflows/copy", string(one.Definition), "Content-Type: application/json").want(t, 201)
	s.call(t, "DELETE", "/v1/workflows/transfer", "").want(t, 204)
	for _, r := range []reply{
		s.call(t, "GET", "/v1/workflows/transfer", ""), s.call(t, "DELETE", "/v1/workflows/transfer", ""),
		s.call(t, "POST", "/v1/workflows/transfer/invoke", ""),
	} {
		r.refused(t, 404, "not-found")
	}
}

func TestInvokeWorkflow(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	s.call(t, "PUT", "/v1/state/accounts/ann", "100").want(t, 204)
	r := s.call(t, "POST", "/v1/workflows/transfer/invoke", `{"from":"ann","to":"bob","amount":30}`).
		gives(t, `{"from_balance":70,"to_balance":30}`)
	if r.header.Get("Content-Type") != "application/json" || len(r.header.Get("Tenure-Invocation")) != 26 || r.header.Get("Tenure-Replayed") != "" {
		t.Errorf("headers %v", r.header)
	}
	s.call(t, "GET", "/v1/state/accounts/ann", "").gives(t, "70")
	s.call(t, "GET", "/v1/state/accounts/bob", "").gives(t, "30")
	// Without `output` the answer has every step's.
	s.call(t, "PUT", "/v1/workflows/all", strings.Replace(transfer, "output: deposit", "", 1)).want(t, 201)
	s.call(t, "POST", "/v1/workflows/all/invoke", `{"from":"ann","to":"bob","amount":1}`).
		gives(t, `{"withdraw":{"from_balance":69},"deposit":{"from_balance":69,"to_balance":31}}`)
}

func TestInvokeHandler(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	s.call(t, "POST", "/v1/functions/hostile/open/invoke", `{"account":"ann","amount":5}`).gives(t, `{"balance":5}`)
	s.call(t, "POST", "/v1/functions/hostile/echo/invoke", "").gives(t, "{}")
	r := s.call(t, "POST", "/v1/functions/hostile/text/invoke", "").gives(t, "not JSON")
	if r.header.Get("Content-Type") != "application/octet-stream" || r.header.Get("Tenure-Invocation") == "" {
		t.Errorf("headers %v", r.header)
	}
	// The rest of what a handler can do, twice, so that the second finds the
	// state of the first.
	for range 2 {
		s.call(t, "POST", "/v1/functions/hostile/tables/invoke", "").gives(t, `{"scan":"a=aa b=bb ","call":"called"}`)
	}
	s.call(t, "GET", "/v1/state/sums/n", "").gives(t, "10")
}

func TestInvocationRecord(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	type record struct {
		ID, Workflow, State, Worker, Started, Ended string
		Attempts                                    int
		Output                                      json.RawMessage
		Error                                       *problem
	}
	show := func(of reply) record {
		t.Helper()
		id := of.header.Get("Tenure-Invocation")
		r := into[record](t, s.call(t, "GET", "/v1/invocations/"+id, "").want(t, 200))
		if r.ID != id || r.Attempts < 1 || r.Worker == "" || r.Started == "" || r.Ended < r.Started {
			t.Errorf("the record is %+v", r)
		}
		return r
	}
	r := show(s.call(t, "POST", "/v1/functions/hostile/echo/invoke", `{"a":1}`))
	if r.Workflow != "hostile/echo" || r.State != "completed" || string(r.Output) != `{"a":1}` || r.Error != nil {
		t.Errorf("completed: %+v", r)
	}
	r = show(s.call(t, "POST", "/v1/functions/hostile/fail/invoke", ""))
	if r.State != "aborted" || r.Error == nil || r.Error.Reason != "I would rather not" || r.Error.Status != 409 {
		t.Errorf("aborted: %+v", r)
	}
	r = show(s.call(t, "POST", "/v1/functions/hostile/panic/invoke", ""))
	if r.State != "failed" || r.Error == nil || r.Error.Status != 422 {
		t.Errorf("failed: %+v", r)
	}
	r = show(s.call(t, "POST", "/v1/txn", `{"ops":[{"op":"get","table":"t","key":"k"}]}`))
	if r.Workflow != "txn" || r.State != "completed" {
		t.Errorf("txn: %+v", r)
	}
	s.call(t, "GET", "/v1/invocations/"+strings.Repeat("0", 26), "").refused(t, 404, "not-found")
	s.call(t, "GET", "/v1/invocations/42", "").refused(t, 400, "invalid-invocation")
}
