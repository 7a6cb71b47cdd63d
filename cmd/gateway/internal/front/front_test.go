package front

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves a door in front of worker and returns its URL, a client and it.
func serve(t *testing.T, opt Options, worker http.HandlerFunc) (string, *http.Client, *Door) {
	t.Helper()
	if worker != nil {
		back := httptest.NewServer(worker)
		t.Cleanup(back.Close)
		opt.Worker = back.URL
	}
	opt.Logger = slog.New(slog.DiscardHandler)
	door, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(door)
	t.Cleanup(server.Close)
	t.Cleanup(door.proxy.Transport.(*http.Transport).CloseIdleConnections)
	return server.URL, server.Client(), door
}

// call sends a request and returns the answer, whose body is read.
func call(t *testing.T, c *http.Client, method, url, token string, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// word returns the last word of a problem's type.
func word(t *testing.T, response *http.Response, body string) string {
	t.Helper()
	var p gateway.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != response.StatusCode {
		t.Errorf("%d with %q is no problem of this status: %v", response.StatusCode, body, err)
	}
	if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	return p.Type[strings.LastIndexByte(p.Type, '/')+1:]
}

func TestPassesOn(t *testing.T) {
	url, client, _ := serve(t, Options{WorkerToken: "inner"}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Tenure-Invocation", "0abc")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL.RequestURI(), r.Host, r.Header.Get("Authorization"), body)
	})
	response, body := call(t, client, "PUT", url+"/v1/state/t/a%2Fb?x=%31", "outer", strings.NewReader("value"))
	want := "PUT /v1/state/t/a%2Fb?x=%31 " + strings.TrimPrefix(url, "http://") + " Bearer inner value"
	if response.StatusCode != 409 || response.Header.Get("Tenure-Invocation") != "0abc" || body != want {
		t.Errorf("got %d %v %q, want %q", response.StatusCode, response.Header, body, want)
	}
}

func TestTokens(t *testing.T) {
	url, client, _ := serve(t, Options{Token: "full", ReadToken: "read"}, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "worker")
	})
	for _, test := range []struct {
		method, path, token string
		status              int
		word                string // empty: the worker answers
	}{
		{"GET", "/v1/cluster", "full", 200, ""},
		{"POST", "/v1/txn", "full", 200, ""},
		{"GET", "/v1/cluster", "read", 200, ""},
		{"POST", "/v1/txn", "read", 403, "forbidden"},
		{"GET", "/v1/cluster", "", 401, "unauthorized"},
		{"GET", "/v1/cluster", "ful", 401, "unauthorized"},
		{"GET", "/nothing", "", 401, "unauthorized"},
		{"GET", "/v1/../readyz", "", 401, "unauthorized"},
		{"GET", "/readyz", "", 200, ""},
		{"GET", "/metrics", "", 200, ""},
		{"GET", "/ui/", "", 200, ""},
	} {
		response, body := call(t, client, test.method, url+test.path, test.token, nil)
		got := ""
		if body != "worker" {
			got = word(t, response, body)
		}
		if response.StatusCode != test.status || got != test.word {
			t.Errorf("%s %s with %q: %d %q, want %d %q", test.method, test.path, test.token, response.StatusCode, body, test.status, test.word)
		}
		if challenge := response.Header.Get("WWW-Authenticate"); (challenge != "") != (test.status == 401) {
			t.Errorf("%s %s with %q: WWW-Authenticate %q", test.method, test.path, test.token, challenge)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	url, client, _ := serve(t, Options{MaxBodyBytes: 10}, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	eleven := strings.Repeat("x", 11)
	for _, test := range []struct {
		name, path string
		body       io.Reader
		status     int
	}{
		{"in the limit", "/v1/txn", strings.NewReader(eleven[:10]), 200},
		{"too large by its header", "/v1/txn", strings.NewReader(eleven), 413},
		{"too large without a length", "/v1/txn", io.MultiReader(strings.NewReader(eleven)), 413},
		{"bulk load", "/v1/state", strings.NewReader(eleven), 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, body := call(t, client, "POST", url+test.path, "", test.body)
			if response.StatusCode != test.status {
				t.Fatalf("%d %q, want %d", response.StatusCode, body, test.status)
			}
			if test.status == 413 && word(t, response, body) != "too-large" {
				t.Errorf("body %q", body)
			}
		})
	}
}

func TestInFlight(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	url, client, door := serve(t, Options{MaxInFlight: 1}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
		fmt.Fprint(w, "worker")
	})
	slow := make(chan int)
	go func() {
		response, err := client.Get(url + "/slow")
		if err != nil {
			slow <- 0
			return
		}
		response.Body.Close()
		slow <- response.StatusCode
	}()
	<-arrived
	if response, body := call(t, client, "GET", url+"/v1/cluster", "", nil); response.StatusCode != 429 ||
		word(t, response, body) != "overloaded" || response.Header.Get("Retry-After") != "1" {
		t.Errorf("beyond the limit: %d %q", response.StatusCode, body)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if response, body := call(t, client, "GET", url+path, "", nil); response.StatusCode != 200 {
			t.Errorf("%s beyond the limit: %d %q", path, response.StatusCode, body)
		}
	}
	close(release)
	if status := <-slow; status != 200 {
		t.Errorf("the slow request ended with %d", status)
	}
	// The client may have its answer before the place is free: wait for it.
	door.places <- struct{}{}
	<-door.places
	if response, body := call(t, client, "GET", url+"/v1/cluster", "", nil); response.StatusCode != 200 {
		t.Errorf("after it: %d %q", response.StatusCode, body)
	}
}

func TestWorkerGone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	url, client, _ := serve(t, Options{Worker: "http://" + listener.Addr().String()}, nil)
	for _, test := range []struct {
		path   string
		status int
	}{{"/healthz", 200}, {"/readyz", 503}, {"/v1/cluster", 503}} {
		response, body := call(t, client, "GET", url+test.path, "", nil)
		if response.StatusCode != test.status || test.status == 503 && (word(t, response, body) != "unavailable" || response.Header.Get("Retry-After") == "") {
			t.Errorf("%s: %d %q", test.path, response.StatusCode, body)
		}
	}
}

func TestConnectionBreaks(t *testing.T) {
	var calls atomic.Int32 // a connection that breaks orders nothing between the two sides
	url, client, _ := serve(t, Options{}, func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		panic(http.ErrAbortHandler)
	})
	response, body := call(t, client, "POST", url+"/v1/txn", "", strings.NewReader("{}"))
	if response.StatusCode != 504 || word(t, response, body) != "timeout" || !strings.Contains(body, "the outcome is unknown: ask again with the same Idempotency-Key") {
		t.Errorf("%d %q", response.StatusCode, body)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the worker got the request %d times", n)
	}
}

func TestServeStops(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "line\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer back.Close()
	door, err := New(Options{Worker: back.URL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer door.proxy.Transport.(*http.Transport).CloseIdleConnections()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	url, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- door.Serve(ctx, "127.0.0.1:0", func(u string) { url <- u }) }()
	var client http.Client
	defer client.CloseIdleConnections()
	response, err := client.Get(<-url + "/v1/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); line != "line\n" {
		t.Fatalf("%q, %v", line, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stop with a follower: %v", err)
	}
	if _, err := lines.ReadByte(); err == nil {
		t.Error("the follower is still served")
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		opt  Options
		want string
	}{
		{Options{}, "the worker's URL"},
		{Options{Worker: "127.0.0.1:80"}, "the worker's URL"},
		{Options{Worker: "http://w", MaxInFlight: -1}, "in flight is -1"},
		{Options{Worker: "http://w", MaxBodyBytes: -1}, "a body is -1"},
		{Options{Worker: "http://w", ReadToken: "r"}, "nobody could write"},
		{Options{Worker: "http://w", Token: "t", ReadToken: "r"}, ""},
	} {
		_, err := New(test.opt)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.opt, err, test.want)
		}
	}
}
