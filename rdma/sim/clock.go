package sim

import (
	"context"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// lock takes mu at an entry that may ask for the time, which with a Clock is
// never earlier than the clock's.
func (f *Fabric) lock() {
	f.mu.Lock()
	if f.options.Clock != nil {
		f.now = max(f.now, f.options.Clock())
	}
}

// driveByClock is Drive with a Clock: it executes what is due and sleeps until
// the next event is, or until an earlier one is posted.
func (f *Fabric) driveByClock(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wake, next, err := f.driveDue()
		if err != nil {
			return err
		}
		var due <-chan time.Time
		var timer *time.Timer
		switch {
		case wake == nil:
			continue // a whole batch was due
		case next > 0:
			timer = time.NewTimer(next)
			due = timer.C
		}
		select {
		case <-wake:
		case <-due:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// driveDue executes a batch of events that are due. When no other is, it returns
// what to sleep on, and how long; next is 0 when nothing is to come.
func (f *Fabric) driveDue() (wake chan struct{}, next time.Duration, err error) {
	f.lock()
	defer f.mu.Unlock()
	for range driveBatch {
		if f.closed {
			return nil, 0, rdma.ErrClosed
		}
		e := f.upcoming()
		if e == nil || e.at > f.now {
			f.sleepers, f.alarm = 1, never
			if e != nil {
				f.alarm, next = e.at, e.at-f.now
			}
			return f.wake, next, nil
		}
		f.step(true)
	}
	return nil, 0, nil
}

// never is later than any event.
const never = time.Duration(1<<63 - 1)

// sleepsOn says whether the sleepers need not look again: with a Clock, Drive is
// the only one, and an event that is not earlier than the one it waits for is no
// news to it.
func (f *Fabric) sleepsOn() bool {
	return f.options.Clock != nil && !f.closed && (len(f.agenda) == 0 || f.agenda[0].at >= f.alarm)
}
