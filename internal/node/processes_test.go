package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/rdma/machine"
)

// processes are the parts of a cluster of processes, run in this one over loopback
// connections, as the commands run them.
type processes struct {
	t       *testing.T
	control string
}

// await waits for what a process says when it serves.
func (c *processes) await(what string, said <-chan string) string {
	c.t.Helper()
	select {
	case s := <-said:
		return s
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%s does not serve", what)
		return ""
	}
}

// run runs a process until stop is called, or the end of the test.
func (c *processes) run(process func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := process(ctx); err != nil {
			c.t.Errorf("a process ended with %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	c.t.Cleanup(stop)
	return stop
}

func startControl(t *testing.T) *processes {
	c := &processes{t: t}
	said := make(chan string, 1)
	c.run(func(ctx context.Context) error {
		return node.RunControl(ctx, node.ControlOptions{
			Listen: "127.0.0.1:0", Data: t.TempDir(), Native: nativeBank(t), Logger: slog.New(slog.DiscardHandler),
			Ready: func(a string) error { said <- a; return nil },
		})
	})
	c.control = c.await("the control process", said)
	return c
}

func (c *processes) worker(name string) (stop func()) {
	c.t.Helper()
	said := make(chan string, 1)
	stop = c.run(func(ctx context.Context) error {
		return node.RunWorker(ctx, node.WorkerOptions{
			Leasemgr: c.control, Name: name, Demand: machine.Demand{Provider: machine.ProviderTCP}, Native: nativeBank(c.t),
			Logger: slog.New(slog.DiscardHandler), Ready: func(a string) error { said <- a; return nil },
		})
	})
	c.await("worker "+name, said)
	return stop
}

func (c *processes) gateway() (url string) {
	c.t.Helper()
	said := make(chan string, 1)
	c.run(func(ctx context.Context) error {
		return node.RunGateway(ctx, node.GatewayOptions{
			Leasemgr: c.control, Listen: "127.0.0.1:0", Native: nativeBank(c.t), Logger: slog.New(slog.DiscardHandler),
			Ready: func(_ context.Context, url string) error { said <- url; return nil },
		})
	})
	return c.await("a gateway", said)
}

// TestProcesses moves money on three workers through two gateways, which have
// nothing in common but connections. Meanwhile a worker joins, one is drained and
// one is stopped: no request fails, and the sum holds.
func TestProcesses(t *testing.T) {
	const accounts, clients = 30, 8
	c := startControl(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c.worker("w1")
	stop2 := c.worker("w2")
	c.worker("w3")
	urls := []string{c.gateway(), c.gateway()}
	expect(t, http.StatusCreated, "", http.MethodPut, urls[0]+"/v1/workflows/transfer", "application/yaml", transfer)
	var lines strings.Builder
	for i := range accounts {
		fmt.Fprintf(&lines, `{"table":"accounts","key":"a%d","value":100}`+"\n", i)
	}
	expect(t, http.StatusOK, "", http.MethodPost, urls[1]+"/v1/state", "application/x-ndjson", lines.String())
	var done atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				from := rand.IntN(accounts)
				to := (from + 1 + rand.IntN(accounts-1)) % accounts
				status, body, _ := do(t, "POST", urls[n%2]+"/v1/workflows/transfer/invoke", "application/json",
					fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":1}`, from, to), "Idempotency-Key", fmt.Sprintf("%d-%d", client, n))
				if status != http.StatusOK && status != http.StatusConflict { // the account may be empty
					t.Errorf("%d %s", status, body)
					return
				}
				done.Add(1)
			}
		})
	}
	progress := func() {
		for before := done.Load(); done.Load() < before+100 && !t.Failed(); {
			expect(t, http.StatusOK, "", http.MethodGet, urls[0]+"/readyz", "", "")
		}
	}
	progress()
	c.worker("w4")
	progress()
	expect(t, http.StatusNoContent, "", http.MethodPost, urls[0]+"/v1/workers/w1/drain", "", "")
	progress()
	stop2()
	progress()
	close(stop)
	wg.Wait()
	sum := 0
	for i := range accounts {
		_, body, _ := do(t, "GET", fmt.Sprintf("%s/v1/state/accounts/a%d", urls[i%2], i), "", "")
		n := 0
		if _, err := fmt.Sscan(body, &n); err != nil {
			t.Fatalf("account %d is %q", i, body)
		}
		sum += n
	}
	if sum != 100*accounts {
		t.Errorf("the accounts have %d after %d transfers, want %d", sum, done.Load(), 100*accounts)
	}
	_, cluster, _ := do(t, "GET", urls[0]+"/v1/cluster", "", "")
	_, where, _ := do(t, "GET", urls[0]+"/v1/leases/accounts/a1", "", "")
	t.Logf("%d transfers; %s; %s", done.Load(), cluster, where)
}
