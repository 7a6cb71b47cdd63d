package native

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/sdk/go"
)

// fakeHost has one value and notes what was called.
type fakeHost struct {
	calls  []string
	over   bool
	getErr error
	bad    bool // Rand panics
}

func (h *fakeHost) note(format string, args ...any) error {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	if h.over {
		return runtime.ErrAttemptOver
	}
	return nil
}

func (h *fakeHost) Get(table, key string) ([]byte, bool, error) {
	return []byte("41"), true, errors.Join(h.note("get %s/%s", table, key), h.getErr)
}

func (h *fakeHost) Put(table, key string, value []byte) error {
	return h.note("put %s/%s %s", table, key, value)
}
func (h *fakeHost) Delete(table, key string) error { return h.note("delete %s/%s", table, key) }
func (h *fakeHost) Add(table, key string, delta int64) error {
	return h.note("add %s/%s %d", table, key, delta)
}

func (h *fakeHost) Scan(table, prefix string, limit int) ([]runtime.Entry, error) {
	return []runtime.Entry{{Key: "a", Value: []byte("1")}}, h.note("scan %s/%s %d", table, prefix, limit)
}

func (h *fakeHost) Call(function, handler string, input []byte) ([]byte, error) {
	return []byte("called"), h.note("call %s/%s %s", function, handler, input)
}

func (h *fakeHost) Result(step string) ([]byte, bool) { return []byte(step), step == "before" }
func (h *fakeHost) Abort(reason string)               { _ = h.note("abort %s", reason) }
func (h *fakeHost) Now() time.Time                    { return time.Unix(7, 0) }

func (h *fakeHost) Rand() uint64 {
	if h.bad {
		panic("assertion")
	}
	return 9
}

func (h *fakeHost) Log(message string)              { _ = h.note("log %s", message) }
func (h *fakeHost) InvocationID() base.InvocationID { return base.InvocationID{15: 1} }

func invoke(ctx context.Context, t *testing.T, h runtime.Host, handler tenure.Handler) ([]byte, error) {
	t.Helper()
	b, err := New(map[string]tenure.Handler{"h": handler})
	if err != nil {
		t.Fatal(err)
	}
	return b.Invoke(ctx, runtime.Call{Handler: "h", Input: []byte("in"), Host: h})
}

func TestEveryMethodReachesTheHost(t *testing.T) {
	h := &fakeHost{}
	out, err := invoke(t.Context(), t, h, func(ctx *tenure.Context) ([]byte, error) {
		n, err := ctx.GetInt("t", "k")
		before, ok := ctx.Result("before")
		_, unknown := ctx.Result("x")
		entries, scanErr := ctx.Scan("t", "p", 3)
		called, callErr := ctx.Call("f", "g", []byte("i"))
		ctx.Log("n=%d", n)
		err = errors.Join(err, scanErr, callErr, ctx.PutInt("t", "k", n+1), ctx.Delete("t", "d"), ctx.Add("t", "a", -2))
		return fmt.Appendf(nil, "%s %s %v %v %s=%s %s %d %d %s", ctx.Input(), before, ok, unknown, entries[0].Key,
			entries[0].Value, called, ctx.Now().Unix(), ctx.Rand(), ctx.InvocationID()), err
	})
	if want := "in before true false a=1 called 7 9 00000000000000000000000004"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	want := []string{"get t/k", "scan t/p 3", "call f/g i", "log n=41", "put t/k 42", "delete t/d", "add t/a -2"}
	if !slices.Equal(h.calls, want) {
		t.Errorf("calls %q, want %q", h.calls, want)
	}
}

func TestOutcomes(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		handler tenure.Handler
		kind    base.Kind
		text    string
	}{
		{"error", t.Context(), func(*tenure.Context) ([]byte, error) { return nil, errors.New("no money") }, base.Aborted, "no money"},
		{"abort", t.Context(), func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Abort("sold out") }, base.Aborted, "sold out"},
		{"abort and go on", t.Context(), func(ctx *tenure.Context) ([]byte, error) {
			_, _ = ctx.Abort("first"), ctx.Abort("second")
			return []byte("out"), errors.New("third")
		}, base.Aborted, "first"},
		{"panic", t.Context(), func(*tenure.Context) ([]byte, error) { panic("boom") }, base.FunctionError, `handler "h" panicked: boom`},
		{"long panic", t.Context(), func(*tenure.Context) ([]byte, error) { panic(strings.Repeat("x", 1<<20)) }, base.FunctionError, "xxx"},
		{"nil", t.Context(), func(*tenure.Context) ([]byte, error) { var p *int; *p = 1; return nil, nil }, base.FunctionError, "nil pointer"},
		{"deadline", canceled, func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Put("t", "k", nil) }, base.Timeout, "deadline passed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := invoke(tt.ctx, t, &fakeHost{}, tt.handler)
			var e *base.Error
			if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Detail+e.Reason, tt.text) {
				t.Fatalf("error %.200v, want %v with %q", err, tt.kind, tt.text)
			}
			if len(e.Detail) > maxTextBytes+100 || strings.Contains(e.Detail, ".go:") {
				t.Errorf("detail shows too much: %.200s", e.Detail)
			}
		})
	}
}

func TestCallsFailAfterTheDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := &fakeHost{}
	_, err := invoke(ctx, t, h, func(ctx *tenure.Context) ([]byte, error) {
		_, _, err1 := ctx.Get("t", "k")
		_, err2 := ctx.Scan("t", "k", 0)
		_, err3 := ctx.Call("f", "g", nil)
		for _, err := range []error{err1, err2, err3, ctx.Put("t", "k", nil), ctx.Delete("t", "k"), ctx.Add("t", "k", 1)} {
			if base.KindOf(err) != base.Timeout {
				t.Errorf("error %v", err)
			}
		}
		return nil, err1
	})
	if base.KindOf(err) != base.Timeout || len(h.calls) != 0 {
		t.Errorf("error %v, calls %q", err, h.calls)
	}
}

func TestAttemptOverIsPassedOn(t *testing.T) {
	_, err := invoke(t.Context(), t, &fakeHost{over: true}, func(ctx *tenure.Context) ([]byte, error) {
		err := ctx.Put("t", "k", nil)
		if !errors.Is(err, runtime.ErrAttemptOver) {
			t.Errorf("error %v", err)
		}
		return nil, err
	})
	if !errors.Is(err, runtime.ErrAttemptOver) {
		t.Errorf("error %v", err)
	}
}

func TestPanicOfTheHostGoesOn(t *testing.T) {
	defer func() {
		if p := recover(); p != "assertion" {
			t.Errorf("recovered %v", p)
		}
	}()
	_, err := invoke(t.Context(), t, &fakeHost{bad: true}, func(ctx *tenure.Context) ([]byte, error) {
		ctx.Rand()
		return nil, nil
	})
	t.Errorf("returned %v", err)
}

func TestNewRefuses(t *testing.T) {
	good := func(*tenure.Context) ([]byte, error) { return nil, nil }
	for _, handlers := range []map[string]tenure.Handler{{}, {"a b": good}, {"": good}, {"a": nil}} {
		if _, err := New(handlers); base.KindOf(err) != base.Invalid {
			t.Errorf("%d handlers: %v", len(handlers), err)
		}
	}
	b, err := New(map[string]tenure.Handler{"b": good, "a": good})
	if err != nil || !slices.Equal(b.Handlers(), []string{"a", "b"}) {
		t.Errorf("handlers %v, %v", b.Handlers(), err)
	}
	if _, err := b.Invoke(t.Context(), runtime.Call{Handler: "c"}); base.KindOf(err) != base.NotFound {
		t.Errorf("error %v", err)
	}
}

var _ runtime.Bundle = (*Bundle)(nil)
