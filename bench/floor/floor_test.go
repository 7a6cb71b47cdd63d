package floor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench/floor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServeAnswersLikeAnInvocationAndStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	made := 0
	factory := func(h http.Handler) *http.Server {
		made++
		return floor.DefaultServer(h)
	}
	var running sync.WaitGroup
	var serveErr error
	running.Go(func() {
		serveErr = floor.Serve(ctx, "127.0.0.1:0", factory, write)
		_ = write.Close()
	})
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("first line is %q", line)
	}
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	response, err := client.Post(url+"/v1/workflows/transfer/invoke", "application/json", strings.NewReader(`{"from":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !json.Valid(body) || response.StatusCode != http.StatusOK {
		t.Errorf("status %d, body %q, error %v", response.StatusCode, body, err)
	}
	if response.Header.Get("Content-Type") != "application/json" || len(response.Header.Get("Tenure-Invocation")) != 26 {
		t.Errorf("headers %v are not those of an invocation", response.Header)
	}
	transport.CloseIdleConnections()
	cancel()
	running.Wait()
	if serveErr != nil || made != 1 {
		t.Errorf("Serve: %v, factory called %d times", serveErr, made)
	}
}

func TestServeReportsAnAddressInUseAndADeadPipe(t *testing.T) {
	if err := floor.Serve(t.Context(), "256.0.0.1:bad", nil, io.Discard); err == nil {
		t.Error("a bad address was accepted")
	}
	read, write := io.Pipe()
	_ = read.Close()
	if err := floor.Serve(t.Context(), "127.0.0.1:0", nil, write); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Serve: %v, want the closed pipe", err)
	}
}
