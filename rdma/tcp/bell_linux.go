package tcp

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// bell wakes one sleeping Wait of a completion queue over an eventfd, on which
// the sleeper waits in Go's poller as a reader of a socket does.
//
// Why not a channel: to make a goroutine runnable wakes an idle thread, a system
// call and an interrupt of another processor, for a goroutine that would have
// run next on this one. That is 3 to 5 microseconds of a round trip of 15. A
// write to an eventfd costs one, and the goroutine is found by the thread that
// looks into the poller next, which is the one whose reader has just gone to
// sleep. BenchmarkWakeups compares them.
type bell struct {
	file *os.File
	raw  syscall.RawConn
	// poke and look are made once, so that Wait and notify allocate nothing.
	poke func(fd uintptr)
	look func(fd uintptr) bool
	// asleep is 1 while the sleeper must be woken.
	asleep atomic.Int32

	// mu belongs to the one Wait that sleeps here; others sleep in the shared
	// queue. What follows is the sleeper's.
	mu  sync.Mutex
	q   *completionQueue
	dst []rdma.Completion
	n   int
	// done is of the context of this Wait, or nil. As callers tend to wait with
	// the same context again and again, the hook on it is kept: watched is the
	// channel of the context on which it is, unwatch takes it off.
	done, watched <-chan struct{}
	unwatch       func() bool
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

func (b *bell) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("rdma/tcp: eventfd of a completion queue: %w", err)
	}
	b.file = os.NewFile(uintptr(fd), "completion queue")
	if b.raw, err = b.file.SyscallConn(); err != nil {
		return fmt.Errorf("rdma/tcp: eventfd of a completion queue: %w", err)
	}
	b.poke = func(fd uintptr) {
		// The counter is never read: each write is an edge, and 2^64 do not come.
		for {
			if _, err := unix.Write(int(fd), one); err != unix.EINTR {
				return
			}
		}
	}
	b.look = b.sleeperLook
	return nil
}

// close wakes the sleeper and waits until it has left.
func (b *bell) close() error {
	err := b.file.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch(nil, nil)
	return err
}

func (b *bell) ring() {
	if b.asleep.Load() != 0 && b.asleep.CompareAndSwap(1, 0) {
		_ = b.raw.Control(b.poke) // fails when closed: then nobody sleeps
	}
}

// sleeperLook runs when Wait goes to sleep and whenever it was woken. Whoever
// pushes after it has set asleep rings.
func (b *bell) sleeperLook(uintptr) bool {
	b.asleep.Store(1)
	b.n = b.q.Poll(b.dst)
	if b.n == 0 && !ended(b.done) {
		return false
	}
	b.asleep.Store(0)
	return true
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (b *bell) wait(ctx context.Context, q *completionQueue, dst []rdma.Completion) (int, error) {
	if n := q.Poll(dst); n > 0 || len(dst) == 0 {
		return n, nil
	}
	if !b.mu.TryLock() {
		return q.Completions.Wait(ctx, dst)
	}
	defer b.mu.Unlock()
	if q.spin > 0 {
		for start := time.Now(); time.Since(start) < q.spin; runtime.Gosched() {
			if n := q.Poll(dst); n > 0 {
				return n, nil
			}
		}
	}
	b.q, b.dst, b.n, b.done = q, dst, 0, ctx.Done()
	b.watch(ctx, b.done)
	err := b.raw.Read(b.look)
	n := b.n
	b.q, b.dst, b.done = nil, nil, nil
	switch {
	case err != nil:
		b.watch(nil, nil)
		return 0, rdma.ErrClosed
	case n == 0:
		return 0, ctx.Err()
	}
	return n, nil
}

// watch makes the end of ctx ring the bell.
func (b *bell) watch(ctx context.Context, done <-chan struct{}) {
	if done == b.watched || done == nil && ctx != nil {
		return
	}
	if b.unwatch != nil {
		b.unwatch()
	}
	b.watched, b.unwatch = done, nil
	if done != nil {
		b.unwatch = context.AfterFunc(ctx, b.ring)
	}
}
