package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// maxGrowth is how far an instance's memory may exceed the snapshot for a reset to be worth it: memory cannot shrink, and
// a Go guest never finds again what it had grown by before the reset.
const maxGrowth = 16 << 20

// instance is one instantiated module. One goroutine uses it at a time; the pool of its Bundle hands it on.
type instance struct {
	bundle *Bundle
	module api.Module
	memory api.Memory
	invoke api.Function
	fuel   api.Global
	// callContext is the context of calls into the module, for the host functions to find the instance. It is part of
	// the instance, so that a call allocates none.
	callContext callContext
	calls       int
	dirty       bool // a call has run since the start or the last restore
	stack       [2]uint64
	names       [4]string // names of tables and the like seen lately, to save their copies
	nextName    int       // the place in names that is replaced next
	lastKey     string    // for the same
	scratch     [20]byte  // the text of put_int

	// What follows belongs to the current call.

	parent   context.Context //nolint:containedctx // of the current call, which it ends
	deadline time.Time       // of parent; zero: none
	host     runtime.Host    // nil during the start
	input    []byte
	output   []byte
	failure  string // what the handler's error said
	aborted  bool
	reason   string // of the first abort
	pending  []byte // what fetch copies
	refusal  string // what last_error says
	inHost   bool   // a method of host is running
	granted  int64  // fuel when it was last set or counted
	used     int64  // fuel counted so far
	lines    lineWriter
}

// callContext answers the one question that host functions ask. The values of the caller's context are of no use to the
// engine, and looking for them would cost more than the rest of a call.
type callContext struct {
	context.Context //nolint:containedctx // never ends and has no values
	instance        *instance
}

type instanceKey struct{}

func (c *callContext) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return c.instance
	}
	return nil
}

func instanceOf(ctx context.Context) *instance {
	if c, ok := ctx.(*callContext); ok {
		return c.instance
	}
	return ctx.Value(instanceKey{}).(*instance) // during the start the engine wraps the context
}

// errStopped is the panic that ends a call whose context ended.
var errStopped = errors.New("stopped")

// ruleError is the panic that ends a call which passed nonsense to a host function.
type ruleError struct{ text string }

func (e *ruleError) Error() string { return e.text }

// exitError is the panic that ends a call in which the guest ended its process.
type exitError struct{ code uint32 }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// start instantiates the module of a bundle, within StartTimeout and ctx. The error is for the module's author.
func (r *Runtime) start(ctx context.Context, b *Bundle) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opt.StartTimeout)
	defer cancel()
	in := &instance{bundle: b}
	in.callContext = callContext{context.Background(), in}
	in.begin(ctx, nil, nil)
	defer in.end()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions(exportInit)
	module, err := r.engine.InstantiateModule(&in.callContext, b.compiled, config)
	if err != nil {
		return nil, in.startFailure(err)
	}
	in.module = module
	in.memory = module.ExportedMemory(exportMemory)
	in.invoke = module.ExportedFunction(exportInvoke)
	in.fuel = module.ExportedGlobal(meter.FuelExport)
	return in, nil
}

func (in *instance) startFailure(err error) error {
	if errors.Is(err, errStopped) {
		return fmt.Errorf("the start took longer than %v", in.bundle.runtime.opt.StartTimeout)
	}
	in.lines.flush(in)
	return errors.New(in.crash(err))
}

// close frees the instance.
func (in *instance) close() {
	if in.module != nil {
		// Closing cannot fail: a guest has no files or sockets to close.
		_ = in.module.Close(context.Background())
	}
}

// handlers asks the guest for the names of its handlers, separated by newlines.
func (in *instance) handlers() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), in.bundle.runtime.opt.StartTimeout)
	defer cancel()
	in.begin(ctx, nil, nil)
	defer in.end()
	result, err := in.module.ExportedFunction(exportHandlers).Call(&in.callContext)
	if err != nil {
		return "", in.startFailure(err)
	}
	address, size := uint32(result[0]>>32), uint32(result[0])
	if size > maxHandlersBytes {
		return "", fmt.Errorf("it gives %d bytes, the limit is %d", size, maxHandlersBytes)
	}
	names, ok := in.memory.Read(address, size)
	if !ok {
		return "", fmt.Errorf("it gives %d bytes at %d, which is outside the memory", size, address)
	}
	return string(names), nil
}

// begin sets the instance up for a call.
func (in *instance) begin(ctx context.Context, host runtime.Host, input []byte) {
	in.parent = ctx
	in.deadline, _ = ctx.Deadline()
	in.host, in.input = host, input
	in.used = 0
	if in.fuel != nil {
		in.granted = int64(in.fuel.Get())
	}
}

// end forgets the call, so that an idle instance keeps nothing of it alive.
func (in *instance) end() {
	in.parent, in.host, in.input, in.output, in.pending = nil, nil, nil, nil, nil
	in.failure, in.reason, in.refusal = "", "", ""
	in.aborted = false
	in.lines.reset()
}

// call runs a handler. sound is false if the instance may not be used again.
func (in *instance) call(ctx context.Context, handler int32, call runtime.Call) (output []byte, err error, sound bool) {
	in.begin(ctx, call.Host, call.Input)
	defer in.end()
	in.calls++
	in.dirty = true
	in.stack[0], in.stack[1] = uint64(uint32(handler)), uint64(len(call.Input))
	trap := in.invoke.CallWithStack(&in.callContext, in.stack[:])
	in.countFuel()
	if in.inHost {
		// The panic is an assertion of the platform that did not hold; the engine has caught it on its way to the top.
		panic(fmt.Sprintf("host method panicked below a wasm function: %v", trap))
	}
	in.lines.flush(in)
	if trap != nil {
		return nil, in.trapped(trap), false
	}
	switch {
	case in.aborted:
		return nil, &base.Error{Kind: base.Aborted, Reason: in.reason}, true
	case uint32(in.stack[0]) == 0:
		return in.output, nil, true
	case ctx.Err() != nil:
		return nil, timeout(ctx), true
	}
	return nil, &base.Error{Kind: base.Aborted, Reason: in.failure}, true
}

// trapped turns the end of a call that did not return into what the caller is told.
func (in *instance) trapped(trap error) error {
	if errors.Is(trap, errStopped) {
		return timeout(in.parent)
	}
	return base.Errorf(base.FunctionError, "the function %s", in.crash(trap))
}

// crash says what ended a call, without stack traces: they would show what the author's machine looks like.
func (in *instance) crash(trap error) string {
	var rule *ruleError
	if errors.As(trap, &rule) {
		return "broke a rule: " + rule.text
	}
	if text := in.lines.crashText(); text != "" {
		return "crashed: " + text
	}
	var exit *exitError
	if errors.As(trap, &exit) {
		return fmt.Sprintf("crashed: it exited with code %d", exit.code)
	}
	text := firstLine(trap.Error())
	if _, cause, ok := strings.Cut(text, "wasm error: "); ok {
		text = cause
	}
	return "crashed: " + text
}

func timeout(ctx context.Context) error {
	cause := context.Cause(ctx)
	if cause == nil { // the timer behind ctx is late
		cause = context.DeadlineExceeded
	}
	return &base.Error{Kind: base.Timeout, Detail: "the deadline passed while the function ran", Err: cause}
}

// yield is called by metered code whenever a slice of fuel is spent.
func (in *instance) yield() (fuel int64) {
	// The clock is asked as well, because the timer behind ctx may fire late on a busy machine.
	if !in.deadline.IsZero() && time.Until(in.deadline) <= 0 {
		panic(errStopped)
	}
	in.checkStop()
	in.countFuel()
	in.granted = in.bundle.runtime.opt.Slice
	return in.granted
}

// checkStop ends the call if its context ended.
func (in *instance) checkStop() {
	if in.parent.Err() != nil {
		panic(errStopped)
	}
}

// countFuel adds what was used since the last count.
func (in *instance) countFuel() {
	if in.fuel == nil {
		return // during the start
	}
	left := int64(in.fuel.Get())
	in.used += in.granted - left
	in.granted = left
}

// snapshot is the state of an instance after its start.
type snapshot struct {
	memory  []byte
	globals []uint64
}

// save copies the state of an instance on which no call has run.
func (in *instance) save() *snapshot {
	memory, _ := in.memory.Read(0, in.memory.Size())
	s := &snapshot{memory: append([]byte(nil), memory...)}
	for _, name := range in.bundle.globals {
		s.globals = append(s.globals, in.module.ExportedGlobal(name).Get())
	}
	return s
}

// restore sets the state of the instance back. It is false if that is impossible or not worth it.
func (in *instance) restore(s *snapshot) bool {
	size := in.memory.Size()
	if int(size)-len(s.memory) > maxGrowth {
		return false
	}
	memory, ok := in.memory.Read(0, size)
	if !ok {
		return false
	}
	clear(memory[copy(memory, s.memory):])
	for i, name := range in.bundle.globals {
		global, ok := in.module.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			return false
		}
		global.Set(s.globals[i])
	}
	in.dirty = false
	return true
}
