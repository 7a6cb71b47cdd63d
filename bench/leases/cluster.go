package leases

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/bench"
)

const (
	// startTimeout bounds the start of a process, requestTimeout each request, and
	// settleTimeout what takes several.
	startTimeout   = time.Minute
	requestTimeout = 30 * time.Second
	settleTimeout  = 2 * time.Minute
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 8 << 20
	// bulk is how many keys a bulk transaction writes.
	bulk = 1000
	// keyTable is where all keys are.
	keyTable = "accounts"
)

// cluster is a cluster of processes. Its methods are safe for concurrent use but
// start, kill and stop.
type cluster struct {
	options  *Options
	provider string
	dir      string
	control  *bench.Child
	workers  map[string]*bench.Child
	gateways []*bench.Child
	client   *http.Client
}

// startCluster starts a cluster with workers w1 to wN. After an error there is none.
func startCluster(ctx context.Context, o *Options, provider string, workers, gateways int) (_ *cluster, err error) {
	c := &cluster{options: o, provider: provider, workers: map[string]*bench.Child{}}
	transport := &http.Transport{MaxIdleConnsPerHost: o.Clients + 16, DisableCompression: true}
	c.client = &http.Client{Transport: transport, Timeout: requestTimeout}
	if c.dir, err = os.MkdirTemp(o.Dir, "tenure-bench-"); err != nil {
		return nil, fmt.Errorf("directory for the cluster's data: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.control, err = c.start(ctx, "leasemgr", "leasemgr", "--listen", "127.0.0.1:0", "--data", filepath.Join(c.dir, "store")); err != nil {
		return nil, err
	}
	for i := range workers {
		if err := c.join(ctx, fmt.Sprintf("w%d", i+1)); err != nil {
			return nil, err
		}
	}
	for i := range gateways {
		g, err := c.start(ctx, fmt.Sprintf("gateway %d", i+1), "gateway", "--leasemgr", c.control.URL, "--listen", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		c.gateways = append(c.gateways, g)
	}
	return c, nil
}

func (c *cluster) start(ctx context.Context, name, role string, args ...string) (*bench.Child, error) {
	command := c.options.Command(role)
	return bench.StartChild(ctx, startTimeout, name, command[0], append(command[1:len(command):len(command)], args...)...)
}

// join starts a worker and returns when it is a member.
func (c *cluster) join(ctx context.Context, name string) error {
	w, err := c.start(ctx, "worker "+name, "worker", "--leasemgr", c.control.URL, "--name", name, "--provider", c.provider)
	if err == nil {
		c.workers[name] = w
	}
	return err
}

// stop ends all processes, gateways first, and removes their data.
func (c *cluster) stop() error {
	c.client.CloseIdleConnections()
	for _, g := range c.gateways {
		g.Stop()
	}
	for _, w := range c.workers {
		w.Stop()
	}
	if c.control != nil {
		c.control.Stop()
	}
	return os.RemoveAll(c.dir)
}

// do sends a request to a gateway and reads an answer that is not a problem.
func (c *cluster) do(ctx context.Context, gateway int, method, path, kind string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.gateways[gateway].URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// put writes keys in one transaction.
func (c *cluster) put(ctx context.Context, gateway int, keys ...string) error {
	_, err := c.do(ctx, gateway, http.MethodPost, "/v1/txn", "application/json", appendPuts(nil, keys))
	return err
}

// appendPuts renders a transaction that writes keys.
func appendPuts(dst []byte, keys []string) []byte {
	dst = append(dst, `{"ops":[`...)
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, `{"op":"put","table":%q,"key":%q,"value":1000000}`, keyTable, k)
	}
	return append(dst, `]}`...)
}

// load writes the keys named of 0 to n-1 in bulk.
func (c *cluster) load(ctx context.Context, name func(int) string, n int) error {
	const lines = 20_000 // of one request
	var body []byte
	for first := 0; first < n; first += lines {
		body = body[:0]
		for i := first; i < min(first+lines, n); i++ {
			body = fmt.Appendf(body, "{\"table\":%q,\"key\":%q,\"value\":1000000}\n", keyTable, name(i))
		}
		if _, err := c.do(ctx, 0, http.MethodPost, "/v1/state", "application/x-ndjson", body); err != nil {
			return err
		}
	}
	return nil
}

// owner is what is told of a key's lease.
type owner struct{ Holder, Home string }

func (c *cluster) owner(ctx context.Context, key string) (o owner, err error) {
	answer, err := c.do(ctx, 0, http.MethodGet, "/v1/leases/"+keyTable+"/"+key, "", nil)
	if err == nil {
		err = json.Unmarshal(answer, &o)
	}
	return o, err
}

// find returns the first key of a series that is written and then is as wanted. A
// key's home and the worker that the gateway sends it to follow from its hash.
func (c *cluster) find(ctx context.Context, series string, want func(owner) bool) (string, error) {
	const most = 1000
	for i := range most {
		key := fmt.Sprintf("%s%d", series, i)
		if err := c.put(ctx, 0, key); err != nil {
			return "", err
		}
		o, err := c.owner(ctx, key)
		if err != nil {
			return "", err
		}
		if want(o) {
			return key, nil
		}
	}
	return "", fmt.Errorf("none of %d keys %s* is where it is wanted: does the gateway reach all workers?", most, series)
}

// await repeats what may fail at first, and returns its last error after
// settleTimeout.
func await(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; given up: %w", err, ctx.Err())
		case <-tick.C:
		}
	}
}

// awaitMembers waits until all gateways know n members.
func (c *cluster) awaitMembers(ctx context.Context, n int) error {
	for g := range c.gateways {
		err := await(ctx, func() error {
			answer, err := c.do(ctx, g, http.MethodGet, "/v1/cluster", "", nil)
			var told struct{ Workers []struct{ ID string } }
			if err == nil {
				err = json.Unmarshal(answer, &told)
			}
			if err == nil && len(told.Workers) != n {
				err = fmt.Errorf("gateway %d knows %d members, want %d", g+1, len(told.Workers), n)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// loadAverage is that of the system, as it tells; empty where it does not.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
