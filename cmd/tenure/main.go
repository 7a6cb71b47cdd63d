// Command tenure is the one binary for people: it runs a server, deploys to one
// and calls one. `tenure --help` lists the commands.
//
// This file only names the commands; packages below internal have them.
package main

import (
	"net/http"
	"os"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/benchcmd"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/certs"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/dev"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/doctor"
	"github.com/tenure-faas/tenure/gateway"
)

// commandLine is the grammar of the program.
type commandLine struct {
	command.Globals

	Dev    dev.Command    `cmd:"" help:"Start everything in one process."`
	Deploy command.Deploy `cmd:"" help:"Build and deploy the functions and workflows of a directory."`

	Invoke     command.Invoke     `cmd:"" help:"Run a workflow, or one handler, as one transaction."`
	Invocation command.Invocation `cmd:"" help:"Show what came of an invocation."`

	Get    command.Get    `cmd:"" help:"Read a value."`
	Put    command.Put    `cmd:"" help:"Write a value, or several in one transaction."`
	Delete command.Delete `cmd:"" help:"Remove a value."`

	Functions command.Functions `cmd:"" help:"List the deployed functions."`
	Workflows command.Workflows `cmd:"" help:"List the workflows."`
	Workers   command.Workers   `cmd:"" help:"List the members of the cluster, or take one out."`
	Logs      command.Logs      `cmd:"" help:"Print what functions logged."`

	Bench   benchcmd.Command `cmd:"" help:"Measure a server or this machine."`
	Doctor  doctor.Command   `cmd:"" help:"Show what this machine offers for RDMA, what is missing and what is chosen."`
	Certs   certs.Command    `cmd:"" help:"Make a certificate authority for development, and certificates for the processes of a cluster."`
	Version command.Version  `cmd:"" help:"Print what this program was built from."`
}

// description is the head of the help text.
const description = `Transactional stateful functions.

Exit status: 0, 1 (refused, aborted or failed), 2 (wrong usage), 3 (no answer from the server).`

func main() { os.Exit(program().Main()) }

// program returns the program with a grammar of its own.
func program() cli.Program {
	var line commandLine
	return cli.Program{
		Name: "tenure", Description: description, Grammar: &line,
		Bind: func(streams cli.Streams) ([]any, error) {
			env, err := command.NewEnv(streams, line.Globals)
			if err != nil {
				return nil, err
			}
			return []any{env, &benchcmd.Env{
				Server: line.Server, Token: line.Token, Output: line.Output,
				NewServer: floorServer, Stdout: streams.Stdout, Stderr: streams.Stderr,
			}}, nil
		},
	}
}

// floorServer is the server of the benchmark's floor: the gateway's own, so that
// the two differ in the handler only.
func floorServer(handler http.Handler) *http.Server {
	return gateway.NewHTTPServer(gateway.Options{}, handler)
}
