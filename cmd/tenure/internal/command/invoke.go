package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/progress"
)

// Invoke is `tenure invoke`.
type Invoke struct {
	Target         string        `arg:"" name:"workflow|function/handler" help:"A workflow, or one handler as a workflow of its own."`
	Input          string        `arg:"" optional:"" name:"json|-|@file" help:"The input: JSON, - for standard input, or @FILE; nothing stands for {}."`
	IdempotencyKey string        `placeholder:"KEY" help:"Have one effect and one result however often this is repeated; refusals with 429 and 503 are then tried again."`
	Timeout        time.Duration `help:"Deadline of the invocation (default: the workflow's or the server's)."`
	Verbose        bool          `short:"v" help:"Name the invocation on standard error."`
}

// Run runs the workflow or handler and prints its output and a line end; with
// --output json an output that is not JSON becomes a JSON string.
func (c *Invoke) Run(ctx context.Context, env *Env) error {
	input, err := env.argument(c.Input, true)
	if err != nil {
		return err
	}
	if c.Timeout < 0 {
		return cli.Usagef("--timeout is %v, it must be positive", c.Timeout)
	}
	var answer *client.Answer
	err = progress.Run(env.Stderr, "invoking "+c.Target, func() (err error) {
		answer, err = env.Client.Invoke(ctx, client.Invocation{
			Target: c.Target, Input: input, IdempotencyKey: c.IdempotencyKey, Timeout: c.Timeout,
		})
		return err
	})
	if err != nil {
		return err
	}
	if c.Verbose {
		fmt.Fprintf(env.Stderr, "invocation %s, replayed: %t\n", answer.Header.Get("Tenure-Invocation"), answer.Header.Get("Tenure-Replayed") == "true")
	}
	if env.json() && !json.Valid(answer.Body) {
		return env.print(string(answer.Body))
	}
	return env.printf("%s\n", bytes.TrimSuffix(answer.Body, []byte("\n")))
}

// Invocation is `tenure invocation`.
type Invocation struct {
	ID string `arg:"" help:"The invocation's id."`
}

// record is the server's answer.
type record struct {
	ID       string          `json:"id"`
	Workflow string          `json:"workflow"`
	State    string          `json:"state"`
	Attempts int             `json:"attempts"`
	Worker   string          `json:"worker"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended"`
	Output   json.RawMessage `json:"output"`
	Error    *client.Problem `json:"error"`
}

// Run prints what is known of an ended invocation.
func (c *Invocation) Run(ctx context.Context, env *Env) error {
	answer, err := env.Client.Do(ctx, client.Request{Method: "GET", Path: "/v1/invocations/" + url.PathEscape(c.ID)})
	if err != nil {
		return err
	}
	if env.json() {
		return env.print(json.RawMessage(answer.Body))
	}
	var r record
	if err := decode(answer.Body, &r); err != nil {
		return err
	}
	rows := []table.Row{
		{"id", r.ID}, {"workflow", r.Workflow}, {"state", r.State}, {"attempts", r.Attempts}, {"worker", r.Worker},
		{"started", stamp(r.Started)}, {"ended", stamp(r.Ended)}, {"took", r.Ended.Sub(r.Started).Round(time.Microsecond)},
	}
	if r.Error != nil {
		rows = append(rows, table.Row{"error", r.Error.Error()})
	} else {
		rows = append(rows, table.Row{"output", client.Printable(string(r.Output))})
	}
	return env.rows(nil, rows)
}

// stamp writes a time for people: theirs, to the millisecond.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }
