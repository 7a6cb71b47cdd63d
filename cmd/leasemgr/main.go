// Command leasemgr is the process that a cluster has once: it decides who is a
// member, and keeps the store. It also shows what a stopped one's store says about
// the cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/internal/control"
	"github.com/tenure-faas/tenure/cmd/leasemgr/internal/inspect"
	"github.com/tenure-faas/tenure/internal/gctune"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/leasemgr/membership"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Serve serve `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT (what happens without a command)."`
	Show  show  `cmd:"" help:"Print membership and catalogue of a store that is not in use."`
}

// The limits of --ttl. A worker renews six times in a TTL, and calls are given up
// after an eighth of one: less than 60 ms would be no time for one.
const (
	minTTL = 500 * time.Millisecond
	maxTTL = time.Minute
)

// serve runs the process.
type serve struct {
	Listen string        `default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Address for workers and gateways; port 0 picks one (default ${default})."`
	Data   string        `default:"./tenure-data" type:"path" placeholder:"DIR" help:"Data directory, created if absent (default ./tenure-data)."`
	TTL    time.Duration `name:"ttl" default:"3s" placeholder:"TIME" help:"How long a worker that is not heard keeps its leases, beside a margin of 0.2 s (default ${default}; 500ms to 1m). Short: keys of a dead worker are back sooner. Long: a slow network or a busy host costs nobody its membership."`
	control.Flags
	cli.Log
}

// Run implements the command. The line "listening on HOST:PORT" on standard output
// is a contract: scripts wait for it.
func (c *serve) Run(ctx context.Context, streams cli.Streams) error {
	if c.TTL < minTTL || c.TTL > maxTTL {
		return cli.Usagef("--ttl %v: it must be between %v and %v", c.TTL, minTTL, maxTTL)
	}
	rpc, err := c.Options()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	logger := c.Logger(streams.Stderr)
	gctune.Server(logger)
	return node.RunControl(ctx, node.ControlOptions{
		Listen: c.Listen, Data: c.Data, RPC: rpc, Members: membership.Options{TTL: c.TTL}, Logger: logger,
		Ready: func(address string) error {
			_, err := fmt.Fprintf(streams.Stdout, "listening on %s\n", address)
			return err
		},
	})
}

// show prints a store.
type show struct {
	Data   string `required:"" type:"path" placeholder:"DIR" help:"Data directory that no process has open."`
	Output string `enum:"text,json" default:"text" help:"Form of the result: ${enum} (default ${default})."`
	cli.Log
}

// Run implements the command.
func (c *show) Run(ctx context.Context, streams cli.Streams) error {
	state, err := inspect.Read(ctx, c.Data, c.Logger(streams.Stderr))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return state.JSON(streams.Stdout)
	}
	return state.Text(streams.Stdout)
}

func main() {
	os.Exit(cli.Program{
		Name:        "leasemgr",
		Description: "Membership and store of a Tenure cluster.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
