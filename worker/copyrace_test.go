package worker_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
)

// A worker that has a shared copy and gets the lease of the same slot: readers that
// have the copy pinned go on, with the version that belongs to the value they see.
func TestGrantOverPinnedCopyKeepsReaders(t *testing.T) {
	for _, length := range []int{20, 20 << 10} { // the second has no room in a message
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			c := newCluster(t, 3, worker.Options{}, handlers{"next": func(h runtime.Host, _ []byte) ([]byte, error) {
				v, _, err := h.Get("t", "k")
				if err != nil {
					return nil, err
				}
				n := number(bytes.TrimRight(v, "."))
				return nil, h.Put("t", "k", fmt.Appendf(nil, "%d%s", n+1, strings.Repeat(".", length)))
			}})
			flow := c.flow("functions:\n  next: {function: f, writes: ['t/k']}\n")
			c.want(c.invoke(flow, "{}"), "")
			var wg sync.WaitGroup
			wg.Go(func() { // one writer, so that the holder is idle and invalidates nothing
				for i := range 300 {
					expect(t, c.on(lease.Worker(1+i%3)).invoke(flow, "{}"))
				}
			})
			for w := lease.Worker(1); w <= 3; w++ {
				for reader := range 3 {
					wg.Go(func() {
						for round := range 60 {
							look := []worker.Op{get("k")} // it takes a while to the second look
							for i := range 30 {
								look = append(look, get(fmt.Sprint("cold", w, reader, round, i)))
							}
							look = append(look, get("k"))
							r := c.on(w).ops(look...)
							if expect(t, r); r.Err != nil {
								continue
							}
							for _, x := range []worker.OpResult{r.Results[0], r.Results[len(look)-1]} {
								if n := number(bytes.TrimRight(x.Value, ".")); n != int(x.Version) {
									t.Errorf("value %d (found %t) with version %d", n, x.Found, x.Version)
								}
							}
						}
					})
				}
			}
			wg.Wait()
		})
	}
}
