package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/bench/load"
)

// Load is `tenure bench load`.
type Load struct {
	Workload    string        `enum:"bank,empty,media,travel,txn" default:"bank" help:"What to send: ${enum}."`
	Accounts    int           `default:"10000" help:"How many accounts (users, movies...) requests draw from."`
	Dist        string        `enum:"uniform,zipfian" default:"uniform" help:"How accounts are drawn: ${enum}."`
	Theta       float64       `default:"0.99" help:"Exponent of the zipfian law; higher is more skewed."`
	Duration    time.Duration `default:"10s" help:"How long to measure."`
	Warmup      time.Duration `default:"2s" help:"How long to send before measuring."`
	Connections int           `default:"64" help:"Number of connections."`
	Rate        float64       `default:"0" help:"Arrivals per second of an open loop; 0 is a closed loop."`
	Queue       int           `default:"0" help:"Late arrivals that may wait in an open loop; 0 is those of five seconds."`
	Seed        uint64        `default:"1" help:"Makes drawn accounts and amounts repeatable."`
	Idempotency bool          `help:"Send an Idempotency-Key with each request and repeat it when the connection breaks."`
	Timeout     time.Duration `default:"30s" help:"Limit of one request with its repetitions."`
	Preload     bool          `help:"Load the accounts before sending."`
	Balance     int64         `default:"1000000" help:"What each account starts with."`
}

// Run sends the load and prints the result, also when ctx ends it early.
func (c *Load) Run(ctx context.Context, env *Env) error {
	o := load.Options{
		Server: env.Server, Token: env.Token, Workload: c.Workload, Accounts: c.Accounts, Duration: c.Duration,
		Warmup: c.Warmup, Connections: c.Connections, Rate: c.Rate, Queue: c.Queue, Seed: c.Seed,
		Idempotency: c.Idempotency, Timeout: c.Timeout,
	}
	if c.Dist == "zipfian" {
		o.Theta = c.Theta
		if c.Theta <= 0 {
			return usage(fmt.Errorf("--theta is %v, it must be above 0", c.Theta))
		}
	}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return usage(err)
	}
	if c.Preload {
		if err := c.preload(ctx, env); err != nil {
			return failed(err)
		}
	}
	bar := newBar(env.Stderr, "bench "+c.Workload)
	o.Progress = bar.time
	result, err := load.Run(ctx, o)
	bar.finish()
	if result != nil {
		err = errors.Join(err, env.print(result, result.Table))
		if err == nil && result.OK == 0 {
			err = fmt.Errorf("no request succeeded: statuses %v, errors %v", result.Statuses, result.Errors)
		}
	}
	return failed(err)
}

func (c *Load) preload(ctx context.Context, env *Env) error {
	bar := newBar(env.Stderr, "load accounts")
	defer bar.finish()
	return load.Preload(ctx, load.PreloadOptions{
		Server: env.Server, Token: env.Token, Workload: c.Workload, Accounts: c.Accounts, Balance: c.Balance,
		Progress: bar.count,
	})
}
