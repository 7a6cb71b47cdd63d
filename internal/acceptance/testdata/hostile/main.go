// Command hostile is the function of the acceptance tests: the handlers of the
// bank, and others that do what no function should.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/sdk/go"
)

// version is set by the linker, to make different modules of one source.
var version = "1"

// counter is what an instance remembers; sum, garbage and nothing defeat the
// optimiser.
var (
	counter int64
	sum     int
	garbage [][]byte
	nothing *int
)

func init() {
	for name, handler := range bank.Handlers() {
		tenure.Handle(name, handler)
	}
	for name, handler := range map[string]tenure.Handler{
		"echo":    func(ctx *tenure.Context) ([]byte, error) { return ctx.Input(), nil },
		"version": func(*tenure.Context) ([]byte, error) { return []byte(version), nil },
		"text":    func(*tenure.Context) ([]byte, error) { return []byte("not JSON"), nil },
		"fail":    func(*tenure.Context) ([]byte, error) { return nil, errors.New("I would rather not") },
		"count":   func(*tenure.Context) ([]byte, error) { counter++; return strconv.AppendInt(nil, counter, 10), nil },
		"log":     func(ctx *tenure.Context) ([]byte, error) { ctx.Log("hello %d", 7); return nil, nil },
		"touch":   touch,
		"sleep":   sleep,
		"tables":  tables,
		"scan":    scan,
		"large":   func(ctx *tenure.Context) ([]byte, error) { return nil, ctx.Put("t", "large", make([]byte, 2<<20)) },

		"spin": func(*tenure.Context) ([]byte, error) {
			for sum = 0; ; sum++ {
				sum *= 3
			}
		},
		"recurse": func(*tenure.Context) ([]byte, error) { return strconv.AppendInt(nil, int64(deep(1)), 10), nil },
		"bomb": func(*tenure.Context) ([]byte, error) {
			for {
				garbage = append(garbage, make([]byte, 1<<20))
			}
		},
		"fill": func(*tenure.Context) ([]byte, error) {
			block := make([]byte, 32<<20)
			for {
				clear(block)
				clear(block[1:])
			}
		},
		"panic": func(ctx *tenure.Context) ([]byte, error) {
			if err := ctx.Put("t", "trace", []byte("of a panic")); err != nil {
				return nil, err
			}
			panic("the sky is falling")
		},
		"nil": func(*tenure.Context) ([]byte, error) { *nothing = 1; return nil, nil },
	} {
		tenure.Handle(name, handler)
	}
}

// deep is recursion without a loop and without an end.
func deep(n int) int {
	if n < 0 {
		return 0
	}
	return deep(n+1) + deep(n+2)%7
}

// touch writes the keys in its input, undeclared and in that order, and then
// sleeps.
func touch(ctx *tenure.Context) ([]byte, error) {
	for key := range ctx.JSON().Get("keys").Each {
		if err := ctx.PutInt("t", key.String(), 1); err != nil {
			return nil, err
		}
	}
	return sleep(ctx)
}

func sleep(ctx *tenure.Context) ([]byte, error) {
	ms, _ := ctx.JSON().Get("ms").Int()
	time.Sleep(time.Duration(ms) * time.Millisecond)
	return []byte("null"), nil
}

// tables uses Add, Scan, Call and Delete and answers what it saw.
func tables(ctx *tenure.Context) ([]byte, error) {
	for _, key := range []string{"b", "a", "c"} {
		if err := ctx.Put("scanned", key, []byte(key+key)); err != nil {
			return nil, err
		}
	}
	if err := ctx.Delete("scanned", "c"); err != nil {
		return nil, err
	}
	if err := ctx.Add("sums", "n", 5); err != nil {
		return nil, err
	}
	entries, err := ctx.Scan("scanned", "", 0)
	if err != nil {
		return nil, err
	}
	var seen bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&seen, "%s=%s ", e.Key, e.Value)
	}
	called, err := ctx.Call("hostile", "echo", []byte(`"called"`))
	if err != nil {
		return nil, err
	}
	return tenure.NewObject().Str("scan", seen.String()).Raw("call", called).Bytes(), nil
}

// scan answers how many entries of the table t a scan gives.
func scan(ctx *tenure.Context) ([]byte, error) {
	entries, err := ctx.Scan("t", "", 0)
	return strconv.AppendInt(nil, int64(len(entries)), 10), err
}

func main() {}
