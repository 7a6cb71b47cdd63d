// Command leasemgr shows what a stopped node's store says about the cluster: the
// membership and the catalogue. It changes neither.
package main

import (
	"context"
	"os"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/leasemgr/internal/inspect"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Show command `cmd:"" default:"withargs" help:"Print membership and catalogue (what happens without a command)."`
}

// command prints a store.
type command struct {
	Data   string `required:"" type:"path" placeholder:"DIR" help:"Data directory of a node that is not running."`
	Output string `enum:"text,json" default:"text" help:"Form of the result: ${enum} (default ${default})."`
	cli.Log
}

// Run implements the command.
func (c *command) Run(ctx context.Context, streams cli.Streams) error {
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
		Description: "What a stopped Tenure node knows of its cluster.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
