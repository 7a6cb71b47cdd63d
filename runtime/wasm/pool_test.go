package wasm

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

func TestWarmInstanceKeepsItsMemory(t *testing.T) {
	b := load(t, Options{}, false)
	for i, want := range []string{"1 ", "2 a", "3 b"} {
		if out, err := invoke(t, b, "count", string(rune('a'+i))); err != nil || out != want {
			t.Errorf("call %d: %q, %v, want %q", i, out, err, want)
		}
	}
	if s := b.Stats(); s.Instantiations != 1 || s.Calls != 3 || s.Idle != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestIsolatedBundleKeepsNothing(t *testing.T) {
	b := load(t, Options{}, true)
	for i := range 5 {
		if out, err := invoke(t, b, "count", "secret"); err != nil || out != "1 " {
			t.Errorf("call %d: %q, %v", i, out, err)
		}
	}
	if s := b.Stats(); s.Instantiations != 1 {
		t.Errorf("memory was not reset in place: %+v", s)
	}
	for i := range 5 { // each grows the memory by 8 MiB, so that some resets happen in place and others do not
		if out, err := invoke(t, b, "grow", "secret"); err != nil || out != "1 1" {
			t.Errorf("grow %d: %q, %v", i, out, err)
		}
	}
	b.mu.Lock()
	in := b.idle[0]
	b.mu.Unlock()
	if in, _ = b.pristine(in); !in.restore(b.snapshot) {
		t.Fatal("not restored")
	}
	memory, _ := in.memory.Read(0, in.memory.Size())
	if strings.Contains(string(memory), "secretsecret") || strings.Contains(string(memory[len(b.snapshot.memory):]), "secret") {
		t.Error("the secret is still in memory")
	}
}

func TestIsolatedCallOfASharedBundle(t *testing.T) {
	b := load(t, Options{}, false)
	isolated := func() string {
		out, err := b.Invoke(t.Context(), runtime.Call{Handler: "count", Input: []byte("x"), Host: &fakeHost{}, Isolate: true})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for range 2 {
		if out, err := invoke(t, b, "count", "secret"); err != nil {
			t.Fatalf("%q, %v", out, err)
		}
		for range 2 {
			if got := isolated(); got != "1 " {
				t.Errorf("isolated call saw %q", got)
			}
		}
	}
}

// TestIsolationWithoutSnapshot has a module whose state is also in a table, so that only a new instance is clean.
func TestIsolationWithoutSnapshot(t *testing.T) {
	// ref.null func; i32.const 1; table.grow 0: the result is the old size, 1 in a fresh instance
	m := guestOf(invokeWith(0xd0, 0x70, 0x41, 1, 0xfc, 15, 0, 0x41, 1, 0x47))
	m.table = []byte{0, 1}
	b := loadSmall(t, Options{}, m, true)
	for i := range 3 {
		if _, err := invoke(t, b, "h", ""); err != nil {
			t.Errorf("call %d saw the table of another: %v", i, err)
		}
	}
}

func TestGlobalsAreReset(t *testing.T) {
	// A memory cell and the size of the memory stand for state; the handler fails if the cell is set.
	m := guestOf(invokeWith(0x41, 16, 0x28, 2, 0, 0x41, 16, 0x41, 1, 0x36, 2, 0))
	b := loadSmall(t, Options{}, m, true)
	for i := range 3 {
		if _, err := invoke(t, b, "h", ""); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if s := b.Stats(); s.Instantiations != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestConcurrentCalls runs good and bad calls side by side, with more callers than instances.
func TestConcurrentCalls(t *testing.T) {
	b := load(t, Options{MaxInstances: 6, MaxIdle: 3, RecycleAfter: 50}, false)
	var wg sync.WaitGroup
	var refused atomic.Int64
	for worker := range 12 {
		wg.Go(func() {
			for i := range 60 {
				input := fmt.Sprintf("%d-%d", worker, i)
				if i%20 == 19 {
					if _, err := invoke(t, b, "panic", input); err == nil || base.KindOf(err) == base.FunctionError && !strings.Contains(err.Error(), "boom "+input) {
						t.Errorf("panic: %v", err)
					}
					continue
				}
				out, err := invoke(t, b, "echo", input)
				if base.KindOf(err) == base.Unavailable && err != nil {
					refused.Add(1)
				} else if err != nil || out != input {
					t.Errorf("echo %s: %q, %v", input, out, err)
				}
			}
		})
	}
	wg.Wait()
	b.runtime.refills.Wait()
	s := b.Stats()
	if s.Instances != s.Idle || s.Instances > 6 || s.Discards == 0 || b.runtime.live != s.Instances || len(b.waiters) != 0 {
		t.Errorf("stats %+v, %d live, %d waiters, %d refused", s, b.runtime.live, len(b.waiters), refused.Load())
	}
}

// blockingHost stops a handler in Get until it is let go.
type blockingHost struct {
	fakeHost
	inside chan struct{} // receives when a handler waits
	goOn   chan struct{} // closed to let all go
}

func (h *blockingHost) Get(table, key string) ([]byte, bool, error) {
	h.inside <- struct{}{}
	<-h.goOn
	return nil, false, nil
}

// occupy starts n calls that hold their instances until the returned function is called.
func occupy(t *testing.T, b *Bundle, n int) (release func()) {
	t.Helper()
	host := &blockingHost{inside: make(chan struct{}), goOn: make(chan struct{})}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := b.Invoke(context.Background(), runtime.Call{Handler: "get", Host: host}); err != nil {
				t.Error(err)
			}
		})
		<-host.inside
	}
	return func() {
		close(host.goOn)
		wg.Wait()
	}
}

func TestInstancesAreLimited(t *testing.T) {
	b := load(t, Options{MaxInstances: 2}, false)
	release := occupy(t, b, 2)
	_, err := invoke(t, b, "echo", "x")
	if e, ok := errors.AsType[*base.Error](err); !ok || e.Kind != base.Unavailable || e.RetryAfter == 0 {
		t.Errorf("error %v", err)
	}
	release()
	if out, err := invoke(t, b, "echo", "x"); err != nil || out != "x" {
		t.Errorf("afterwards: %q, %v", out, err)
	}
}

func TestAFullRuntimeTakesIdleInstancesOfOthers(t *testing.T) {
	b := load(t, Options{MaxInstances: 1}, false)
	m := guestOf(invokeWith(return0...))
	other, err := b.runtime.Load(t.Context(), "other", m.bytes(), false)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := invoke(t, b, "echo", ""); err != nil {
			t.Error(err)
		}
		if _, err := invoke(t, other.(*Bundle), "h", ""); err != nil {
			t.Error(err)
		}
	}
}

func TestWaitingForAnInstanceEndsWithTheContext(t *testing.T) {
	b := load(t, Options{MaxInstances: 1}, false)
	release := occupy(t, b, 1)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := b.Invoke(ctx, runtime.Call{Handler: "echo", Host: &fakeHost{}}); base.KindOf(err) != base.Timeout {
		t.Errorf("error %v", err)
	}
}

func TestCloseLetsRunningCallsEnd(t *testing.T) {
	b := load(t, Options{}, false)
	release := occupy(t, b, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(t, b, "echo", ""); base.KindOf(err) != base.Unavailable {
		t.Errorf("a closed bundle: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	select {
	case <-b.freed:
		t.Error("freed under a running call")
	case <-ctx.Done():
	}
	release()
	<-b.freed
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if b.runtime.live != 0 {
		t.Errorf("%d instances are left", b.runtime.live)
	}
}

func TestCloseOfTheRuntimeWaits(t *testing.T) {
	b := load(t, Options{}, false)
	release := occupy(t, b, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := b.runtime.Close(ctx); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("error %v", err)
	}
	release()
}

func TestASpareIsBuiltAfterACrash(t *testing.T) {
	b := load(t, Options{}, false)
	if _, err := invoke(t, b, "panic", ""); base.KindOf(err) != base.FunctionError {
		t.Fatal(err)
	}
	b.runtime.refills.Wait()
	if s := b.Stats(); s.Idle != 1 || s.Instances != 1 || s.Instantiations != 2 {
		t.Errorf("stats %+v", s)
	}
}

// TestSoak expects that guest and host memory stay flat, for a handler that allocates and for one that does not.
func TestSoak(t *testing.T) {
	b := load(t, Options{RecycleAfter: 1 << 30}, false)
	for _, handler := range []string{"garbage", "litter", "get", "json"} {
		run := func(calls int) (guest uint32, host uint64) {
			call := runtime.Call{Handler: handler, Input: []byte(`{"from":"ann","amount":3}`), Host: &fakeHost{}}
			if handler == "litter" {
				calls /= 50 // it clears 4 MiB each time
			}
			for range calls {
				if _, err := b.Invoke(t.Context(), call); err != nil {
					t.Fatal(err)
				}
			}
			goruntime.GC()
			var stats goruntime.MemStats
			goruntime.ReadMemStats(&stats)
			return b.idle[0].memory.Size(), stats.HeapAlloc
		}
		guestBefore, hostBefore := run(*soakCalls / 10)
		guestAfter, hostAfter := run(*soakCalls)
		t.Logf("%s: guest %d, then %d bytes; host %d, then %d bytes", handler, guestBefore, guestAfter, hostBefore, hostAfter)
		if guestAfter > guestBefore+4<<20 {
			t.Errorf("%s: the guest grew from %d to %d bytes", handler, guestBefore, guestAfter)
		}
		if hostAfter > hostBefore+8<<20 {
			t.Errorf("%s: the host grew from %d to %d bytes", handler, hostBefore, hostAfter)
		}
	}
	if s := b.Stats(); s.Instantiations != 1 {
		t.Errorf("stats %+v", s)
	}
}
