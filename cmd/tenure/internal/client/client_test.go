package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns a client of a server with this handler.
func connect(t *testing.T, token string, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := New(server.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNew(t *testing.T) {
	for _, test := range []struct{ server, want string }{
		{"http://127.0.0.1:8088", "http://127.0.0.1:8088"},
		{"http://127.0.0.1:8088/", "http://127.0.0.1:8088"},
		{"127.0.0.1:8088", "http://127.0.0.1:8088"},
		{"https://tenure.example/api/", "https://tenure.example/api"},
		{"ftp://127.0.0.1", ""},
		{"http://", ""},
		{"", ""},
		{"http://a b", ""},
		{"http://127.0.0.1?x=1", ""},
	} {
		c, err := New(test.server, "")
		switch {
		case test.want == "" && err == nil:
			t.Errorf("New(%q) gave %s, want an error", test.server, c.Server())
		case test.want != "" && (err != nil || c.Server() != test.want):
			t.Errorf("New(%q): %v, %v; want %s", test.server, c, err, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name           string
		status         int
		body, after    string
		message        string
		wantRetryAfter time.Duration
	}{
		{
			"aborted", 409,
			`{"type":"https://tenure.dev/problems/aborted","title":"The function aborted","status":409,"detail":"nothing was changed","reason":"insufficient funds","invocation":"0abc"}`, "",
			"aborted: insufficient funds (invocation 0abc)", -1,
		},
		{
			"detail equals title", 404, `{"type":"https://tenure.dev/problems/not-found","title":"Not found","detail":"Not found"}`, "",
			"not-found: Not found", -1,
		},
		{
			"control characters", 409, `{"type":"x/aborted","title":"T","reason":"a\u001b[31m\nb"}`, "",
			"aborted: a\ufffd[31m b", -1,
		},
		{"retry after", 429, `{"type":"x/overloaded","title":"Overloaded"}`, "7", "overloaded: Overloaded", 7 * time.Second},
		{"retry after a date", 503, `{"type":"x/unavailable","title":"U"}`, "Fri, 31 Dec 1999 23:59:59 GMT", "unavailable: U", -1},
		{"not a problem", 502, "<html>\nbad", "", "http-502: Bad Gateway: the answer is not a Tenure server's: <html> bad", -1},
		{"redirect", 302, "", "", "http-302: Found: the answer is not a Tenure server's: ", -1},
		{"JSON without a type", 500, `{"title":"odd","reason":"odd"}`, "", `http-500: Internal Server Error: the answer is not a Tenure server's: {"title":"odd","reason":"odd"}`, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := connect(t, "", func(w http.ResponseWriter, _ *http.Request) {
				if test.after != "" {
					w.Header().Set("Retry-After", test.after)
				}
				if test.status == http.StatusFound {
					w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			_, err := c.Do(t.Context(), Request{Method: "GET", Path: "/v1/cluster"})
			problem, ok := errors.AsType[*Problem](err)
			if !ok || problem.Error() != test.message || problem.Status != test.status || problem.RetryAfter != test.wantRetryAfter {
				t.Errorf("error %q (%#v); want %q, retry after %v", err, err, test.message, test.wantRetryAfter)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	refused, err := New(listener.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	cut := connect(t, "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	short := connect(t, "", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
	})
	for _, test := range []struct {
		name    string
		client  *Client
		method  string
		unknown bool
	}{
		{"nobody listens, read", refused, "GET", false},
		{"nobody listens, write", refused, "POST", false},
		{"connection cut, read", cut, "GET", false},
		{"connection cut, write", cut, "POST", true},
		{"answer cut, write", short, "POST", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.client.Do(t.Context(), Request{Method: test.method, Path: "/"})
			e, ok := errors.AsType[*UnreachableError](err)
			if !ok || e.Unknown != test.unknown || e.ExitCode() != 3 {
				t.Errorf("error %v (%T), want unknown %v", err, err, test.unknown)
			}
		})
	}
}

func TestToken(t *testing.T) {
	for _, test := range []struct{ token, want string }{{"", ""}, {"secret", "Bearer secret"}} {
		c := connect(t, test.token, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header.Get("Authorization"))
		})
		answer, err := c.Do(t.Context(), Request{Method: "GET", Path: "/"})
		if err != nil || string(answer.Body) != test.want {
			t.Errorf("token %q: sent %q, %v", test.token, answer.Body, err)
		}
	}
}

func TestInvoke(t *testing.T) {
	const overloaded = `{"type":"x/overloaded","title":"Overloaded"}`
	for _, test := range []struct {
		name      string
		call      Invocation
		statuses  []int // of the tries; the last one repeats
		wantTries int
		wantErr   string // word of the problem; empty: success
	}{
		{"at once", Invocation{Target: "transfer"}, []int{200}, 1, ""},
		{"no key, no retry", Invocation{Target: "transfer"}, []int{429, 200}, 1, "overloaded"},
		{"key, 429 and 503", Invocation{Target: "bank/open", IdempotencyKey: "k"}, []int{429, 503, 200}, 3, ""},
		{"bounded", Invocation{Target: "transfer", IdempotencyKey: "k"}, []int{503}, 5, "overloaded"},
		{"abort", Invocation{Target: "transfer", IdempotencyKey: "k"}, []int{409}, 1, "overloaded"},
		{"timeout", Invocation{Target: "transfer", IdempotencyKey: "k", Timeout: 750 * time.Millisecond}, []int{504}, 1, "overloaded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tries := 0
			c := connect(t, "", func(w http.ResponseWriter, r *http.Request) {
				status := test.statuses[min(tries, len(test.statuses)-1)]
				tries++
				path := "/v1/workflows/transfer/invoke"
				if strings.Contains(test.call.Target, "/") {
					path = "/v1/functions/bank/open/invoke"
				}
				timeout := ""
				if test.call.Timeout > 0 {
					timeout = "750ms"
				}
				if r.Method != "POST" || r.URL.Path != path || r.Header.Get("Idempotency-Key") != test.call.IdempotencyKey || r.Header.Get("Tenure-Timeout") != timeout {
					t.Errorf("got %s %s with %v", r.Method, r.URL, r.Header)
				}
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(status)
				if status != 200 {
					io.WriteString(w, overloaded)
				}
			})
			_, err := c.Invoke(t.Context(), test.call)
			word := ""
			if p, ok := errors.AsType[*Problem](err); ok {
				word = p.Word()
			} else if err != nil {
				t.Error(err)
			}
			if tries != test.wantTries || word != test.wantErr {
				t.Errorf("%d tries, error %v; want %d, %q", tries, err, test.wantTries, test.wantErr)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	for _, test := range []struct{ after, want time.Duration }{
		{-1, time.Second}, {0, 0}, {7 * time.Second, 7 * time.Second}, {time.Hour, 30 * time.Second},
	} {
		if got := (&Problem{RetryAfter: test.after}).delay(); got != test.want {
			t.Errorf("Retry-After %v: wait %v, want %v", test.after, got, test.want)
		}
	}
}
