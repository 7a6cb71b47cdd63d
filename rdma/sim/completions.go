package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
)

// driveBatch is how many events a driver executes before it lets go of the
// fabric, so that others get a turn.
const driveBatch = 64

// completionQueue implements rdma.CompletionQueue.
type completionQueue struct {
	provider *Provider
	queue    *queue.Completions
	closed   bool // guarded by fabric.mu
}

func (c *completionQueue) reserve(n int) (*queue.Places, error) {
	if c.closed {
		return nil, rdma.ErrClosed
	}
	return c.queue.Reserve(n)
}

// Poll implements rdma.CompletionQueue. It executes no event.
func (c *completionQueue) Poll(dst []rdma.Completion) int { return c.queue.Poll(dst) }

// Wait implements rdma.CompletionQueue. Without a Clock it makes happen what it
// waits for; see the package comment.
func (c *completionQueue) Wait(ctx context.Context, dst []rdma.Completion) (n int, err error) {
	if n := c.queue.Poll(dst); n > 0 || len(dst) == 0 {
		return n, nil
	}
	if c.provider.fabric.options.Clock != nil {
		if n, err = c.queue.Wait(ctx, dst); errors.Is(err, rdma.ErrClosed) {
			err = c.waitClosed()
		}
		return n, err
	}
	err = c.provider.fabric.drive(ctx, func() (bool, error) {
		if n = c.queue.Poll(dst); n > 0 {
			return true, nil
		}
		if c.closed {
			return true, c.waitClosed()
		}
		return false, nil
	})
	return n, err
}

func (c *completionQueue) waitClosed() error {
	return fmt.Errorf("wait on a completion queue of %s: %w", c.provider.node.name, rdma.ErrClosed)
}

// Close implements rdma.CompletionQueue.
func (c *completionQueue) Close() error {
	f := c.provider.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.closed {
		return nil
	}
	if err := c.queue.Close(); err != nil {
		return err
	}
	c.closed = true
	p := c.provider
	p.queues = slices.DeleteFunc(p.queues, func(o *completionQueue) bool { return o == c })
	f.notify()
	return nil
}

// shut closes the queue of a dead node, which no queue pair uses any more.
func (c *completionQueue) shut() {
	c.closed = true
	if err := c.queue.Close(); err != nil {
		panic(fmt.Sprintf("sim: crash of %s: %v", c.provider.node.name, err))
	}
}

// Drive executes events as they come up, as a device does beside its program,
// until ctx ends; it returns its error, or ErrClosed when the fabric is closed.
// It is for tests in which nobody waits. An idle Drive uses no CPU. With a Clock
// it is what makes everything happen, each event once the clock has reached its
// time; then only one goroutine may call it.
func (f *Fabric) Drive(ctx context.Context) error {
	if f.options.Clock != nil {
		return f.driveByClock(ctx)
	}
	return f.drive(ctx, func() (bool, error) { return f.closed, rdma.ErrClosed })
}

// drive executes events until over says so, which it is asked under mu before
// each, and returns its error. When nothing is left to happen it sleeps until
// somebody posts; a time-out it lets come only after Options.Patience.
func (f *Fabric) drive(ctx context.Context, over func() (bool, error)) error {
	hurry := f.options.Patience == 0
	for {
		wake, idle, patient, err := f.driveSome(hurry, over)
		if wake == nil {
			return err
		}
		if !idle {
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		hurry = f.options.Patience == 0
		var late <-chan time.Time
		var timer *time.Timer
		if patient {
			timer = time.NewTimer(f.options.Patience)
			late = timer.C
		}
		select {
		case <-wake:
		case <-late:
			hurry = true
		case <-ctx.Done():
			err = ctx.Err()
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return err
		}
	}
}

// driveSome executes a batch of events. A nil wake means that it is over.
// Otherwise idle says that nothing is left to do but to sleep until wake, and
// patient that only time-outs are left to happen.
func (f *Fabric) driveSome(hurry bool, over func() (bool, error)) (wake chan struct{}, idle, patient bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stepped := false
	defer func() {
		if stepped {
			f.notify()
		}
	}()
	for range driveBatch {
		if done, err := over(); done {
			return nil, false, false, err
		}
		if !f.step(hurry) {
			if stepped { // others may have something to do now; look again then
				return f.wake, false, false, nil
			}
			f.sleepers++
			return f.wake, true, f.upcoming() != nil, nil
		}
		stepped = true
		hurry = f.options.Patience == 0
	}
	return f.wake, false, false, nil
}
