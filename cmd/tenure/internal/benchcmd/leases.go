package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/bench/leases"
)

// Leases is `tenure bench leases`.
type Leases struct {
	Figures   []string      `arg:"" optional:"" enum:"transfer,takeover,growth" help:"What to measure: transfer, takeover, growth (default: all)."`
	Provider  []string      `enum:"verbs,shm,tcp" default:"shm,tcp" help:"What carries the leases: each in turn for transfer, the first for the others."`
	Rounds    int           `default:"3" help:"How often each figure is measured."`
	Transfers int           `default:"2000" help:"Transfers of a lease in one round."`
	Keys      int           `default:"1000000" help:"Keys of the worker that dies."`
	Sample    int           `default:"1000" help:"How many of these are used one by one first."`
	Clients   int           `default:"16" help:"Clients of the load of growth."`
	Accounts  int           `default:"10000" help:"Accounts that they move money between."`
	Phase     time.Duration `default:"15s" help:"How long growth runs before, between and after its events."`
	Window    time.Duration `default:"500ms" help:"What throughput is counted in."`
	Dir       string        `type:"path" help:"Where the clusters' data goes: chooses the disk (default: the system's directory for temporary files)."`
	Bin       string        `type:"path" placeholder:"DIR" help:"Where the programs leasemgr, worker and gateway are (default: beside this one)."`
}

// Run measures and prints the report, also when ctx ends the run early. An ask
// that is not met is a result and no error.
func (c *Leases) Run(ctx context.Context, env *Env) error {
	executable, err := os.Executable()
	if err != nil {
		return failed(fmt.Errorf("find this program: %w", err))
	}
	if c.Bin == "" {
		c.Bin = filepath.Dir(executable)
	}
	for _, role := range []string{"leasemgr", "worker", "gateway"} {
		if _, err := os.Stat(filepath.Join(c.Bin, role)); err != nil {
			return usage(fmt.Errorf("the program %s is not in %s: make build, or say where it is with --bin", role, c.Bin))
		}
	}
	bar := newBar(env.Stderr, "bench leases")
	report, err := leases.Run(ctx, leases.Options{
		Command: func(role string) []string {
			if role == "echo" {
				return []string{executable, "bench", "echo-server"}
			}
			return []string{filepath.Join(c.Bin, role)}
		},
		Figures: c.Figures, Providers: c.Provider, Rounds: c.Rounds, Transfers: c.Transfers, Keys: c.Keys, Sample: c.Sample,
		Clients: c.Clients, Accounts: c.Accounts, Phase: c.Phase, Window: c.Window, Dir: c.Dir, Progress: bar.step,
	})
	bar.finish()
	if e, ok := errors.AsType[*base.Error](err); ok && report == nil && e.Kind == base.Invalid {
		return usage(errors.New(e.Detail))
	}
	if report != nil {
		err = errors.Join(err, env.print(report, report.Text))
	}
	return failed(err)
}

// EchoServer is `tenure bench echo-server`: the other end of bare round trips.
type EchoServer struct{}

// Run prints "listening on HOST:PORT" as one line and serves until ctx is done.
func (c *EchoServer) Run(ctx context.Context, env *Env) error {
	return failed(leases.Echo(ctx, env.Stdout))
}
