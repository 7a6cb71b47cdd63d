// Package benchcmd is the command line of `tenure bench`: flags, progress and
// output around packages bench and those below it, which do the work.
//
// The program mounts Command under the name bench, binds a context.Context that
// ends at SIGINT and SIGTERM, and binds an *Env:
//
//	type cli struct {
//		Bench benchcmd.Command `cmd:"" help:"Measure a server or this machine."`
//	}
//	kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&benchcmd.Env{...})
//
// Invariants: results go to Env.Stdout and progress to Env.Stderr, so that
// --output json can be piped; an interrupted run still prints what it measured.
// Errors that commands return have a method ExitCode: 1 for a failed or
// interrupted run, 2 for wrong usage, 3 for a server that cannot be reached.
//
// Start reading at Command.
package benchcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tenure-faas/tenure/bench/floor"
	"github.com/tenure-faas/tenure/bench/load"
)

// Command is `tenure bench`. It must be mounted under that name, because the
// commands floor, main and leases start this program again as `bench floor-server`
// or `bench echo-server`.
type Command struct {
	Load  Load  `cmd:"" help:"Send requests to a server and measure its answers."`
	Floor Floor `cmd:"" help:"Measure what HTTP alone costs on this machine."`
	Main  Main  `cmd:"" help:"Start servers and compare them with the floor, in several rounds."`
	Verbs Verbs `cmd:"" help:"Measure one-sided verbs on this machine, or to another."`

	Leases Leases `cmd:"" help:"Start clusters of processes and measure what leases cost between them."`

	FloorServer FloorServer `cmd:"" name:"floor-server" hidden:"" help:"The bare server of floor and main."`
	EchoServer  EchoServer  `cmd:"" name:"echo-server" hidden:"" help:"The other end of the bare round trips of leases."`
}

// Env is what commands take from the program that mounts them. Server, Token
// and Output are flags of the whole program.
type Env struct {
	// Server is the base URL for load. Empty: http://127.0.0.1:8080.
	Server string
	// Token is sent as bearer token by load unless it is empty.
	Token string
	// Output is json, or anything else for tables.
	Output string
	// NewServer makes the floor's http.Server. The program wires
	// gateway.NewHTTPServer; nil is floor.DefaultServer.
	NewServer floor.ServerFactory
	// Stdout and Stderr must be set.
	Stdout, Stderr io.Writer
}

// print writes a result: value as JSON, or text.
func (e *Env) print(value any, text func() string) error {
	if e.Output == "json" {
		encoder := json.NewEncoder(e.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	_, err := fmt.Fprintln(e.Stdout, text())
	return err
}

// Exit statuses, as everywhere in the program.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// exitError is an error with the exit status that it stands for; kong and
// main look for the method.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode returns the exit status of the process.
func (e *exitError) ExitCode() int { return e.code }

func usage(err error) error { return &exitError{exitUsage, err} }

// failed gives an error of a run its exit status; nil stays nil.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, load.ErrUnreachable):
		return &exitError{exitUnreachable, err}
	default:
		return &exitError{exitFailed, err}
	}
}
