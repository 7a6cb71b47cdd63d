// Command gateway serves the HTTP API in front of the workers of a cluster. It keeps
// no state; any number of gateways may run.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/internal/control"
	"github.com/tenure-faas/tenure/internal/gctune"
	"github.com/tenure-faas/tenure/internal/node"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Serve command `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT (what happens without a command)."`
}

// command serves.
type command struct {
	Leasemgr string `default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Address of the leasemgr (default ${default})."`
	cli.Listen
	Token string `env:"TENURE_TOKEN" help:"Token that allows everything."`
	Cache string `type:"path" placeholder:"DIR" help:"Directory for compiled modules; without it they are compiled at each start."`
	control.Flags
	cli.Log
}

// Run implements the command. The line "listening on URL" on standard output is a
// contract: scripts wait for it.
func (c *command) Run(ctx context.Context, streams cli.Streams) error {
	if err := c.Check(c.Token); err != nil {
		return err
	}
	rpc, err := c.Options()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	logger := c.Logger(streams.Stderr)
	gctune.Server(logger)
	o := node.GatewayOptions{
		Leasemgr: c.Leasemgr, Listen: c.Listen.Listen, RPC: rpc, Logger: logger,
		Ready: func(_ context.Context, url string) error {
			_, err := fmt.Fprintf(streams.Stdout, "listening on %s\n", url)
			return err
		},
	}
	o.Gateway.Token, o.Gateway.ReadToken, o.Wasm.CacheDir = c.Token, c.ReadToken, c.Cache
	return node.RunGateway(ctx, o)
}

func main() {
	os.Exit(cli.Program{
		Name:        "gateway",
		Description: "The HTTP API of a Tenure cluster.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
