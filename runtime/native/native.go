// Package native runs handlers that are compiled into the server.
//
// They are trusted: nothing but the deadline at their calls of the Host bounds
// what they do, and they share the memory of the process, so a call that asks
// for isolation gets none beyond what the handler's author provides. In exchange
// a call costs next to nothing, which makes native the ceiling in benchmarks.
//
// Invariants: a panic of a handler ends its call and nothing else; a panic of
// the platform, below a Host method, is not the handler's fault and goes on.
//
// Start reading at New.
package native

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/sdk/go"
)

// maxTextBytes bounds what a handler can put into an error.
const maxTextBytes = 4 << 10

// Bundle is a set of compiled-in handlers. It implements runtime.Bundle and
// holds nothing that has to be freed.
type Bundle struct {
	names    []string
	handlers map[string]tenure.Handler
}

// New returns a bundle of the handlers, which it copies. The error is a
// *base.Error of kind Invalid: no handler, or a bad name.
func New(handlers map[string]tenure.Handler) (*Bundle, error) {
	if len(handlers) == 0 {
		return nil, base.Invalidf("module", "there is no handler: register at least one")
	}
	for name, handler := range handlers {
		if err := base.ValidateName("handler", name); err != nil {
			return nil, base.Invalidf("module", "%v", err)
		}
		if handler == nil {
			return nil, base.Invalidf("module", "handler %q is nil", name)
		}
	}
	return &Bundle{names: slices.Sorted(maps.Keys(handlers)), handlers: maps.Clone(handlers)}, nil
}

// Handlers returns the names of the handlers, sorted.
func (b *Bundle) Handlers() []string { return b.names }

// Close does nothing.
func (b *Bundle) Close() error { return nil }

// Invoke runs one handler on the calling goroutine. A handler that calls no Host
// method is not interrupted when ctx ends.
func (b *Bundle) Invoke(ctx context.Context, call runtime.Call) (output []byte, err error) {
	handler, ok := b.handlers[call.Handler]
	if !ok {
		return nil, base.Errorf(base.NotFound, "no handler %q", call.Handler)
	}
	h := &host{ctx: ctx, host: call.Host}
	defer func() {
		if h.inside {
			return // the Host panicked: let it
		}
		if reason := recover(); reason != nil {
			text := cut(fmt.Sprint(reason))
			slog.Error("handler panicked", "handler", call.Handler, "panic", text, "stack", string(debug.Stack()))
			output, err = nil, base.Errorf(base.FunctionError, "handler %q panicked: %s", call.Handler, text)
		}
	}()
	output, err = handler(tenure.NewContext(h, call.Input))
	switch {
	case h.aborted:
		return nil, &base.Error{Kind: base.Aborted, Reason: h.reason}
	case err == nil:
		return output, nil
	case ctx.Err() != nil:
		return nil, timeout(ctx)
	}
	return nil, &base.Error{Kind: base.Aborted, Reason: cut(err.Error()), Err: err}
}

func timeout(ctx context.Context) error {
	return &base.Error{Kind: base.Timeout, Detail: "the deadline passed while the function ran", Err: context.Cause(ctx)}
}

// cut bounds a text and makes it valid UTF-8.
func cut(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxTextBytes)], "\ufffd")
}

// host gives a handler the Host of its call in the SDK's terms, and notes what
// Invoke has to know afterwards.
type host struct {
	ctx     context.Context //nolint:containedctx // the host lives as long as the call
	host    runtime.Host
	inside  bool // a method of the Host is running
	aborted bool
	reason  string // of the first Abort
}

// enter begins a method that may fail. The Host watches the deadline too, but
// only where it blocks.
func (h *host) enter() error {
	if h.ctx.Err() != nil {
		return timeout(h.ctx)
	}
	h.inside = true
	return nil
}

func (h *host) Get(table, key string) (value []byte, found bool, err error) {
	if err = h.enter(); err != nil {
		return nil, false, err
	}
	value, found, err = h.host.Get(table, key)
	h.inside = false
	return value, found, err
}

func (h *host) Put(table, key string, value []byte) error {
	if err := h.enter(); err != nil {
		return err
	}
	err := h.host.Put(table, key, value)
	h.inside = false
	return err
}

func (h *host) Delete(table, key string) error {
	if err := h.enter(); err != nil {
		return err
	}
	err := h.host.Delete(table, key)
	h.inside = false
	return err
}

func (h *host) Add(table, key string, delta int64) error {
	if err := h.enter(); err != nil {
		return err
	}
	err := h.host.Add(table, key, delta)
	h.inside = false
	return err
}

func (h *host) Scan(table, prefix string, limit int) ([]tenure.Entry, error) {
	if err := h.enter(); err != nil {
		return nil, err
	}
	entries, err := h.host.Scan(table, prefix, limit)
	h.inside = false
	if err != nil {
		return nil, err
	}
	converted := make([]tenure.Entry, len(entries))
	for i, e := range entries {
		converted[i] = tenure.Entry(e)
	}
	return converted, nil
}

func (h *host) Call(function, handler string, input []byte) ([]byte, error) {
	if err := h.enter(); err != nil {
		return nil, err
	}
	output, err := h.host.Call(function, handler, input)
	h.inside = false
	return output, err
}

func (h *host) Result(step string) (output []byte, found bool) {
	h.inside = true
	output, found = h.host.Result(step)
	h.inside = false
	return output, found
}

func (h *host) Abort(reason string) {
	if !h.aborted {
		h.aborted, h.reason = true, cut(reason)
	}
	h.inside = true
	h.host.Abort(h.reason)
	h.inside = false
}

func (h *host) Now() time.Time {
	h.inside = true
	now := h.host.Now()
	h.inside = false
	return now
}

func (h *host) Rand() uint64 {
	h.inside = true
	bits := h.host.Rand()
	h.inside = false
	return bits
}

func (h *host) Log(message string) {
	h.inside = true
	h.host.Log(message)
	h.inside = false
}

func (h *host) InvocationID() string {
	h.inside = true
	id := h.host.InvocationID().String()
	h.inside = false
	return id
}
