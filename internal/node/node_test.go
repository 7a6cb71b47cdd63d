package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench/floor"
	"github.com/tenure-faas/tenure/bench/load"
	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/native"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const transfer = `
functions:
  withdraw: {function: bank, writes: ["accounts/{from}"]}
  deposit: {function: bank, writes: ["accounts/{to}"], after: [withdraw]}
output: deposit
`

// start runs a node until the test ends and returns its URL.
func start(t testing.TB, opt node.Options) string {
	t.Helper()
	if opt.Data == "" {
		opt.Data = t.TempDir()
	}
	opt.Listen = "127.0.0.1:0"
	ready := make(chan string, 1)
	opt.Ready = func(_ context.Context, url string) error { ready <- url; return nil }
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() { failed <- node.Run(ctx, opt) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if err := <-failed; err != nil {
			t.Errorf("the node ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	select {
	case url := <-ready:
		return url
	case err := <-failed:
		failed <- err
		t.Fatalf("the node did not start: %v", err)
		return ""
	}
}

// do sends a request and returns status and body.
func do(t testing.TB, method, url, contentType, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

func expect(t testing.TB, wantStatus int, wantBody, method, url, contentType, body string, header ...string) http.Header {
	t.Helper()
	status, got, h := do(t, method, url, contentType, body, header...)
	if status != wantStatus || wantBody != "" && got != wantBody {
		t.Fatalf("%s %s: %d %s, want %d %s", method, url, status, got, wantStatus, wantBody)
	}
	return h
}

func nativeBank(t testing.TB) map[string]runtime.Bundle {
	t.Helper()
	b, err := native.New(bank.Handlers())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]runtime.Bundle{"bank": b}
}

// bankModule builds the bank's wasm module, once a test binary.
var bankModule = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "tenure-bank-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "bank.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "../../examples/bank/function")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if msg, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, msg)
	}
	return os.ReadFile(out)
})

func deployBank(t testing.TB, url string) {
	t.Helper()
	module, err := bankModule()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, http.StatusCreated, "", http.MethodPut, url+"/v1/functions/bank", "application/wasm", string(module))
}

// BenchmarkTransfer loads a whole node over HTTP from the same process, for
// profiles: go test -bench Transfer/native -cpuprofile cpu.out ./internal/node
// CPU per request is of client and server together; floor is the same HTTP
// server with an empty handler.
func BenchmarkTransfer(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		server := httptest.NewUnstartedServer(nil)
		server.Config = gateway.NewHTTPServer(gateway.Options{}, floor.Handler())
		server.Start()
		defer server.Close()
		runLoad(b, load.Options{Server: server.URL, Workload: "empty"})
	})
	for _, kind := range []string{"native", "wasm"} {
		b.Run(kind, func(b *testing.B) {
			opt := node.Options{Logger: slog.New(slog.DiscardHandler)}
			if kind == "native" {
				opt.Native = nativeBank(b)
			}
			url := start(b, opt)
			if kind == "wasm" {
				deployBank(b, url)
			}
			expect(b, http.StatusCreated, "", http.MethodPut, url+"/v1/workflows/transfer", "application/yaml", transfer)
			if err := load.Preload(b.Context(), load.PreloadOptions{Server: url, Workload: "bank", Accounts: 10_000}); err != nil {
				b.Fatal(err)
			}
			runLoad(b, load.Options{Server: url, Workload: "bank"})
		})
	}
}

func runLoad(b *testing.B, opt load.Options) {
	opt.Duration, opt.Warmup = 3*time.Second, time.Second
	b.ResetTimer()
	var done, seconds float64
	cpu := 0.0
	for b.Loop() {
		before := cpuSeconds(b)
		r, err := load.Run(b.Context(), opt)
		if err != nil || r.Failed > 0 {
			b.Fatalf("%v, %d failed %v", err, r.Failed, r.Problems)
		}
		cpu += (cpuSeconds(b) - before) / float64(r.Sent)
		done += float64(r.OK)
		seconds += r.Seconds
	}
	b.ReportMetric(done/seconds, "requests/s")
	b.ReportMetric(cpu/float64(b.N)*1e6, "us-CPU/request")
	b.ReportMetric(0, "ns/op")
}

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
