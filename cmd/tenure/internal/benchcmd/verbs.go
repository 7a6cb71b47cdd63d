package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tenure-faas/tenure/bench/verbs"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rpc"
)

// Verbs is `tenure bench verbs`.
type Verbs struct {
	Provider string        `default:"" enum:",verbs,shm,tcp" help:"Provider to measure: verbs, shm or tcp; default: the best of this machine."`
	Device   string        `help:"RDMA device for verbs; default: the first usable one."`
	GID      string        `name:"gid" help:"GID for verbs; default: chosen by its content."`
	RXE      string        `name:"rxe" default:"" enum:",create" help:"create: make a SoftRoCE device if there is none."`
	Size     int           `default:"64" help:"Bytes of a READ or WRITE."`
	Batch    int           `default:"64" help:"Requests in a batch."`
	Duration time.Duration `default:"2s" help:"How long each verb is measured."`
	Spin     time.Duration `default:"-1s" help:"How long a wait looks before it sleeps; default: 1ms for verbs, 0 for others."`
	Serve    string        `placeholder:"HOST:PORT" help:"Be the other end for --connect, here or on another machine."`
	Connect  string        `placeholder:"HOST:PORT" help:"Measure to a process that runs with --serve."`
	Plain    bool          `help:"Allow addresses beyond this host, in the clear, for --serve and --connect."`
}

// defaultSpin is how long a wait looks at a device's completion queue: a READ of
// SoftRoCE takes tens of microseconds, and waking up costs about as much.
const defaultSpin = time.Millisecond

// Run opens the provider, measures and prints the table.
func (c *Verbs) Run(ctx context.Context, env *Env) error {
	if c.Serve != "" && c.Connect != "" {
		return usage(errors.New("--serve and --connect exclude each other"))
	}
	scope := machine.ScopeHost
	if c.Plain {
		scope = machine.ScopeCluster
	}
	demand := machine.Demand{Provider: c.Provider, Scope: scope, Device: c.Device, GID: c.GID, RXE: c.RXE}
	if err := demand.Validate(); err != nil {
		return usage(err)
	}
	_, verdict := machine.Choose(ctx, demand)
	if verdict.Err != nil {
		return failed(verdict.Err)
	}
	open := func(string) (rdma.Provider, error) {
		return machine.Open(ctx, verdict, slog.New(slog.NewTextHandler(env.Stderr, nil)))
	}
	o := verbs.Options{Size: c.Size, Batch: c.Batch, Duration: c.Duration, Spin: c.Spin, Echo: verdict.Provider == "tcp" && c.Connect == ""}
	if o.Spin < 0 {
		o.Spin = 0
		if verdict.Provider == "verbs" {
			o.Spin = defaultSpin
		}
	}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return usage(err)
	}
	var report *verbs.Report
	var err error
	switch {
	case c.Serve != "":
		l, listenErr := rpc.Listen(c.Serve, rpc.Options{Plain: c.Plain})
		if listenErr != nil {
			return failed(listenErr)
		}
		fmt.Fprintf(env.Stdout, "serving provider %s at %s; end with ctrl-C\n", verdict.Provider, l.Addr())
		return failed(verbs.Serve(ctx, open, l, o))
	case c.Connect != "":
		report, err = verbs.Connect(ctx, open, c.Connect, rpc.Options{Plain: c.Plain}, o)
	default:
		report, err = verbs.Run(ctx, open, o)
	}
	if err != nil {
		return failed(err)
	}
	return env.print(report, report.String)
}
