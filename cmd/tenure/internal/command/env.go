// Package command has the commands of `tenure` that are calls to a server:
// deploy, invoke, invocation, get, put, delete, functions, workflows, workers
// and logs; and version, which is none.
//
// Invariants: what was asked for goes to standard output and nothing else does;
// with --output json that is JSON (logs: one object a line); a value is written
// as it is, with a line end after it on a terminal only.
//
// Start reading at Env, then at the command.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/progress"
)

// DefaultServer is the server that `tenure dev` is without --listen.
const DefaultServer = "http://127.0.0.1:8088"

// Globals are the flags of every command.
type Globals struct {
	Server string `default:"http://127.0.0.1:8088" env:"TENURE_SERVER" placeholder:"URL" help:"Base URL of the server (default ${default})."`
	Token  string `env:"TENURE_TOKEN" help:"Token of the server; tenure dev: the one to ask for."`
	Output string `enum:"text,json" default:"text" help:"Form of results: ${enum} (default ${default})."`
}

// Env is what commands work with besides their own flags.
type Env struct {
	cli.Streams
	Globals
	// Client calls Globals.Server.
	Client *client.Client
}

// NewEnv returns the environment of a command. The error is of wrong usage.
func NewEnv(streams cli.Streams, globals Globals) (*Env, error) {
	c, err := client.New(globals.Server, globals.Token)
	if err != nil {
		return nil, cli.Usagef("--server: %w", err)
	}
	return &Env{Streams: streams, Globals: globals, Client: c}, nil
}

func (e *Env) json() bool { return e.Output == "json" }

// print writes v as JSON.
func (e *Env) print(v any) error {
	encoder := json.NewEncoder(e.Stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// printf writes text.
func (e *Env) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(e.Stdout, format, args...)
	return err
}

// raw writes bytes as they are. On a terminal a line end follows, so that the
// prompt does not.
func (e *Env) raw(data []byte) error {
	if progress.Terminal(e.Stdout) && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data[:len(data):len(data)], '\n')
	}
	_, err := e.Stdout.Write(data)
	return err
}

// rows writes a table without lines, as pipes and eyes like it.
func (e *Env) rows(header table.Row, rows []table.Row) error {
	w := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	w.SetStyle(style)
	w.AppendHeader(header)
	w.AppendRows(rows)
	var err error
	for line := range strings.SplitSeq(w.Render(), "\n") {
		err = errors.Join(err, e.printf("%s\n", strings.TrimRight(line, " ")))
	}
	return err
}

// argument returns what an argument stands for: "-" is standard input and, if
// files are allowed, @FILE is a file's content.
func (e *Env) argument(value string, files bool) ([]byte, error) {
	switch path, isFile := strings.CutPrefix(value, "@"); {
	case value == "-":
		data, err := io.ReadAll(e.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return data, nil
	case files && isFile:
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, cli.Usagef("%w", err)
		}
		return data, nil
	}
	return []byte(value), nil
}

// key splits TABLE/KEY at its first slash. What the two may be is for the
// server to say. The error is of wrong usage.
func key(argument string) (tableName, keyName string, err error) {
	tableName, keyName, ok := strings.Cut(argument, "/")
	if !ok || tableName == "" || keyName == "" {
		return "", "", cli.Usagef("%q must be TABLE/KEY, like accounts/alice", argument)
	}
	return tableName, keyName, nil
}

// statePath returns the path of TABLE/KEY.
func statePath(argument string) (string, error) {
	tableName, keyName, err := key(argument)
	return "/v1/state/" + url.PathEscape(tableName) + "/" + url.PathEscape(keyName), err
}

// decode reads a JSON answer.
func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the server's answer is not readable: %w", err)
	}
	return nil
}
