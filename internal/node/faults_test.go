package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/check"
	"github.com/tenure-faas/tenure/internal/node"
)

const (
	roleEnv   = "TENURE_TEST_ROLE"   // leasemgr, worker or gateway
	targetEnv = "TENURE_TEST_TARGET" // the leasemgr's data directory, or its address
	listenEnv = "TENURE_TEST_LISTEN"
	nameEnv   = "TENURE_TEST_NAME"
	// roundsEnv is how many faults TestFaultsInCluster makes; make crash sets it.
	roundsEnv = "TENURE_TEST_ROUNDS"
)

// TestRole is the body of the processes of TestFaultsInCluster.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	say := func(address string) error {
		_, err := fmt.Println("serving", address)
		return err
	}
	target, listen := os.Getenv(targetEnv), os.Getenv(listenEnv)
	var err error
	switch role {
	case "leasemgr":
		err = node.RunControl(context.Background(), node.ControlOptions{Listen: listen, Data: target, Native: nativeBank(t), Logger: log, Ready: say})
	case "worker":
		for err = node.ErrEvicted; err != nil && strings.Contains(err.Error(), node.ErrEvicted.Error()); {
			err = node.RunWorker(context.Background(), node.WorkerOptions{Leasemgr: target, Listen: listen, Name: os.Getenv(nameEnv), Native: nativeBank(t), Logger: log, Ready: say})
		}
	case "gateway":
		err = node.RunGateway(context.Background(), node.GatewayOptions{
			Leasemgr: target, Listen: listen, Native: nativeBank(t), Logger: log,
			Ready: func(_ context.Context, url string) error { return say(url) },
		})
	}
	fmt.Fprintln(os.Stderr, "the process ended:", err)
	os.Exit(1)
}

// process is one process of a cluster, in one start after another.
type process struct {
	t                          *testing.T
	role, name, target, listen string
	log                        *os.File
	cmd                        *exec.Cmd
	said                       string
}

// start starts the process and waits until it serves; it listens at the same
// address again.
func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], "-test.run=^TestRole$")
	p.cmd.Env = append(os.Environ(), roleEnv+"="+p.role, nameEnv+"="+p.name, targetEnv+"="+p.target, listenEnv+"="+p.listen)
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if said, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			if p.said == "" { // later it says the same, and clients look
				p.said, p.listen = said, strings.TrimPrefix(said, "http://")
			}
			return
		}
	}
	p.t.Fatalf("%s does not serve: %v", p.name, p.cmd.Wait())
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("signal %v to %s: %v", s, p.name, err)
	}
}

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	_ = p.cmd.Wait() // "signal: killed"
}

// cluster is a cluster of processes under load.
type faultyCluster struct {
	t         *testing.T
	control   *process
	workers   []*process
	gateways  []*process
	client    *http.Client
	stop      chan struct{}
	load      sync.WaitGroup
	begun     time.Time
	element   atomic.Int64
	mu        sync.Mutex
	history   check.History
	transfers []*transferRequest
	slowest   time.Duration // since the last fault
}

const (
	faultClients = 8
	faultLists   = 10
)

func startFaulty(t *testing.T) *faultyCluster {
	c := &faultyCluster{t: t, stop: make(chan struct{}), begun: time.Now(), client: &http.Client{Timeout: 20 * time.Second}}
	dir := t.TempDir()
	make := func(role, name, target string) *process {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		p := &process{t: t, role: role, name: name, target: target, listen: "127.0.0.1:0", log: log}
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
	c.control = make("leasemgr", "leasemgr", filepath.Join(dir, "data"))
	for i := range 3 {
		c.workers = append(c.workers, make("worker", fmt.Sprint("w", i+1), c.control.said))
	}
	for i := range 2 {
		c.gateways = append(c.gateways, make("gateway", fmt.Sprint("g", i+1), c.control.said))
	}
	t.Cleanup(func() { c.client.CloseIdleConnections(); http.DefaultClient.CloseIdleConnections() })
	url := c.gateways[0].said
	expect(t, http.StatusCreated, "", http.MethodPut, url+"/v1/workflows/transfer", "application/yaml", transfer)
	for i := range killAccounts {
		expect(t, http.StatusNoContent, "", http.MethodPut, fmt.Sprintf("%s/v1/state/accounts/a%d", url, i), "", "1000000")
	}
	return c
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
	add, read := rng.IntN(faultLists), rng.IntN(faultLists)
	element := c.element.Add(1)
	txn := check.Txn{ID: int(element), Client: client, Outcome: check.OK, Call: time.Since(c.begun).Nanoseconds()}
	raw, ok := c.insist("/v1/txn", fmt.Sprintf(`{"ops":[{"op":"get","table":"l","key":"l%d"},{"op":"append","table":"l","key":"l%d","value":%d}]}`, read, add, element), key)
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
	txn.Ops = []check.Op{{Kind: check.Read, Key: "l" + strconv.Itoa(read), List: list}, {Kind: check.Append, Key: "l" + strconv.Itoa(add), Element: element}}
	c.mu.Lock()
	c.history = append(c.history, txn)
	c.mu.Unlock()
	return true
}

// fault makes one fault and mends it.
func (c *faultyCluster) fault(round int) (what string) {
	c.mu.Lock()
	c.slowest = 0
	c.mu.Unlock()
	worker := c.workers[rand.IntN(len(c.workers))]
	switch round % 4 {
	case 0:
		what = "kill " + worker.name
		worker.kill()
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Millisecond) // some come back before they are missed, some after
		worker.start()
	case 1:
		what = "stop " + worker.name
		worker.signal(syscall.SIGSTOP)
		time.Sleep(4500 * time.Millisecond) // longer than its membership lasts
		worker.signal(syscall.SIGCONT)
	case 2:
		what = "kill the leasemgr"
		c.control.kill()
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		c.control.start()
	case 3:
		gateway := c.gateways[rand.IntN(len(c.gateways))]
		what = "kill " + gateway.name
		gateway.kill()
		gateway.start()
	}
	return what
}

// TestFaultsInCluster kills and stops processes of a cluster under load, one after
// another. Every request is repeated under its key until it is answered. In the end
// the history of the lists is strictly serializable, every transfer had one effect,
// and each replays its answer.
func TestFaultsInCluster(t *testing.T) {
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv(roundsEnv)); err == nil {
		rounds = n
	}
	c := startFaulty(t)
	for client := range faultClients {
		c.load.Go(func() { c.run(client) })
	}
	stop := sync.OnceFunc(func() { close(c.stop); c.load.Wait() })
	defer stop()
	answered := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.transfers) + len(c.history)
	}
	settle := func() { // until every client has been answered again, and some more
		for before, began := answered(), time.Now(); answered() < before+20*faultClients && !t.Failed(); time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatal("the cluster does not answer any more")
			}
		}
	}
	settle()
	for round := range rounds {
		what := c.fault(round)
		settle()
		c.mu.Lock()
		slowest := c.slowest
		c.mu.Unlock()
		t.Logf("round %d: %s: %d requests answered so far, the slowest since then in %v", round, what, answered(), slowest.Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
	stop()
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
