package benchcmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/bench"
	"github.com/tenure-faas/tenure/bench/load"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/benchcmd"
)

// TestMain makes the test binary a program with the command bench, which the
// commands under test start again as their server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code, err := execute(ctx, os.Stdout, os.Stderr, os.Args[1:]...)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// execute is the program: it returns its exit status.
func execute(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	var cli struct {
		Server string
		Token  string
		Output string
		Bench  benchcmd.Command `cmd:""`
	}
	parser, err := kong.New(&cli, kong.Name("tenure"), kong.Writers(stdout, stderr))
	if err != nil {
		return 2, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return 2, err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(&benchcmd.Env{Server: cli.Server, Token: cli.Token, Output: cli.Output, Stdout: stdout, Stderr: stderr})
	var exit kong.ExitCoder
	if errors.As(err, &exit) {
		return exit.ExitCode(), err
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// bank answers transfers and loads; every request is announced on calls, if
// there is room.
func bank(t *testing.T) (url string, calls chan string) {
	calls = make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		select {
		case calls <- r.URL.Path + " " + r.Header.Get("Authorization"):
		default:
		}
		_, _ = fmt.Fprintf(w, `{"loaded":%d}`, bytes.Count(body, []byte("\n")))
	}))
	t.Cleanup(server.Close)
	return server.URL, calls
}

func TestLoadPrintsJSON(t *testing.T) {
	url, calls := bank(t)
	var out, errs bytes.Buffer
	code, err := execute(t.Context(), &out, &errs, "bench", "load", "--server", url, "--token", "s3", "--output", "json",
		"--duration", "300ms", "--warmup", "0s", "--connections", "2", "--preload", "--accounts", "10", "--dist", "zipfian", "--rate", "1000")
	if code != 0 {
		t.Fatalf("exit status %d: %v", code, err)
	}
	var r struct {
		Loop    string
		OK      uint64
		Options struct{ Theta, Rate float64 }
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.OK == 0 || r.Loop != "open" || r.Options.Theta != 0.99 || r.Options.Rate != 1000 {
		t.Errorf("%v in %s", err, out.Bytes())
	}
	if first := <-calls; first != "/v1/state Bearer s3" {
		t.Errorf("the first request is %q, want the accounts", first)
	}
	if errs.Len() > 0 {
		t.Errorf("progress on something that is no terminal: %q", errs.String())
	}
}

func TestLoadPrintsATable(t *testing.T) {
	url, _ := bank(t)
	var out bytes.Buffer
	code, err := execute(t.Context(), &out, io.Discard, "bench", "load", "--server", url, "--duration", "300ms", "--warmup", "0s", "--connections", "1")
	if code != 0 || !strings.Contains(out.String(), "throughput") {
		t.Errorf("exit status %d, %v, output:\n%s", code, err, out.String())
	}
}

func TestExitStatus(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()
	for _, c := range []struct {
		name string
		code int
		args []string
	}{
		{"unreachable", 3, []string{"load", "--server", gone.URL}},
		{"unreachable while loading", 3, []string{"load", "--server", gone.URL, "--preload"}},
		{"nothing succeeds", 1, []string{"load", "--server", refusing.URL, "--duration", "300ms", "--warmup", "0s", "--connections", "1"}},
		{"accounts are refused", 1, []string{"load", "--server", refusing.URL, "--preload"}},
		{"bad accounts", 2, []string{"load", "--accounts", "1"}},
		{"bad theta", 2, []string{"load", "--dist", "zipfian", "--theta", "0"}},
		{"bad workload", 2, []string{"load", "--workload", "nope"}},
		{"bad connections", 2, []string{"floor", "--connections", "-1"}},
		{"bad rounds", 2, []string{"main", "--rounds", "-1"}},
		{"no place for the report", 2, []string{"main", "--report", filepath.Join(t.TempDir(), "none", "r.md")}},
		{"bad address", 1, []string{"floor-server", "--listen", "nowhere:bad"}},
		{"no dev command", 1, []string{"main", "--dir", t.TempDir()}},
		{"no programs", 2, []string{"leases", "--bin", t.TempDir()}},
		{"no such figure", 2, []string{"leases", "nope"}},
		{"bad number of rounds", 2, []string{"leases", "--rounds", "-1", "--bin", emptyPrograms(t)}},
		{"programs that do not run", 1, []string{"leases", "--bin", emptyPrograms(t), "--dir", t.TempDir()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, err := execute(t.Context(), io.Discard, io.Discard, append([]string{"bench"}, c.args...)...)
			if code != c.code || err == nil {
				t.Errorf("exit status %d, error %v; want %d", code, err, c.code)
			}
		})
	}
}

// emptyPrograms is a directory with the programs of a cluster, which end with an
// error.
func emptyPrograms(t *testing.T) string {
	dir := t.TempDir()
	for _, role := range []string{"leasemgr", "worker", "gateway"} {
		if err := os.WriteFile(filepath.Join(dir, role), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEchoServer has the command answer what it gets.
func TestEchoServer(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	echo, err := bench.StartChild(t.Context(), time.Minute, "echo", executable, "bench", "echo-server")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Stop()
	conn, err := net.Dial("tcp", echo.URL)
	if err != nil {
		t.Fatal(err)
	}
	message := bytes.Repeat([]byte("x"), 64)
	answer := make([]byte, 64)
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer, message) {
		t.Errorf("%q, %v", answer, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestFloorMeasuresItsOwnProcess(t *testing.T) {
	var out bytes.Buffer
	code, err := execute(t.Context(), &out, io.Discard, "bench", "floor", "--output", "json", "--duration", "300ms", "--warmup", "1ms", "--connections", "4")
	if code != 0 {
		t.Fatalf("exit status %d: %v", code, err)
	}
	var r struct {
		OK     uint64
		Failed uint64
		Server float64 `json:"server_cpu_us_per_request"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.OK == 0 || r.Failed != 0 || r.Server <= 0 {
		t.Errorf("%v in %s", err, out.Bytes())
	}
}

// TestInterrupt sends a real SIGINT to a real process in the middle of a run
// of an hour.
func TestInterrupt(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	url, calls := bank(t)
	var out bytes.Buffer
	command := exec.CommandContext(t.Context(), executable, "bench", "load", "--server", url, "--output", "json", "--duration", "1h", "--warmup", "0s", "--connections", "2")
	command.Stdout = &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for range 10 { // some answers have been counted then
		<-calls
	}
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err = command.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	var r struct {
		Interrupted bool
		OK          uint64
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Interrupted || r.OK == 0 {
		t.Errorf("%v in %s; want the partial result", err, out.Bytes())
	}
}

// TestEveryWorkloadHasItsName compares the flag's list with the workloads that
// there are: kong refuses a word that is not in the list before Run does.
func TestEveryWorkloadHasItsName(t *testing.T) {
	for _, name := range load.Workloads() {
		_, err := execute(t.Context(), io.Discard, io.Discard, "bench", "load", "--workload", name, "--accounts", "1")
		if err == nil || !strings.HasPrefix(err.Error(), "accounts is 1") {
			t.Errorf("--workload %s: %v, want that the accounts are refused", name, err)
		}
	}
}

func TestInterruptBeforeTheStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	url, _ := bank(t)
	for _, args := range [][]string{{"load", "--server", url}, {"load", "--server", url, "--preload"}, {"floor"}, {"main", "--dir", t.TempDir()}} {
		code, err := execute(ctx, io.Discard, io.Discard, append([]string{"bench"}, args...)...)
		if code != 1 || err == nil {
			t.Errorf("%s: exit status %d, error %v; want 1", args[0], code, err)
		}
	}
}
