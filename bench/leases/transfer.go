package leases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Transfer is one round of a key that alternates between two workers whose home is a
// third. Times are medians, in microseconds.
type Transfer struct {
	Provider string `json:"provider"`
	Load     string `json:"load_average"`
	// Transfers were made; Waits were counted by the workers meanwhile, of which
	// there should be as many.
	Transfers int    `json:"transfers"`
	Waits     uint64 `json:"waits"`
	// Lease is what the worker waited for the lease, from asking for it until the
	// transaction went on: a place within a bucket of the worker's histogram, whose
	// limits are Over and UpTo. Mean is of the same waits, and exact. P90 is the upper
	// limit of a bucket.
	Lease float64 `json:"lease_p50_us"`
	Over  float64 `json:"lease_p50_over_us"`
	UpTo  float64 `json:"lease_p50_up_to_us"`
	P90   float64 `json:"lease_p90_us"`
	Mean  float64 `json:"lease_mean_us"`
	// Moved is a whole transaction at a worker that has to fetch the lease, Held one
	// at a worker that has it, both as a client of the gateway sees them, durable.
	Moved float64 `json:"moved_p50_us"`
	Held  float64 `json:"held_p50_us"`
	// Echo is a bare round trip over a TCP connection between two processes.
	Echo float64 `json:"echo_p50_us"`
}

// mover is a cluster with a key that moves.
type mover struct {
	*cluster
	ping *pinger
	// moving is the key, at[i] a key that w1 or w2 holds: a transaction that names it
	// first goes there.
	moving string
	at     [2]string
}

// transfers measures the rounds over one provider.
func (s *suite) transfers(ctx context.Context, provider string) (err error) {
	c, err := startCluster(ctx, s.options, provider, 3, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	echo, err := c.start(ctx, "echo", "echo")
	if err != nil {
		return err
	}
	defer echo.Stop()
	m := &mover{cluster: c}
	if m.ping, err = newPinger(echo.URL); err != nil {
		return err
	}
	defer m.ping.conn.Close() //nolint:errcheck // nothing is in it
	if err := c.awaitMembers(ctx, 3); err != nil {
		return err
	}
	if m.moving, err = c.find(ctx, "moving", func(o owner) bool { return o.Home == "w3" }); err != nil {
		return err
	}
	for i := range m.at {
		name := fmt.Sprintf("w%d", i+1)
		if m.at[i], err = c.find(ctx, "at-"+name+"-", func(o owner) bool { return o.Holder == name }); err != nil {
			return err
		}
	}
	for range 10 { // what is fetched or built once
		if _, err := m.round(ctx, 10); err != nil {
			return err
		}
	}
	for round := 1; round <= s.options.Rounds; round++ {
		s.step(fmt.Sprintf("transfer over %s, round %d", provider, round))
		t, err := m.measure(ctx, s.options.Transfers)
		if err != nil {
			return err
		}
		s.report.Transfers = append(s.report.Transfers, *t)
	}
	return nil
}

// latencies are of nanoseconds.
func latencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(requestTimeout), 3)
}

// median of latencies, in microseconds.
func median(h *hdrhistogram.Histogram) float64 { return float64(h.ValueAtQuantile(50)) / 1e3 }

func timed(h *hdrhistogram.Histogram, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	return h.RecordValue(min(int64(time.Since(start)), int64(requestTimeout)))
}

// round moves the key n times, n even, and returns how long transactions took that
// moved it and such that found it where they were, and bare round trips.
func (m *mover) round(ctx context.Context, n int) (h [3]*hdrhistogram.Histogram, err error) {
	for i := range h {
		h[i] = latencies()
	}
	for i := range n {
		put := func() error { return m.put(ctx, 0, m.at[i%2], m.moving) }
		for _, x := range []struct {
			h  *hdrhistogram.Histogram
			do func() error
		}{{h[0], put}, {h[1], put}, {h[2], m.ping.ping}} {
			if err := timed(x.h, x.do); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

func (m *mover) measure(ctx context.Context, n int) (*Transfer, error) {
	before, err := m.settledWaits(ctx, "")
	if err != nil {
		return nil, err
	}
	h, err := m.round(ctx, n)
	if err != nil {
		return nil, err
	}
	t := &Transfer{Provider: m.provider, Load: loadAverage(), Transfers: n, Moved: median(h[0]), Held: median(h[1]), Echo: median(h[2])}
	after, err := m.settledWaits(ctx, "")
	if err != nil {
		return nil, err
	}
	w := after.minus(before)
	if w.count == 0 {
		return nil, fmt.Errorf("the key moved %d times, and no worker has counted a wait", n)
	}
	t.Waits, t.Mean = w.count, w.sum/float64(w.count)*1e6
	t.Lease, t.Over, t.UpTo = w.quantile(0.5)
	_, _, t.P90 = w.quantile(0.9)
	return t, nil
}
