package node_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/node"
)

const (
	childEnv     = "TENURE_TEST_NODE_CHILD" // the child's data directory
	killRounds   = 20
	killAccounts = 20
	killClients  = 16
)

// nodeChild runs a node until it is killed; it prints its URL.
func nodeChild(data string, t testing.TB) {
	err := node.Run(context.Background(), node.Options{
		Listen: "127.0.0.1:0", Data: data, Native: nativeBank(t), Logger: slog.New(slog.DiscardHandler),
		Ready: func(_ context.Context, url string) error {
			_, err := fmt.Println("url", url)
			return err
		},
	})
	fmt.Fprintln(os.Stderr, "the child's node ended:", err)
	os.Exit(1)
}

// TestNodeChild is the body of the child process of TestKillUnderLoad.
func TestNodeChild(t *testing.T) {
	if data := os.Getenv(childEnv); data != "" {
		nodeChild(data, t)
	}
}

type child struct {
	cmd *exec.Cmd
	url string
}

func startChild(t *testing.T, data string) child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNodeChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+data)
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

func (c child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.cmd.Wait() // "signal: killed"
}

// transferRequest is one transfer, made under its own idempotency key.
type transferRequest struct {
	key, body string
	answer    string // what was acknowledged; empty: nothing
}

// send makes the transfer once; ok means that it was acknowledged.
func (r *transferRequest) send(client *http.Client, url string) (replayed, ok bool, err error) {
	req, err := http.NewRequest(http.MethodPost, url+"/v1/workflows/transfer/invoke", strings.NewReader(r.body))
	if err != nil {
		return false, false, err
	}
	req.Header.Set("Idempotency-Key", r.key)
	resp, err := client.Do(req)
	if err != nil {
		return false, false, nil // the process is gone: unknown
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, false, nil
	}
	if resp.StatusCode != http.StatusOK {
		return false, false, fmt.Errorf("transfer %s: %d %s", r.key, resp.StatusCode, raw)
	}
	if r.answer != "" && r.answer != string(raw) {
		return false, false, fmt.Errorf("transfer %s was answered %s and then %s", r.key, r.answer, raw)
	}
	r.answer = string(raw)
	return resp.Header.Get("Tenure-Replayed") == "true", true, nil
}

// TestKillUnderLoad kills the process with SIGKILL in the middle of concurrent
// transfers, again and again over one data directory. After each start every
// acknowledged transfer replays its answer, every other one is repeated under
// its key, and the accounts show that each had exactly one effect.
func TestKillUnderLoad(t *testing.T) {
	data := t.TempDir()
	c := startChild(t, data)
	expect(t, http.StatusCreated, "", http.MethodPut, c.url+"/v1/workflows/transfer", "application/yaml", transfer)
	for i := range killAccounts {
		expect(t, http.StatusNoContent, "", http.MethodPut, fmt.Sprintf("%s/v1/state/accounts/a%d", c.url, i), "", "1000000")
	}
	var all []*transferRequest
	acknowledged, interrupted := 0, 0
	for round := range killRounds {
		requests := loadUntilKilled(t, c, round)
		c = startChild(t, data)
		for _, r := range requests {
			was := r.answer != ""
			replayed, ok, err := r.send(http.DefaultClient, c.url)
			switch {
			case err != nil:
				t.Fatal(err)
			case !ok:
				t.Fatalf("round %d: transfer %s got no answer after the restart", round, r.key)
			case was && !replayed:
				t.Fatalf("round %d: acknowledged transfer %s was lost in the crash", round, r.key)
			case was:
				acknowledged++
			default:
				interrupted++
			}
		}
		all = append(all, requests...)
		checkAccounts(t, c.url, len(all))
	}
	t.Logf("%d kills, %d transfers acknowledged before one, %d interrupted by one", killRounds, acknowledged, interrupted)
	if acknowledged < killRounds*killClients || interrupted == 0 {
		t.Error("the kills came too early or too late to show anything")
	}
	c.kill(t)
	http.DefaultClient.CloseIdleConnections()
}

// loadUntilKilled runs transfers from many clients and kills the process at a
// random moment. It returns every transfer that was sent.
func loadUntilKilled(t *testing.T, c child, round int) []*transferRequest {
	t.Helper()
	sent := make([][]*transferRequest, killClients)
	answered := make(chan struct{}, 4*killClients)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: killClients}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i := range killClients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			for n := 0; ; n++ {
				from := rng.IntN(killAccounts)
				r := &transferRequest{
					key:  fmt.Sprintf("r%d-c%d-n%d", round, i, n),
					body: fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":%d}`, from, (from+1+rng.IntN(killAccounts-1))%killAccounts, 1+rng.IntN(5)),
				}
				sent[i] = append(sent[i], r)
				_, ok, err := r.send(client, c.url)
				if err != nil {
					t.Error(err)
				}
				if !ok {
					return
				}
				select {
				case answered <- struct{}{}:
				default: // the kill waits for no more
				}
			}
		})
	}
	// The moment is what the test varies: from the first transfers to steady load.
	// Every second kill comes after so many answers that all kills together show
	// something on a machine of any speed.
	if round%2 == 0 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range killClients * (2 + rand.IntN(2)) {
			select {
			case <-answered:
			case <-ctx.Done():
			}
		}
	}
	time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
	c.kill(t)
	wg.Wait()
	var all []*transferRequest
	for _, s := range sent {
		all = append(all, s...)
	}
	return all
}

// checkAccounts reads all accounts in one transaction: money is neither made
// nor lost, and there have been two writes for each transfer.
func checkAccounts(t *testing.T, url string, transfers int) {
	t.Helper()
	var body bytes.Buffer
	body.WriteString(`{"ops":[`)
	for i := range killAccounts {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"op":"get","table":"accounts","key":"a%d"}`, i)
	}
	body.WriteString(`]}`)
	status, raw, _ := do(t, http.MethodPost, url+"/v1/txn", "application/json", body.String())
	var answer struct {
		Results []struct {
			Value   string
			Version int
		}
	}
	if err := json.Unmarshal([]byte(raw), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("read the accounts: %d %s %v", status, raw, err)
	}
	sum, writes := 0, -killAccounts // the first write of each opened it
	for _, r := range answer.Results {
		var balance int
		if _, err := fmt.Sscan(r.Value, &balance); err != nil {
			t.Fatal(err)
		}
		sum += balance
		writes += r.Version
	}
	if sum != killAccounts*1_000_000 {
		t.Fatalf("the accounts hold %d, want %d", sum, killAccounts*1_000_000)
	}
	if writes != 2*transfers {
		t.Fatalf("%d writes of accounts for %d transfers: one had no effect, or two", writes, transfers)
	}
}
