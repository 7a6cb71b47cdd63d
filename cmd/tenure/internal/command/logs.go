package command

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
)

// maxLogLine bounds one line of the answer; the server's own bound is far below.
const maxLogLine = 1 << 20

// Logs is `tenure logs`.
type Logs struct {
	Follow   bool   `short:"f" help:"Go on with the lines to come, until interrupted."`
	Workflow string `placeholder:"NAME" help:"Only lines of this workflow."`
	After    uint64 `placeholder:"SEQ" help:"Only lines with a greater sequence number."`
}

// logLine is one line of the answer.
type logLine struct {
	Time       time.Time `json:"time"`
	Invocation string    `json:"invocation"`
	Workflow   string    `json:"workflow"`
	Step       string    `json:"step"`
	Message    string    `json:"message"`
}

// Run prints what functions logged: one line each, or with --output json one
// object a line, as the server wrote it. With --follow it ends without an error
// at an interruption and when the server stops.
func (c *Logs) Run(ctx context.Context, env *Env) error {
	query := url.Values{}
	if c.Follow {
		query.Set("follow", "true")
	}
	if c.Workflow != "" {
		query.Set("workflow", c.Workflow)
	}
	if c.After > 0 {
		query.Set("after", fmt.Sprint(c.After))
	}
	body, err := env.Client.Stream(ctx, "/v1/logs?"+query.Encode())
	if err != nil {
		return c.end(ctx, err)
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLogLine)
	for lines.Scan() {
		if err := env.logLine(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.end(ctx, &client.UnreachableError{Server: env.Client.Server(), Err: err})
	}
	return nil
}

// end returns err, unless the end of following was asked for.
func (c *Logs) end(ctx context.Context, err error) error {
	if c.Follow && ctx.Err() != nil {
		return nil
	}
	return err
}

// logLine prints one line.
func (e *Env) logLine(text []byte) error {
	if e.json() {
		return e.printf("%s\n", text)
	}
	var l logLine
	if err := decode(text, &l); err != nil {
		return err
	}
	return e.printf("%s %s/%s %s %s\n", stamp(l.Time), client.Printable(l.Workflow), client.Printable(l.Step), l.Invocation, client.Printable(l.Message))
}
