package remote_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/store/remote"
)

// TestEvictEndsCalls evicts a member whose read waits, at the store, for a batch
// that the seal has refused: nobody waits for it any longer, so that the worker can
// join again at once.
func TestEvictEndsCalls(t *testing.T) {
	const budget, key = 1 << 30, 1 << 12
	h := startHost(t, remote.ServerOptions{Wait: time.Hour})
	r := newRefusals()
	o := r.options()
	o.Member, o.CallTimeout = remote.Member{Worker: 1, Incarnation: 1}, time.Hour
	e := h.dial(o)
	waitDurable(t, e, appendNumbered(t, e, 1, 1, 10))
	if err := h.engine.Seal(2); err != nil {
		t.Fatal(err)
	}
	appendNumbered(t, e, 1, 1, 10)
	r.next(t)
	h.proxy.cutAfter(budget) // it counts what passes
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := e.Get(nil, bytes.Repeat([]byte("k"), key))
		unavailable(t, err, false)
	})
	until(t, "the read is at the store", func() bool {
		h.proxy.mu.Lock()
		defer h.proxy.mu.Unlock()
		return h.proxy.budget < budget-key
	})
	e.Evict(nil)
	wg.Wait()
	unavailable(t, e.Close(), true)
}
