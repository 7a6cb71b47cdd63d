package worker_test

import (
	"bytes"
	"errors"
	"fmt"
	stdruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
)

func TestFunctionSeesItsOwnWrites(t *testing.T) {
	b := newBed(t, worker.Options{}, handlers{
		"go": func(h runtime.Host, _ []byte) ([]byte, error) {
			var out bytes.Buffer
			show := func() {
				v, found, err := h.Get("t", "k")
				fmt.Fprintf(&out, "%s,%t,%v;", v, found, err)
			}
			show()
			_ = h.Put("t", "k", []byte("1"))
			show()
			_ = h.Add("t", "k", 4)
			show()
			_ = h.Delete("t", "k")
			show()
			_ = h.Add("t", "k", 7)
			show()
			_ = h.Add("t", "n", 1)
			_ = h.Add("t", "n", 2)
			entries, err := h.Scan("t", "", 0)
			fmt.Fprint(&out, len(entries), string(entries[0].Key), string(entries[0].Value), string(entries[1].Key), string(entries[1].Value), err)
			return out.Bytes(), nil
		},
	})
	r := b.call("go", "{}")
	b.want(r, "")
	if want := ",false,<nil>;1,true,<nil>;5,true,<nil>;,false,<nil>;7,true,<nil>;2k7n3<nil>"; string(r.Output) != want {
		t.Errorf("the function saw\n%s, want\n%s", r.Output, want)
	}
	if k, n := b.value("k"), b.value("n"); k != "7" || n != "3" {
		t.Errorf("k=%s n=%s, want 7 and 3", k, n)
	}
}

func TestAbortChangesNothing(t *testing.T) {
	b := newBed(t, worker.Options{}, handlers{
		"error": func(h runtime.Host, _ []byte) ([]byte, error) {
			_ = h.Put("t", "k", []byte("2"))
			return nil, errors.New("insufficient funds")
		},
		"abort": func(h runtime.Host, _ []byte) ([]byte, error) {
			_ = h.Put("t", "k", []byte("2"))
			h.Abort("insufficient funds")
			if err := h.Put("t", "k", []byte("3")); !errors.Is(err, runtime.ErrAttemptOver) {
				return nil, errors.New("a write after the abort was taken")
			}
			return []byte("ignored"), nil
		},
	})
	b.set("k", "1")
	for _, handler := range []string{"error", "abort"} {
		r := b.call(handler, "{}")
		b.want(r, "aborted")
		if r.Err.Reason != "insufficient funds" {
			t.Errorf("%s: reason %q", handler, r.Err.Reason)
		}
		if v := b.value("k"); v != "1" {
			t.Errorf("%s: k=%s after an abort", handler, v)
		}
		rec, err := b.w.Record(r.ID)
		if err != nil || rec.State != "aborted" || rec.Err == nil || rec.Err.Reason != "insufficient funds" {
			t.Errorf("%s: record %+v, %v", handler, rec, err)
		}
	}
}

func TestBrokenRulesAreFunctionErrors(t *testing.T) {
	b := newBed(t, worker.Options{MaxKeys: 4, MaxValueBytes: 100, MaxWriteBytes: 250}, handlers{
		"name":  func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Put("../x", "k", nil) },
		"nul":   func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Put("t", "a\x00b", nil) },
		"utf8":  func(h runtime.Host, _ []byte) ([]byte, error) { _, _, err := h.Get("t", "\xff"); return nil, err },
		"long":  func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Delete("t", strings.Repeat("k", 1025)) },
		"big":   func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Put("t", "k", make([]byte, 101)) },
		"nan":   func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Add("t", "text", 1) },
		"over":  func(h runtime.Host, _ []byte) ([]byte, error) { return nil, h.Add("t", "max", 1) },
		"deep":  nil,
		"empty": func(h runtime.Host, _ []byte) ([]byte, error) { _, err := h.Scan("", "", 0); return nil, err },
		"many": func(h runtime.Host, _ []byte) ([]byte, error) {
			for i := range 5 {
				if err := h.Put("t", strconv.Itoa(i), nil); err != nil {
					return nil, nil // a function that hides the error still has broken the rule
				}
			}
			return nil, nil
		},
		"much": func(h runtime.Host, _ []byte) ([]byte, error) {
			for i := range 3 {
				_ = h.Put("t", strconv.Itoa(i), make([]byte, 100))
			}
			return nil, nil
		},
	})
	b.fns["deep"] = func(h runtime.Host, _ []byte) ([]byte, error) { return h.Call("f", "deep", nil) }
	b.set("text", "x", "max", "9223372036854775807")
	for _, handler := range []string{"name", "nul", "utf8", "long", "big", "nan", "deep", "empty", "many", "much", "over"} {
		r := b.call(handler, "{}")
		if r.Err == nil || r.Err.Kind != base.FunctionError {
			t.Errorf("%s: got %v, want a function error", handler, r.Err)
		}
	}
	if v := b.value("max"); v != "9223372036854775807" {
		t.Errorf("the overflowing add left %s", v)
	}
}

// TestUndeclaredKeysInAnyOrder makes transfers between few accounts whose keys
// nobody declared, in both directions at once: first attempts meet out of
// order, second ones are ordered, and no money is lost.
func TestUndeclaredKeysInAnyOrder(t *testing.T) {
	b := newBed(t, worker.Options{}, handlers{"move": move})
	const accounts, movers, each = 4, 8, 200
	for i := range accounts {
		b.set(strconv.Itoa(i), "1000")
	}
	var wg sync.WaitGroup
	repeated := make([]int, movers)
	for m := range movers {
		wg.Go(func() {
			for i := range each {
				from, to := (m+i)%accounts, (m*3+i*7+1)%accounts
				r := b.call("move", fmt.Sprintf("%d %d", from, to))
				if r.Err != nil {
					t.Errorf("move: %v", r.Err)
				}
				repeated[m] += r.Attempts - 1
			}
		})
	}
	wg.Wait()
	sum, again := 0, 0
	for i := range accounts {
		sum += number([]byte(b.value(strconv.Itoa(i))))
	}
	for _, n := range repeated {
		again += n
	}
	if sum != accounts*1000 {
		t.Errorf("the accounts hold %d, want %d", sum, accounts*1000)
	}
	if again == 0 {
		t.Error("no attempt was repeated: the test does not exercise the second, ordered attempt")
	}
	t.Logf("%d of %d invocations repeated an attempt", again, movers*each)
}

func move(h runtime.Host, input []byte) ([]byte, error) {
	var from, to string
	if _, err := fmt.Sscan(string(input), &from, &to); err != nil {
		return nil, err
	}
	v, _, err := h.Get("t", from)
	if err != nil {
		return nil, err
	}
	if err := h.Put("t", from, []byte(strconv.Itoa(number(v)-1))); err != nil {
		return nil, err
	}
	stdruntime.Gosched() // so that others are between their keys at the same time
	if v, _, err = h.Get("t", to); err != nil {
		return nil, err
	}
	return nil, h.Put("t", to, []byte(strconv.Itoa(number(v)+1)))
}

// TestAddsDoNotWaitForEachOther has two functions inside at once that have
// both added to one key.
func TestAddsDoNotWaitForEachOther(t *testing.T) {
	inside := make(chan struct{}, 2)
	leave := make(chan struct{})
	b := newBed(t, worker.Options{}, handlers{
		"add": func(h runtime.Host, _ []byte) ([]byte, error) {
			if err := h.Add("t", "hot", 5); err != nil {
				return nil, err
			}
			inside <- struct{}{}
			<-leave
			return nil, nil
		},
	})
	b.set("hot", "100")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.want(b.call("add", "{}"), "") })
	}
	<-inside
	<-inside // both hold the key now
	close(leave)
	wg.Wait()
	if v := b.value("hot"); v != "110" {
		t.Errorf("hot=%s, want 110", v)
	}
	r := b.ops(get("hot"))
	if r.Results[0].Version != 3 {
		t.Errorf("version %d, want 3: one put and two adds", r.Results[0].Version)
	}
}

// TestScanSeesNoPhantom lets an insert into a scanned range wait for the
// scanner, and one outside of it pass.
func TestScanSeesNoPhantom(t *testing.T) {
	scanned := make(chan struct{})
	again := make(chan struct{})
	b := newBed(t, worker.Options{}, handlers{
		"scan": func(h runtime.Host, _ []byte) ([]byte, error) {
			first, err := h.Scan("t", "a", 0)
			if err != nil {
				return nil, err
			}
			scanned <- struct{}{}
			<-again
			second, err := h.Scan("t", "a", 0)
			if len(first) != len(second) {
				return nil, fmt.Errorf("%d entries, then %d", len(first), len(second))
			}
			return nil, err
		},
		"insert": func(h runtime.Host, input []byte) ([]byte, error) { return nil, h.Put("t", string(input), nil) },
	})
	b.set("a1", "x", "b1", "x")
	var wg sync.WaitGroup
	wg.Go(func() { b.want(b.call("scan", "{}"), "") })
	<-scanned
	b.want(b.call("insert", "b2"), "") // outside of the range: passes
	blocked := b.call("insert", "a2", within(20*time.Millisecond))
	if blocked.Err == nil || blocked.Err.Kind != base.Timeout && blocked.Err.Kind != base.Conflict {
		t.Errorf("an insert into the scanned range got %v, want to wait for the scanner", blocked.Err)
	}
	close(again)
	wg.Wait()
	b.want(b.call("insert", "a3"), "")
}

func TestCallRunsInTheSameTransaction(t *testing.T) {
	b := newBed(t, worker.Options{}, handlers{
		"outer": func(h runtime.Host, _ []byte) ([]byte, error) {
			_ = h.Put("t", "k", []byte("outer"))
			out, err := h.Call("f", "inner", []byte("x"))
			if err != nil {
				return nil, err
			}
			v, _, _ := h.Get("t", "k")
			return append(out, v...), nil
		},
		"inner": func(h runtime.Host, in []byte) ([]byte, error) {
			v, _, err := h.Get("t", "k")
			_ = h.Put("t", "k", []byte("inner"))
			return append(append(v, '+'), append(in, '+')...), err
		},
		"aborts": func(h runtime.Host, _ []byte) ([]byte, error) {
			_ = h.Put("t", "k", []byte("lost"))
			_, err := h.Call("f", "no", nil)
			return nil, errors.Join(errors.New("the caller's own words"), err)
		},
		"no":      func(runtime.Host, []byte) ([]byte, error) { return nil, errors.New("inner says no") },
		"unknown": func(h runtime.Host, _ []byte) ([]byte, error) { _, err := h.Call("g", "x", nil); return nil, err },
	})
	r := b.call("outer", "{}")
	b.want(r, "")
	if string(r.Output) != "outer+x+inner" {
		t.Errorf("output %q", r.Output)
	}
	r = b.call("aborts", "{}")
	b.want(r, "aborted")
	if r.Err.Reason != "inner says no" {
		t.Errorf("reason %q: the callee's abort decides", r.Err.Reason)
	}
	b.want(b.call("unknown", "{}"), "aborted")
	if v := b.value("k"); v != "inner" {
		t.Errorf("k=%s", v)
	}
}

// TestParallelStepsAreSerialised has two parallel steps write a key that
// neither declares; the outcome is that of the definition's order.
func TestParallelStepsAreSerialised(t *testing.T) {
	var meet sync.WaitGroup
	meet.Add(2)
	var once [2]sync.Once
	arrive := func(i int) {
		once[i].Do(func() { meet.Done(); meet.Wait() }) // on the first attempt both are inside
	}
	b := newBed(t, worker.Options{}, handlers{
		"first": func(h runtime.Host, _ []byte) ([]byte, error) {
			arrive(0)
			return []byte(`"1"`), h.Put("t", "k", []byte("first"))
		},
		"second": func(h runtime.Host, _ []byte) ([]byte, error) {
			arrive(1)
			v, _, err := h.Get("t", "k")
			if err != nil {
				return nil, err
			}
			return []byte(`"2"`), h.Put("t", "k", append(v, "+second"...))
		},
	})
	flow := b.flow("functions:\n  first: {function: f}\n  second: {function: f}\n")
	if flow.Linear {
		t.Fatal("the steps are not parallel")
	}
	r := b.invoke(flow, "{}")
	b.want(r, "")
	if r.Attempts < 2 || string(r.Output) != `{"first":"1","second":"2"}` {
		t.Errorf("attempts %d, output %s", r.Attempts, r.Output)
	}
	if v := b.value("k"); v != "first+second" {
		t.Errorf("k=%s", v)
	}
}

func TestDeadlineWhileWaitingForALock(t *testing.T) {
	locked, leave := make(chan struct{}), make(chan struct{})
	b := newBed(t, worker.Options{}, handlers{
		"hold": func(h runtime.Host, _ []byte) ([]byte, error) {
			err := h.Put("t", "k", []byte("held"))
			close(locked)
			<-leave
			return nil, err
		},
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.want(b.call("hold", "{}"), "") })
	<-locked
	flow := b.flow("functions:\n  hold: {function: f, writes: ['t/k']}\n")
	r := b.invoke(flow, "{}", within(20*time.Millisecond))
	b.want(r, "timeout")
	if r.Err.Unknown || !strings.Contains(r.Err.Detail, "unchanged") {
		t.Errorf("the outcome of a transaction that never ran: %+v", r.Err)
	}
	if l := b.w.Lease(key("k")); l.Mode != "exclusive" || l.Waiting != 0 {
		t.Errorf("after the time-out the key has %+v, want one exclusive holder and no waiter", l)
	}
	close(leave)
	wg.Wait()
	if l := b.w.Lease(key("k")); l.Mode != "none" {
		t.Errorf("after the end the key has %+v", l)
	}
}

func TestQueuesAreBounded(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	b := newBed(t, worker.Options{MaxRunning: 1, MaxQueued: 1}, handlers{
		"wait": func(runtime.Host, []byte) ([]byte, error) { inside <- struct{}{}; <-leave; return nil, nil },
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.want(b.call("wait", "{}"), "") })
	<-inside
	wg.Go(func() {
		b.want(b.call("wait", "{}"), "")
	})
	for b.w.Status().Queued == 0 {
		time.Sleep(time.Millisecond) // the queue length is all there is to see
	}
	r := b.call("wait", "{}")
	b.want(r, "overloaded")
	if r.Err.RetryAfter <= 0 {
		t.Error("no hint when to retry")
	}
	close(leave)
	<-inside
	wg.Wait()
}

func TestAttemptsAreBounded(t *testing.T) {
	// A function that touches other keys at every attempt never gets a
	// complete footprint, while others keep the keys it wants.
	n := 0
	b := newBed(t, worker.Options{MaxAttempts: 3}, nil)
	b.fns = handlers{
		"hop": func(h runtime.Host, _ []byte) ([]byte, error) {
			n++
			if err := h.Put("t", fmt.Sprint("mine", n), nil); err != nil {
				return nil, err
			}
			// The lowest of many keys, which another transaction holds.
			return nil, h.Put("t", "held"+strconv.Itoa(n), nil)
		},
		"hold": nil,
	}
	locked, leave := make(chan struct{}), make(chan struct{})
	b.fns["hold"] = func(h runtime.Host, _ []byte) ([]byte, error) {
		for i := 1; i <= 3; i++ {
			if err := h.Put("t", "held"+strconv.Itoa(i), nil); err != nil {
				return nil, err
			}
		}
		close(locked)
		<-leave
		return nil, nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.want(b.call("hold", "{}"), "") })
	<-locked
	r := b.call("hop", "{}", within(300*time.Millisecond))
	if r.Err == nil || r.Err.Kind != base.Conflict && r.Err.Kind != base.Timeout {
		t.Errorf("got %v, want a conflict, or the deadline while waiting in order", r.Err)
	}
	close(leave)
	wg.Wait()
}

func TestDrainRefusesAndWaits(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	b := newBed(t, worker.Options{}, handlers{
		"wait": func(h runtime.Host, _ []byte) ([]byte, error) {
			close(inside)
			<-leave
			return nil, h.Put("t", "k", []byte("1"))
		},
		"nothing": func(runtime.Host, []byte) ([]byte, error) { return nil, nil },
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.want(b.call("wait", "{}"), "") })
	<-inside
	drained := make(chan error, 1)
	wg.Go(func() { drained <- b.w.Drain(t.Context()) })
	var r worker.Reply
	for r.Err == nil { // until the drain has begun
		r = b.call("nothing", "{}")
	}
	b.want(r, "unavailable")
	select {
	case err := <-drained:
		t.Fatalf("drained while an invocation runs: %v", err)
	default:
	}
	close(leave)
	wg.Wait()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
