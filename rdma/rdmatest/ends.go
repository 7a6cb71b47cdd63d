package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doWaitEnds calls Wait on an idle queue and ends it in one of the ways that
// the contract names. The answer says which Wait ended wrongly, or "".
type doWaitEnds struct {
	Queue int
	// Way is "deadline", "cancel", "close" or "closed" (before Wait was called).
	Way string
	// Waiters is how many wait at the same time.
	Waiters int
}

func (o doWaitEnds) run(a *agent) (any, error) {
	q := a.queue(o.Queue)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	want := rdma.ErrClosed
	switch o.Way {
	case "deadline":
		want = context.DeadlineExceeded
		var cancelDeadline context.CancelFunc
		ctx, cancelDeadline = context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancelDeadline()
	case "cancel":
		want = context.Canceled
	case "closed":
		if err := q.Close(); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	ends := make([]error, o.Waiters)
	counts := make([]int, o.Waiters)
	for i := range ends {
		wg.Go(func() { counts[i], ends[i] = q.Wait(ctx, make([]rdma.Completion, 1)) })
	}
	var err error
	switch o.Way {
	case "cancel":
		cancel()
	case "close":
		err = q.Close()
	}
	wg.Wait()
	for i := range ends {
		if !errors.Is(ends[i], want) || counts[i] != 0 {
			return fmt.Sprintf("waiter %d of %d ended with %d completions and error %v, want 0 and %v", i, o.Waiters, counts[i], ends[i], want), err
		}
	}
	return "", err
}

// doAwaitBroken waits until a queue pair is broken. The answer is whether it is.
type doAwaitBroken struct {
	Pair  int
	Bound time.Duration
}

// broke is the answer of doAwaitBroken.
type broke struct{ Yes bool }

func (o doAwaitBroken) run(a *agent) (any, error) {
	p := a.pair(o.Pair)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for start := time.Now(); p.Err() == nil; <-ticker.C {
		if time.Since(start) > o.Bound {
			return broke{}, nil
		}
	}
	return broke{true}, nil
}
