// Command worker serves one node: store, worker and HTTP API in one process,
// without examples and without a client. `tenure dev` is the same for people.
package main

import (
	"context"
	"os"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/internal/serve"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Serve command `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT (what happens without a command)."`
}

// command serves.
type command struct {
	serve.Flags
	Token string `env:"TENURE_TOKEN" help:"Token that allows everything."`
}

// Run implements the command.
func (c *command) Run(ctx context.Context, streams cli.Streams) error {
	return c.Flags.Run(ctx, streams, serve.Options{Token: c.Token})
}

func main() {
	os.Exit(cli.Program{
		Name:        "worker",
		Description: "One node of Tenure.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
