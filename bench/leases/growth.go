package leases

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Growth is one round of a cluster of two workers under load which a third joins,
// and leaves when it is drained.
type Growth struct {
	Load string `json:"load_average"`
	// Windows are the transactions that ended in each window, a second.
	Windows []float64 `json:"windows_per_second"`
	// OK were answered; Failed were not, or with another status than 200: Errors has
	// the first of them, with the window that they ended in.
	OK     int64    `json:"ok"`
	Failed int64    `json:"failed"`
	Errors []string `json:"errors,omitempty"`
	Join   Change   `json:"join"`
	Drain  Change   `json:"drain"`
	// Calm is Settled of the phase before the join, in which nothing happens: what
	// Settled is by the noise of the machine alone.
	Calm time.Duration `json:"calm_settled_ns"`
}

// Change is one event of a Growth.
type Change struct {
	// Window is the one in which the event began: the worker's process is started,
	// or it is asked to leave. Took is until it had joined or left.
	Window int           `json:"window"`
	Took   time.Duration `json:"took_ns"`
	// Before and After are levels: the median of the windows in the second half of
	// the phase before and after, a second.
	Before float64 `json:"before_per_second"`
	After  float64 `json:"after_per_second"`
	// Back is the mean from 5 s after the event's beginning to half of the phase, as
	// a fraction of After; 0 if half of the phase is not longer than that.
	Back float64 `json:"back"`
	// Reached is from the event's beginning until the first mean of four windows that
	// is not more than a tenth below After, Settled until all are within a tenth of it,
	// to the end of the phase: the noise of the machine decides that, see Calm.
	Reached time.Duration `json:"reached_ns"`
	Settled time.Duration `json:"settled_ns"`
	// Least is the lowest window of the phase after, a second.
	Least float64 `json:"least_per_second"`
}

const (
	// within is how far from its level throughput may be.
	within = 0.1
	// smooth is how many windows a mean is of.
	smooth = 4
)

func growth(ctx context.Context, o *Options, provider string) (_ *Growth, err error) {
	c, err := startCluster(ctx, o, provider, 2, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.awaitMembers(ctx, 2); err != nil {
		return nil, err
	}
	if err := c.load(ctx, keyName, o.Accounts); err != nil {
		return nil, err
	}
	g := &Growth{Load: loadAverage()}
	loading, stop := context.WithCancel(ctx)
	m := &traffic{cluster: c, growth: g}
	var clients sync.WaitGroup
	for client := range o.Clients {
		clients.Go(func() { m.transfer(loading, client) })
	}
	err = m.phases(ctx)
	stop()
	clients.Wait()
	if err != nil {
		return nil, err
	}
	g.OK = m.done.Load()
	g.judge(&g.Join, g.Drain.Window, o.Window)
	g.judge(&g.Drain, len(g.Windows), o.Window)
	g.Calm = time.Duration(settled(meansOf(g.Windows[:g.Join.Window]), g.Join.Before)) * o.Window
	return g, nil
}

// traffic is the load of a growth.
type traffic struct {
	*cluster
	// done counts transactions, window the windows that are over.
	done, window atomic.Int64

	mu     sync.Mutex // guards Failed and Errors of growth
	growth *Growth
}

// transfer moves money between random accounts until ctx ends, through the gateways
// in turns: two counter operations of one transaction, which always succeed.
func (m *traffic) transfer(ctx context.Context, client int) {
	const mostErrors = 5
	var body []byte
	for n := client; ctx.Err() == nil; n++ {
		from := rand.IntN(m.options.Accounts)
		to := (from + 1 + rand.IntN(m.options.Accounts-1)) % m.options.Accounts
		body = fmt.Appendf(body[:0], `{"ops":[{"op":"add","table":%q,"key":%q,"value":-1},{"op":"add","table":%q,"key":%q,"value":1}]}`,
			keyTable, keyName(from), keyTable, keyName(to))
		// The last request of a client ends, too: its outcome counts.
		_, err := m.do(context.WithoutCancel(ctx), n%len(m.gateways), http.MethodPost, "/v1/txn", "application/json", body)
		if err == nil {
			m.done.Add(1)
			continue
		}
		m.mu.Lock()
		if m.growth.Failed++; len(m.growth.Errors) < mostErrors {
			m.growth.Errors = append(m.growth.Errors, fmt.Sprintf("window %d: %v", m.window.Load()+1, err))
		}
		m.mu.Unlock()
	}
}

// phases counts windows, and makes the events.
func (m *traffic) phases(ctx context.Context) error {
	o, g := m.options, m.growth
	each := int(o.Phase / o.Window)
	g.Join.Window, g.Drain.Window = each, 2*each
	var events sync.WaitGroup
	defer events.Wait()
	var joined, drained error
	tick := time.NewTicker(o.Window)
	defer tick.Stop()
	start, before := time.Now(), int64(0)
	m.done.Store(0)
	for n := range 3 * each {
		switch n {
		case each:
			events.Go(func() { joined = took(&g.Join.Took, func() error { return m.join(ctx, "w3") }) })
		case 2 * each:
			events.Wait() // a worker that has not joined cannot be drained
			if joined != nil {
				return joined
			}
			events.Go(func() {
				drained = took(&g.Drain.Took, func() error {
					_, err := m.do(ctx, 0, http.MethodPost, "/v1/workers/w3/drain", "", nil)
					return err
				})
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now, done := time.Now(), m.done.Load()
		g.Windows = append(g.Windows, float64(done-before)/now.Sub(start).Seconds())
		start, before = now, done
		m.window.Store(int64(n + 1))
	}
	events.Wait()
	return drained
}

func took(d *time.Duration, do func() error) error {
	start := time.Now()
	err := do()
	*d = time.Since(start)
	return err
}

// judge finds the levels around a change, whose phase ends before window end.
func (g *Growth) judge(c *Change, end int, window time.Duration) {
	phase := end - c.Window
	c.Before = level(g.Windows[c.Window-phase/2 : c.Window])
	after := g.Windows[c.Window:end]
	c.After, c.Least = level(after[phase/2:]), slices.Min(after)
	if c.After > 0 { // else there is nothing to come back to, and Back says so
		c.Back = mean(after[min(int(askReturn/window), phase/2):phase/2]) / c.After
	}
	means := meansOf(after)
	c.Settled = time.Duration(settled(means, c.After)) * window
	reached := slices.IndexFunc(means, func(x float64) bool { return x >= (1-within)*c.After })
	if reached < 0 {
		reached = phase
	}
	c.Reached = time.Duration(reached) * window
}

// mean of windows, 0 of none.
func mean(windows []float64) float64 {
	sum := 0.0
	for _, x := range windows {
		sum += x
	}
	return sum / float64(max(1, len(windows)))
}

// meansOf are the means of each run of windows.
func meansOf(windows []float64) (means []float64) {
	for i := range len(windows) - smooth + 1 {
		means = append(means, mean(windows[i:i+smooth]))
	}
	return means
}

// level is the median of windows.
func level(windows []float64) float64 {
	sorted := slices.Sorted(slices.Values(windows))
	return sorted[len(sorted)/2]
}

// settled is the first of the windows from which on all are near the level.
func settled(windows []float64, level float64) int {
	for i := len(windows) - 1; i >= 0; i-- {
		if math.Abs(windows[i]-level) > within*level {
			return i + 1
		}
	}
	return 0
}
