// Package handle counts the open handles of the providers and raises an alarm
// about one that is collected without having been closed. It is a tracer: it
// closes nothing.
package handle

import (
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
)

// Handle is one open handle; embed it or keep it beside the object. Close it
// once, when the object is closed.
type Handle struct {
	kind    string
	closed  *atomic.Bool
	cleanup runtime.Cleanup
}

// tracer counts handles. Handles are few and long-lived.
type tracer struct {
	mu           sync.Mutex
	open, leaked map[string]int
}

// process is the tracer of this process: a leak is a fault of the process as a
// whole, and whoever looks for it does not know the providers that were open.
var process = &tracer{open: map[string]int{}, leaked: map[string]int{}}

// Open enters a new handle of this kind ("shm region"), which lives as long as
// owner. The owner must not be reachable from the handle.
func Open[T any](owner *T, kind string) *Handle {
	process.count(kind, 1)
	h := &Handle{kind: kind, closed: new(atomic.Bool)}
	h.cleanup = runtime.AddCleanup(owner, func(closed *atomic.Bool) {
		if !closed.Load() {
			process.alarm(kind)
		}
	}, h.closed)
	return h
}

// Close strikes the handle out. Closing twice is harmless.
func (h *Handle) Close() {
	if h.closed.CompareAndSwap(false, true) {
		h.cleanup.Stop()
		process.count(h.kind, -1)
	}
}

func (t *tracer) count(kind string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[kind] += n; t.open[kind] == 0 {
		delete(t.open, kind)
	}
}

func (t *tracer) alarm(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaked[kind]++
	slog.Error("rdma: a handle was collected without having been closed", "kind", kind)
}

// Counts returns the open handles by kind, and those that were lost without
// having been closed. Both are empty when all is well at the end of a test.
func Counts() (open, leaked map[string]int) {
	process.mu.Lock()
	defer process.mu.Unlock()
	return maps.Clone(process.open), maps.Clone(process.leaked)
}
