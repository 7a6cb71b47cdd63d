package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tenure-faas/tenure/bench/load"
)

const (
	// requestTimeout bounds each request of a measurement.
	requestTimeout = 10 * time.Second
	// startTimeout bounds the start of a child: compiling the example to a
	// module and the module to machine code takes seconds.
	startTimeout = 2 * time.Minute
)

// MainOptions says how long and how much Main measures. The zero value of a
// field stands for the default that its comment names.
type MainOptions struct {
	// Executable is the program to start as servers. Default: this program.
	Executable string `json:"executable"`
	// Dir is where the servers' data goes, in a directory of its own that is
	// removed at the end. It decides which disk is measured. Default: the
	// system's directory for temporary files.
	Dir string `json:"dir"`
	// Rounds is how often each case is measured, 1 to 1,000. Default: 5.
	Rounds int `json:"rounds"`
	// Duration and Warmup are those of one case in one round. Default: 5 s and
	// 1 s.
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	// Connections is that of all cases but the one with a single connection.
	// Default: 64.
	Connections int `json:"connections"`
	// Accounts and ManyAccounts are how many accounts the servers hold.
	// Default: 10,000 and 1,000,000.
	Accounts     int `json:"accounts"`
	ManyAccounts int `json:"many_accounts"`
	// Theta is the exponent of the skewed cases. Default: 0.99.
	Theta float64 `json:"theta"`
	// Seed makes the drawn accounts repeatable: a round draws the same ones in
	// each run, and others than the rounds before it.
	Seed uint64 `json:"seed"`
	// Progress, if not nil, is called by Main's goroutine when a step begins.
	Progress func(step string, done, total int) `json:"-"`
}

// EnsureDefaults replaces zero values by defaults.
func (o *MainOptions) EnsureDefaults() error {
	if o.Executable == "" {
		executable, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Executable = executable
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	for _, field := range []struct {
		value *int
		def   int
	}{{&o.Rounds, 5}, {&o.Connections, 64}, {&o.Accounts, 10_000}, {&o.ManyAccounts, 1_000_000}} {
		if *field.value == 0 {
			*field.value = field.def
		}
	}
	if o.Duration == 0 {
		o.Duration = 5 * time.Second
	}
	if o.Warmup == 0 {
		o.Warmup = time.Second
	}
	if o.Theta == 0 {
		o.Theta = 0.99
	}
	return nil
}

// Validate returns all faults of the options at once, after EnsureDefaults.
func (o *MainOptions) Validate() error {
	var faults []error
	if o.Rounds < 1 || o.Rounds > 1000 {
		faults = append(faults, fmt.Errorf("rounds is %d, choose 1 to 1000", o.Rounds))
	}
	if o.Theta <= 0 {
		faults = append(faults, fmt.Errorf("theta is %v, it must be above 0", o.Theta))
	}
	for _, k := range cases(o) {
		k.load.EnsureDefaults()
		if err := k.load.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("case %q: %w", k.name, err))
			break // the other cases have the same faults
		}
	}
	return errors.Join(faults...)
}

// suite is one execution of Main. One goroutine uses it.
type suite struct {
	options  *MainOptions
	dir      string // the directory that holds all data of the run
	children map[string]*Child
	cases    []scenario
	// figures holds the rounds of each case, in the order of cases.
	figures [][]Figure
	done    int // steps that are over
	total   int
}

// Main measures all cases and blocks until that is done, for about Rounds
// times seven times Duration and Warmup. When ctx is done before, the report
// is of the complete measurements until then (nil if there was none) and the
// error wraps load.ErrInterrupted. A server that cannot be started, loaded or
// that answers nothing is an error; refused requests are counted in the report.
func Main(ctx context.Context, o MainOptions) (*Report, error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("bench options: %w", err)
	}
	s := &suite{options: &o, children: map[string]*Child{}, cases: cases(&o)}
	s.figures = make([][]Figure, len(s.cases))
	s.total = 4 + 3 + o.Rounds*len(s.cases) // starts, loads, measurements
	err := s.run(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", load.ErrInterrupted, err)
	}
	if err != nil && !errors.Is(err, load.ErrInterrupted) {
		return nil, err
	}
	return newReport(s), err
}

func (s *suite) run(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp(s.options.Dir, "tenure-bench-"); err != nil {
		return fmt.Errorf("directory for the servers' data: %w", err)
	}
	defer func() {
		for _, child := range s.children {
			child.cancel() // all at once: each may take its time to end
		}
		for _, child := range s.children {
			child.Stop()
		}
		err = errors.Join(err, os.RemoveAll(s.dir))
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	for round := range s.options.Rounds {
		for i := range s.cases {
			at := (i + round) % len(s.cases)
			if err := s.measure(ctx, round, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// start starts the servers one after the other and loads their accounts.
func (s *suite) start(ctx context.Context) error {
	dev := func(runtime, data string) []string {
		return []string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(s.dir, data), "--example", "bank", "--runtime", runtime}
	}
	for _, server := range []struct {
		name     string
		accounts int
		args     []string
	}{
		{serverFloor, 0, []string{"bench", "floor-server", "--listen", "127.0.0.1:0"}},
		{serverNative, s.options.Accounts, dev("native", "native")},
		{serverWasm, s.options.Accounts, dev("wasm", "wasm")},
		{serverMany, s.options.ManyAccounts, dev("native", "many")},
	} {
		s.step("start " + server.name)
		child, err := StartChild(ctx, startTimeout, "server "+server.name, s.options.Executable, server.args...)
		if err != nil {
			return err
		}
		s.children[server.name] = child
		if server.accounts == 0 {
			continue
		}
		s.step(fmt.Sprintf("load %d accounts into %s", server.accounts, server.name))
		p := load.PreloadOptions{Server: child.URL, Workload: "bank", Accounts: server.accounts}
		if err := load.Preload(ctx, p); err != nil {
			return fmt.Errorf("server %s: %w", server.name, errors.Join(err, child.Alive()))
		}
		if err := awaitWorkflow(ctx, child, "transfer"); err != nil {
			return fmt.Errorf("server %s: %w", server.name, err)
		}
	}
	return nil
}

// awaitWorkflow blocks until a server that deploys its example after it has
// begun to listen has the workflow; at most startTimeout.
func awaitWorkflow(ctx context.Context, child *Child, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, child.URL+"/v1/workflows/"+name, nil)
		if err != nil {
			return fmt.Errorf("ask for workflow %s: %w", name, err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return err
			}
			err = errors.Join(err, errors.New(resp.Status))
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("workflow %s was not deployed within %v: %w", name, startTimeout, errors.Join(err, child.Alive()))
		}
	}
}

// measure runs one case of one round and keeps its figure.
func (s *suite) measure(ctx context.Context, round, at int) error {
	k := &s.cases[at]
	s.step(fmt.Sprintf("round %d: %s", round+1, k.name))
	child := s.children[k.server]
	o := k.load
	o.Server = child.URL
	o.Seed = s.options.Seed + uint64(round)
	var before, after time.Duration
	var err error
	if k.disk {
		if before, err = SyncLatency(ctx, s.dir); err != nil {
			return err
		}
	}
	result, err := load.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, errors.Join(err, child.Alive()))
	}
	if err := child.Alive(); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	if result.OK == 0 {
		return fmt.Errorf("%s: no request succeeded: statuses %v, problems %v, errors %v", k.name, result.Statuses, result.Problems, result.Errors)
	}
	if k.disk {
		if after, err = SyncLatency(ctx, s.dir); err != nil {
			return err
		}
	}
	s.figures[at] = append(s.figures[at], newFigure(round, result, (before+after)/2))
	return nil
}

func (s *suite) step(name string) {
	if s.options.Progress != nil {
		s.options.Progress(name, s.done, s.total)
	}
	s.done++
}
