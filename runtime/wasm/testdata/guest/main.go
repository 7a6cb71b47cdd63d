// Command guest is a function that misbehaves in every way the tests of the package wasm know.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/sdk/go"
)

// counter is the state that isolation must take away; garbage defeats the optimiser.
var (
	counter int64
	secret  []byte
	garbage [][]byte
	nothing *int
	sum     int
	kept    []pair
)

// pair is a string or an object's text that a handler kept, and a copy of it.
type pair struct {
	original string
	bytes    []byte
	copy     string
}

func (p pair) changed() bool {
	return p.original != "" && p.original != p.copy || p.bytes != nil && string(p.bytes) != p.copy
}

func init() {
	handlers := map[string]tenure.Handler{
		"echo":    func(ctx *tenure.Context) ([]byte, error) { return ctx.Input(), nil },
		"get":     get,
		"noop":    func(*tenure.Context) ([]byte, error) { return nil, nil },
		"count":   count,
		"grow":    grow,
		"garbage": func(*tenure.Context) ([]byte, error) { garbage = [][]byte{make([]byte, 4<<10)}; return nil, nil },
		"litter":  func(*tenure.Context) ([]byte, error) { garbage = [][]byte{make([]byte, 4<<20)}; return nil, nil },
		"fail":    func(ctx *tenure.Context) ([]byte, error) { return nil, errors.New(string(ctx.Input())) },
		"abort": func(ctx *tenure.Context) ([]byte, error) {
			_ = ctx.Abort("first")
			_ = ctx.Abort("second")
			return []byte("ignored"), nil
		},
		"decode": decode,
		"json":   lightJSON,
		"all":    all,
		"ints":   ints,
		"keep":   keep,
		"find": func(ctx *tenure.Context) ([]byte, error) {
			return ctx.JSON().Get("doc").Get(ctx.JSON().Get("path").String()).Raw(), nil
		},
		"retry": retry,
		"loop": func(*tenure.Context) ([]byte, error) {
			for sum = 0; ; sum++ {
				sum *= 3
			}
		},
		"hostloop": func(ctx *tenure.Context) ([]byte, error) {
			for {
				ctx.Rand()
			}
		},
		"recurse":   func(ctx *tenure.Context) ([]byte, error) { return nil, fmt.Errorf("%d", deep(1)) },
		"fib":       func(*tenure.Context) ([]byte, error) { return strconv.AppendInt(nil, int64(fib(60)), 10), nil },
		"fill":      fill,
		"sleep":     func(*tenure.Context) ([]byte, error) { time.Sleep(time.Hour); return nil, nil },
		"panic":     func(ctx *tenure.Context) ([]byte, error) { panic("boom " + string(ctx.Input())) },
		"panicLong": func(ctx *tenure.Context) ([]byte, error) { panic(string(bytes.Repeat([]byte("x"), 1<<20))) },
		"nil":       func(*tenure.Context) ([]byte, error) { *nothing = 1; return nil, nil },
		"bomb": func(*tenure.Context) ([]byte, error) {
			for {
				garbage = append(garbage, make([]byte, 1<<20))
			}
		},
		"exit": func(*tenure.Context) ([]byte, error) { os.Exit(7); return nil, nil },
		"print": func(*tenure.Context) ([]byte, error) {
			fmt.Print("one\ntwo")
			fmt.Fprintln(os.Stderr, "three")
			return nil, nil
		},
		"flood": func(*tenure.Context) ([]byte, error) {
			line := bytes.Repeat([]byte("y"), 1<<20)
			for range 100 {
				os.Stdout.Write(line)
			}
			return nil, nil
		},
		"huge": func(*tenure.Context) ([]byte, error) { return make([]byte, 7<<20), nil },
		"files": func(*tenure.Context) ([]byte, error) {
			_, err := os.ReadFile("/etc/passwd")
			return []byte(fmt.Sprint(err, len(os.Args), len(os.Environ()))), nil
		},
	}
	for name, handler := range handlers {
		tenure.Handle(name, handler)
	}
}

func get(ctx *tenure.Context) ([]byte, error) {
	value, _, err := ctx.Get("accounts", "ann")
	return value, err
}

func count(ctx *tenure.Context) ([]byte, error) {
	counter++
	old := string(secret)
	secret = append([]byte(nil), ctx.Input()...)
	return fmt.Appendf(nil, "%d %s", counter, old), nil
}

// grow makes the memory larger and leaves a secret in the new part.
func grow(ctx *tenure.Context) ([]byte, error) {
	block := make([]byte, 8<<20)
	counter++
	copy(block[4<<20:], ctx.Input())
	garbage = append(garbage, block)
	return fmt.Appendf(nil, "%d %d", counter, len(garbage)), nil
}

func decode(ctx *tenure.Context) ([]byte, error) {
	var in struct {
		From   string
		Amount int64
	}
	if err := ctx.Decode(&in); err != nil {
		return nil, err
	}
	return tenure.NewObject().Str("from", in.From).Int("amount", in.Amount).Bytes(), nil
}

func lightJSON(ctx *tenure.Context) ([]byte, error) {
	amount, _ := ctx.JSON().Get("amount").Int()
	return tenure.NewObject().Str("from", ctx.JSON().Get("from").String()).Int("amount", amount).Bytes(), nil
}

// all uses every method of the context and reports what it saw.
func all(ctx *tenure.Context) ([]byte, error) {
	if err := ctx.Put("t", "k1", []byte("v1")); err != nil {
		return nil, err
	}
	if err := ctx.PutInt("t", "k2", -12); err != nil {
		return nil, err
	}
	if err := ctx.Add("t", "k2", 5); err != nil {
		return nil, err
	}
	if err := ctx.Put("t", "big", bytes.Repeat([]byte("b"), 100_000)); err != nil {
		return nil, err
	}
	if err := ctx.Put("t", "gone", nil); err != nil {
		return nil, err
	}
	if err := ctx.Delete("t", "gone"); err != nil {
		return nil, err
	}
	n, err := ctx.GetInt("t", "k2")
	if err != nil {
		return nil, err
	}
	big, _, err := ctx.Get("t", "big")
	if err != nil {
		return nil, err
	}
	_, found, err := ctx.Get("t", "gone")
	if err != nil {
		return nil, err
	}
	entries, err := ctx.Scan("t", "k", 0)
	if err != nil {
		return nil, err
	}
	scanned := ""
	for _, e := range entries {
		scanned += e.Key + "=" + string(e.Value) + ";"
	}
	large, err := ctx.Scan("t", "", 0)
	if err != nil {
		return nil, err
	}
	called, err := ctx.Call("other", "echo", []byte(`"in"`))
	if err != nil {
		return nil, err
	}
	result, ok := ctx.Result("before")
	_, unknown := ctx.Result("nowhere")
	ctx.Log("n is %d", n)
	refused := ctx.Put("bad table", "k", nil)
	long := ctx.Put("t", string(bytes.Repeat([]byte("k"), 2000)), nil)
	return tenure.NewObject().Int("n", n).Int("big", int64(len(big))).Bool("found", found).Str("scanned", scanned).
		Int("large", int64(len(large))).Raw("called", called).Raw("result", result).Bool("ok", ok).Bool("unknown", unknown).
		Str("now", ctx.Now().UTC().Format(time.RFC3339Nano)).Bool("rand", ctx.Rand() == ctx.Rand()).
		Str("id", ctx.InvocationID()).Bool("refused", refused != nil).Str("long", fmt.Sprint(long)).Bytes(), nil
}

// ints adds one to the integer that the input names.
func ints(ctx *tenure.Context) ([]byte, error) {
	key := ctx.JSON().Get("key").String()
	n, err := ctx.GetInt("t", key)
	if err != nil {
		return nil, err
	}
	if err := ctx.PutInt("t", key, n+1); err != nil {
		return nil, err
	}
	return tenure.NewObject().Int("n", n+1).Bytes(), nil
}

// keep keeps strings and objects of one call for the next ones, and compares with copies of them.
func keep(ctx *tenure.Context) ([]byte, error) {
	name := ctx.JSON().Get("name").String()
	first, second := tenure.NewObject().Str("first", name), tenure.NewObject().Str("second", name)
	before := first.Bytes()
	text := second.Int("n", int64(len(kept))).Bytes()
	after := first.Int("n", int64(len(kept))).Bytes()
	third := tenure.NewObject().Str("third", name).Bytes()
	again := second.Bool("again", true).Bytes()
	want := fmt.Sprintf(`{"first":%q} {"second":%q,"n":%d} {"first":%q,"n":%d} {"third":%q} {"second":%q,"n":%d,"again":true}`,
		name, name, len(kept), name, len(kept), name, name, len(kept))
	if got := string(bytes.Join([][]byte{before, text, after, third, again}, []byte(" "))); got != want {
		return nil, fmt.Errorf("got %s, want %s", got, want)
	}
	kept = append(kept, pair{original: name, copy: strings.Clone(name)})
	for _, b := range [][]byte{before, text, after, third, again} {
		kept = append(kept, pair{bytes: b, copy: string(b)})
	}
	for _, p := range kept {
		if p.changed() {
			return nil, fmt.Errorf("%q became %q %q", p.copy, p.original, p.bytes)
		}
	}
	return nil, nil
}

// retry keeps on after the attempt is over, as a careless author would.
func retry(ctx *tenure.Context) ([]byte, error) {
	for range 10 {
		if _, _, err := ctx.Get("t", "k"); !errors.Is(err, tenure.ErrOver) {
			return nil, errors.New("expected ErrOver")
		}
	}
	return nil, tenure.ErrOver
}

func deep(n int) int {
	if n < 0 {
		return 0
	}
	return deep(n+1) + deep(n+2)%7
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func fill(*tenure.Context) ([]byte, error) {
	block := make([]byte, 16<<20)
	for {
		clear(block)
		clear(block[1:])
	}
}

func main() {}
