package bench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// figures makes one round for each throughput.
func figures(throughputs ...float64) []Figure {
	f := make([]Figure, len(throughputs))
	for i, v := range throughputs {
		f[i] = Figure{Round: i, Throughput: v, P50: v, P99: 2 * v}
	}
	return f
}

func TestReportTakesMediansAndJudges(t *testing.T) {
	o := MainOptions{Rounds: 3, Accounts: 100, ManyAccounts: 200, Connections: 2}
	if err := o.EnsureDefaults(); err != nil {
		t.Fatal(err)
	}
	s := &suite{options: &o, cases: cases(&o)}
	s.figures = [][]Figure{
		figures(1000, 900, 5000), // floor: 1000
		figures(500, 600, 400),   // native: 500
		figures(390, 399, 500),   // zipfian: 399
		figures(399, 399, 399),   // wasm: 399
		figures(399, 0, 399),     // wasm zipfian: 399
		figures(450, 450, 450),   // many: 450
		figures(1500, 1600, 1700),
	}
	for i := range s.figures[6] {
		s.figures[6][i].Sync = 700
		s.figures[1][i].Failed = 2
	}
	r := newReport(s)
	if c := r.find(caseNativeUniform); c.Throughput != 500 || c.P50 != 500 || c.P99 != 1000 || c.Failed != 6 {
		t.Errorf("native uniform: %+v", c)
	}
	want := []struct {
		measured, lowest, highest float64
		met                       bool
	}{
		{0.5, 0.08, 600.0 / 900, true},
		{0.399, 399.0 / 5000, 399.0 / 900, false},
		{0.798, 0.665, 1.25, false},
		{1, 0, 1, true},
		{0.9, 0.75, 1.125, true},
		{0.9, 0.8, 1.0, true},
	}
	if len(r.Asks) != len(want) {
		t.Fatalf("%d asks, want %d", len(r.Asks), len(want))
	}
	for i, w := range want {
		a := r.Asks[i]
		if a.Measured != w.measured || a.Lowest != w.lowest || a.Highest != w.highest || a.Met != w.met {
			t.Errorf("%s: %+v, want %+v", a.Name, a, w)
		}
	}
	if text := r.Text(); strings.Count(text, "NOT MET") != 2 {
		t.Errorf("two asks are not met:\n%s", text)
	}
}

func TestReportWithoutAllCasesJudgesTheOthers(t *testing.T) {
	o := MainOptions{Rounds: 1}
	s := &suite{options: &o, cases: cases(&o), figures: make([][]Figure, 7)}
	s.figures[0], s.figures[1] = figures(10), figures(8)
	r := newReport(s)
	if !r.Interrupted || len(r.Cases) != 2 || len(r.Asks) != 1 || !r.Asks[0].Met {
		t.Errorf("report %+v", r)
	}
}

func TestMedianOf(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := medianOf(figures(c.in...), func(f *Figure) float64 { return f.Throughput }); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
}

func TestValidateMainOptions(t *testing.T) {
	o := MainOptions{Rounds: -1, Theta: -1, Connections: -1, Executable: "x"}
	if err := o.EnsureDefaults(); err != nil {
		t.Fatal(err)
	}
	err := o.Validate()
	for _, word := range []string{"rounds", "theta", "connections"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("the fault of %s is not named: %v", word, err)
		}
	}
}

func TestSyncLatency(t *testing.T) {
	dir := t.TempDir()
	if d, err := SyncLatency(t.Context(), dir); err != nil || d <= 0 {
		t.Errorf("SyncLatency: %v, %v", d, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := SyncLatency(t.Context(), dir+"/none"); err == nil {
		t.Error("a directory that does not exist was measured")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := SyncLatency(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of ctx: %v", err)
	}
}

func TestChildOutput(t *testing.T) {
	f := &lineFinder{found: make(chan string, 1)}
	for _, part := range []string{"one\nlist", "ening on http://x:1 \nlistening on http://y\n", strings.Repeat("z", 3*outputKept)} {
		if n, err := f.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if url := <-f.found; url != "http://x:1" || len(f.line) != 0 {
		t.Errorf("found %q, %d bytes kept", url, len(f.line))
	}
	var last tail
	_, _ = last.Write(bytes.Repeat([]byte("a"), outputKept))
	_, _ = last.Write([]byte("end"))
	if len(last.last) != outputKept || !strings.HasSuffix(last.quote(), "aend") {
		t.Errorf("%d bytes kept, ending in %q", len(last.last), last.last[len(last.last)-5:])
	}
}
