package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/internal/node"
)

// patience bounds every request: longer than anything here takes on a busy
// machine, shorter than a hung test is worth waiting for.
const patience = time.Minute

// shared is the directory of what is made once for all tests: modules, the
// command line, and the cache of compiled modules. Empty until it is needed.
var shared = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "tenure-acceptance-") })

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir, err := shared(); err == nil {
			os.RemoveAll(dir)
		}
		os.Exit(code)
	}))
}

// sharedDir returns a directory below shared.
func sharedDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build compiles a package of this module into shared and returns the file.
func build(name string, env []string, args ...string) (string, error) {
	dir, err := shared()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, name)
	cmd := exec.Command("go", append([]string{"build", "-o", file}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %v: %w\n%s", args, err, out)
	}
	return file, nil
}

// noteSources reads what the compiler will read in a process of its own, so that
// go test does not answer from its cache after a change of it.
func noteSources(dirs ...string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// moduleOf returns a once that builds testdata/hostile as the given version.
func moduleOf(version string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if err := noteSources("testdata/hostile", "../../examples", "../../sdk/go"); err != nil {
			return "", err
		}
		file, err := build("hostile"+version+".wasm", []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"},
			"-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X main.version="+version, "./testdata/hostile")
		if err != nil {
			return "", err
		}
		module, err := os.ReadFile(file)
		return string(module), err
	})
}

var module1, module2 = moduleOf("1"), moduleOf("2")

// must returns the value of a once, or ends the test.
func must(t testing.TB, once func() (string, error)) string {
	t.Helper()
	value, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// server is a node in this process.
type server struct {
	url    string
	client *http.Client
	cancel context.CancelFunc
	ended  func() error // waits for the node and returns its error
}

// start runs a node on a data directory, empty for one of its own, until the
// test ends or stop is called.
func start(t testing.TB, opt node.Options) *server {
	t.Helper()
	if opt.Data == "" {
		opt.Data = t.TempDir()
	}
	// The modules are compiled to machine code by one node for all.
	cache := filepath.Join(opt.Data, "cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sharedDir(t, "cache"), filepath.Join(cache, "wasm")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	opt.Listen, opt.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	ready := make(chan string, 1)
	opt.Ready = func(_ context.Context, url string) error { ready <- url; return nil }
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { result <- node.Run(ctx, opt) })
	s := &server{cancel: cancel, client: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 32},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	s.ended = sync.OnceValue(func() error {
		running.Wait()
		s.client.CloseIdleConnections()
		return <-result
	})
	t.Cleanup(func() { s.stop(t) })
	select {
	case s.url = <-ready:
	case err := <-result:
		result <- err
		t.Fatalf("the node did not start: %v", err)
	}
	return s
}

// stop ends the node in order.
func (s *server) stop(t testing.TB) {
	t.Helper()
	s.cancel()
	if err := s.ended(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
}

// deploying serialises deployments, so that only the first of a module pays for
// its compilation.
var deploying sync.Mutex

// deploy makes module the function "hostile".
func (s *server) deploy(t testing.TB, module, query string) reply {
	t.Helper()
	deploying.Lock()
	defer deploying.Unlock()
	return s.call(t, "PUT", "/v1/functions/hostile"+query, module, "Content-Type: application/wasm")
}

// started returns a node of its own with the function hostile and, as
// workflows, the transfer of the bank.
func started(t testing.TB, opt node.Options) *server {
	t.Helper()
	s := start(t, opt)
	s.deploy(t, must(t, module1), "").want(t, 201)
	s.call(t, "PUT", "/v1/workflows/transfer", transfer, "Content-Type: application/yaml").want(t, 201)
	return s
}

const transfer = `
functions:
  withdraw: {function: hostile, writes: ["accounts/{from}"]}
  deposit: {function: hostile, writes: ["accounts/{to}"], after: [withdraw]}
output: deposit
`

// reply is an answer.
type reply struct {
	of     string // the request
	status int
	header http.Header
	body   string
}

// call sends a request and reads the answer. header has lines
// "Name: value"; empty ones are left out.
func (s *server) call(t testing.TB, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := s.try(method, path, strings.NewReader(body), header...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try is call for those who expect that there may be no answer.
func (s *server) try(method, path string, body io.Reader, header ...string) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return reply{}, err
	}
	for _, line := range header {
		if name, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Add(name, value)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	return read(method+" "+path, resp)
}

func read(of string, resp *http.Response) (reply, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, fmt.Errorf("%.100s: read the answer: %w", of, err)
	}
	return reply{of: of, status: resp.StatusCode, header: resp.Header, body: string(text)}, nil
}

// want ends the test unless the answer has the status.
func (r reply) want(t testing.TB, status int) reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("%.100s: status %d, want %d: %.500s", r.of, r.status, status, r.body)
	}
	return r
}

// gives ends the test unless the answer is 200 with the body.
func (r reply) gives(t testing.TB, body string) reply {
	t.Helper()
	if r.want(t, 200); r.body != body {
		t.Fatalf("%.100s: %q, want %q", r.of, r.body, body)
	}
	return r
}

// into decodes a JSON answer.
func into[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("%.100s: %v: %.500s", r.of, err, r.body)
	}
	return v
}

// problem is the body of an error.
type problem struct {
	Type, Title, Detail, Invocation, Reason string
	Status                                  int
	Loaded                                  *int
}

// refused ends the test unless the answer is a problem of the status and word in
// the right form. It returns the problem.
func (r reply) refused(t testing.TB, status int, word string) problem {
	t.Helper()
	r.want(t, status)
	p := into[problem](t, r)
	if got := p.Type[strings.LastIndexByte(p.Type, '/')+1:]; got != word {
		t.Fatalf("%.100s: [%s], want [%s]: %.500s", r.of, got, word, r.body)
	}
	if p.Status != status || p.Title == "" || p.Detail == "" || r.header.Get("Content-Type") != "application/problem+json" ||
		p.Invocation != r.header.Get("Tenure-Invocation") {
		t.Errorf("%.100s: not the form of a problem: %v %.500s", r.of, r.header, r.body)
	}
	for _, trace := range []string{"goroutine ", ".go:", "wasm stack trace"} {
		if strings.Contains(r.body, trace) {
			t.Errorf("%.100s: the answer has a stack trace: %.500s", r.of, r.body)
		}
	}
	if again := r.header.Get("Retry-After"); (again != "") != (status == 429 || status == 503) || again == "0" {
		t.Errorf("%.100s: status %d with Retry-After %q", r.of, status, again)
	}
	return p
}

// serves ends the test unless the server runs functions and transactions.
func (s *server) serves(t testing.TB) {
	t.Helper()
	s.call(t, "POST", "/v1/functions/hostile/echo/invoke", `[1]`).gives(t, `[1]`)
	s.call(t, "PUT", "/v1/state/t/good", "x").want(t, 204)
}

// until calls check, at most for patience, until it is true.
func until(t testing.TB, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !check(); {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen in %v", what, patience)
		}
	}
}

// background runs calls that the test waits for later.
type background struct {
	wg     sync.WaitGroup
	failed atomic.Pointer[error]
}

// call starts a request whose answer is put into the channel.
func (b *background) call(s *server, method, path, body string, header ...string) <-chan reply {
	answer := make(chan reply, 1)
	b.wg.Go(func() {
		r, err := s.try(method, path, bytes.NewReader([]byte(body)), header...)
		if err != nil {
			b.failed.Store(&err)
		}
		answer <- r
	})
	return answer
}

// wait ends the test if a request had no answer.
func (b *background) wait(t testing.TB) {
	t.Helper()
	b.wg.Wait()
	if err := b.failed.Load(); err != nil {
		t.Fatal(*err)
	}
}
