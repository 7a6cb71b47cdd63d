//go:build linux && amd64

package host_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/sim/host"
)

func echo(t *testing.T) *host.Runner {
	t.Helper()
	r, err := host.Build(t.Context(), ".", "./internal/sim/host/testdata/echo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestReplay runs seeds twice: what a Go program leaves to chance, to the clock and
// to the scheduler is the same, and of another seed it is not.
func TestReplay(t *testing.T) {
	r := echo(t)
	seen := map[uint64]uint64{}
	for range 2 {
		err := r.RunAll(t.Context(), 100, 20, 2, nil, []string{"TENURE_PLANT=x"}, func(x host.Result, err error) bool {
			if err != nil || x.Report.Failure != "" || x.Report.Figures["calls"] != 7 || x.Report.Virtual < time.Minute {
				t.Errorf("seed %d: %+v, %v", x.Seed, x, err)
			}
			if before, again := seen[x.Seed]; again && before != x.Hash {
				t.Errorf("seed %d does not replay", x.Seed)
			}
			seen[x.Seed] = x.Hash
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	different := map[uint64]bool{}
	for _, hash := range seen {
		different[hash] = true
	}
	if len(seen) != 20 || len(different) != 20 {
		t.Errorf("%d seeds have run, %d of them are different", len(seen), len(different))
	}
}

// TestMisbehaviour has programs that end otherwise.
func TestMisbehaviour(t *testing.T) {
	r := echo(t)
	for mode, want := range map[string]string{
		"sleep for ever": "does not end within 10m",
		"deadlock":       "does not end within 10m", // time passes there, until the bound
		"panic":          "panic: out of order",
		"exit":           "status 3",
		"silent":         "invalid character",
	} {
		var out strings.Builder
		x, err := r.Run(t.Context(), 7, []string{mode}, []string{"TENURE_PLANT=x"}, &out)
		if err == nil || !strings.Contains(err.Error(), want) || x.Seed != 7 || !strings.Contains(out.String(), "mode "+mode+" x") {
			t.Errorf("%s: %+v, %v, printed %q", mode, x, err, out.String())
		}
	}
	if x, err := r.Run(t.Context(), 7, []string{"failure"}, nil, nil); err != nil || x.Report.Failure != "a bad thing" {
		t.Errorf("failure: %+v, %v", x, err)
	}
	if _, err := r.Run(t.Context(), 7, nil, nil, broken{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("an output that fails: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// TestStops ends a program that loops, when it is told to.
func TestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := writer(cancel)
	if _, err := echo(t).Run(ctx, 7, []string{"loop"}, nil, begun); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// writer is called at every Write.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

// TestRunAllStops stops at the first report that says so.
func TestRunAllStops(t *testing.T) {
	reports := 0
	err := echo(t).RunAll(t.Context(), 0, 1000, 2, nil, nil, func(host.Result, error) bool { reports++; return reports < 3 })
	if err != nil || reports != 3 {
		t.Errorf("%d reports, %v", reports, err)
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	if _, err := host.Build(t.Context(), ".", "./internal/sim/nothing"); err == nil || !strings.Contains(err.Error(), "internal/sim/nothing") {
		t.Errorf("got %v", err)
	}
	if _, err := host.Build(t.Context(), os.TempDir(), "./x"); err == nil || !strings.Contains(err.Error(), "is in no module") {
		t.Errorf("got %v", err)
	}
}
