package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
)

// invoke runs the program in this process on args, against server.
func invoke(t *testing.T, server, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = program().Run(t.Context(), append([]string{"--server", server}, args...), cli.Streams{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	return out.String(), errs.String(), status
}

// TestExitStatus has each kind of error that a server answers, and what is no
// server.
func TestExitStatus(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		var word string
		if _, err := fmt.Sscanf(r.URL.Path, "/v1/state/%d/%s", &status, &word); err != nil {
			t.Errorf("path %s: %v", r.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type":"https://tenure.dev/problems/%s","title":"Title","status":%d,"detail":"the detail","reason":"the\nreason"}`, word, status)
	}))
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	type row struct {
		name, server string
		args         []string
		status       int
		stderr       string
	}
	table := []row{
		{"nobody listens", "http://" + listener.Addr().String(), []string{"get", "t/k"}, 3, "tenure: no answer from http://" + listener.Addr().String()},
		{"not a URL", "gopher://x", []string{"get", "t/k"}, 2, "tenure: --server: "},
		{"no key", server.URL, []string{"get", "t"}, 2, `tenure: "t" must be TABLE/KEY`},
		{"no table", server.URL, []string{"get", "/k"}, 2, `tenure: "/k" must be TABLE/KEY`},
		{"no argument", server.URL, []string{"get"}, 2, "tenure: expected "},
		{"no command", server.URL, []string{"fetch"}, 2, "tenure: unexpected argument fetch"},
		{"no value", server.URL, []string{"put", "t/k", "v", "t/l"}, 2, `tenure: "t/l" has no value`},
		{"two conditions", server.URL, []string{"put", "t/k", "v", "--if-match", "1", "--if-none-match", "*"}, 2, "tenure: --if-match and"},
		{"condition of several", server.URL, []string{"put", "t/k", "v", "t/l", "w", "--if-match", "1"}, 2, "tenure: --if-match and"},
		{"odd condition", server.URL, []string{"delete", "t/k", "--if-none-match", "1"}, 2, "tenure: --if-none-match is"},
		{"output", server.URL, []string{"get", "t/k", "--output", "xml"}, 2, "tenure: --output must be one of"},
		{"no file", server.URL, []string{"invoke", "w", "@/nowhere"}, 2, "tenure: open /nowhere"},
		{"no project", server.URL, []string{"deploy", "/nowhere"}, 1, "tenure: stat /nowhere"},
	}
	for _, problem := range []struct {
		status int
		word   string
	}{
		{500, "internal"}, {400, "invalid-key"}, {401, "unauthorized"}, {403, "forbidden"}, {404, "not-found"},
		{409, "in-use"}, {409, "aborted"}, {412, "precondition"}, {413, "too-large"}, {422, "function-error"},
		{422, "idempotency-mismatch"}, {429, "overloaded"}, {503, "unavailable"}, {503, "conflict"}, {504, "timeout"},
		{405, "method-not-allowed"},
	} {
		text := "Title: the detail: the reason"
		if problem.word == "aborted" {
			text = "the reason"
		}
		table = append(table, row{
			problem.word, server.URL, []string{"get", fmt.Sprintf("%d/%s", problem.status, problem.word)},
			1, "tenure: " + problem.word + ": " + text + "\n",
		})
	}
	for _, test := range table {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, status := invoke(t, test.server, "", test.args...)
			if status != test.status || stdout != "" || !strings.HasPrefix(stderr, test.stderr) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d, output %q, error %q; want %d and %q", status, stdout, stderr, test.status, test.stderr)
			}
		})
	}
}

// TestCalls has, for each command, the request that it makes and what it prints
// of the answer.
func TestCalls(t *testing.T) {
	input := filepath.Join(t.TempDir(), "input.json")
	if err := os.WriteFile(input, []byte(`{"from":"file"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const functions = `{"functions":[{"name":"bank","version":"0123456789abcdef","handlers":["deposit","open"],"runtime":"wasm","isolate":true,"versions":[{},{}]},{"name":"n","runtime":"native","handlers":["h"]}]}`
	const workflows = `{"workflows":[{"name":"pay","revision":2,"definition":{"functions":{"zulu":{"function":"bank"},"alpha":{}},"output":"zulu","timeout":"5s"}}]}`
	const record = `{"id":"0abc","workflow":"pay","state":"aborted","attempts":2,"worker":"w1","started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:05.25Z","error":{"type":"x/aborted","title":"T","reason":"no funds"}}`
	const line = `{"seq":1,"time":"2026-01-02T03:04:05Z","invocation":"0abc","workflow":"pay","step":"zulu","message":"a\u001bb"}`
	for _, test := range []struct {
		name    string
		args    []string
		stdin   string
		request string // method, URI, conditions and body
		answer  string
		etag    string
		want    []string // parts of the output; one that ends in a line end is all of it
	}{
		{"invoke", []string{"invoke", "pay", `{"a":1}`}, "", `POST /v1/workflows/pay/invoke {"a":1}`, `{"b":2}`, "", []string{"{\"b\":2}\n"}},
		{"invoke without input", []string{"invoke", "pay"}, "", `POST /v1/workflows/pay/invoke `, `{}`, "", []string{"{}\n"}},
		{"invoke with standard input", []string{"invoke", "bank/open", "-"}, "{}", `POST /v1/functions/bank/open/invoke {}`, "text\n", "", []string{"text\n"}},
		{"invoke with a file", []string{"invoke", "pay", "@" + input, "--output=json"}, "", `POST /v1/workflows/pay/invoke {"from":"file"}`, "text", "", []string{"\"text\"\n"}},
		{"get", []string{"get", "t/a/b c"}, "", "GET /v1/state/t/a%2Fb%20c ", "\x00\xff", `"7"`, []string{"\x00\xff"}},
		{"get JSON", []string{"get", "t/k", "--output=json"}, "", "GET /v1/state/t/k ", "v", `"7"`, []string{`"key": "t/k"`, `"value": "v"`, `"version": 7`}},
		{"get JSON of bytes", []string{"get", "t/k", "--output=json"}, "", "GET /v1/state/t/k ", "\xff", `"7"`, []string{`"value_base64": "/w=="`}},
		{"put", []string{"put", "t/k", "--if-match=6", "--", "-1"}, "", `PUT /v1/state/t/k "6" -1`, "", `"7"`, []string{"t/k: version 7\n"}},
		{"put standard input", []string{"put", "t/k", "--if-none-match=*", "-"}, "in", `PUT /v1/state/t/k * in`, "", `"1"`, []string{"t/k: version 1\n"}},
		{"put several", []string{"put", "t/k", "1", "u/a/b", "<x>"}, "", `POST /v1/txn {"ops":[{"op":"put","table":"t","key":"k","value":"1"},{"op":"put","table":"u","key":"a/b","value":"\u003cx\u003e"}]}`, `{"results":[{"version":3},{"version":1}]}`, "", []string{"t/k: version 3\nu/a/b: version 1\n"}},
		{"delete", []string{"delete", "t/k", "--if-match=*", "--output=json"}, "", `DELETE /v1/state/t/k * `, "", `"8"`, []string{`"version": 8`}},
		{"functions", []string{"functions"}, "", "GET /v1/functions ", functions, "", []string{"NAME  RUNTIME  VERSION       KEPT  ISOLATE  HANDLERS\nbank  wasm     0123456789ab     2  true     deposit, open\nn     native   -                0  false    h\n"}},
		{"workflows", []string{"workflows"}, "", "GET /v1/workflows ", workflows, "", []string{"NAME  REVISION  KIND         STEPS        OUTPUT  TIMEOUT\npay          2  transaction  zulu, alpha  zulu    5s\n"}},
		{"workers", []string{"workers"}, "", "GET /v1/cluster ", `{"view":4,"workers":[{"id":"w1","address":"a:1","provider":"tcp","load":3}]}`, "", []string{"WORKER  ADDRESS  PROVIDER  LOAD  VIEW\nw1      a:1      tcp          3     4\n"}},
		{"drain", []string{"workers", "drain", "w1"}, "", "POST /v1/workers/w1/drain ", ``, "", []string{""}},
		{"workers JSON", []string{"workers", "--output=json"}, "", "GET /v1/cluster ", `{"view":4}`, "", []string{"{\n  \"view\": 4\n}\n"}},
		{"invocation", []string{"invocation", "0abc"}, "", "GET /v1/invocations/0abc ", record, "", []string{"state     aborted", "took      250ms", "error     aborted: no funds"}},
		{"logs", []string{"logs", "--workflow=pay", "--after=3"}, "", "GET /v1/logs?after=3&workflow=pay ", line + "\n", "", []string{" pay/zulu 0abc a\ufffdb"}},
		{"logs JSON", []string{"logs", "-f", "--output=json"}, "", "GET /v1/logs?follow=true ", line + "\n", "", []string{line + "\n"}},
		{"version", []string{"version", "--output=json"}, "", "", "", "", []string{`"platform": "`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				condition := r.Header.Get("If-Match") + r.Header.Get("If-None-Match")
				if condition != "" {
					condition += " "
				}
				got = fmt.Sprintf("%s %s %s%s", r.Method, r.URL.RequestURI(), condition, body)
				if test.etag != "" {
					w.Header().Set("ETag", test.etag)
				}
				io.WriteString(w, test.answer)
			}))
			defer server.Close()
			stdout, stderr, status := invoke(t, server.URL, test.stdin, test.args...)
			if status != 0 || got != test.request {
				t.Errorf("exit status %d, request %q, want %q\n%s", status, got, test.request, stderr)
			}
			for _, want := range test.want {
				if strings.HasSuffix(want, "\n") && stdout != want || !strings.Contains(stdout, want) {
					t.Errorf("output\n%q, want\n%q", stdout, want)
				}
			}
		})
	}
}

// catalogue is a server that takes deployments.
type catalogue struct {
	calls  []string
	refuse string // the path that it refuses
}

// ServeHTTP implements http.Handler.
func (c *catalogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.calls = append(c.calls, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), body))
	if r.URL.Path == c.refuse {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"type":"x/invalid-module","title":"Invalid module","detail":"not wasm"}`)
		return
	}
	if strings.HasSuffix(r.URL.Path, "new") {
		w.WriteHeader(http.StatusCreated)
	}
	json.NewEncoder(w).Encode(map[string]any{
		"name": r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], "version": "0123456789abcdef", "handlers": []string{"h"}, "revision": 2,
	})
}

func TestDeploy(t *testing.T) {
	dir := t.TempDir()
	text := "functions:\n  old: {module: m.wasm}\n  new: {module: m.wasm, isolate: true}\nworkflows:\n  pay: {functions: {zulu: {function: old}, alpha: {function: new}}}\n"
	for name, content := range map[string]string{"tenure.yaml": text, "m.wasm": "bytes"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	calls := []string{
		"PUT /v1/functions/new?isolate=true application/wasm bytes",
		"PUT /v1/functions/old application/wasm bytes",
		`PUT /v1/workflows/pay application/json {`,
	}
	for _, test := range []struct {
		name, refuse, stdout, stderr string
		status, calls                int
		args                         []string
	}{
		{
			name: "all", calls: 3,
			stdout: "function new deployed: version 0123456789ab with 1 handlers [h]\nfunction old unchanged: version 0123456789ab with 1 handlers [h]\nworkflow pay: revision 2\n",
		}, {
			name: "refused in the middle", refuse: "/v1/functions/old", calls: 2, status: 1,
			stdout: "function new deployed: version 0123456789ab with 1 handlers [h]\n",
			stderr: "tenure: function old: invalid-module: Invalid module: not wasm\n",
		}, {
			name: "JSON", args: []string{"--output=json"}, refuse: "/v1/functions/new", calls: 1, status: 1,
			stdout: "{\n  \"functions\": [],\n  \"workflows\": []\n}\n",
			stderr: "tenure: function new: invalid-module: Invalid module: not wasm\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &catalogue{refuse: test.refuse}
			server := httptest.NewServer(c)
			defer server.Close()
			stdout, stderr, status := invoke(t, server.URL, "", append([]string{"deploy", dir}, test.args...)...)
			if stdout != test.stdout || stderr != test.stderr || status != test.status {
				t.Errorf("exit status %d, output %q, error %q; want %d, %q, %q", status, stdout, stderr, test.status, test.stdout, test.stderr)
			}
			if len(c.calls) != test.calls {
				t.Fatalf("calls %q, want %d", c.calls, test.calls)
			}
			for i, call := range c.calls {
				if !strings.HasPrefix(call, calls[i]) {
					t.Errorf("call %d is %q, want %q", i, call, calls[i])
				}
				if i == 2 && strings.Index(call, "zulu") > strings.Index(call, "alpha") {
					t.Errorf("the steps are out of order: %s", call)
				}
			}
		})
	}
}
