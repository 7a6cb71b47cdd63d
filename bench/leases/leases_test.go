package leases

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/bench/load"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/rdma/machine"
)

// TestMain makes the test binary the programs of a cluster, which the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := role(ctx, os.Args[1], os.Args[2:])
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// role is one of the programs, with the flags of theirs that are used.
func role(ctx context.Context, name string, args []string) error {
	var listen, data, leasemgr, worker, provider string
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&listen, "listen", "", "")
	flags.StringVar(&data, "data", "", "")
	flags.StringVar(&leasemgr, "leasemgr", "", "")
	flags.StringVar(&worker, "name", "", "")
	flags.StringVar(&provider, "provider", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)) // as the commands
	say := func(address string) error {
		_, err := fmt.Println("listening on", address)
		return err
	}
	switch name {
	case "turner":
		return turner(ctx, leasemgr, worker, provider, say)
	case "echo":
		return Echo(ctx, os.Stdout)
	case "leasemgr":
		return node.RunControl(ctx, node.ControlOptions{Listen: listen, Data: data, Logger: log, Ready: say})
	case "worker":
		return node.RunWorker(ctx, node.WorkerOptions{Leasemgr: leasemgr, Name: worker, Demand: machine.Demand{Provider: provider}, Logger: log, Ready: say})
	case "gateway":
		return node.RunGateway(ctx, node.GatewayOptions{Leasemgr: leasemgr, Listen: listen, Logger: log, Ready: func(_ context.Context, url string) error { return say(url) }})
	}
	return fmt.Errorf("no role %s", name)
}

// tiny are options with which everything is done, and nothing is measured well.
func tiny(t *testing.T, figure string) Options {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Command: func(role string) []string { return []string{self, role} }, Dir: t.TempDir(), Figures: []string{figure}, Providers: []string{"tcp"}, Rounds: 1,
		Transfers: 10, Keys: 3500, Sample: 20, Clients: 4, Accounts: 50, Phase: 400 * time.Millisecond, Window: 100 * time.Millisecond,
	}
}

// run measures, and checks that the report can be printed in both forms and that
// nothing is left.
func run(t *testing.T, o Options) *Report {
	t.Helper()
	var steps []string
	o.Progress = func(step string, _, _ int) { steps = append(steps, step) }
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if len(steps) != 1 || !strings.Contains(r.Text(), "Asked: ") {
		t.Errorf("steps %q; the report:\n%s", steps, r.Text())
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	t.Log("\n" + r.Text())
	return r
}

func TestTransfer(t *testing.T) {
	r := run(t, tiny(t, "transfer"))
	if len(r.Transfers) != 1 {
		t.Fatalf("%d rounds, want 1", len(r.Transfers))
	}
	// A lease moves with each of the transfers; its wait is part of the transaction.
	x := r.Transfers[0]
	if x.Waits != 10 || x.Transfers != 10 || x.Over > x.Lease || x.Lease > x.UpTo || x.Over <= 0 || x.Mean <= 0 || x.Echo <= 0 || x.Held <= 0 || x.Moved <= x.Over {
		t.Errorf("%+v", x)
	}
}

func TestTakeover(t *testing.T) {
	r := run(t, tiny(t, "takeover"))
	if len(r.Takeovers) != 1 {
		t.Fatalf("%d rounds, want 1", len(r.Takeovers))
	}
	x := r.Takeovers[0]
	if x.Keys != 3500 || x.Slots < 3400 || x.Slots > 3500 || x.Sample != 20 || x.Evicted <= 0 || x.Active <= 0 || x.Sampled < x.First || x.All < x.Sampled || x.Loading <= 0 || x.Waits < 3000 || x.Waiting <= 0 {
		t.Errorf("%+v", x)
	}
}

func TestGrowth(t *testing.T) {
	r := run(t, tiny(t, "growth"))
	if len(r.Growths) != 1 {
		t.Fatalf("%d rounds, want 1", len(r.Growths))
	}
	x := r.Growths[0]
	if x.Failed != 0 || x.OK == 0 || len(x.Windows) != 12 || x.Join.Window != 4 || x.Drain.Window != 8 || x.Join.Took <= 0 || x.Drain.Took <= 0 {
		t.Errorf("%+v", x)
	}
}

// TestFailuresAreCounted has clients of a gateway that is gone.
func TestFailuresAreCounted(t *testing.T) {
	o := tiny(t, "growth")
	c, err := startCluster(t.Context(), &o, "tcp", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.gateways[0].Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	m := &traffic{cluster: c, growth: &Growth{}}
	m.transfer(ctx, 0)
	if m.done.Load() != 0 || m.growth.Failed == 0 || len(m.growth.Errors) == 0 {
		t.Errorf("%d done, %+v", m.done.Load(), m.growth)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := tiny(t, "transfer")
	o.Transfers = 1_000_000
	o.Progress = func(string, int, int) { cancel() }
	r, err := Run(ctx, o)
	if !errors.Is(err, load.ErrInterrupted) || r == nil || len(r.Transfers) != 0 {
		t.Errorf("%v, report %+v", err, r)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBadOptions(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no programs": func(o *Options) { o.Command = nil },
		"figure":      func(o *Options) { o.Figures = []string{"none"} },
		"rounds":      func(o *Options) { o.Rounds = -1 },
		"keys":        func(o *Options) { o.Keys = 999 },
		"sample":      func(o *Options) { o.Sample = o.Keys + 1 },
		"accounts":    func(o *Options) { o.Accounts = 1 },
		"phase":       func(o *Options) { o.Phase = 3 * o.Window },
	} {
		o := tiny(t, "transfer")
		spoil(&o)
		if _, err := Run(t.Context(), o); base.KindOf(err) != base.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuantile(t *testing.T) {
	text := `# TYPE x histogram
x_bucket{worker="w1",le="1e-06"} 0
x_bucket{worker="w1",le="2e-06"} 10
x_bucket{worker="w1",le="4e-06"} 20
x_bucket{worker="w1",le="+Inf"} 20
x_sum{worker="w1"} 5e-05
x_count{worker="w1"} 20
x_bucket{worker="w2",le="1e-06"} 0
x_bucket{worker="w2",le="2e-06"} 0
x_bucket{worker="w2",le="4e-06"} 20
x_bucket{worker="w2",le="+Inf"} 21
x_sum{worker="w2"} 1
x_count{worker="w2"} 21
other_count{worker="w2"} 7
`
	h, err := readHistogram([]byte(text), "x", "")
	if err != nil || h.count != 41 || h.sum != 1.00005 {
		t.Fatalf("%+v, %v", h, err)
	}
	at, over, upTo := h.quantile(0.5) // of 10 in one bucket and 30 in the next, 10.5 of these
	if got, want := fmt.Sprintf("%.3f %.3f %.3f", at, over, upTo), "2.700 2.000 4.000"; got != want {
		t.Errorf("the median is %s, want %s", got, want)
	}
	if _, over, _ := h.quantile(1); fmt.Sprintf("%.3f", over) != "4.000" {
		t.Errorf("the greatest is over %v", over)
	}
	if other, err := readHistogram([]byte(text), "x", "w1"); err != nil || other.count != 21 || other.sum != 1 {
		t.Errorf("without w1: %+v, %v", other, err)
	}
	if d := h.minus(h); d.count != 0 || d.sum != 0 || d.below[2e-6] != 0 {
		t.Errorf("the difference to itself is %+v", d)
	}
}

func TestSettled(t *testing.T) {
	for _, c := range []struct {
		windows []float64
		want    int
	}{{[]float64{100, 105, 95}, 0}, {[]float64{50, 100, 111, 100}, 3}, {[]float64{100, 50}, 2}} {
		if got := settled(c.windows, 100); got != c.want {
			t.Errorf("%v settle at %d, want %d", c.windows, got, c.want)
		}
	}
	back := Growth{Windows: []float64{1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 18, 20, 20, 20, 20, 20, 20}}
	back.Join.Window = 6
	if back.judge(&back.Join, len(back.Windows), time.Second); back.Join.Back != 0.9 {
		t.Errorf("back at %v", back.Join.Back)
	}
	g := Growth{Windows: []float64{10, 10, 10, 10, 0, 0, 20, 20, 20, 20, 20, 20}}
	g.Join.Window = 4
	g.judge(&g.Join, len(g.Windows), time.Second)
	if want := (Change{Window: 4, Before: 10, After: 20, Settled: 2 * time.Second, Reached: 2 * time.Second, Least: 0}); g.Join != want {
		t.Errorf("%+v, want %+v", g.Join, want)
	}
}

func TestViewTimes(t *testing.T) {
	log := `time=2026-01-01T00:00:01.000Z level=INFO msg="a view is installed" view=3 members=2
time=2026-01-01T00:00:01.500Z level=INFO msg="this worker's part of a view is active: words" view=3
time=2026-01-01T00:00:02.000Z level=WARN msg="other" view=9
time=2026-01-01T00:00:02.000Z level=INFO msg="a view is installed" view=4 members=3
time=2026-01-01T00:00:05.000Z level=INFO msg="a view is installed" view=5 members=2
time=2026-01-01T00:00:05.250Z level=INFO msg="this worker's part of a view is active: words" view=5
`
	after := time.Date(2026, 1, 1, 0, 0, 1, 800_000_000, time.UTC)
	installed, active, err := viewTimes(log, 2, after)
	if err != nil || active.Sub(installed) != 250*time.Millisecond || installed.Sub(after) != 3200*time.Millisecond {
		t.Errorf("installed %v, active %v, %v", installed, active, err)
	}
	if _, _, err := viewTimes(log, 2, after.Add(time.Minute)); err == nil {
		t.Error("a view was found that is not there")
	}
}
