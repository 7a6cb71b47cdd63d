package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/internal/check"
)

const (
	clientCount  = 5
	listCount    = 6
	counterCount = 2
	accountCount = 4
	// balance is what an account has at first.
	balance = 1000
)

// Clients come in bursts, so that they are in each other's way: every client has
// about burstLength transactions in one, and begins the next with the others.
const (
	burstLength = 4
	bursts      = 5
)

// untilBurst is how long it is until the next burst.
func (w *world) untilBurst() time.Duration {
	every := w.options.Chaos / bursts
	return every - w.now()%every
}

// load is the clients and what they have seen.
type load struct {
	w *world

	mu      sync.Mutex // guards what follows
	begun   int
	element int64
	history check.History
	// answered are the requests that were answered under a key.
	answered []answered
	paid     int64 // transfers that were acknowledged
}

// answered is a request under an idempotency key and its answer.
type answered struct {
	request
	answer string
}

// request is one of a client.
type request struct {
	method, path, body, key string
}

func newLoad(w *world) *load { return &load{w: w} }

// reply is how a request ended: with a status, or with 0 where nothing is known.
type reply struct {
	status   int
	body     []byte
	replayed bool
}

// send sends a request to a gateway and waits for its answer, for a while.
func (l *load) send(h *host, r request, patience time.Duration) (reply, bool) {
	h.mu.Lock()
	p, handler := h.now, h.handler
	h.mu.Unlock()
	if p == nil || handler == nil || !p.alive() {
		return reply{}, false // nobody listens
	}
	answer := make(chan reply, 1)
	spawn(func() {
		if l.w.net.carry(l.w.clients, p) != nil {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		defer context.AfterFunc(p.server.ctx, cancel)()
		q := httptest.NewRequestWithContext(ctx, r.method, "http://tenure"+r.path, strings.NewReader(r.body))
		if r.key != "" {
			q.Header.Set("Idempotency-Key", r.key)
		}
		out := httptest.NewRecorder()
		p.gate()
		handler.ServeHTTP(out, q)
		p.gate()
		if l.w.net.carry(p, l.w.clients) == nil {
			answer <- reply{out.Code, out.Body.Bytes(), out.Header().Get("Tenure-Replayed") != ""}
		}
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-answer:
		return a, true
	case <-timer.C:
	case <-p.dead:
	case <-l.w.over:
	}
	return reply{}, true
}

// patience is how long a client waits for one answer.
var patience = span{2 * time.Second, 15 * time.Second}

// insist sends a request under its key, to one gateway or another, until it is
// answered for good.
func (l *load) insist(rng *rand.Rand, r request) (reply, bool) {
	for try := rng.IntN(gatewayCount); !l.w.isOver(); try++ {
		a, _ := l.send(l.w.gateways[try%gatewayCount], r, patience.draw(rng))
		switch {
		case a.status == 0 || a.status >= 500 || a.status == http.StatusTooManyRequests:
			if a.status == http.StatusInternalServerError {
				l.w.count("internal errors", 1)
			}
			l.w.count("repeated requests", 1)
			l.w.log.Debug("again", "key", r.key, "path", r.path, "status", a.status, "body", string(a.body))
			l.w.sleep(span{time.Millisecond, 100 * time.Millisecond}.draw(rng))
		default:
			return a, true
		}
	}
	return reply{}, false
}

// prepare deploys the workflows and fills the accounts.
func (l *load) prepare() {
	rng := chanceOf(l.w.options.Seed, streamClients)
	for _, name := range slices.Sorted(maps.Keys(workflows)) {
		if a, ok := l.insist(rng, request{method: "PUT", path: "/v1/workflows/" + name, body: workflows[name]}); ok && a.status >= 300 {
			l.w.fail("deploy %s: %d %s", name, a.status, a.body)
			return
		}
	}
	var ops []string
	for i := range accountCount {
		ops = append(ops, fmt.Sprintf(`{"op":"put","table":"a","key":"a%d","value":%d}`, i, balance))
	}
	if a, ok := l.insist(rng, request{method: "POST", path: "/v1/txn", body: `{"ops":[` + strings.Join(ops, ",") + `]}`, key: "fill"}); ok && a.status != http.StatusOK {
		l.w.fail("fill the accounts: %d %s", a.status, a.body)
	}
}

// run is all clients, until they have begun their transactions.
func (l *load) run() {
	var clients sync.WaitGroup
	for c := range clientCount {
		clients.Go(func() { l.client(c) })
	}
	clients.Wait()
}

func (l *load) client(c int) {
	rng := chanceOf(l.w.options.Seed, streamClients+1+uint64(c))
	think := span{0, 2 * time.Millisecond}
	for n := 0; ; n++ {
		pause := think.draw(rng)
		if rng.IntN(burstLength) == 0 {
			pause += l.w.untilBurst()
		}
		l.mu.Lock()
		l.begun++
		over := l.begun > l.w.options.Txns
		l.mu.Unlock()
		if over || !l.w.sleep(pause) {
			return
		}
		key := ""
		if rng.IntN(5) < 3 {
			key = fmt.Sprintf("c%d-%d", c, n)
		}
		if rng.IntN(4) == 0 {
			l.pay(rng, key)
		} else {
			l.one(rng, c, key)
		}
	}
}

// pay moves money.
func (l *load) pay(rng *rand.Rand, key string) {
	from := rng.IntN(accountCount)
	body, err := json.Marshal(payment{"a" + strconv.Itoa(from), "a" + strconv.Itoa((from+1+rng.IntN(accountCount-1))%accountCount), 1 + rng.Int64N(9)})
	if err != nil {
		l.w.fail("payment: %v", err)
		return
	}
	r := request{method: "POST", path: "/v1/workflows/pay/invoke", body: string(body), key: key}
	if rng.IntN(3) == 0 {
		r.path = "/v1/functions/transfer/run/invoke" // its keys are not declared
	}
	if a, ok := l.try(rng, r); ok && a.status == http.StatusOK {
		l.mu.Lock()
		l.paid++
		l.mu.Unlock()
	}
}

// try sends a request once, or until it is answered if it has a key. False means
// that its outcome is unknown.
func (l *load) try(rng *rand.Rand, r request) (reply, bool) {
	l.w.log.Debug("request", "key", r.key, "path", r.path)
	var a reply
	sent := true
	if r.key == "" {
		a, sent = l.send(l.w.gateways[rng.IntN(gatewayCount)], r, patience.draw(rng))
	} else if a, sent = l.insist(rng, r); sent && a.status == http.StatusOK {
		l.mu.Lock()
		l.answered = append(l.answered, answered{r, string(a.body)})
		l.mu.Unlock()
	}
	switch {
	case !sent && r.key == "":
		return reply{status: http.StatusServiceUnavailable}, true // it was never sent
	case a.status == 0 || a.status >= 500 && !(a.status == http.StatusGatewayTimeout && bytes.Contains(a.body, []byte("unchanged"))):
		l.w.count("unknown outcomes", 1)
		return a, false
	case a.status == http.StatusOK:
		l.w.count("committed", 1)
	case a.status == http.StatusGatewayTimeout || a.status == http.StatusConflict || a.status == http.StatusTooManyRequests:
		l.w.count("failed", 1)
	default:
		l.w.fail("%s %s with key %q: %d %s", r.path, r.body, r.key, a.status, a.body)
	}
	return a, true
}

// steps draws operations.
func (l *load) steps(rng *rand.Rand) []step {
	out := make([]step, 1+rng.IntN(4))
	for i := range out {
		switch n := rng.IntN(100); {
		case n < 40:
			l.mu.Lock()
			l.element++
			out[i] = step{check.Append, "l" + strconv.Itoa(rng.IntN(listCount)), l.element}
			l.mu.Unlock()
		case n < 80:
			out[i] = step{Kind: check.Read, Key: "l" + strconv.Itoa(rng.IntN(listCount))}
		case n < 87:
			out[i] = step{check.Add, "c" + strconv.Itoa(rng.IntN(counterCount)), 1 + rng.Int64N(9)}
		case n < 94:
			out[i] = step{Kind: check.ReadCounter, Key: "c" + strconv.Itoa(rng.IntN(counterCount))}
		default:
			out[i] = step{Kind: check.Scan, Key: "l"}
		}
	}
	return out
}

// one draws a transaction over lists and counters, runs it and records it.
func (l *load) one(rng *rand.Rand, client int, key string) {
	s := script{A: l.steps(rng), Reads: []string{}, Writes: []string{}, Abort: rng.IntN(15) == 0}
	r := request{method: "POST", key: key}
	form := rng.IntN(10)
	switch {
	case form < 4:
		r.path, s.Abort = "/v1/txn", false
		r.body = opsOf(s.A)
	case form < 7:
		r.path = "/v1/workflows/declared/invoke"
		for _, st := range s.A {
			switch st.Kind {
			case check.Read:
				s.Reads = append(s.Reads, st.Key)
			case check.Append:
				s.Writes = append(s.Writes, st.Key)
			default:
			}
		}
	case form < 8:
		r.path = "/v1/workflows/parallel/invoke"
		s.B = l.steps(rng)
	default:
		r.path = "/v1/functions/a/run/invoke"
	}
	if r.body == "" {
		raw, err := json.Marshal(s)
		if err != nil {
			l.w.fail("script: %v", err)
			return
		}
		r.body = string(raw)
	}
	t := check.Txn{Client: client, Call: l.w.now().Nanoseconds(), Outcome: check.OK}
	a, known := l.try(rng, r)
	t.Return = l.w.now().Nanoseconds()
	switch {
	case !known:
		t.Outcome = check.Unknown
	case a.status != http.StatusOK:
		t.Outcome = check.Failed
	}
	var err error
	if t.Ops, err = operations(&s, form, t.Outcome == check.OK, a.body); err != nil {
		l.w.fail("%s answers %s: %v", r.path, a.body, err)
	}
	l.keep(t)
}

func (l *load) keep(t check.Txn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.ID = len(l.history) + 1
	l.history = append(l.history, t)
}

// opsOf is steps as the body of /v1/txn; scans become reads.
func opsOf(steps []step) string {
	var ops []string
	for i := range steps {
		s := &steps[i]
		switch s.Kind {
		case check.Scan:
			s.Kind, s.Key = check.Read, s.Key+"0"
			fallthrough
		case check.Read:
			ops = append(ops, fmt.Sprintf(`{"op":"get","table":"l","key":%q}`, s.Key))
		case check.Append:
			ops = append(ops, fmt.Sprintf(`{"op":"append","table":"l","key":%q,"value":%d}`, s.Key, s.Element))
		case check.Add:
			ops = append(ops, fmt.Sprintf(`{"op":"add","table":"c","key":%q,"value":%d}`, s.Key, s.Element))
		case check.ReadCounter:
			ops = append(ops, fmt.Sprintf(`{"op":"get","table":"c","key":%q}`, s.Key))
		}
	}
	return `{"ops":[` + strings.Join(ops, ",") + `]}`
}

// finals reads every key in one transaction: what was lost shows then.
func (l *load) finals() []step {
	var steps []step
	for i := range listCount {
		steps = append(steps, step{Kind: check.Read, Key: "l" + strconv.Itoa(i)})
	}
	for i := range counterCount {
		steps = append(steps, step{Kind: check.ReadCounter, Key: "c" + strconv.Itoa(i)})
	}
	return steps
}
