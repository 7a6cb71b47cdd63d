package worker

import (
	"errors"
	"sync"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

// run executes the attempt's functions or operations. What came of it is in
// over, repeat, fail and outputs.
func (inv *invocation) run() {
	flow := inv.req.Flow
	if flow == nil {
		inv.runOps()
		return
	}
	n := len(flow.Steps)
	inv.outputs = resize(inv.outputs, n)
	inv.hosts = resize(inv.hosts, n)
	for i := range inv.hosts {
		inv.hosts[i] = host{inv: inv, step: i}
	}
	if flow.Linear {
		for _, step := range flow.Order {
			inv.runStep(step)
			if inv.over {
				return
			}
		}
		return
	}
	inv.sched = flow.Schedule(inv.uses, inv.edges)
	inv.runParallel()
}

// resize returns s with n zero elements, reusing its memory.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// runParallel starts every step as soon as the schedule allows and waits for
// all that it started. A step that is ready alone runs on this goroutine.
func (inv *invocation) runParallel() {
	var running sync.WaitGroup
	defer running.Wait()
	// A slot for each step, so that none blocks when the loop has stopped.
	ended := make(chan int, len(inv.req.Flow.Steps))
	ready, active := inv.sched.Ready(), 0
	for {
		if active == 0 && ready.Len() == 1 {
			for step := range ready.All() {
				inv.runStep(step)
				if inv.ended() {
					return
				}
				ready = inv.sched.Done(step)
			}
			continue
		}
		for step := range ready.All() {
			active++
			running.Go(func() {
				inv.runStep(step)
				ended <- step
			})
		}
		if active == 0 {
			return
		}
		step := <-ended
		active--
		if inv.ended() {
			return
		}
		inv.mu.Lock()
		ready = inv.sched.Done(step)
		inv.mu.Unlock()
	}
}

// ended reports whether the attempt is over.
func (inv *invocation) ended() bool {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return inv.over
}

func (inv *invocation) runStep(step int) {
	s := &inv.req.Flow.Steps[step]
	output, err := inv.req.Bundles[step].Invoke(inv.ctx, runtime.Call{
		Handler: s.Handler, Input: inv.req.Input, Host: &inv.hosts[step], Isolate: s.Isolate,
	})
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if err != nil {
		inv.stop(inv.outcomeOf(err))
		return
	}
	if len(output) > maxOutputBytes {
		inv.stop(base.Errorf(base.FunctionError, "the output of step %q has %d bytes, the limit is %d", s.Name, len(output), maxOutputBytes))
		return
	}
	inv.outputs[step] = output
}

// maxOutputBytes bounds the output of one step.
const maxOutputBytes = 6 << 20

// outcomeOf turns what a bundle returned into the invocation's error.
func (inv *invocation) outcomeOf(err error) *base.Error {
	e, ok := errors.AsType[*base.Error](err)
	switch {
	case errors.Is(err, runtime.ErrAttemptOver), ok && e.Kind == base.Timeout:
		// A bundle that reports the end of an attempt which is not over has
		// seen ctx end.
		return inv.timeout()
	case !ok:
		return base.Errorf(base.FunctionError, "%v", err)
	case e.Kind == base.Aborted && e.Detail == "":
		return aborted(e.Reason)
	default:
		return e
	}
}
