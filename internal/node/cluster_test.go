package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/sdk/go"
)

// clusterOptions is a node of several workers that has the bank and the pairs.
func clusterOptions(t testing.TB, workers int, data string) node.Options {
	t.Helper()
	functions := nativeBank(t)
	pairs, err := native.New(pairHandlers())
	if err != nil {
		t.Fatal(err)
	}
	functions["pairs"] = pairs
	return node.Options{Workers: workers, Data: data, Native: functions, Logger: slog.New(slog.DiscardHandler)}
}

// pairHandlers insert and delete two keys at once, and scan for halves.
func pairHandlers() map[string]tenure.Handler {
	both := func(ctx *tenure.Context, do func(k string) error) ([]byte, error) {
		k := ctx.JSON().Get("k").String()
		return nil, errors.Join(do("a"+k), do("b"+k))
	}
	return map[string]tenure.Handler{
		"insert": func(ctx *tenure.Context) ([]byte, error) {
			return both(ctx, func(k string) error { return ctx.Put("pairs", k, []byte("x")) })
		},
		"delete": func(ctx *tenure.Context) ([]byte, error) {
			return both(ctx, func(k string) error { return ctx.Delete("pairs", k) })
		},
		"count": func(ctx *tenure.Context) ([]byte, error) {
			var seen [3]int
			for i, prefix := range []string{"a", "b", "a"} {
				entries, err := ctx.Scan("pairs", prefix, 0)
				if err != nil {
					return nil, err
				}
				seen[i] = len(entries)
			}
			if seen[0] != seen[1] || seen[0] != seen[2] {
				return nil, fmt.Errorf("scans of one transaction see %v", seen)
			}
			return fmt.Append(nil, seen[0]), nil
		},
	}
}

// call sends a request from a goroutine of a test.
func call(method, url, body string, header ...string) (status int, answer string, h http.Header, err error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), resp.Header, err
}

// openAccounts makes the bank that checkAccounts reads.
func openAccounts(t *testing.T, url string) {
	t.Helper()
	expect(t, http.StatusCreated, "", http.MethodPut, url+"/v1/workflows/transfer", "application/yaml", transfer)
	for i := range killAccounts {
		expect(t, http.StatusNoContent, "", http.MethodPut, fmt.Sprintf("%s/v1/state/accounts/a%d", url, i), "", "1000000")
	}
}

// TestClusterServes has four workers in one node and looks at them over HTTP.
func TestClusterServes(t *testing.T) {
	url := start(t, clusterOptions(t, 4, ""))
	openAccounts(t, url)
	t.Run("bank", func(t *testing.T) { clusterBank(t, url) })
	t.Run("scans", func(t *testing.T) { clusterScans(t, url) })
	t.Run("leases", func(t *testing.T) { clusterLeases(t, url) })
	t.Run("cluster", func(t *testing.T) { clusterInfo(t, url, 4) })
}

// clusterBank makes transfers from many clients. Each is sent by two at once under
// its key, then repeated: three answers, one effect.
func clusterBank(t *testing.T, url string) {
	const clients, each = 8, 100
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for n := range each {
				from := rng.IntN(killAccounts)
				r := transferRequest{
					key:  fmt.Sprintf("bank-c%d-n%d", c, n),
					body: fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":%d}`, from, (from+1+rng.IntN(killAccounts-1))%killAccounts, 1+rng.IntN(5)),
				}
				if err := thrice(r, url); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkAccounts(t, url, clients*each)
}

// thrice makes a transfer twice at once and then again.
func thrice(r transferRequest, url string) error {
	twin := r
	var wg sync.WaitGroup
	var first, second bool
	var errs [2]error
	wg.Go(func() { second, _, errs[1] = twin.send(http.DefaultClient, url) })
	first, _, errs[0] = r.send(http.DefaultClient, url)
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if r.answer == "" || r.answer != twin.answer || first == second {
		return fmt.Errorf("transfer %s, sent twice at once, was answered %q (a replay: %t) and %q (a replay: %t)", r.key, r.answer, first, twin.answer, second)
	}
	if replayed, ok, err := r.send(http.DefaultClient, url); err != nil || !ok || !replayed {
		return fmt.Errorf("transfer %s again: a replay: %t, answered: %t, %w", r.key, replayed, ok, err)
	}
	return nil
}

// clusterScans scans while pairs of keys are inserted and deleted: the function
// aborts if it sees a half of a pair, or if its scans differ.
func clusterScans(t *testing.T, url string) {
	const writers, each = 4, 100
	pairs := func(handler, input string) string {
		status, answer, _, err := call(http.MethodPost, url+"/v1/functions/pairs/"+handler+"/invoke", input)
		if status != http.StatusOK || err != nil {
			t.Errorf("%s %s: %d %s %v", handler, input, status, answer, err)
		}
		return answer
	}
	var writing, scanning sync.WaitGroup
	var over atomic.Bool
	scans := 0
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				input := fmt.Sprintf(`{"k":"%d-%d"}`, w, i)
				pairs("insert", input)
				if i%5 == 0 {
					pairs("delete", input)
				}
			}
		})
	}
	scanning.Go(func() {
		for ; !over.Load(); scans++ {
			pairs("count", "{}")
		}
	})
	writing.Wait()
	over.Store(true)
	scanning.Wait()
	if got, want := pairs("count", "{}"), fmt.Sprint(writers*each*4/5); got != want || scans == 0 {
		t.Errorf("%s pairs after %d scans, want %s", got, scans, want)
	}
}

// clusterLeases uses one key by way of many others, by which invocations are spread
// over the workers: the lease is where it was used last.
func clusterLeases(t *testing.T, url string) {
	holders := map[string]bool{}
	last, epoch := "", uint64(0)
	for i := range 16 {
		_, _, h := do(t, http.MethodPost, url+"/v1/txn", "application/json",
			fmt.Sprintf(`{"ops":[{"op":"put","table":"t","key":"lead%d","value":"x"},{"op":"put","table":"t","key":"hot","value":"%d"}]}`, i, i))
		var ran struct{ Worker string }
		_, raw, _ := do(t, http.MethodGet, url+"/v1/invocations/"+h.Get("Tenure-Invocation"), "", "")
		if err := json.Unmarshal([]byte(raw), &ran); err != nil || ran.Worker == "" {
			t.Fatalf("invocation %d: %s %v", i, raw, err)
		}
		var info struct {
			Holder, Mode, Home string
			Epoch              uint64
		}
		_, raw, _ = do(t, http.MethodGet, url+"/v1/leases/t/hot", "", "")
		if err := json.Unmarshal([]byte(raw), &info); err != nil {
			t.Fatal(err)
		}
		if info.Holder != ran.Worker || info.Mode != "exclusive" || !strings.HasPrefix(info.Home, "worker-") {
			t.Errorf("round %d: %s used the key last, and the lease is %s", i, ran.Worker, raw)
		}
		if ran.Worker != last && info.Epoch <= epoch {
			t.Errorf("round %d: epoch %d after %d, although the lease has changed hands", i, info.Epoch, epoch)
		}
		last, epoch, holders[info.Holder] = ran.Worker, info.Epoch, true
	}
	if len(holders) < 3 {
		t.Errorf("only %v have used the key: the invocations are not spread", holders)
	}
}

// clusterInfo checks GET /v1/cluster and returns the view.
func clusterInfo(t *testing.T, url string, workers int) base.View {
	t.Helper()
	var info struct {
		View          base.View
		Homes, Leases int
		Workers       []struct{ ID, Provider string }
	}
	_, raw, _ := do(t, http.MethodGet, url+"/v1/cluster", "", "")
	if err := json.Unmarshal([]byte(raw), &info); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, w := range info.Workers {
		ids[w.ID] = w.Provider != ""
	}
	if len(ids) != workers || info.Homes != base.SlotCount || info.Leases == 0 || info.View == 0 {
		t.Errorf("want %d workers, the homes of %d slots between them, and some leases: %s", workers, base.SlotCount, raw)
	}
	return info.View
}

// TestClusterStartsAgain stops a node of four workers and starts it on the same
// data: values, outcomes of idempotency keys and the order of views survive.
func TestClusterStartsAgain(t *testing.T) {
	data := t.TempDir()
	var requests []*transferRequest
	var view base.View
	for run := range 3 {
		t.Run(fmt.Sprint("run ", run), func(t *testing.T) {
			began := time.Now()
			url := start(t, clusterOptions(t, 4, data))
			if run == 0 {
				openAccounts(t, url)
			}
			for _, r := range requests {
				if replayed, ok, err := r.send(http.DefaultClient, url); err != nil || !ok || !replayed {
					t.Fatalf("transfer %s of an earlier run: a replay: %t, answered: %t, %v", r.key, replayed, ok, err)
				}
			}
			checkAccounts(t, url, len(requests))
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v until all was answered", took)
			}
			for i := range 30 {
				r := &transferRequest{key: fmt.Sprintf("run%d-%d", run, i), body: fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":3}`, i%killAccounts, (i+1)%killAccounts)}
				if _, ok, err := r.send(http.DefaultClient, url); err != nil || !ok {
					t.Fatalf("transfer %s: answered: %t, %v", r.key, ok, err)
				}
				requests = append(requests, r)
			}
			checkAccounts(t, url, len(requests))
			now := clusterInfo(t, url, 4)
			if now <= view {
				t.Errorf("view %d after %d in an earlier run", now, view)
			}
			view = now
		})
	}
}

const (
	clusterChildEnv = "TENURE_TEST_CLUSTER_CHILD" // the child's data directory
	clusterKills    = 6
)

// TestClusterChild is the body of the child process of TestClusterKillUnderLoad.
func TestClusterChild(t *testing.T) {
	data := os.Getenv(clusterChildEnv)
	if data == "" {
		return
	}
	opt := clusterOptions(t, 3, data)
	opt.Listen = "127.0.0.1:0"
	opt.Ready = func(_ context.Context, url string) error {
		_, err := fmt.Println("url", url)
		return err
	}
	fmt.Fprintln(os.Stderr, "the child's node ended:", node.Run(context.Background(), opt))
	os.Exit(1)
}

func startClusterChild(t *testing.T, data string) child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestClusterChild$")
	cmd.Env = append(os.Environ(), clusterChildEnv+"="+data)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "url "); ok {
			return child{cmd, url}
		}
	}
	t.Fatalf("the child said nothing: %v", cmd.Wait())
	return child{}
}

// TestClusterKillUnderLoad is TestKillUnderLoad with three workers in the process.
func TestClusterKillUnderLoad(t *testing.T) {
	data := t.TempDir()
	c := startClusterChild(t, data)
	openAccounts(t, c.url)
	sent, acknowledged := 0, 0
	for round := range clusterKills {
		requests := loadUntilKilled(t, c, round)
		c = startClusterChild(t, data)
		for _, r := range requests {
			was := r.answer != ""
			replayed, ok, err := r.send(http.DefaultClient, c.url)
			if err != nil || !ok || was && !replayed {
				t.Fatalf("round %d: transfer %s, acknowledged before the kill: %t, after it: a replay: %t, answered: %t, %v", round, r.key, was, replayed, ok, err)
			}
			if was {
				acknowledged++
			}
		}
		sent += len(requests)
		checkAccounts(t, c.url, sent)
	}
	t.Logf("%d kills, %d transfers acknowledged before one, %d interrupted by one", clusterKills, acknowledged, sent-acknowledged)
	if acknowledged < clusterKills*killClients || sent == acknowledged {
		t.Error("the kills came too early or too late to show anything")
	}
	c.kill(t)
	http.DefaultClient.CloseIdleConnections()
}
