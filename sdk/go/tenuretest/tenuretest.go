// Package tenuretest runs handlers in unit tests, without a server:
//
//	func TestWithdraw(t *testing.T) {
//		host := tenuretest.New()
//		host.Set("accounts", "ann", "10")
//		out, err := host.Invoke(bank.Withdraw, `{"from":"ann","amount":3}`)
//		...
//		balance, _ := host.Value("accounts", "ann")
//	}
//
// A Host holds tables in memory. Invoke is one transaction: its writes stay only
// if no handler in it fails. What real transactions add, waiting and repetition,
// does not happen here, except that Over makes every call fail as in a run that
// cannot commit any more.
//
// Start reading at New and Host.Invoke.
package tenuretest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/sdk/go"
)

// maxCallDepth bounds Context.Call, so that handlers which call each other for
// ever fail with a message.
const maxCallDepth = 16

// Host is a tenure.Host with its tables in memory. The fields may be set before
// Invoke. A Host is used by one goroutine at a time.
type Host struct {
	// Results are the outputs of earlier steps, for Context.Result. Step adds to
	// them.
	Results map[string][]byte
	// Functions are the handlers that Context.Call finds, by function and name.
	Functions map[string]map[string]tenure.Handler
	// Time is what Context.Now returns. New sets it to a fixed time.
	Time time.Time
	// Invocation is what Context.InvocationID returns. New sets it.
	Invocation string
	// Over makes every method that can fail return tenure.ErrOver.
	Over bool
	// Logs are the lines of Context.Log, in order.
	Logs []string

	tables  map[string]map[string][]byte
	random  uint64
	depth   int
	aborted *tenure.AbortError
}

// New returns a Host with empty tables.
func New() *Host {
	return &Host{
		Results:    map[string][]byte{},
		Functions:  map[string]map[string]tenure.Handler{},
		Time:       time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC),
		Invocation: "00000000000000000000000001",
		tables:     map[string]map[string][]byte{},
	}
}

// Set writes a value outside any transaction.
func (h *Host) Set(table, key, value string) { h.put(table, key, []byte(value)) }

// Value reads a value outside any transaction.
func (h *Host) Value(table, key string) (value string, found bool) {
	v, found := h.tables[table][key]
	return string(v), found
}

// Invoke runs a handler as a transaction of its own. When the handler aborts,
// with Context.Abort or an error, the tables are as before and the error is a
// *tenure.AbortError.
func (h *Host) Invoke(handler tenure.Handler, input string) (output string, err error) {
	before := make(map[string]map[string][]byte, len(h.tables))
	for name, table := range h.tables {
		before[name] = maps.Clone(table)
	}
	h.aborted = nil
	out, err := handler(tenure.NewContext(h, []byte(input)))
	if h.aborted == nil && err != nil {
		h.aborted = &tenure.AbortError{Reason: err.Error()}
	}
	if h.aborted != nil {
		h.tables = before
		return "", h.aborted
	}
	return string(out), nil
}

// Step is one step of a workflow for Workflow.
type Step struct {
	Name    string
	Handler tenure.Handler
}

// Workflow runs steps one after the other as one transaction, each of which sees
// the outputs of those before it, and returns all outputs by step.
func (h *Host) Workflow(steps []Step, input string) (outputs map[string]string, err error) {
	outputs = map[string]string{}
	h.Results = map[string][]byte{}
	_, err = h.Invoke(func(ctx *tenure.Context) ([]byte, error) {
		for _, step := range steps {
			out, err := step.Handler(ctx)
			if err != nil {
				return nil, err
			}
			h.Results[step.Name] = out
			outputs[step.Name] = string(out)
		}
		return nil, nil
	}, input)
	if err != nil {
		return nil, err
	}
	return outputs, nil
}

// Get implements tenure.Host.
func (h *Host) Get(table, key string) ([]byte, bool, error) {
	if err := h.check(table, key); err != nil {
		return nil, false, err
	}
	value, found := h.tables[table][key]
	return slices.Clone(value), found, nil
}

// Put implements tenure.Host.
func (h *Host) Put(table, key string, value []byte) error {
	if err := h.check(table, key); err != nil {
		return err
	}
	h.put(table, key, slices.Clone(value))
	return nil
}

// Delete implements tenure.Host.
func (h *Host) Delete(table, key string) error {
	if err := h.check(table, key); err != nil {
		return err
	}
	delete(h.tables[table], key)
	return nil
}

// Add implements tenure.Host.
func (h *Host) Add(table, key string, delta int64) error {
	if err := h.check(table, key); err != nil {
		return err
	}
	var n int64
	if value, found := h.tables[table][key]; found {
		var err error
		if n, err = strconv.ParseInt(string(value), 10, 64); err != nil {
			return fmt.Errorf("add to %s/%s: %w", table, key, err)
		}
	}
	sum := n + delta
	if (sum > n) != (delta > 0) && delta != 0 {
		return fmt.Errorf("add to %s/%s overflows", table, key)
	}
	h.put(table, key, strconv.AppendInt(nil, sum, 10))
	return nil
}

// Scan implements tenure.Host.
func (h *Host) Scan(table, prefix string, limit int) ([]tenure.Entry, error) {
	if err := h.check(table, prefix+"x"); err != nil {
		return nil, err
	}
	var entries []tenure.Entry
	for _, key := range slices.Sorted(maps.Keys(h.tables[table])) {
		if limit > 0 && len(entries) == limit {
			break
		}
		if strings.HasPrefix(key, prefix) {
			entries = append(entries, tenure.Entry{Key: key, Value: slices.Clone(h.tables[table][key])})
		}
	}
	return entries, nil
}

// Call implements tenure.Host.
func (h *Host) Call(function, handler string, input []byte) ([]byte, error) {
	if h.Over {
		return nil, tenure.ErrOver
	}
	f, ok := h.Functions[function][handler]
	if !ok {
		return nil, fmt.Errorf("no handler %s/%s", function, handler)
	}
	if h.depth == maxCallDepth {
		return nil, fmt.Errorf("call of %s/%s: more than %d calls inside each other", function, handler, maxCallDepth)
	}
	h.depth++
	defer func() { h.depth-- }()
	out, err := f(tenure.NewContext(h, slices.Clone(input)))
	if err != nil {
		h.Abort(err.Error())
	}
	return out, err
}

// Result implements tenure.Host.
func (h *Host) Result(step string) ([]byte, bool) {
	out, ok := h.Results[step]
	return out, ok
}

// Abort implements tenure.Host.
func (h *Host) Abort(reason string) {
	if h.aborted == nil {
		h.aborted = &tenure.AbortError{Reason: reason}
	}
}

// Now implements tenure.Host.
func (h *Host) Now() time.Time { return h.Time }

// Rand implements tenure.Host: the same numbers in every test.
func (h *Host) Rand() uint64 {
	h.random += 0x9e3779b97f4a7c15
	x := h.random
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Log implements tenure.Host.
func (h *Host) Log(message string) { h.Logs = append(h.Logs, message) }

// InvocationID implements tenure.Host.
func (h *Host) InvocationID() string { return h.Invocation }

func (h *Host) check(table, key string) error {
	if h.Over {
		return tenure.ErrOver
	}
	if table == "" || key == "" {
		return errors.New("table and key may not be empty")
	}
	return nil
}

func (h *Host) put(table, key string, value []byte) {
	if h.tables[table] == nil {
		h.tables[table] = map[string][]byte{}
	}
	h.tables[table][key] = value
}
