// Package client calls the HTTP API of a Tenure server for the command line.
//
// A call ends in one of three ways: an Answer with a status under 300, a
// *Problem that the server answered, or an *UnreachableError when there was no
// answer. The three decide the exit status of the program.
//
// Invariants: nothing is sent twice, except an invocation with an idempotency
// key that the server refused with 429 or 503; redirects are not followed, so
// that a token goes to the named server only; the text of an error is one line
// without control characters, whatever the server wrote.
//
// Start reading at Client.Do and Client.Invoke.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// dialTimeout bounds the time to connect.
	dialTimeout = 10 * time.Second
	// maxAnswerBytes bounds an answer that is kept as a whole.
	maxAnswerBytes = 256 << 20
)

// Client calls one server. It is safe for concurrent use.
type Client struct {
	base  string // scheme, host and path prefix, without a slash at the end
	token string
	http  *http.Client
}

// New returns a client for the server's base URL; a URL without a scheme is
// http. token is sent as bearer token unless it is empty. It does not connect.
func New(server, token string) (*Client, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("the server's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the server's URL %q must be like http://127.0.0.1:8088", server)
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
	return &Client{
		base:  strings.TrimRight(u.String(), "/"),
		token: token,
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Server returns the base URL.
func (c *Client) Server() string { return c.base }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one call.
type Request struct {
	// Method and Path, which is escaped and begins with a slash.
	Method, Path string
	// Header may be nil.
	Header http.Header
	// Body may be nil.
	Body []byte
}

// Answer is what the server answered with a status under 300.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and returns the whole answer. It blocks until the answer
// is there or ctx is done. The error is a *Problem, an *UnreachableError or
// ctx's.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, c.unreachable(ctx, r.Method, err)
	}
	if len(body) > maxAnswerBytes {
		return nil, fmt.Errorf("the answer to %s %s has more than %d bytes", r.Method, r.Path, maxAnswerBytes)
	}
	return &Answer{response.StatusCode, response.Header, body}, nil
}

// Stream sends a GET and returns the body of the answer as it comes; the caller
// closes it. The errors are those of Do.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	response, err := c.send(ctx, Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// send returns a response with a status under 300; the caller closes its body.
func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, r.Method, c.base+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	for name, values := range r.Header {
		request.Header[name] = values
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, r.Method, err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, readProblem(response)
}

// unreachable describes a call without an answer.
func (c *Client) unreachable(ctx context.Context, method string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			return errors.New("interrupted")
		}
		err = cause
	}
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // its text repeats the method and the URL
	}
	dial, ok := errors.AsType[*net.OpError](err)
	return &UnreachableError{
		Server:  c.base,
		Unknown: method != http.MethodGet && !(ok && dial.Op == "dial"),
		Err:     err,
	}
}
