package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// probePause is between the answer to a probe and the next one.
	probePause = 25 * time.Millisecond
	// probePatience bounds one try: a gateway that is cut off never answers.
	probePatience = 6 * time.Second
)

// probe is one stream of requests for one key through one gateway, one request at
// a time. It shows when that key is served and when not. The key is nobody else's,
// so its lease stays on the worker that gateways send it to.
type probe struct {
	key, gateway string
	write        bool

	mu      sync.Mutex
	answers []time.Time // since the last fault
}

func (p *probe) String() string {
	kind := "reads"
	if p.write {
		kind = "writes"
	}
	return fmt.Sprintf("%s of %s through %s", kind, p.key, p.gateway)
}

// run sends requests to the gateway at url until stop is closed.
func (p *probe) run(client *http.Client, url string, stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		if p.once(client, url+"/v1/state/probes/"+p.key) {
			p.mu.Lock()
			p.answers = append(p.answers, time.Now())
			p.mu.Unlock()
		}
		timer.Reset(probePause)
	}
}

// once says whether a request was answered.
func (p *probe) once(client *http.Client, url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if p.write {
		method, body = http.MethodPut, strings.NewReader("1")
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err == nil && resp.StatusCode < 300
}

// begin forgets the answers before now.
func (p *probe) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = nil
}

// since is how many answers there were after a moment.
func (p *probe) since(moment time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		if a.After(moment) {
			n++
		}
	}
	return n
}

// longest is the longest time without an answer, from a moment on, and when it
// began.
func (p *probe) longest(from time.Time) (gap time.Duration, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		if !a.After(from) {
			continue
		}
		if d := a.Sub(from); d > gap {
			gap, began = d, from
		}
		from = a
	}
	return gap, began
}

// holderOf asks where a key lives: the worker that holds its lease, or "".
func holderOf(t *testing.T, url, key string) string {
	t.Helper()
	var l struct{ Holder string }
	status, body, _ := do(t, http.MethodGet, url+"/v1/leases/probes/"+key, "", "")
	if err := json.Unmarshal([]byte(body), &l); err != nil || status != http.StatusOK {
		t.Fatalf("the lease of %s: %d %s %v", key, status, body, err)
	}
	return l.Holder
}

// addProbes finds two keys for each worker that live there, and makes the probes of
// them through each gateway: one key is read, the other written, because a read
// waits until what it has seen is durable.
func (c *faultyCluster) addProbes() {
	url, found := c.gateways[0].said, map[string]int{}
	for i := 0; len(c.probes) < 2*len(c.gateways)*len(c.workers); i++ {
		if i == 100 {
			c.t.Fatalf("of %d keys less than two live on some worker: %v", i, found)
		}
		key := fmt.Sprint("p", i)
		expect(c.t, http.StatusNoContent, "", http.MethodPut, url+"/v1/state/probes/"+key, "", "1")
		at := holderOf(c.t, url, key)
		if found[at]++; at == "" || found[at] > 2 {
			continue
		}
		for _, g := range c.gateways {
			c.probes = append(c.probes, &probe{key: key, gateway: g.name, write: found[at] == 2})
		}
	}
}

// locate says where the keys of the probes live now: after a write each is at the
// worker that gateways send it to, and nowhere else. When a worker has just come
// back keys may move: it looks until they are where they were before, for both
// gateways, and on all workers.
func (c *faultyCluster) locate() map[string]string {
	var before map[string]string
	for began := time.Now(); ; time.Sleep(probePause) {
		at, everywhere, moved := map[string]string{}, map[string]bool{}, false
		for _, p := range c.probes {
			url := c.urlOf(p)
			expect(c.t, http.StatusNoContent, "", http.MethodPut, url+"/v1/state/probes/"+p.key, "", "1")
			holder := holderOf(c.t, url, p.key)
			moved = moved || at[p.key] != "" && at[p.key] != holder
			at[p.key], everywhere[holder] = holder, true
		}
		if !moved && maps.Equal(at, before) && !everywhere[""] && len(everywhere) == len(c.workers) {
			return at
		}
		if time.Since(began) > time.Minute {
			c.t.Fatalf("the keys of the probes do not return to all workers: %v", at)
		}
		before = at
	}
}

// urlOf is the gateway of a probe.
func (c *faultyCluster) urlOf(p *probe) string {
	return c.gateways[slices.IndexFunc(c.gateways, func(g *process) bool { return g.name == p.gateway })].said
}
