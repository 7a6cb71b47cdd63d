package gateway

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPaths has paths that must be served as they are, or refused: never
// redirected.
func TestPaths(t *testing.T) {
	for _, row := range []struct {
		method, target string
		status         int
		word           string
	}{
		// Names.
		{"GET", "/v1/functions/bank", 200, ""},
		{"GET", "/%761/functions/b%61nk", 200, ""},
		{"GET", "/v1/functions/", 400, "invalid-name"},
		{"GET", "/v1/functions//", 400, "invalid-name"},
		{"GET", "/v1/functions/bank/", 400, "invalid-name"},
		{"GET", "/v1//functions", 400, "invalid-name"},
		{"GET", "//v1/functions", 400, "invalid-name"},
		{"GET", "/v1/functions/..", 400, "invalid-name"},
		{"GET", "/v1/functions/%2e%2E", 400, "invalid-name"},
		{"GET", "/v1/./functions", 400, "invalid-name"},
		{"GET", "/v1/functions/../cluster", 400, "invalid-name"},
		{"GET", "/nothing/../v1/cluster", 400, "invalid-name"},
		{"GET", "/v1/functions/a%2Fb", 400, "invalid-name"},
		{"GET", "/v1/functions/%2e%2e%2fbank", 400, "invalid-name"},
		{"GET", "/v1/functions/a%00b", 400, "invalid-name"},
		{"GET", "/v1/functions/%ff", 400, "invalid-name"},
		{"GET", "/v1/functions/.hidden", 400, "invalid-name"},
		{"GET", "/v1/functions/" + strings.Repeat("a", 129), 400, "invalid-name"},
		{"POST", "/v1/functions/a/../invoke", 400, "invalid-name"},
		{"POST", "/v1/workflows/%20/invoke", 400, "invalid-name"},
		{"GET", "/v1/functions/bank/deposit", 404, "not-found"},
		{"GET", "/v1", 404, "not-found"},
		{"GET", "/", 404, "not-found"},
		{"GET", "/favicon.ico", 404, "not-found"},
		{"GET", "/" + strings.Repeat("long", 2000), 404, "not-found"},
		// Keys.
		{"PUT", "/v1/state/t/k", 204, ""},
		{"PUT", "/v1/state/t/a/b", 204, ""},
		{"PUT", "/v1/state/t/a%2F%2Fb", 204, ""},
		{"PUT", "/v1/state/t/..%2Fb", 204, ""},
		{"PUT", "/v1/state/t/...", 204, ""},
		{"PUT", "/v1/state/t/a%20b%25%C3%A9?x=1", 204, ""},
		{"PUT", "/v1/state/t/a//b", 400, "invalid-key"},
		{"PUT", "/v1/state/t/a/", 400, "invalid-key"},
		{"PUT", "/v1/state/t//a", 400, "invalid-key"},
		{"PUT", "/v1/state/t/", 400, "invalid-key"},
		{"PUT", "/v1/state/t/..", 400, "invalid-key"},
		{"PUT", "/v1/state/t/a/%2E./b", 400, "invalid-key"},
		{"PUT", "/v1/state/t/.", 400, "invalid-key"},
		{"PUT", "/v1/state/t/a%00", 400, "invalid-key"},
		{"PUT", "/v1/state/t/%ff%fe", 400, "invalid-key"},
		{"PUT", "/v1/state//k", 400, "invalid-name"},
		{"PUT", "/v1/state/../k", 400, "invalid-name"},
		{"PUT", "/v1/state/a%2Fb/k", 400, "invalid-name"},
		{"PUT", "/v1/state/t/" + strings.Repeat("k", 1024), 204, ""},
		{"PUT", "/v1/state/t/" + strings.Repeat("k", 1025), 413, "too-large"},
		{"GET", "/v1/leases/t/..", 400, "invalid-key"},
		{"GET", "/v1/leases/t/%ff", 400, "invalid-key"},
		{"GET", "/v1/state/t", 404, "not-found"},
		// Methods.
		{"PATCH", "/v1/state/t/k", 405, "method-not-allowed"},
		{"PUT", "/v1/state", 405, "method-not-allowed"},
		{"POST", "/ui/", 405, "method-not-allowed"},
		{"FROBNICATE", "/v1/txn", 405, "method-not-allowed"},
		{"HEAD", "/v1/cluster", 200, ""},
		{"HEAD", "/v1/txn", 405, "method-not-allowed"},
	} {
		w := newRig(t, Options{}).do(row.method, row.target, "")
		if w.Code != row.status || word(t, w) != row.word {
			t.Errorf("%s %.80s: status %d [%s], want %d [%s]", row.method, row.target, w.Code, word(t, w), row.status, row.word)
		}
		if (w.Code == 405) != (w.Header().Get("Allow") != "") {
			t.Errorf("%s %.80s: status %d, Allow %q", row.method, row.target, w.Code, w.Header().Get("Allow"))
		}
	}
}

// TestKeysAreDecodedOnce writes by path and looks at what key was written.
func TestKeysAreDecodedOnce(t *testing.T) {
	for path, key := range map[string]string{
		"a%2Fb": "a/b", "a/b": "a/b", "%2561": "%61", "a+b": "a+b", "a+b%20c": "a+b c", "%C3%A9": "é", "a%2F..%2Fb": "a/../b", "*": "*", "a;b=c": "a;b=c",
	} {
		r := newRig(t, Options{})
		if w := r.do("PUT", "/v1/state/t/"+path, "x"); w.Code != 204 || r.value("t/"+key) != "x" {
			t.Errorf("%s: status %d, the values are %v", path, w.Code, r.executor.values)
		}
	}
}

// FuzzPaths sends raw request lines through net/http's parser to the handler.
// Whatever the path, the answer is no redirect, no fault of the server, and a
// problem if it is an error.
func FuzzPaths(f *testing.F) {
	for _, target := range []string{
		"/v1/state/t/a%2F..%2Fb", "/v1/functions/../x", "//", "/v1/state/t/%ff%00", "/ui//", "*", "http://host/v1//x",
		"/v1/functions/a/b/invoke?x=%zz", "/%2e%2e/%2e", "/v1/logs?after=-1", "/v1/leases/t/k;x", "/v1/workflows/transfer/invoke/",
	} {
		f.Add("GET", target)
		f.Add("POST", target)
		f.Add("PUT", target)
	}
	r := newRig(f, Options{})
	f.Fuzz(func(t *testing.T, method, target string) {
		raw := method + " " + target + " HTTP/1.1\r\nHost: h\r\n\r\n"
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil || req.URL.Query().Has("follow") {
			return // net/http refuses it; or it would follow the log for ever.
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code >= 300 && w.Code < 400 || w.Code >= 500 {
			t.Fatalf("%q %q: status %d, Location %q: %s", method, target, w.Code, w.Header().Get("Location"), w.Body)
		}
		if w.Code >= 400 {
			problem(t, w.Header(), w.Code, w.Body.Bytes())
		}
	})
}
