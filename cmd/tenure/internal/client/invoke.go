package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxTries bounds how often an invocation is sent.
	maxTries = 5
	// retryAfter is waited before the next try when the server does not say how
	// long, and maxRetryAfter at most: a person is waiting.
	retryAfter, maxRetryAfter = time.Second, 30 * time.Second
	// answerTimeout bounds the wait for the answer to an invocation beyond its
	// own deadline, maxAnswerTimeout for one whose deadline the server chooses.
	answerTimeout, maxAnswerTimeout = 10 * time.Second, 15 * time.Minute
)

// Invocation is a workflow or a handler to run.
type Invocation struct {
	// Target is the name of a workflow, or function/handler.
	Target string
	// Input is JSON; empty stands for {}.
	Input []byte
	// IdempotencyKey makes the invocation unique; empty: none, and no retry.
	IdempotencyKey string
	// Timeout is the deadline of each try; zero: the definition's or the
	// server's.
	Timeout time.Duration
}

// Invoke runs a workflow or a handler and returns the answer, whose body is the
// output. A refusal with 429 or 503 says that nothing was changed; if there is
// an idempotency key the invocation is then sent again, up to five times in
// all, after the time that the server asks for. Other errors are returned at
// once.
func (c *Client) Invoke(ctx context.Context, i Invocation) (*Answer, error) {
	path := "/v1/workflows/" + url.PathEscape(i.Target) + "/invoke"
	if function, handler, ok := strings.Cut(i.Target, "/"); ok {
		path = "/v1/functions/" + url.PathEscape(function) + "/" + url.PathEscape(handler) + "/invoke"
	}
	r := Request{Method: http.MethodPost, Path: path, Header: http.Header{"Content-Type": {"application/json"}}, Body: i.Input}
	limit := maxAnswerTimeout
	if i.Timeout > 0 {
		r.Header.Set("Tenure-Timeout", i.Timeout.String())
		limit = i.Timeout + answerTimeout
	}
	if i.IdempotencyKey != "" {
		r.Header.Set("Idempotency-Key", i.IdempotencyKey)
	}
	for try := 1; ; try++ {
		answer, err := c.within(ctx, limit, r)
		problem, ok := errors.AsType[*Problem](err)
		if !ok || i.IdempotencyKey == "" || try == maxTries || !problem.temporary() {
			return answer, err
		}
		if err := wait(ctx, problem.delay()); err != nil {
			return nil, err
		}
	}
}

func (c *Client) within(ctx context.Context, limit time.Duration, r Request) (*Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("none within %v", limit))
	defer cancel()
	return c.Do(ctx, r)
}

// temporary says whether the same request may succeed later.
func (p *Problem) temporary() bool {
	return p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable
}

// delay is how long to wait before the next try.
func (p *Problem) delay() time.Duration {
	if p.RetryAfter < 0 {
		return retryAfter
	}
	return min(p.RetryAfter, maxRetryAfter)
}

// wait blocks for d or until ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errors.New("interrupted")
	}
}
