package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/tenure-faas/tenure/bench"
	"github.com/tenure-faas/tenure/bench/floor"
	"github.com/tenure-faas/tenure/bench/load"
	"github.com/tenure-faas/tenure/internal/gctune"
)

// floorStartTimeout bounds the start of the bare server.
const floorStartTimeout = 10 * time.Second

// Floor is `tenure bench floor`.
type Floor struct {
	Accounts    int           `default:"10000" help:"How many accounts requests draw from."`
	Duration    time.Duration `default:"10s" help:"How long to measure."`
	Warmup      time.Duration `default:"2s" help:"How long to send before measuring."`
	Connections int           `default:"64" help:"Number of connections."`
	Rate        float64       `default:"0" help:"Arrivals per second of an open loop; 0 is a closed loop."`
	Seed        uint64        `default:"1" help:"Makes drawn accounts and amounts repeatable."`
}

// floorResult is a load's result with what the server used.
type floorResult struct {
	*load.Result
	// ServerCPU is in microseconds per request, start and warm-up included.
	ServerCPU float64 `json:"server_cpu_us_per_request"`
}

// Run starts the bare server as a process, measures it, ends it and prints the
// result, also when ctx ends the run early.
func (c *Floor) Run(ctx context.Context, env *Env) error {
	o := load.Options{
		Workload: "bank", Accounts: c.Accounts, Duration: c.Duration, Warmup: c.Warmup,
		Connections: c.Connections, Rate: c.Rate, Seed: c.Seed,
	}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return usage(err)
	}
	executable, err := os.Executable()
	if err != nil {
		return failed(fmt.Errorf("find this program: %w", err))
	}
	server, err := bench.StartChild(ctx, floorStartTimeout, "floor server", executable, "bench", "floor-server", "--listen", "127.0.0.1:0")
	if err != nil {
		return failed(err)
	}
	bar := newBar(env.Stderr, "bench floor")
	o.Server, o.Progress = server.URL, bar.time
	result, err := load.Run(ctx, o)
	bar.finish()
	server.Stop()
	if result == nil {
		return failed(err)
	}
	r := floorResult{Result: result}
	if result.Sent > 0 {
		r.ServerCPU = float64(server.CPU().Microseconds()) / float64(result.Sent)
	}
	return failed(errors.Join(err, env.print(r, func() string {
		return result.Table() + "\nserver CPU: " + strconv.FormatFloat(r.ServerCPU, 'f', 1, 64) + " µs/request"
	})))
}

// FloorServer is `tenure bench floor-server`: the process that floor and main
// measure.
type FloorServer struct {
	Listen string `default:"127.0.0.1:0" help:"Address to listen on."`
}

// Run prints "listening on URL" as one line and serves until ctx is done.
func (c *FloorServer) Run(ctx context.Context, env *Env) error {
	gctune.Server(slog.Default()) // as the servers that are compared with it
	return failed(floor.Serve(ctx, c.Listen, env.NewServer, env.Stdout))
}
