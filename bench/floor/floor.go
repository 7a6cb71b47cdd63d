// Package floor is the bare HTTP server that invocations are compared with: it
// reads a request and answers a small constant, on the gateway's http.Server,
// so that a measurement against it is what HTTP costs and nothing else.
//
// Invariants: the handler reads each body to its end and answers with the
// headers and about the bytes of an invocation of the bank's transfer; nothing
// is stored. It runs in a process of its own, as the server does that it is
// compared with, so that both share the machine with the client in the same way.
//
// Start reading at Serve.
package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// drainTimeout bounds how long Serve waits for requests that are under way.
const drainTimeout = 2 * time.Second

// answer is what a transfer answers, with typical balances.
const answer = `{"from_balance":999993,"to_balance":1000007}`

// ServerFactory makes the http.Server that a handler runs in, without an
// address: the caller of Serve hands over a listener.
type ServerFactory func(handler http.Handler) *http.Server

// DefaultServer is a factory for programs without a gateway, such as tests.
// The command line wires gateway.NewHTTPServer instead, so that floor and
// gateway have one configuration.
func DefaultServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
}

// Handler answers every request with the constant. The slices of header values
// are shared between answers: package net/http only reads them.
func Handler() http.Handler {
	var (
		mediaType  = []string{"application/json"}
		length     = []string{fmt.Sprint(len(answer))}
		invocation = []string{"06c1k8n3r5t7v9b2d4f6h8j0l2"}
		sniff      = []string{"nosniff"}
		body       = []byte(answer)
	)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone, nobody waits for an answer
		}
		h := w.Header()
		h["Content-Type"] = mediaType
		h["Content-Length"] = length
		h["Tenure-Invocation"] = invocation
		h["X-Content-Type-Options"] = sniff
		_, _ = w.Write(body)
	})
}

// Serve listens on address, writes "listening on http://HOST:PORT" as one line
// to ready, and serves until ctx is done; it returns when all connections are
// closed, at the latest two seconds later. A nil factory is DefaultServer.
func Serve(ctx context.Context, address string, factory ServerFactory, ready io.Writer) error {
	if factory == nil {
		factory = DefaultServer
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("floor server: %w", err)
	}
	server := factory(Handler())
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if server.Shutdown(drain) != nil {
			_ = server.Close()
		}
	})
	if _, err := fmt.Fprintf(ready, "listening on http://%s\n", listener.Addr()); err != nil {
		_ = listener.Close()
		if !release() {
			<-stopped
		}
		return fmt.Errorf("floor server: announce the address: %w", err)
	}
	err = server.Serve(listener)
	if !release() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("floor server: %w", err)
}
