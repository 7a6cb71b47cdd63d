package node_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// TestDrainUnderLoad takes workers out while transfers run, until one is left: no
// request fails, and no money is lost.
func TestDrainUnderLoad(t *testing.T) {
	const accounts, clients = 40, 8
	url := start(t, node.Options{Workers: 4, Native: nativeBank(t)})
	expect(t, http.StatusCreated, "", http.MethodPut, url+"/v1/workflows/transfer", "application/yaml", transfer)
	var lines strings.Builder
	for i := range accounts {
		fmt.Fprintf(&lines, `{"table":"accounts","key":"a%d","value":100}`+"\n", i)
	}
	if status, body, _ := do(t, "POST", url+"/v1/state", "application/x-ndjson", lines.String()); status != http.StatusOK {
		t.Fatalf("load: %d %s", status, body)
	}
	var done atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				from := rand.IntN(accounts)
				to := (from + 1 + rand.IntN(accounts-1)) % accounts
				status, body, _ := do(t, "POST", url+"/v1/workflows/transfer/invoke", "application/json", fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":1}`, from, to))
				if status != http.StatusOK && status != http.StatusConflict { // the account may be empty
					t.Errorf("%d %s", status, body)
					return
				}
				done.Add(1)
			}
		})
	}
	for i, want := range []int{204, 204, 204, 409} {
		for before := done.Load(); done.Load() < before+200 && !t.Failed(); { // some on the workers that are left
			if status, _, _ := do(t, "GET", url+"/readyz", "", ""); status != http.StatusOK {
				t.Errorf("readyz: %d", status)
			}
		}
		name := fmt.Sprintf("worker-%d", i+1)
		if status, body, _ := do(t, "POST", url+"/v1/workers/"+name+"/drain", "", ""); status != want {
			t.Errorf("drain %s: %d %s, want %d", name, status, body, want)
		}
	}
	close(stop)
	wg.Wait()
	if status, _, _ := do(t, "POST", url+"/v1/workers/worker-1/drain", "", ""); status != http.StatusNotFound {
		t.Errorf("drain a worker that has left: %d", status)
	}
	sum := 0
	for i := range accounts {
		_, body, _ := do(t, "GET", fmt.Sprintf("%s/v1/state/accounts/a%d", url, i), "", "")
		n := 0
		if _, err := fmt.Sscan(body, &n); err != nil {
			t.Fatalf("account %d is %q", i, body)
		}
		sum += n
	}
	if sum != 100*accounts {
		t.Errorf("the accounts have %d, want %d, after %d transfers", sum, 100*accounts, done.Load())
	}
}
