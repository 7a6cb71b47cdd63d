package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/sim/host"
)

// newEcho compiles testdata/echo.
func newEcho(t *testing.T) *host.Runner {
	t.Helper()
	wasm, err := host.Compile(t.Context(), ".", "./testdata/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := host.New(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestHost(t *testing.T) {
	r := newEcho(t)
	t.Run("equal seeds run alike", func(t *testing.T) { equalSeeds(t, r) })
	t.Run("failures", func(t *testing.T) { failures(t, r) })
	t.Run("many seeds", func(t *testing.T) { manySeeds(t, r) })
	t.Run("stops", func(t *testing.T) { stops(t, r) })
}

// equalSeeds runs some seeds twice: all of what is printed is the same for one
// seed, and not for two.
func equalSeeds(t *testing.T, r *host.Runner) {
	outputs, hashes := map[string]bool{}, map[uint64]bool{}
	const seeds = 5
	for seed := range uint64(seeds) {
		var first, second bytes.Buffer
		one, err := r.Run(t.Context(), seed, nil, nil, &first)
		if err != nil {
			t.Fatal(err)
		}
		two, err := r.Run(t.Context(), seed, nil, nil, &second)
		if err != nil {
			t.Fatal(err)
		}
		if first.String() != second.String() {
			t.Errorf("seed %d printed\n%s\nand then\n%s", seed, &first, &second)
		}
		if one.Hash != two.Hash || one.Virtual != two.Virtual || one.Readings != two.Readings {
			t.Errorf("seed %d: %+v, and then %+v", seed, one, two)
		}
		if one.Virtual < time.Minute || one.Virtual > time.Minute+time.Second || one.Readings == 0 {
			t.Errorf("seed %d slept for a minute in %v with %d readings", seed, one.Virtual, one.Readings)
		}
		if one.Report.Seed != seed || one.Report.Hash != "00ff" || one.Report.Failure != "" || one.Report.Figures["calls"] != 7 {
			t.Errorf("seed %d reports %+v", seed, one.Report)
		}
		if !strings.Contains(first.String(), "2026-01-01 00:00:00.0000") {
			t.Errorf("the clock does not begin at its instant: %s", &first)
		}
		outputs[first.String()], hashes[one.Hash] = true, true
	}
	if len(outputs) != seeds || len(hashes) != seeds {
		t.Errorf("%d seeds have %d outputs and %d hashes", seeds, len(outputs), len(hashes))
	}
}

// failures runs guests that come to a bad end.
func failures(t *testing.T, r *host.Runner) {
	for _, tt := range []struct{ mode, err, stderr string }{
		{"spin", "did not end within 10m0s of its time", ""},
		{"deadlock", "exit_code(2)", "all goroutines are asleep - deadlock!"},
		{"panic", "exit_code(2)", "panic: out of order"},
		{"exit", "exit_code(3)", ""},
		{"silent", "the last line is no report", ""},
		{"hoard", "exit_code(2)", "out of memory"},
	} {
		result, err := r.Run(t.Context(), 1, []string{tt.mode}, nil, nil)
		if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "mode "+tt.mode) ||
			!strings.Contains(err.Error(), tt.stderr) || !strings.Contains(result.Stderr, tt.stderr) {
			t.Errorf("%s: %v\nits standard error: %s", tt.mode, err, result.Stderr)
		}
		if again, _ := r.Run(t.Context(), 1, []string{tt.mode}, nil, nil); again.Hash != result.Hash {
			t.Errorf("%s does not replay", tt.mode)
		}
	}
	var out strings.Builder
	result, err := r.Run(t.Context(), 1, []string{"failure"}, map[string]string{"TENURE_PLANT": "weed"}, &out)
	if err != nil || result.Report.Failure != "a bad thing" {
		t.Errorf("a guest that reports a failure: %+v, %v", result, err)
	}
	if !strings.HasPrefix(out.String(), "mode failure weed\n") {
		t.Errorf("the environment did not get there: %s", &out)
	}
	if _, err := r.Run(t.Context(), 1, nil, nil, broken{}); err == nil {
		t.Error("an output that fails is no error")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// manySeeds runs seeds side by side; each ends as it does alone.
func manySeeds(t *testing.T, r *host.Runner) {
	got := map[uint64]uint64{}
	err := r.RunAll(t.Context(), 10, 12, 3, nil, nil, func(result host.Result, err error) bool {
		if err != nil {
			t.Error(err)
		}
		got[result.Seed] = result.Hash
		return true
	})
	if err != nil {
		t.Error(err)
	}
	if seeds := slices.Sorted(maps.Keys(got)); len(seeds) != 12 || seeds[0] != 10 || seeds[11] != 21 {
		t.Errorf("these seeds were run: %v", seeds)
	}
	if alone, err := r.Run(t.Context(), 15, nil, nil, nil); err != nil || alone.Hash != got[15] {
		t.Errorf("alone, seed 15 has hash %x, with others %x: %v", alone.Hash, got[15], err)
	}
	calls := 0
	if err := r.RunAll(t.Context(), 0, 1<<40, 2, nil, nil, func(host.Result, error) bool { calls++; return calls < 5 }); err != nil || calls != 5 {
		t.Errorf("report was called %d times, and said at the fifth that it was enough: %v", calls, err)
	}
}

// stops ends guests by their context.
func stops(t *testing.T, r *host.Runner) {
	for _, mode := range []string{"print", "read the clock"} {
		ctx, cancel := context.WithCancel(t.Context())
		begun := writer(cancel)
		if _, err := r.Run(ctx, 1, []string{mode}, nil, begun); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "mode "+mode) {
			t.Errorf("%s ended with %v", mode, err)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := r.RunAll(ctx, 0, 1<<40, 2, []string{"read the clock"}, nil, func(host.Result, error) bool { return true })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("RunAll ended with %v", err)
	}
}

// loopEnv makes TestLoop the process that is to be lost.
const loopEnv = "TENURE_SIM_HOST_LOOP"

// A guest that never asks for the time cannot be stopped; Run returns all the
// same. It is tried in a process of its own, which ends with it.
func TestLoop(t *testing.T) {
	if os.Getenv(loopEnv) == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLoop$")
		child.Env = append(os.Environ(), loopEnv+"=1")
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "did not end before its context") || !strings.Contains(string(out), "cannot be stopped") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	// A module whose _start is a loop without end: type, function, export, code.
	r, err := host.New(t.Context(), []byte("\x00asm\x01\x00\x00\x00"+"\x01\x04\x01\x60\x00\x00"+"\x03\x02\x01\x00"+
		"\x07\x0a\x01\x06_start\x00\x00"+"\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b"))
	if err != nil {
		t.Fatal(err)
	}
	debug.SetGCPercent(-1) // a collection would wait for the guest
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Run(ctx, 1, nil, nil, nil)
	fmt.Println(err)
	fmt.Println(r.Close(ctx))
	os.Exit(0)
}

// writer calls a function when something is written.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

// Build finds the root of the module from below, and passes the tags on.
func TestBuild(t *testing.T) {
	dir := t.TempDir()
	guest := filepath.Join(dir, "internal", "sim", "guest")
	if err := os.MkdirAll(guest, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		filepath.Join(dir, "go.mod"):    "module example.org/guest\n\ngo 1.26\n",
		filepath.Join(guest, "main.go"): "package main\n\nfunc main() { print(planted) }\n",
		filepath.Join(guest, "off.go"):  "//go:build !plant\n\npackage main\n\nconst planted = `planted none`\n",
		filepath.Join(guest, "on.go"):   "//go:build plant\n\npackage main\n\nconst planted = `planted weed`\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, tags := range map[string][]string{"none": nil, "weed": {"plant"}} {
		wasm, err := host.Build(t.Context(), guest, tags...)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(wasm, []byte("planted "+want)) {
			t.Errorf("with tags %v the program has not %q", tags, want)
		}
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	if _, err := host.Compile(t.Context(), ".", "./testdata/none", nil); err == nil || !strings.Contains(err.Error(), "testdata/none") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := host.Build(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "in no module") {
		t.Errorf("a directory without a module: %v", err)
	}
	if _, err := host.New(t.Context(), []byte("not wasm")); err == nil {
		t.Error("text was compiled")
	}
}
