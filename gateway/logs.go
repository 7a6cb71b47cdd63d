package gateway

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/tenure-faas/tenure/base"
)

// logLine is one line of GET /v1/logs.
type logLine struct {
	Seq        int64     `json:"seq" doc:"Grows by one per line; give the last one as ?after to go on"`
	Time       time.Time `json:"time" doc:"When the line was written"`
	Invocation string    `json:"invocation" doc:"The invocation that wrote it"`
	Workflow   string    `json:"workflow" doc:"Its workflow"`
	Step       string    `json:"step" doc:"The step that wrote it"`
	Message    string    `json:"message" doc:"What it said"`
}

// logWriteTime bounds how long a follower may take to read one batch.
const logWriteTime = time.Minute

// getLogs is GET /v1/logs: the log lines of functions that are still kept, as
// NDJSON; with ?follow=true also those to come, until the client leaves or the
// gateway drains.
func (g *Gateway) getLogs(c *call) error {
	query := c.r.URL.Query()
	only, follow := query.Get("workflow"), false
	switch value := query.Get("follow"); value {
	case "", "false":
	case "true":
		follow = c.r.Method == http.MethodGet // HEAD gets no lines to follow.
	default:
		return base.Invalidf("query", "follow is %q, it must be true or false", cut(value))
	}
	var after int64
	if value := query.Get("after"); value != "" {
		var err error
		if after, err = strconv.ParseInt(value, 10, 64); err != nil || after < 0 {
			return base.Invalidf("query", "after is %q, it must be the seq of a line, or 0", cut(value))
		}
	}

	rc := http.NewResponseController(c.w)
	if follow {
		// The end of the request's time must not look like a client that left.
		// Writers without deadlines have none to lift.
		_ = rc.SetReadDeadline(time.Time{})
	}
	c.w.Header().Set("Content-Type", typeNDJSON)
	c.writeEmpty(http.StatusOK)
	out := bufio.NewWriter(c.w)
	encoder := json.NewEncoder(out)
	for {
		lines, more := g.executor.Logs(after)
		_ = rc.SetWriteDeadline(time.Now().Add(logWriteTime))
		for i := range lines {
			line := &lines[i]
			after = line.Seq
			if only != "" && line.Workflow != only {
				continue
			}
			if encoder.Encode(logLine{
				Seq: line.Seq, Time: line.Time, Invocation: line.Invocation.String(),
				Workflow: line.Workflow, Step: line.Step, Message: line.Message,
			}) != nil {
				return nil // The client has left.
			}
		}
		if out.Flush() != nil || rc.Flush() != nil || !follow {
			return nil
		}
		select {
		case <-more:
		case <-c.r.Context().Done():
			return nil
		case <-g.draining:
			return nil
		}
	}
}
