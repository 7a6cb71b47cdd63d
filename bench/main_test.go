package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench/floor"
	"github.com/tenure-faas/tenure/bench/load"
)

// TestMain is also the program that Main starts: the test binary plays the
// servers when its arguments are those of a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func child(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "bench":
		return floor.Serve(ctx, args[slices.Index(args, "--listen")+1], nil, os.Stdout)
	case "dev":
		return dev(ctx, args)
	case "mute":
		fmt.Println("an ordinary line")
		<-ctx.Done()
	case "broken":
		return errors.New("the disk is on fire")
	}
	return nil
}

// dev plays a server: it stores nothing but counts loaded lines, and leaves its
// process id in its data directory's parent.
func dev(ctx context.Context, args []string) error {
	data := args[slices.Index(args, "--data")+1]
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/state", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, `{"loaded":%d}`, strings.Count(string(body), "\n"))
	})
	refuse := os.Getenv("TENURE_TEST_REFUSE") != ""
	mux.HandleFunc("GET /v1/workflows/transfer", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("POST /v1/workflows/transfer/invoke", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if refuse {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"type":"https://tenure.dev/problems/aborted"}`)
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Printf("starting\nlistening on http://%s\ntry this\n", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func quick(t *testing.T) MainOptions {
	return MainOptions{
		Dir: t.TempDir(), Rounds: 2, Duration: 200 * time.Millisecond, Warmup: time.Millisecond,
		Connections: 4, Accounts: 100, ManyAccounts: 60_000,
	}
}

func TestMainMeasuresEveryCaseAndCleansUp(t *testing.T) {
	o := quick(t)
	steps := 0
	var total int
	o.Progress = func(_ string, done, all int) { steps, total = steps+1, all }
	r, err := Main(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != 7 || len(r.Asks) != 6 || r.Interrupted || steps != total {
		t.Errorf("%d cases, %d asks, interrupted %t, %d of %d steps; want 7, 6, false, all", len(r.Cases), len(r.Asks), r.Interrupted, steps, total)
	}
	for _, c := range r.Cases {
		if len(c.Rounds) != 2 || c.Throughput <= 0 || c.P50 <= 0 || c.P99 < c.P50 || c.Failed != 0 {
			t.Errorf("case %+v", c)
		}
		if (c.Sync > 0) != (c.Name == caseUncontended) {
			t.Errorf("case %s: fdatasync %v µs", c.Name, c.Sync)
		}
	}
	left, err := os.ReadDir(o.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind in the directory: %v, %v", left, err)
	}
	t.Log("\n" + r.Text())
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{`"cases":[{"name":"floor","throughput":`, `"p99_us":`, `"asks":[{"name":"native uniform / floor","measured":`, `"met":`, `"gomaxprocs":`, `"rounds":2`} {
		if !strings.Contains(string(out), field) {
			t.Errorf("report has no %s: %s", field, out)
		}
	}
	for _, text := range []string{r.Text(), r.Markdown()} {
		for _, word := range []string{"wasm zipfian", "met", "fdatasync", "2 rounds"} {
			if !strings.Contains(text, word) {
				t.Errorf("report has no %q:\n%s", word, text)
			}
		}
	}
}

func TestMainStopsWhenNothingSucceeds(t *testing.T) {
	t.Setenv("TENURE_TEST_REFUSE", "1")
	o := quick(t)
	r, err := Main(t.Context(), o)
	if err == nil || r != nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("report %v, error %v; want an error that names the problem", r, err)
	}
	if left, _ := filepath.Glob(o.Dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMainInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := quick(t)
	o.Progress = func(step string, _, _ int) {
		if step == "round 2: "+caseNativeZipfian {
			cancel()
		}
	}
	r, err := Main(ctx, o)
	if !errors.Is(err, load.ErrInterrupted) {
		t.Fatalf("error %v, want ErrInterrupted", err)
	}
	if !r.Interrupted || len(r.Cases) != 7 || !strings.Contains(r.Text(), "INTERRUPTED") {
		t.Errorf("interrupted %t, %d cases; want what the first round gave", r.Interrupted, len(r.Cases))
	}
	if left, _ := filepath.Glob(o.Dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartChildReportsWhatWentWrong(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StartChild(t.Context(), time.Minute, "x", executable, "broken"); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("a child that ends: %v", err)
	}
	if _, err := StartChild(t.Context(), 100*time.Millisecond, "x", executable, "mute"); err == nil || !strings.Contains(err.Error(), "did not say") {
		t.Errorf("a child that says nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartChild(ctx, time.Minute, "x", executable, "mute"); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that is interrupted: %v", err)
	}
	if _, err := StartChild(t.Context(), time.Minute, "x", executable+".none"); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestStopEndsTheProcess(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := StartChild(t.Context(), time.Minute, "x", executable, "bench", "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Alive(); err != nil {
		t.Errorf("Alive: %v", err)
	}
	pid := c.cmd.Process.Pid
	c.Stop()
	c.Stop()
	if c.Alive() == nil || c.CPU() <= 0 {
		t.Errorf("after Stop: alive %v, CPU time %v", c.Alive(), c.CPU())
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v, want no such process", pid, err)
	}
}
