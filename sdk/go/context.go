package tenure

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Handler is the code of one handler. It returns its output, by convention
// JSON, or an error, which aborts the transaction with the error's text.
type Handler func(ctx *Context) ([]byte, error)

// Context is a handler's view of its transaction. It is valid until the handler
// returns and must not be used by two goroutines at a time.
//
// After an error from one of its methods the handler should return, with that
// error: the platform knows what happened and repeats the run or reports it.
type Context struct {
	host  Host
	input []byte
}

// Entry is one entry of a Scan. Key and Value may not be modified; they are
// valid until the handler returns.
type Entry struct {
	Key   string
	Value []byte
}

// Host does the work of a Context; Context documents the methods of the same
// name. Handlers never see it: it is implemented by the WebAssembly guest, by
// the native runtime and by tenuretest.
type Host interface {
	Get(table, key string) (value []byte, found bool, err error)
	Put(table, key string, value []byte) error
	Delete(table, key string) error
	Add(table, key string, delta int64) error
	Scan(table, prefix string, limit int) ([]Entry, error)
	Call(function, handler string, input []byte) ([]byte, error)
	Result(step string) (output []byte, found bool)
	Abort(reason string)
	Now() time.Time
	Rand() uint64
	Log(message string)
	InvocationID() string
}

// ErrOver is returned by the methods of Context when this run cannot commit any
// more. The handler returns as soon as it can; the platform decides what
// happens next, usually another run.
var ErrOver = errors.New("the attempt is over: return from the handler")

// AbortError is what Context.Abort returns.
type AbortError struct {
	// Reason is what the caller of the workflow is told.
	Reason string
}

// Error returns the reason.
func (e *AbortError) Error() string { return e.Reason }

// NewContext returns a Context on a host, for those who run handlers; authors
// of functions do not need it. The input is not copied.
func NewContext(host Host, input []byte) *Context {
	return &Context{host: host, input: input}
}

// Input returns the handler's input, valid JSON. It may not be modified and is
// valid until the handler returns.
func (c *Context) Input() []byte { return c.input }

// JSON returns the input for access by path, without allocation.
func (c *Context) JSON() JSON { return ParseJSON(c.input) }

// Decode unmarshals the input into v as encoding/json does. It is convenient
// and slow: in a WebAssembly guest a small object costs 60 to 140 microseconds,
// several hundred times as much as JSON.
func (c *Context) Decode(v any) error { return json.Unmarshal(c.input, v) }

// Result returns the output of an earlier step of the workflow. ok is false for
// a step that does not exist or is not ordered before this one. The output may
// not be modified and is valid until the handler returns.
func (c *Context) Result(step string) (output []byte, ok bool) { return c.host.Result(step) }

// Get returns the value of a key as this transaction sees it, its own writes
// included. The value may not be modified and is valid until the handler
// returns: copy what must live longer.
func (c *Context) Get(table, key string) (value []byte, found bool, err error) {
	return c.host.Get(table, key)
}

// GetInt returns a value that is a decimal 64-bit integer; an absent key counts
// as 0. Another value is an error.
func (c *Context) GetInt(table, key string) (int64, error) { return getInt(c.host, table, key) }

// Put sets a value. The bytes are copied.
func (c *Context) Put(table, key string, value []byte) error {
	return c.host.Put(table, key, value)
}

// PutInt sets a value to a decimal integer, as GetInt and Add read it.
func (c *Context) PutInt(table, key string, value int64) error {
	return putInt(c.host, table, key, value)
}

// Delete removes a key; it is no error if the key is absent.
func (c *Context) Delete(table, key string) error { return c.host.Delete(table, key) }

// Add adds delta to a decimal 64-bit integer without reading it; an absent key
// counts as 0. Transactions that only add to a key do not wait for each other.
func (c *Context) Add(table, key string, delta int64) error {
	return c.host.Add(table, key, delta)
}

// Scan returns the entries whose key begins with prefix, in byte order of the
// keys, at most limit of them; 0 means as many as the platform allows. The range
// is protected: no key appears in it or vanishes until the transaction ends.
func (c *Context) Scan(table, prefix string, limit int) ([]Entry, error) {
	return c.host.Scan(table, prefix, limit)
}

// Call runs a handler of another function in the same transaction and returns
// its output. The output may not be modified and is valid until the handler
// returns. When the other handler aborts, the whole transaction is aborted.
func (c *Context) Call(function, handler string, input []byte) ([]byte, error) {
	return c.host.Call(function, handler, input)
}

// Abort gives the transaction up: nothing of it is kept and the caller of the
// workflow is told the reason. It holds from now on, whatever the handler does;
// the usual form is `return nil, ctx.Abort("sold out")`.
func (c *Context) Abort(reason string) error {
	c.host.Abort(reason)
	return &AbortError{Reason: reason}
}

// Now returns the time. It stands still during a run of the workflow.
func (c *Context) Now() time.Time { return c.host.Now() }

// Rand returns 64 random bits, different in every run.
func (c *Context) Rand() uint64 { return c.host.Rand() }

// Log writes one line to the invocation's log, formatted as by fmt.Sprintf; a
// long line is cut. Lines are kept when the transaction aborts.
func (c *Context) Log(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	c.host.Log(format)
}

// InvocationID names this run of the workflow: 26 lower-case letters and
// digits, unique, in order of creation. All attempts of an invocation have the
// same id, which makes it a good key for what the invocation creates.
func (c *Context) InvocationID() string { return c.host.InvocationID() }

// readInt is GetInt on any host.
func readInt(host Host, table, key string) (int64, error) {
	value, found, err := host.Get(table, key)
	if err != nil || !found {
		return 0, err
	}
	n, ok := parseInt(value)
	if !ok {
		return 0, errors.New(table + "/" + key + " is not a decimal 64-bit integer")
	}
	return n, nil
}

// writeInt is PutInt on any host.
func writeInt(host Host, table, key string, value int64) error {
	return host.Put(table, key, appendInt(make([]byte, 0, 20), value))
}
