//go:build linux && cgo && rdma

package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/check"
	"github.com/tenure-faas/tenure/leasemgr"
)

const (
	verbsClients = 6
	verbsLists   = 10
	// verbsEach is how many answers a client gets, on average, before the machine
	// dies and again after the others know it.
	verbsEach = 40
	// verbsPatience bounds the wait for an answer. A cluster is back within the life
	// of a membership; this is longer because the machines are emulated.
	verbsPatience = time.Minute
)

// acknowledged is a request that was answered with 200, under its key.
type acknowledged struct{ path, body, key, answer string }

// verbsLoad is clients that make transfers and append to lists through the gateway.
type verbsLoad struct {
	t       *testing.T
	c       *verbsCluster
	client  *http.Client
	begun   time.Time
	stop    chan struct{}
	running sync.WaitGroup
	element atomic.Int64

	mu        sync.Mutex
	history   check.History
	answered  []acknowledged
	transfers int
	slowest   time.Duration
}

// testKill kills the last machine in the middle of a load whose keys all workers
// share. Every request is repeated under its key until it is answered. In the end
// the history of the lists is strictly serializable, every transfer had one effect,
// and all that was acknowledged replays its answer.
func (c *verbsCluster) testKill(t *testing.T) {
	openAccounts(t, c.url)
	l := &verbsLoad{t: t, c: c, client: &http.Client{Timeout: 20 * time.Second}, begun: time.Now(), stop: make(chan struct{})}
	defer l.client.CloseIdleConnections()
	before := c.wire(t)
	for client := range verbsClients {
		l.running.Go(func() { l.run(client) })
	}
	stop := sync.OnceFunc(func() { close(l.stop); l.running.Wait() })
	defer stop()

	l.settle()
	moved := c.wire(t).minus(before)
	c.inUse(t)
	t.Logf("%d requests answered, the slowest in %v; on the wire: %v", l.count(), l.worst(), moved)
	if moved.cas == 0 || moved.messages == 0 {
		t.Error("no lease has moved over the wire: the load shows nothing")
	}
	killed, view := c.kill(t)
	l.settle()
	t.Logf("%s is out in view %d after %v; %d requests answered, the slowest since the kill in %v",
		killed.name, view.View, killed.out.Round(time.Millisecond), l.count(), l.worst())
	stop()
	if t.Failed() {
		return
	}
	l.readAll()
	if report := check.Check(l.history, check.Options{MaxPerKind: 3}); len(report.Anomalies) > 0 {
		t.Errorf("the history is not strictly serializable:\n%v", report)
	}
	l.replay()
	checkAccounts(t, c.url, l.transfers)
	t.Logf("%d acknowledged requests replay their answers, %d of them transfers; %d transactions in the history; view %d; on the wire: %v",
		len(l.answered), l.transfers, len(l.history), c.now().View, c.wire(t).minus(before))
}

// inUse looks whether every worker has leases and has pulled some: whoever is
// killed takes something with it.
func (c *verbsCluster) inUse(t *testing.T) {
	t.Helper()
	for name, w := range c.workers {
		if s, err := w.Status(t.Context()); err != nil || s.Leases == 0 || s.Pulls == 0 {
			t.Errorf("worker %s does not take part: %+v, %v", name, s, err)
		}
	}
}

// death is how a machine died.
type death struct {
	name string
	out  time.Duration // until there was a view without it
}

// kill kills the last machine and waits for the view without it.
func (c *verbsCluster) kill(t *testing.T) (death, leasemgr.Published) {
	t.Helper()
	name := fmt.Sprint("w", c.nodes)
	began := time.Now()
	if _, err := fmt.Fprintln(c.agents[name], "die"); err != nil {
		t.Fatal(err)
	}
	delete(c.agents, name)
	view := c.await("the others", func(p *leasemgr.Published) bool {
		return !slices.ContainsFunc(p.Members, func(m leasemgr.Peer) bool { return m.Name == name })
	})
	return death{name, time.Since(began)}, view
}

// count is how many requests were answered so far.
func (l *verbsLoad) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answered)
}

// worst is the longest that a request has taken since it was asked last, repeats
// included.
func (l *verbsLoad) worst() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.slowest
	l.slowest = 0
	return w.Round(time.Millisecond)
}

// settle waits until the clients were answered often again.
func (l *verbsLoad) settle() {
	l.t.Helper()
	deadline := time.Now().Add(2 * verbsPatience)
	for want := l.count() + verbsEach*verbsClients; l.count() < want && !l.t.Failed(); {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d requests are answered, want %d: the cluster does not go on", l.count(), want)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the count
	}
}

// run is one client.
func (l *verbsLoad) run(client int) {
	rng := rand.New(rand.NewPCG(uint64(client), 1))
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		key, ok := fmt.Sprintf("c%d-%d", client, n), false
		if n%2 == 0 {
			ok = l.transfer(rng, key)
		} else {
			ok = l.appendAndRead(rng, client, key)
		}
		if !ok {
			return
		}
	}
}

func (l *verbsLoad) transfer(rng *rand.Rand, key string) bool {
	from := rng.IntN(killAccounts)
	_, ok := l.insist("/v1/workflows/transfer/invoke", fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":%d}`,
		from, (from+1+rng.IntN(killAccounts-1))%killAccounts, 1+rng.IntN(5)), key)
	if ok {
		l.mu.Lock()
		l.transfers++
		l.mu.Unlock()
	}
	return ok
}

// appendAndRead reads one list and appends to another, in one transaction.
func (l *verbsLoad) appendAndRead(rng *rand.Rand, client int, key string) bool {
	add, read := "l"+strconv.Itoa(rng.IntN(verbsLists)), "l"+strconv.Itoa(rng.IntN(verbsLists))
	element := l.element.Add(1)
	body := fmt.Sprintf(`{"ops":[{"op":"get","table":"l","key":%q},{"op":"append","table":"l","key":%q,"value":%d}]}`, read, add, element)
	return l.record(client, int(element), body, key, []check.Op{{Kind: check.Read, Key: read}, {Kind: check.Append, Key: add, Element: element}})
}

// readAll reads all lists in one transaction, after all others: what was
// acknowledged is in them.
func (l *verbsLoad) readAll() {
	var gets []string
	var ops []check.Op
	for i := range verbsLists {
		k := "l" + strconv.Itoa(i)
		gets = append(gets, fmt.Sprintf(`{"op":"get","table":"l","key":%q}`, k))
		ops = append(ops, check.Op{Kind: check.Read, Key: k})
	}
	l.record(verbsClients, int(l.element.Add(1)), `{"ops":[`+strings.Join(gets, ",")+`]}`, "the end", ops)
}

// record makes a transaction of reads and appends, and writes it down with the
// lists that it has read.
func (l *verbsLoad) record(client, id int, body, key string, ops []check.Op) bool {
	txn := check.Txn{ID: id, Client: client, Ops: ops, Outcome: check.OK, Call: time.Since(l.begun).Nanoseconds()}
	raw, ok := l.insist("/v1/txn", body, key)
	if !ok {
		return false
	}
	txn.Return = time.Since(l.begun).Nanoseconds()
	var answer struct{ Results []struct{ Value string } }
	err := json.Unmarshal([]byte(raw), &answer)
	for i := range ops {
		if err == nil && len(answer.Results) == len(ops) && ops[i].Kind == check.Read && answer.Results[i].Value != "" {
			err = json.Unmarshal([]byte(answer.Results[i].Value), &ops[i].List)
		}
	}
	if err != nil || len(answer.Results) != len(ops) {
		l.t.Errorf("%s: %v", raw, err)
		return false
	}
	l.mu.Lock()
	l.history = append(l.history, txn)
	l.mu.Unlock()
	return true
}

// post sends a request once. Without an answer, status is 0: the outcome is not known.
func (l *verbsLoad) post(path, body, key string) (status int, answer string, replayed bool) {
	req, err := http.NewRequest(http.MethodPost, l.c.url+path, strings.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return http.StatusBadRequest, "", false
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err.Error(), false
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), false
	}
	return resp.StatusCode, string(raw), resp.Header.Get("Tenure-Replayed") == "true"
}

// insist sends a request under one key until it is answered with 200.
func (l *verbsLoad) insist(path, body, key string) (answer string, ok bool) {
	began := time.Now()
	for {
		status, answer, _ := l.post(path, body, key)
		took := time.Since(began)
		switch {
		case status == http.StatusOK:
			l.mu.Lock()
			l.slowest = max(l.slowest, took)
			l.answered = append(l.answered, acknowledged{path, body, key, answer})
			l.mu.Unlock()
			return answer, true
		case status != 0 && status < 500, took > verbsPatience:
			l.t.Errorf("%s with key %s after %v: %d %s", path, key, took, status, answer)
			return "", false
		}
		time.Sleep(20 * time.Millisecond) // between two tries, as a client does
	}
}

// replay sends all that was acknowledged again: the answers are the same, and
// nothing runs twice.
func (l *verbsLoad) replay() {
	l.t.Helper()
	const width = 8
	var sending sync.WaitGroup
	for batch := range slices.Chunk(l.answered, (len(l.answered)+width-1)/width) {
		sending.Go(func() {
			for _, a := range batch {
				if status, answer, replayed := l.post(a.path, a.body, a.key); status != http.StatusOK || !replayed || answer != a.answer {
					l.t.Errorf("%s with key %s was answered %s and then %d %s, replayed %v", a.path, a.key, a.answer, status, answer, replayed)
					return
				}
			}
		})
	}
	sending.Wait()
}
