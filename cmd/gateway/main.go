// Command gateway is the door in front of a worker: it checks tokens and sizes,
// bounds what is in flight, and passes the rest on.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/tenure-faas/tenure/cmd/gateway/internal/front"
	"github.com/tenure-faas/tenure/cmd/internal/cli"
)

// commandLine is the grammar of the program.
type commandLine struct {
	Serve command `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT (what happens without a command)."`
}

// command serves.
type command struct {
	cli.Listen
	cli.Log
	Worker      string `required:"" placeholder:"URL" help:"Base URL of the worker."`
	Token       string `env:"TENURE_TOKEN" help:"Token that allows everything."`
	WorkerToken string `env:"TENURE_WORKER_TOKEN" placeholder:"TOKEN" help:"Token for the worker, sent instead of the client's."`
	MaxInFlight int    `default:"4096" placeholder:"N" help:"Most requests at the same time; one more is answered 429 (default ${default})."`
	MaxBody     int64  `default:"67108864" placeholder:"BYTES" help:"Largest body of a request, bulk loads excepted (default ${default})."`
}

// Run implements the command.
func (c *command) Run(ctx context.Context, streams cli.Streams) error {
	if err := c.Check(c.Token); err != nil {
		return err
	}
	door, err := front.New(front.Options{
		Worker: c.Worker, Token: c.Token, ReadToken: c.ReadToken, WorkerToken: c.WorkerToken,
		MaxInFlight: c.MaxInFlight, MaxBodyBytes: c.MaxBody, Logger: c.Logger(streams.Stderr),
	})
	if err != nil {
		return cli.Usagef("%w", err)
	}
	return door.Serve(ctx, c.Listen.Listen, func(url string) { fmt.Fprintf(streams.Stdout, "listening on %s\n", url) })
}

func main() {
	os.Exit(cli.Program{
		Name:        "gateway",
		Description: "The door in front of a Tenure worker.",
		Grammar:     &commandLine{},
		Bind:        func(cli.Streams) ([]any, error) { return nil, nil },
	}.Main())
}
