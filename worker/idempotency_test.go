package worker_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
)

func TestIdempotencyKeyHasOneEffect(t *testing.T) {
	b := newBed(t, worker.Options{}, handlers{
		"inc": func(h runtime.Host, _ []byte) ([]byte, error) {
			v, _, err := h.Get("t", "n")
			if err != nil {
				return nil, err
			}
			next := append(v[:len(v):len(v)], 'x')
			return next, h.Put("t", "n", next)
		},
		"no": func(h runtime.Host, _ []byte) ([]byte, error) {
			_ = h.Put("t", "n", []byte("never"))
			return nil, errors.New("no")
		},
	})
	first := b.call("inc", "{}", idempotent("k1", "body"))
	b.want(first, "")
	again := b.call("inc", "{}", idempotent("k1", "body"))
	b.want(again, "")
	if !again.Replayed || first.Replayed || again.ID != first.ID || string(again.Output) != "x" {
		t.Errorf("replay %+v of %+v", again, first)
	}
	b.want(b.call("inc", "{}", idempotent("k1", "other")), "idempotency-mismatch")
	b.want(b.call("inc", "{}", idempotent("k2", "body")), "")
	if v := b.value("n"); v != "xx" {
		t.Errorf("n=%s, want two effects of two keys", v)
	}
	aborted := b.call("no", "{}", idempotent("k3", "body"))
	b.want(aborted, "aborted")
	replay := b.call("no", "{}", idempotent("k3", "body"))
	b.want(replay, "aborted")
	if !replay.Replayed || replay.ID != aborted.ID || replay.Err.Reason != "no" {
		t.Errorf("the replay of an abort: %+v", replay)
	}
}

func TestConcurrentDuplicatesWaitForTheFirst(t *testing.T) {
	inside, leave := make(chan struct{}, 16), make(chan struct{}) // room for all, should several run
	var runs atomic.Int32
	b := newBed(t, worker.Options{}, handlers{
		"slow": func(h runtime.Host, _ []byte) ([]byte, error) {
			runs.Add(1)
			inside <- struct{}{}
			<-leave
			return []byte("1"), h.Add("t", "n", 1)
		},
	})
	const duplicates = 8
	var wg sync.WaitGroup
	replies := make([]worker.Reply, duplicates)
	for i := range replies {
		wg.Go(func() { replies[i] = b.call("slow", "{}", idempotent("k", "body")) })
	}
	<-inside
	b.want(b.call("slow", "{}", idempotent("k", "other body")), "idempotency-mismatch")
	impatient := b.call("slow", "{}", idempotent("k", "body"), within(10*time.Millisecond))
	if impatient.Err == nil || !impatient.Err.Unknown || !strings.Contains(impatient.Err.Detail, "ask again with the same Idempotency-Key") {
		t.Errorf("a duplicate that did not wait for the end: %+v", impatient)
	}
	close(leave)
	wg.Wait()
	replayed := 0
	for _, r := range replies {
		b.want(r, "")
		if r.ID != replies[0].ID {
			t.Error("duplicates name different invocations")
		}
		if r.Replayed {
			replayed++
		}
	}
	if runs.Load() != 1 || replayed != duplicates-1 || b.value("n") != "1" {
		t.Errorf("%d runs, %d replays, n=%s", runs.Load(), replayed, b.value("n"))
	}
}

// TestDuplicateTakesOver lets a duplicate run when the first ended without an
// outcome.
func TestDuplicateTakesOver(t *testing.T) {
	inside := make(chan struct{}, 2)
	var runs atomic.Int32
	release := make(chan struct{})
	b := newBed(t, worker.Options{}, handlers{
		"f": func(h runtime.Host, _ []byte) ([]byte, error) {
			if runs.Add(1) == 1 {
				inside <- struct{}{}
				<-release // until after the first one's deadline
			}
			return []byte("done"), h.Add("t", "n", 1)
		},
	})
	var wg sync.WaitGroup
	var first worker.Reply
	wg.Go(func() { first = b.call("f", "{}", idempotent("k", "body"), within(20*time.Millisecond)) })
	<-inside
	var second worker.Reply
	wg.Go(func() { second = b.call("f", "{}", idempotent("k", "body")) })
	time.AfterFunc(time.Second, func() { close(release) }) // past the deadline, which is what the test is about
	wg.Wait()
	b.want(first, "timeout")
	if first.Err.Unknown {
		t.Error("the first changed nothing and says that it does not know")
	}
	b.want(second, "")
	if v := b.value("n"); v != "1" {
		t.Errorf("n=%s", v)
	}
}

func TestExpiredRecordsAreSwept(t *testing.T) {
	b := newBed(t, worker.Options{}, nil)
	old := worker.Request{
		ID:   base.NewInvocationID(time.Now().Add(-48*time.Hour), 1, 1),
		Name: "txn", Ops: []worker.Op{put("k", "v")},
	}
	b.want(b.w.Execute(t.Context(), &old), "")
	fresh := b.ops(put("k", "w"))
	if err := b.w.Sweep(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.w.Record(fresh.ID); err != nil {
		t.Errorf("a fresh record: %v", err)
	}
	if _, err := b.w.Record(old.ID); base.KindOf(err) != base.NotFound {
		t.Errorf("a record of two days ago: %v", err)
	}
	r := b.once(put("n", "1"), "key")
	b.want(r, "")
	if err := b.w.Sweep(time.Now().Add(25 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if r = b.once(put("n", "2"), "key"); r.Err != nil || r.Replayed {
		t.Errorf("a key after a day: %+v, want it to be free", r)
	}
}

func (b *bed) once(op worker.Op, k string) worker.Reply {
	req := &worker.Request{ID: newID(), Name: "txn", Ops: []worker.Op{op}, IdempotencyKey: k}
	return b.w.Execute(b.t.Context(), req)
}
