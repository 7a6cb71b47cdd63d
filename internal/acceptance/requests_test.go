package acceptance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/node"
)

// raw sends a request line as it is, which no HTTP client would, and reads the
// answer.
func (s *server) raw(t *testing.T, method, target string) reply {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, target); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %q: %v", method, target, err)
	}
	r, err := read(method+" "+target, resp)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHostileNames puts names that want to be somewhere else into every
// parameter of every path. All are refused, and none is redirected.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	for _, pattern := range []string{
		"PUT /v1/functions/NAME", "GET /v1/functions/NAME", "DELETE /v1/functions/NAME",
		"PUT /v1/workflows/NAME", "GET /v1/workflows/NAME", "DELETE /v1/workflows/NAME",
		"POST /v1/workflows/NAME/invoke", "POST /v1/functions/NAME/echo/invoke", "POST /v1/functions/hostile/NAME/invoke",
		"GET /v1/invocations/NAME",
		"GET /v1/state/NAME/k", "PUT /v1/state/NAME/k", "DELETE /v1/state/NAME/k", "GET /v1/leases/NAME/k",
		"GET /v1/state/t/NAME", "PUT /v1/state/t/NAME", "DELETE /v1/state/t/NAME", "GET /v1/leases/t/NAME",
	} {
		method, path, _ := strings.Cut(pattern, " ")
		isKey := strings.HasSuffix(path, "/t/NAME")
		for _, name := range []string{"../", "../../etc", "..", "%2e%2e", "%2e%2e%2f", "%2E./x", "a%00b", "%00", "%ff%fe", "%c3%28"} {
			r := s.raw(t, method, strings.ReplaceAll(path, "NAME", name))
			if isKey && name == "%2e%2e%2f" {
				// Documented: an encoded slash is a byte of the key, which
				// names a value and no file.
				if r.status != map[string]int{"PUT": 204, "DELETE": 204, "GET": 404}[method] && !strings.Contains(path, "leases") {
					t.Errorf("%s: status %d: %s", r.of, r.status, r.body)
				}
				continue
			}
			p := r.refused(t, 400, r.word(t))
			if word := r.word(t); word != "invalid-name" && word != "invalid-key" && word != "invalid-invocation" {
				t.Errorf("%s: [%s]: %s", r.of, word, p.Detail)
			}
		}
		// A byte that may not stand in a request line at all is answered by
		// the HTTP server, before there is an API.
		for _, name := range []string{"a\x00b", "a b", "a\x7fb"} {
			if r := s.raw(t, method, strings.ReplaceAll(path, "NAME", name)); r.status != 400 {
				t.Errorf("%q: status %d", r.of, r.status)
			}
		}
	}
	s.call(t, "GET", "/v1/state/t/k", "").refused(t, 404, "not-found")
	if l := s.call(t, "GET", "/v1/functions", "").want(t, 200); strings.Count(l.body, `"runtime"`) != 1 {
		t.Errorf("the functions are %s", l.body)
	}
	s.serves(t)
}

// word is the last word of a problem's type.
func (r reply) word(t testing.TB) string {
	t.Helper()
	p := into[problem](t, r)
	return p.Type[strings.LastIndexByte(p.Type, '/')+1:]
}

// TestHostileBodies sends bodies that parsers dislike to every call that has one.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	bodies := map[string]string{
		"arrays":        strings.Repeat("[", 100_000),
		"closed arrays": strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		"objects":       strings.Repeat(`{"a":`, 100_000),
		"not UTF-8":     `{"a":"` + "\xff\xfe" + `"}`,
		"half a rune":   `{"a":"` + "\xc3" + `"}`,
		"NUL":           "\x00",
		"two texts":     `{} {}`,
		"cut":           `{"functions":{"a":`,
		"number":        "1e999999999999" + strings.Repeat("9", 100_000),
	}
	calls := []struct{ method, path, word string }{
		{"POST", "/v1/workflows/transfer/invoke", "invalid-input"},
		{"POST", "/v1/functions/hostile/echo/invoke", "invalid-input"},
		{"POST", "/v1/txn", "invalid-txn"},
		{"POST", "/v1/state", "invalid-ndjson"},
		{"PUT", "/v1/workflows/w", "invalid-workflow"},
		{"PUT", "/v1/functions/f", "invalid-module"},
	}
	for name, body := range bodies {
		for _, call := range calls {
			if name == "number" && call.word == "invalid-input" && strings.HasSuffix(call.path, "/echo/invoke") {
				continue // it is JSON, and echo does not mind
			}
			s.call(t, call.method, call.path, body).refused(t, 400, call.word)
		}
	}
	for name, definition := range map[string]string{
		"aliases": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]\n",
		"deep":    strings.Repeat("- ", 20_000),
		"flow":    strings.Repeat("{a: ", 20_000),
		"tag":     "functions: !!python/object:os.system {a: b}\n",
	} {
		r := s.call(t, "PUT", "/v1/workflows/w", definition, "Content-Type: application/yaml")
		if r.refused(t, 400, "invalid-workflow"); t.Failed() {
			t.Fatalf("%s was accepted", name)
		}
	}
	s.serves(t)
}

// zeros is a body of n bytes that nobody keeps in memory.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

// TestHugeBody sends 100 MB, with its length and without, to every call that
// limits its body, and then a good request.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	const huge = 100 << 20
	for _, call := range []string{
		"POST /v1/functions/hostile/echo/invoke", "POST /v1/workflows/transfer/invoke", "POST /v1/txn",
		"PUT /v1/state/t/k", "PUT /v1/workflows/w", "PUT /v1/functions/f",
	} {
		method, path, _ := strings.Cut(call, " ")
		for _, length := range []int64{huge, -1} {
			req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, io.NopCloser(&zeros{huge}))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			resp, err := s.client.Do(req)
			if err != nil {
				t.Fatalf("%s with length %d: %v", call, length, err)
			}
			r, err := read(call, resp)
			if err != nil {
				t.Fatal(err)
			}
			r.refused(t, 413, "too-large")
			s.serves(t)
		}
	}
}
