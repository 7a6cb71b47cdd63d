package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tenure-faas/tenure/bench"
)

// Main is `tenure bench main`.
type Main struct {
	Rounds       int           `default:"5" help:"How often each case is measured."`
	Duration     time.Duration `default:"5s" help:"How long to measure one case in one round."`
	Warmup       time.Duration `default:"1s" help:"How long to send before each measurement."`
	Connections  int           `default:"64" help:"Number of connections."`
	Accounts     int           `default:"10000" help:"Accounts of the ordinary servers."`
	ManyAccounts int           `default:"1000000" help:"Accounts of the server with many."`
	Theta        float64       `default:"0.99" help:"Exponent of the skewed cases."`
	Seed         uint64        `default:"1" help:"Makes drawn accounts and amounts repeatable."`
	Dir          string        `type:"path" help:"Where the servers' data goes while measuring: chooses the disk (default: the system's directory for temporary files)."`
	Report       string        `type:"path" placeholder:"FILE" help:"Also write the report to this file, as Markdown."`
}

// Run measures and prints the report, also when ctx ends the run early. An ask
// that is not met is a result and no error.
func (c *Main) Run(ctx context.Context, env *Env) error {
	o := bench.MainOptions{
		Dir: c.Dir, Rounds: c.Rounds, Duration: c.Duration, Warmup: c.Warmup, Connections: c.Connections,
		Accounts: c.Accounts, ManyAccounts: c.ManyAccounts, Theta: c.Theta, Seed: c.Seed,
	}
	if err := o.EnsureDefaults(); err != nil {
		return failed(err)
	}
	if err := o.Validate(); err != nil {
		return usage(err)
	}
	if c.Report != "" {
		// Found out now rather than after minutes.
		if info, err := os.Stat(filepath.Dir(c.Report)); err != nil || !info.IsDir() {
			return usage(fmt.Errorf("--report %s: its directory does not exist", c.Report))
		}
	}
	bar := newBar(env.Stderr, "bench main")
	o.Progress = bar.step
	report, err := bench.Main(ctx, o)
	bar.finish()
	if report == nil {
		return failed(err)
	}
	err = errors.Join(err, env.print(report, report.Text))
	if c.Report != "" {
		err = errors.Join(err, os.WriteFile(c.Report, []byte(report.Markdown()), 0o644))
	}
	return failed(err)
}
