package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench/load"
	"github.com/tenure-faas/tenure/examples/bank"
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
func BenchmarkTransfer(b *testing.B) {
	for _, kind := range []string{"native", "wasm"} {
		b.Run(kind, func(b *testing.B) {
			opt := node.Options{}
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
			b.ResetTimer()
			start := time.Now()
			done := uint64(0)
			for b.Loop() {
				r, err := load.Run(b.Context(), load.Options{Server: url, Workload: "bank", Duration: 3 * time.Second})
				if err != nil || r.Failed > 0 {
					b.Fatalf("%v, %d failed %v", err, r.Failed, r.Problems)
				}
				done += r.OK
			}
			b.ReportMetric(float64(done)/time.Since(start).Seconds(), "transfers/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
