package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
)

// problemBase precedes the word in a problem's type.
const problemBase = "https://tenure.dev/problems/"

// What the detail of a timeout says, word for word: clients match it.
const (
	outcomeUnchanged = "the outcome is unchanged: nothing was written"
	outcomeUnknown   = "the outcome is unknown: ask again with the same Idempotency-Key"
)

// Problem is the body of every error, in the form of RFC 9457.
type Problem struct {
	Type       string `json:"type" format:"uri" doc:"Names the kind of problem; the last word is stable"`
	Title      string `json:"title" doc:"The kind of problem in words"`
	Status     int    `json:"status" doc:"The HTTP status"`
	Detail     string `json:"detail" doc:"What was wrong, where, and what to do"`
	Invocation string `json:"invocation,omitempty" doc:"The invocation's id, where there is one"`
	Reason     string `json:"reason,omitempty" doc:"What an aborting function said"`
	Loaded     *int64 `json:"loaded,omitempty" doc:"Bulk load only: how many lines are durable"`
}

// kindStatus has the HTTP status and the title of each kind.
var kindStatus = [...]struct {
	status int
	title  string
}{
	base.Internal:            {http.StatusInternalServerError, "Internal fault"},
	base.Invalid:             {http.StatusBadRequest, "Invalid request"},
	base.Unauthorized:        {http.StatusUnauthorized, "No valid credentials"},
	base.Forbidden:           {http.StatusForbidden, "Not allowed"},
	base.NotFound:            {http.StatusNotFound, "Not found"},
	base.InUse:               {http.StatusConflict, "In use"},
	base.Aborted:             {http.StatusConflict, "The function aborted"},
	base.Precondition:        {http.StatusPreconditionFailed, "A condition does not hold"},
	base.TooLarge:            {http.StatusRequestEntityTooLarge, "Over a limit of size"},
	base.FunctionError:       {http.StatusUnprocessableEntity, "The function failed"},
	base.IdempotencyMismatch: {http.StatusUnprocessableEntity, "Idempotency key used for another request"},
	base.Overloaded:          {http.StatusTooManyRequests, "Overloaded"},
	base.Unavailable:         {http.StatusServiceUnavailable, "Unavailable"},
	base.Conflict:            {http.StatusServiceUnavailable, "Attempts used up"},
	base.Timeout:             {http.StatusGatewayTimeout, "Deadline passed"},
	base.MethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed"},
}

// loadError is an error of a bulk load of which some lines are durable.
type loadError struct {
	err    error
	loaded int64
}

// Error returns the cause's message.
func (e *loadError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *loadError) Unwrap() error { return e.err }

// asError finds the *base.Error in err's chain or makes one: a passed deadline
// is Timeout, anything unknown is Internal.
func asError(err error) *base.Error {
	if e, ok := errors.AsType[*base.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &base.Error{Kind: base.Timeout, Detail: "the deadline passed", Unknown: true, Err: err}
	}
	return &base.Error{Kind: base.Internal, Err: err}
}

// problemOf describes e to the client. invocation may be empty.
func problemOf(e *base.Error, invocation string) Problem {
	kind := e.Kind
	if int(kind) >= len(kindStatus) {
		kind = base.Internal
	}
	p := Problem{
		Type:       problemBase + e.Word(),
		Title:      kindStatus[kind].title,
		Status:     kindStatus[kind].status,
		Detail:     e.Detail,
		Invocation: invocation,
		Reason:     e.Reason,
	}
	switch kind {
	case base.Internal:
		p.Type = problemBase + base.Internal.String()
		p.Detail = "a fault of the server; its log has the details"
	case base.Invalid:
		if e.Subject != "" {
			p.Title = "Invalid " + strings.ReplaceAll(e.Subject, "-", " ")
		}
	case base.Aborted:
		if p.Detail == "" {
			p.Detail = "the function gave up, nothing was changed"
		}
	case base.Timeout:
		p.Detail = timeoutDetail(e)
	default:
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	return p
}

// timeoutDetail adds to e's detail what happened to the data, unless the
// detail says it already.
func timeoutDetail(e *base.Error) string {
	outcome, mark := outcomeUnchanged, "unchanged"
	if e.Unknown {
		outcome, mark = outcomeUnknown, "unknown: ask again with the same Idempotency-Key"
	}
	switch {
	case e.Detail == "":
		return "the deadline passed; " + outcome
	case strings.Contains(e.Detail, mark):
		return e.Detail
	}
	return e.Detail + "; " + outcome
}

// writeError answers the request with the problem that err is. It logs
// internal faults: their text goes nowhere else.
func (g *Gateway) writeError(c *call, err error) {
	e := asError(err)
	p := problemOf(e, c.invocation)
	if le, ok := errors.AsType[*loadError](err); ok {
		p.Loaded = &le.loaded
	}
	if p.Status == http.StatusInternalServerError {
		g.opt.Logger.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "invocation", c.invocation, "error", err)
	}
	h := c.w.Header()
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tenure"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter(e.RetryAfter, g.opt.RetryAfter))
	}
	body, jsonErr := json.Marshal(&p)
	if jsonErr != nil {
		// Marshal fails for no Problem: it has strings and numbers only.
		panic(jsonErr)
	}
	h.Del("ETag")
	if c.unread {
		c.answerUnread(p.Status, body)
		return
	}
	c.write(p.Status, typeProblem, body)
}

// retryAfter formats a hint in whole seconds, rounded up, at least 1.
func retryAfter(hint, otherwise time.Duration) string {
	if hint <= 0 {
		hint = otherwise
	}
	return strconv.Itoa(max(1, int(math.Ceil(hint.Seconds()))))
}
