package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/check"
)

// faultyCluster is a cluster of processes under load, of which some are ill.
type faultyCluster struct {
	t         *testing.T
	rng       *rand.Rand // of the faults; used by the test's goroutine only
	control   *process
	workers   []*process
	gateways  []*process
	client    *http.Client
	stop      chan struct{}
	load      sync.WaitGroup
	begun     time.Time
	element   atomic.Int64
	probes    []*probe
	figures   []figures
	mu        sync.Mutex
	history   check.History
	transfers []*transferRequest
	slowest   time.Duration // since the last fault
}

const (
	faultClients = 8
	faultLists   = 10
	// listsLast is after how many elements others take the place of the lists, so that
	// they do not grow for ever.
	listsLast = 1000
)

// site is where the processes of a cluster run.
type site struct {
	// listen is the address of a process, port 0 for any.
	listen func(name string) string
	// launch starts the command of a process.
	launch func(name string, cmd *exec.Cmd) error
	// env is the environment of all.
	env []string
}

// loopback is the site of processes that differ by their ports only.
func loopback() site {
	return site{
		listen: func(string) string { return "127.0.0.1:0" },
		launch: func(_ string, cmd *exec.Cmd) error { return cmd.Start() },
	}
}

// startFaulty starts a leasemgr, three workers and two gateways.
func startFaulty(t *testing.T, at site) *faultyCluster {
	c := &faultyCluster{t: t, rng: seeded(t), stop: make(chan struct{}), begun: time.Now(), client: &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	dir := t.TempDir()
	start := func(role, name, target string) *process {
		log, err := os.Create(filepath.Join(t.ArtifactDir(), name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		p := &process{t: t, role: role, name: name, target: target, listen: at.listen(name), env: at.env, log: log,
			launch: func(cmd *exec.Cmd) error { return at.launch(name, cmd) }}
		p.start()
		t.Cleanup(func() {
			p.kill()
			if t.Failed() {
				raw, _ := os.ReadFile(log.Name())
				t.Logf("%s:\n%s", name, raw[max(0, len(raw)-3000):])
			}
			log.Close()
		})
		return p
	}
	c.control = start("leasemgr", "leasemgr", filepath.Join(dir, "data"))
	for i := range 3 {
		c.workers = append(c.workers, start("worker", fmt.Sprint("w", i+1), c.control.said))
	}
	for i := range 2 {
		c.gateways = append(c.gateways, start("gateway", fmt.Sprint("g", i+1), c.control.said))
	}
	t.Cleanup(func() { c.client.CloseIdleConnections(); http.DefaultClient.CloseIdleConnections() })
	url := c.gateways[0].said
	expect(t, http.StatusCreated, "", http.MethodPut, url+"/v1/workflows/transfer", "application/yaml", transfer)
	for i := range killAccounts {
		expect(t, http.StatusNoContent, "", http.MethodPut, fmt.Sprintf("%s/v1/state/accounts/a%d", url, i), "", "1000000")
	}
	c.addProbes()
	return c
}

// seeded is the source of a test's faults: a new seed each time, or that of the
// environment.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv(seedEnv), 10, 64); err == nil {
		seed = n
	}
	t.Logf("the seed of the faults is %d (%s)", seed, seedEnv)
	return rand.New(rand.NewPCG(seed, 0))
}

// all are the processes of the cluster, the leasemgr first.
func (c *faultyCluster) all() []*process {
	return append(append([]*process{c.control}, c.workers...), c.gateways...)
}

// insist sends a request through one gateway or the other, under one idempotency
// key, until it is answered with 200.
func (c *faultyCluster) insist(path, body, key string) ([]byte, bool) {
	began := time.Now()
	for try := rand.IntN(2); time.Since(began) < time.Minute; try++ {
		req, err := http.NewRequest(http.MethodPost, c.gateways[try%2].said+path, strings.NewReader(body))
		if err != nil {
			c.t.Error(err)
			return nil, false
		}
		req.Header.Set("Idempotency-Key", key)
		resp, err := c.client.Do(req)
		if err != nil {
			continue // it is gone, or stands still
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
		case resp.StatusCode == http.StatusOK:
			c.mu.Lock()
			c.slowest = max(c.slowest, time.Since(began))
			c.mu.Unlock()
			return raw, true
		case resp.StatusCode < 500:
			c.t.Errorf("%s with key %s: %d %s", path, key, resp.StatusCode, raw)
			return nil, false
		}
		time.Sleep(20 * time.Millisecond) // between two tries, as a client does
	}
	c.t.Errorf("%s with key %s: no answer within a minute", path, key)
	return nil, false
}

// run is one client: transfers, and appends to lists whose history is checked.
func (c *faultyCluster) run(client int) {
	rng := rand.New(rand.NewPCG(uint64(client), 1))
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		key := fmt.Sprintf("c%d-%d", client, n)
		if n%2 == 0 {
			from := rng.IntN(killAccounts)
			r := &transferRequest{key: key, body: fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":%d}`, from, (from+1+rng.IntN(killAccounts-1))%killAccounts, 1+rng.IntN(5))}
			raw, ok := c.insist("/v1/workflows/transfer/invoke", r.body, r.key)
			if !ok {
				return
			}
			r.answer = string(raw)
			c.mu.Lock()
			c.transfers = append(c.transfers, r)
			c.mu.Unlock()
			continue
		}
		if !c.appendAndRead(rng, client, key) {
			return
		}
	}
}

// appendAndRead appends to one list and reads another, in one transaction.
func (c *faultyCluster) appendAndRead(rng *rand.Rand, client int, key string) bool {
	element := c.element.Add(1)
	pick := func() string { return fmt.Sprintf("l%d-%d", element/listsLast, rng.IntN(faultLists)) }
	add, read := pick(), pick()
	txn := check.Txn{ID: int(element), Client: client, Outcome: check.OK, Call: time.Since(c.begun).Nanoseconds()}
	raw, ok := c.insist("/v1/txn", fmt.Sprintf(`{"ops":[{"op":"get","table":"l","key":%q},{"op":"append","table":"l","key":%q,"value":%d}]}`, read, add, element), key)
	if !ok {
		return false
	}
	txn.Return = time.Since(c.begun).Nanoseconds()
	var answer struct{ Results []struct{ Value string } }
	list := []int64{}
	if err := json.Unmarshal(raw, &answer); err != nil || len(answer.Results) != 2 {
		c.t.Errorf("%s: %v", raw, err)
		return false
	}
	if v := answer.Results[0].Value; v != "" {
		if err := json.Unmarshal([]byte(v), &list); err != nil {
			c.t.Errorf("list %s: %v", v, err)
			return false
		}
	}
	txn.Ops = []check.Op{{Kind: check.Read, Key: read, List: list}, {Kind: check.Append, Key: add, Element: element}}
	c.mu.Lock()
	c.history = append(c.history, txn)
	c.mu.Unlock()
	return true
}

// checkAll ends a test, after the load: the history of the lists is strictly
// serializable, every transfer had one effect, and each replays its answer.
func (c *faultyCluster) checkAll() {
	t := c.t
	if report := check.Check(c.history, check.Options{MaxPerKind: 3}); len(report.Anomalies) > 0 {
		t.Errorf("the history is not strictly serializable:\n%v", report)
	}
	for _, r := range c.transfers {
		replayed, ok, err := r.send(http.DefaultClient, c.gateways[0].said)
		if err != nil || !ok || !replayed {
			t.Fatalf("transfer %s: replayed %v, answered %v, %v", r.key, replayed, ok, err)
		}
	}
	checkAccounts(t, c.gateways[1].said, len(c.transfers))
	t.Logf("%d transfers replayed, %d transactions in the history", len(c.transfers), len(c.history))
}
