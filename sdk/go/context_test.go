package tenure_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/sdk/go/tenuretest"
)

func Example() {
	count := func(ctx *tenure.Context) ([]byte, error) {
		name := ctx.JSON().Get("name").String()
		n, err := ctx.GetInt("counters", name)
		if err != nil {
			return nil, err
		}
		if err := ctx.PutInt("counters", name, n+1); err != nil {
			return nil, err
		}
		return tenure.NewObject().Str("name", name).Int("count", n+1).Bytes(), nil
	}
	host := tenuretest.New()
	host.Set("counters", "visits", "41")
	fmt.Println(host.Invoke(count, `{"name":"visits"}`))
	// Output: {"name":"visits","count":42} <nil>
}

func TestContext(t *testing.T) {
	host := tenuretest.New()
	host.Results["before"] = []byte("1")
	host.Functions["other"] = map[string]tenure.Handler{
		"echo": func(ctx *tenure.Context) ([]byte, error) { return ctx.Input(), nil },
	}
	out, err := host.Invoke(func(ctx *tenure.Context) ([]byte, error) {
		var in struct{ N int64 }
		if err := ctx.Decode(&in); err != nil {
			return nil, err
		}
		absent, err := ctx.GetInt("t", "k")
		called, callErr := ctx.Call("other", "echo", []byte("in"))
		err = errors.Join(err, callErr, ctx.PutInt("t", "k", in.N), ctx.Add("t", "k", -8), ctx.Put("t", "l", nil), ctx.Delete("t", "l"))
		n, getErr := ctx.GetInt("t", "k")
		entries, scanErr := ctx.Scan("t", "", 0)
		before, _ := ctx.Result("before")
		_, unknown := ctx.Result("x")
		ctx.Log("100%")
		ctx.Log("%d%%", 7)
		return fmt.Appendf(nil, "%d %s %d %d %s %v %s %s", absent, called, n, len(entries), before, unknown,
			ctx.Now().Format(time.DateOnly), ctx.InvocationID()), errors.Join(err, getErr, scanErr)
	}, `{"n":5}`)
	if want := "0 in -3 1 1 false 2025-01-01 00000000000000000000000001"; out != want || err != nil {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	if got := strings.Join(host.Logs, "|"); got != "100%|7%" {
		t.Errorf("logs %q", got)
	}
	if v, _ := host.Value("t", "k"); v != "-3" {
		t.Errorf("value %q", v)
	}
}

func TestFailureUndoesEverything(t *testing.T) {
	for name, handler := range map[string]tenure.Handler{
		"error": func(*tenure.Context) ([]byte, error) { return nil, errors.New("why") },
		"abort": func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Abort("why") },
		"ignored abort": func(ctx *tenure.Context) ([]byte, error) {
			_, _ = ctx.Abort("why"), ctx.Abort("other")
			return nil, nil
		},
		"abort of a callee": func(ctx *tenure.Context) ([]byte, error) {
			_, _ = ctx.Call("f", "fail", nil)
			return nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := tenuretest.New()
			host.Functions["f"] = map[string]tenure.Handler{
				"fail": func(*tenure.Context) ([]byte, error) { return nil, errors.New("why") },
			}
			host.Set("t", "k", "1")
			_, err := host.Invoke(func(ctx *tenure.Context) ([]byte, error) {
				if err := ctx.Add("t", "k", 1); err != nil {
					return nil, err
				}
				return handler(ctx)
			}, "{}")
			var aborted *tenure.AbortError
			if !errors.As(err, &aborted) || aborted.Reason != "why" {
				t.Errorf("error %v", err)
			}
			if v, _ := host.Value("t", "k"); v != "1" {
				t.Errorf("value %q", v)
			}
		})
	}
}

func TestErrorsOfCalls(t *testing.T) {
	host := tenuretest.New()
	host.Set("t", "word", "abc")
	host.Set("t", "max", "9223372036854775807")
	host.Functions["f"] = map[string]tenure.Handler{}
	host.Functions["f"]["self"] = func(ctx *tenure.Context) ([]byte, error) { return ctx.Call("f", "self", nil) }
	for name, handler := range map[string]tenure.Handler{
		"not a decimal": func(ctx *tenure.Context) ([]byte, error) { _, err := ctx.GetInt("t", "word"); return nil, err },
		"invalid synta": func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Add("t", "word", 1) },
		"overflows":     func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Add("t", "max", 1) },
		"may not be em": func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Put("t", "", nil) },
		"no handler f/": func(ctx *tenure.Context) ([]byte, error) { return ctx.Call("f", "x", nil) },
		"more than 16 ": func(ctx *tenure.Context) ([]byte, error) { return ctx.Call("f", "self", nil) },
	} {
		if _, err := host.Invoke(handler, "{}"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	host.Over = true
	_, err := host.Invoke(func(ctx *tenure.Context) ([]byte, error) {
		_, _, err := ctx.Get("t", "word")
		if !errors.Is(err, tenure.ErrOver) {
			t.Errorf("error %v", err)
		}
		return nil, err
	}, "{}")
	if err == nil {
		t.Error("an attempt that is over succeeded")
	}
}
