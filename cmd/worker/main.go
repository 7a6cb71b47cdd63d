// Command worker runs one worker of a cluster. Workers pass leases among themselves
// by one-sided verbs; gateways send them invocations.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/internal/control"
	"github.com/tenure-faas/tenure/internal/gctune"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/rdma/machine"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Serve command `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT (what happens without a command)."`
}

// command runs the worker.
type command struct {
	Name      string `required:"" help:"The worker's name, which it keeps across restarts and shares with nobody."`
	Leasemgr  string `default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Address of the leasemgr (default ${default})."`
	Listen    string `default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Address for the other processes; port 0 picks one (default ${default})."`
	Advertise string `placeholder:"HOST:PORT" help:"Address at which the others reach it, if that is another."`
	Provider  string `enum:",verbs,shm,tcp" default:"" placeholder:"NAME" help:"How it reaches the memory of other workers: verbs, shm or tcp, the same at all; instead of the best that works."`
	Scope     string `enum:"host,cluster" default:"host" help:"Where the workers are: all on this machine (host) or on several (cluster) (default ${default})."`
	Device    string `placeholder:"NAME" help:"RDMA device to use, such as rxe0, instead of the best."`
	Cache     string `type:"path" placeholder:"DIR" help:"Directory for compiled modules; without it they are compiled at each start."`
	control.Flags
	cli.Log
}

// Run implements the command. The line "listening on HOST:PORT" on standard output,
// once the worker has joined, is a contract: scripts wait for it. A worker that was
// evicted, because it stood still or was cut off for too long, joins again.
func (c *command) Run(ctx context.Context, streams cli.Streams) error {
	rpc, err := c.Options()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	demand := machine.Demand{Provider: c.Provider, Scope: machine.Scope(c.Scope), Device: c.Device}
	if host, _, err := net.SplitHostPort(c.Advertise); err == nil {
		if demand.Advertise, err = netip.ParseAddr(host); err != nil {
			return cli.Usagef("--advertise %s: the host must be an IP address: %w", c.Advertise, err)
		}
	}
	logger := c.Logger(streams.Stderr)
	gctune.Server(logger)
	for {
		o := node.WorkerOptions{
			Leasemgr: c.Leasemgr, Listen: c.Listen, Advertise: c.Advertise, Name: c.Name, Demand: demand, RPC: rpc, Logger: logger,
			Ready: func(address string) error {
				_, err := fmt.Fprintf(streams.Stdout, "listening on %s\n", address)
				return err
			},
		}
		o.Wasm.CacheDir = c.Cache
		err := node.RunWorker(ctx, o)
		if !errors.Is(err, node.ErrEvicted) || ctx.Err() != nil {
			return err
		}
		logger.Warn("joining again as a new incarnation", "worker", c.Name, "err", err)
	}
}

func main() {
	os.Exit(cli.Program{
		Name:        "worker",
		Description: "One worker of a Tenure cluster.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
