package leases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/bench/load"
)

// Figures are the names that Options.Figures may have.
func Figures() []string { return []string{"transfer", "takeover", "growth"} }

// Options says what is measured, and how long. The zero value of a field stands for
// the default that its comment names.
type Options struct {
	// Command is the program of a role (leasemgr, worker, gateway or echo, which is
	// Echo) with the arguments that come before the flags. Required.
	Command func(role string) []string `json:"-"`
	// Dir is where the clusters' data goes, in a directory of its own that is removed
	// at the end. It decides which disk is measured. Default: the system's directory
	// for temporary files.
	Dir string `json:"dir"`
	// Figures are measured, in the order of the function Figures. Default: all.
	Figures []string `json:"figures"`
	// Providers carry the leases: each in turn for transfer, the first for the others.
	// Default: shm and tcp.
	Providers []string `json:"providers"`
	// Rounds is how often each figure is measured, 1 to 100: rounds of transfer in one
	// cluster, those of the others in a new one each. Default: 3.
	Rounds int `json:"rounds"`
	// Transfers are made in one round, 10 to 1,000,000. Default: 2,000.
	Transfers int `json:"transfers"`
	// Keys are those of the worker that dies, 1,000 to 10,000,000, and Sample how many
	// of them are used one by one first, at most Keys. Default: 1,000,000 and 1,000.
	Keys   int `json:"keys"`
	Sample int `json:"sample"`
	// Clients send the load of growth, 1 to 1,024, to Accounts accounts, at least 2.
	// Default: 16 and 10,000.
	Clients  int `json:"clients"`
	Accounts int `json:"accounts"`
	// Phase is how long growth runs before, between and after its two events, at
	// least four times Window, which is what throughput is counted in. Default: 15 s
	// and 500 ms.
	Phase  time.Duration `json:"phase_ns"`
	Window time.Duration `json:"window_ns"`
	// Progress, if not nil, is called by Run's goroutine when a step begins.
	Progress func(step string, done, total int) `json:"-"`
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if len(o.Figures) == 0 {
		o.Figures = Figures()
	}
	if len(o.Providers) == 0 {
		o.Providers = []string{"shm", "tcp"}
	}
	for _, field := range []struct {
		value *int
		def   int
	}{{&o.Rounds, 3}, {&o.Transfers, 2000}, {&o.Keys, 1_000_000}, {&o.Sample, 1000}, {&o.Clients, 16}, {&o.Accounts, 10_000}} {
		if *field.value == 0 {
			*field.value = field.def
		}
	}
	if o.Phase == 0 {
		o.Phase = 15 * time.Second
	}
	if o.Window == 0 {
		o.Window = 500 * time.Millisecond
	}
}

// Validate returns all faults of the options at once, after EnsureDefaults.
func (o *Options) Validate() error {
	var faults []error
	if o.Command == nil {
		faults = append(faults, errors.New("the programs of the roles are not given"))
	}
	for _, f := range o.Figures {
		if !slices.Contains(Figures(), f) {
			faults = append(faults, fmt.Errorf("figure %q is not known, choose of %v", f, Figures()))
		}
	}
	for _, x := range []struct {
		name        string
		value       int
		least, most int
	}{
		{"rounds", o.Rounds, 1, 100}, {"transfers", o.Transfers, 10, 1_000_000}, {"keys", o.Keys, bulk, 10_000_000},
		{"sample", o.Sample, 1, o.Keys}, {"clients", o.Clients, 1, 1024}, {"accounts", o.Accounts, 2, 10_000_000},
	} {
		if x.value < x.least || x.value > x.most {
			faults = append(faults, fmt.Errorf("%s is %d, choose %d to %d", x.name, x.value, x.least, x.most))
		}
	}
	if o.Window <= 0 || o.Phase < 4*o.Window {
		faults = append(faults, fmt.Errorf("phase is %v and window %v, a phase must have four windows", o.Phase, o.Window))
	}
	return errors.Join(faults...)
}

// Run measures the figures one after the other and blocks until that is done. The
// report is of the complete rounds, also when the error, which wraps
// load.ErrInterrupted when ctx is done, ends it before.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, base.Invalidf("options", "%v", err)
	}
	r := &Report{Environment: load.CurrentEnvironment(), Options: o}
	s := &suite{options: &o, report: r}
	err := s.run(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", load.ErrInterrupted, err)
	}
	return r, err
}

// suite is one execution of Run. One goroutine uses it.
type suite struct {
	options     *Options
	report      *Report
	done, total int
}

func (s *suite) run(ctx context.Context) error {
	o := s.options
	chosen := func(figure string) bool { return slices.Contains(o.Figures, figure) }
	if chosen("transfer") {
		s.total += len(o.Providers) * o.Rounds
	}
	if chosen("takeover") {
		s.total += o.Rounds
	}
	if chosen("growth") {
		s.total += o.Rounds
	}
	if chosen("transfer") {
		for _, provider := range o.Providers {
			if err := s.transfers(ctx, provider); err != nil {
				return fmt.Errorf("transfer over %s: %w", provider, err)
			}
		}
	}
	for round := 1; chosen("takeover") && round <= o.Rounds; round++ {
		s.step(fmt.Sprintf("takeover, round %d", round))
		t, err := takeover(ctx, o, o.Providers[0])
		if err != nil {
			return fmt.Errorf("takeover, round %d: %w", round, err)
		}
		s.report.Takeovers = append(s.report.Takeovers, *t)
	}
	for round := 1; chosen("growth") && round <= o.Rounds; round++ {
		s.step(fmt.Sprintf("growth, round %d", round))
		g, err := growth(ctx, o, o.Providers[0])
		if err != nil {
			return fmt.Errorf("growth, round %d: %w", round, err)
		}
		s.report.Growths = append(s.report.Growths, *g)
	}
	return nil
}

func (s *suite) step(name string) {
	if s.options.Progress != nil {
		s.options.Progress(name, s.done, s.total)
	}
	s.done++
}
