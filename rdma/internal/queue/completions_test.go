package queue

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

func newQueue(t *testing.T, depth int) *Completions {
	t.Helper()
	q, err := NewCompletions("test", rdma.CompletionQueueOptions{Depth: depth}, &rdma.Limits{MaxCompletions: depth})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func reserve(t *testing.T, q *Completions, n int) *Places {
	t.Helper()
	p, err := q.Reserve(n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPlacesAreKeptUntilPolled: what a closed queue pair has left behind takes
// room until it is polled, so the queue never holds more than its depth.
func TestPlacesAreKeptUntilPolled(t *testing.T) {
	q := newQueue(t, 8)
	first := reserve(t, q, 5)
	var free atomic.Int64
	for i := range 3 {
		first.Push(rdma.Completion{ID: uint64(i)}, &free)
	}
	first.Release()
	if _, err := q.Reserve(6); !errors.Is(err, rdma.ErrInUse) {
		t.Fatalf("6 places beside 3 completions in a queue of 8: %v, want %v", err, rdma.ErrInUse)
	}
	second := reserve(t, q, 5)
	for i := range 5 {
		second.Push(rdma.Completion{ID: uint64(3 + i)}, nil)
	}
	got := make([]rdma.Completion, 9)
	if n := q.Poll(got[:2]); n != 2 || free.Load() != 2 {
		t.Fatalf("%d completions and %d free slots, want 2 and 2", n, free.Load())
	}
	if _, err := q.Reserve(3); !errors.Is(err, rdma.ErrInUse) {
		t.Fatalf("3 places where 2 are empty: %v, want %v", err, rdma.ErrInUse)
	}
	third := reserve(t, q, 2)
	third.Push(rdma.Completion{ID: 8}, nil)
	if n := q.Poll(got[2:]); n != 7 {
		t.Fatalf("%d completions were left, want 7", n)
	}
	for i := range got {
		if got[i].ID != uint64(i) {
			t.Fatalf("the completions are %+v", got)
		}
	}
	second.Release()
	third.Release()
	reserve(t, q, 8).Release()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseOfAQueue is refused while a queue pair is open, not for what closed
// ones have left behind.
func TestCloseOfAQueue(t *testing.T) {
	q := newQueue(t, 4)
	p := reserve(t, q, 4)
	p.Push(rdma.Completion{}, nil)
	if err := q.Close(); !errors.Is(err, rdma.ErrInUse) {
		t.Fatalf("Close while a queue pair is open: %v, want %v", err, rdma.ErrInUse)
	}
	p.Release()
	if err := q.Close(); err != nil {
		t.Fatalf("Close with a completion left behind: %v", err)
	}
	if _, err := q.Reserve(1); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("Reserve in a closed queue: %v, want %v", err, rdma.ErrClosed)
	}
}
