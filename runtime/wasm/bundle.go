package wasm

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

// Bundle is a loaded module and the pool of its instances. It implements runtime.Bundle.
type Bundle struct {
	runtime  *Runtime
	name     string
	compiled wazero.CompiledModule
	names    []string         // sorted
	indices  map[string]int32 // the guest's number of each handler
	isolate  bool
	// globals are the exports that hold an instance's state besides its memory; resettable is false if there is more.
	globals    []string
	resettable bool
	freed      chan struct{} // closed when nothing is left of the bundle

	mu        sync.Mutex
	idle      []*instance // used from the end, so that those not needed stay untouched
	waiters   []*waiter   // calls that an instance coming back goes to, oldest first
	snapshot  *snapshot   // state after the start; nil until isolation is first asked for
	alive     int         // instances, those being built included
	refilling bool        // a spare is being built
	closed    bool
	stats     Stats
}

// Stats count what a bundle did. All but Instances and Idle only grow.
type Stats struct {
	// Instances and Idle are the instances now, and those of them that serve no call.
	Instances, Idle int
	// Calls are calls of handlers that ended, in whatever way.
	Calls int64
	// Instantiations are instances that were built.
	Instantiations int64
	// Discards are instances that were dropped because a call did not return normally.
	Discards int64
	// FuelUsed is the work of all calls in checks: function entries, turns of loops and 64-byte units of bulk operations.
	FuelUsed int64
}

// waiter is a call that needs an instance.
type waiter struct {
	ready chan *instance // capacity 1: handing over never blocks
}

// Handlers returns the names of the handlers, sorted.
func (b *Bundle) Handlers() []string { return b.names }

// Stats returns the counters.
func (b *Bundle) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Instances, s.Idle = b.alive, len(b.idle)
	return s
}

// Invoke runs one handler on the calling goroutine; see runtime.Bundle.
func (b *Bundle) Invoke(ctx context.Context, call runtime.Call) ([]byte, error) {
	index, ok := b.indices[call.Handler]
	if !ok {
		return nil, base.Errorf(base.NotFound, "function %q has no handler %q", b.name, call.Handler)
	}
	if len(call.Input) > maxBodyBytes {
		return nil, base.Errorf(base.TooLarge, "the input of handler %q has %d bytes, the limit is %d", call.Handler, len(call.Input), maxBodyBytes)
	}
	in, err := b.acquire(ctx)
	if err != nil {
		return nil, err
	}
	if b.isolate || call.Isolate {
		if in, err = b.pristine(in); err != nil {
			return nil, err
		}
	}
	output, err, sound := in.call(ctx, index, call)
	b.release(in, sound)
	return output, err
}

// Close refuses new calls and frees the bundle when the running ones have ended. It does not wait for them.
func (b *Bundle) Close() error {
	b.close()
	return nil
}

func (b *Bundle) close() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.closed = true
	idle := b.idle
	b.idle = nil
	b.alive++ // keeps the bundle until the end of this function
	b.mu.Unlock()
	for _, in := range idle {
		in.close()
		b.forget()
		b.runtime.unreserve()
	}
	b.forget()
}

// forget counts an instance less, and frees the module with the last one of a closed bundle.
func (b *Bundle) forget() {
	b.mu.Lock()
	b.alive--
	last := b.closed && b.alive == 0
	b.mu.Unlock()
	if last {
		// The error of Close is always nil: there is nothing that it could not free.
		_ = b.compiled.Close(context.Background())
		b.runtime.mu.Lock()
		delete(b.runtime.bundles, b)
		b.runtime.mu.Unlock()
		close(b.freed)
	}
}

// acquire returns an instance for one call.
func (b *Bundle) acquire(ctx context.Context) (*instance, error) {
	b.mu.Lock()
	if n := len(b.idle); n > 0 {
		in := b.idle[n-1]
		b.idle = b.idle[:n-1]
		b.mu.Unlock()
		return in, nil
	}
	if b.closed {
		b.mu.Unlock()
		return nil, b.removed()
	}
	w := &waiter{ready: make(chan *instance, 1)}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	// Whichever comes first: an instance that another call gives back, or a turn to build one.
	select {
	case in := <-w.ready:
		return in, nil
	case <-ctx.Done():
		if b.leave(w) {
			return nil, timeout(ctx)
		}
		return <-w.ready, nil
	case b.runtime.building <- struct{}{}:
	}
	if b.runtime.reserve(b) {
		if !b.leave(w) {
			b.runtime.unreserve()
			<-b.runtime.building
			return <-w.ready, nil
		}
		in, err := b.build()
		<-b.runtime.building
		return in, err
	}
	<-b.runtime.building
	return b.acquireFull(ctx, w)
}

func (b *Bundle) removed() error {
	return base.Errorf(base.Unavailable, "function %q was removed or replaced", b.name)
}

// acquireFull waits for an instance when no more may be built.
func (b *Bundle) acquireFull(ctx context.Context, w *waiter) (*instance, error) {
	timer := time.NewTimer(fullWait)
	defer timer.Stop()
	select {
	case in := <-w.ready:
		return in, nil
	case <-ctx.Done():
		if b.leave(w) {
			return nil, timeout(ctx)
		}
	case <-timer.C:
		if b.leave(w) {
			return nil, full()
		}
	}
	return <-w.ready, nil
}

// leave takes a call out of the queue. It is false if an instance is in w.ready.
func (b *Bundle) leave(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiters, w)
	if i < 0 {
		return false
	}
	b.waiters = slices.Delete(b.waiters, i, i+1)
	return true
}

// build starts an instance, for which the caller holds a reservation. Not ctx of the call bounds it but StartTimeout: the
// instance serves later calls as well, and with deadlines shorter than a start none would ever get ready.
func (b *Bundle) build() (*instance, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		b.runtime.unreserve()
		return nil, b.removed()
	}
	b.alive++
	b.stats.Instantiations++
	b.mu.Unlock()
	in, err := b.runtime.start(context.Background(), b)
	if err != nil {
		b.forget()
		b.runtime.unreserve()
		return nil, base.Errorf(base.FunctionError, "function %q did not start: %s", b.name, err)
	}
	return in, nil
}

// release takes an instance back after a call. An instance that is not sound is discarded.
func (b *Bundle) release(in *instance, sound bool) {
	opt := &b.runtime.opt
	// A guest near its memory limit is replaced before a call has to fail for it.
	keep := sound && in.calls < opt.RecycleAfter && int64(in.memory.Size()) <= opt.MemoryLimit/4*3
	b.mu.Lock()
	b.stats.Calls++
	b.stats.FuelUsed += in.used
	if !sound {
		b.stats.Discards++
	}
	if keep && b.keepLocked(in) {
		b.mu.Unlock()
		return
	}
	refill := len(b.idle) == 0 && !b.refilling && !b.closed
	if refill {
		b.refilling = true
		b.runtime.refills.Go(b.refill)
	}
	b.mu.Unlock()
	b.drop(in)
}

// keepLocked hands an instance to a waiting call or puts it into the pool, if it has place.
func (b *Bundle) keepLocked(in *instance) bool {
	if len(b.waiters) > 0 {
		b.waiters[0].ready <- in
		b.waiters = slices.Delete(b.waiters, 0, 1)
		return true
	}
	if b.closed || len(b.idle) >= b.runtime.opt.MaxIdle {
		return false
	}
	b.idle = append(b.idle, in)
	return true
}

// refill builds a spare, so that after a crash the next call need not wait for a start.
func (b *Bundle) refill() {
	r := b.runtime
	r.building <- struct{}{}
	var in *instance
	if r.reserve(b) {
		// An error is met again, and reported, by the next call.
		in, _ = b.build()
	}
	<-r.building
	b.mu.Lock()
	b.refilling = false
	kept := in == nil || b.keepLocked(in)
	b.mu.Unlock()
	if !kept {
		b.drop(in)
	}
}

// drop discards an instance.
func (b *Bundle) drop(in *instance) {
	in.close()
	b.forget()
	b.runtime.unreserve()
}

// takeOldest takes the idle instance that was used longest ago out of the pool, to be closed; nil if there is none.
func (b *Bundle) takeOldest() *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.idle) == 0 {
		return nil
	}
	in := b.idle[0]
	b.idle = slices.Delete(b.idle, 0, 1)
	return in
}

// pristine returns in, or another instance for it, with the state that it had after its start.
func (b *Bundle) pristine(in *instance) (*instance, error) {
	b.mu.Lock()
	saved := b.snapshot
	b.mu.Unlock()
	if in.dirty && (saved == nil || !in.restore(saved)) {
		// The new instance takes the reservation of the old one.
		in.close()
		b.forget()
		b.runtime.building <- struct{}{}
		var err error
		in, err = b.build()
		<-b.runtime.building
		if err != nil {
			return nil, err
		}
	}
	if saved == nil && b.resettable {
		saved = in.save()
		b.mu.Lock()
		b.snapshot = saved
		b.mu.Unlock()
	}
	return in, nil
}
