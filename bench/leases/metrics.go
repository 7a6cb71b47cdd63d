package leases

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settledWaits are the waits that all workers but one have counted until now, or all.
// Gateways ask the workers now and then: that is over when two answers a while apart
// are equal.
func (c *cluster) settledWaits(ctx context.Context, but string) (w histogram, err error) {
	const apart = 2500 * time.Millisecond // twice as long as the gateway waits, and more
	for deadline := time.Now().Add(settleTimeout); time.Now().Before(deadline); {
		before := w
		if w, err = c.waits(ctx, but); err != nil {
			return w, err
		}
		if before.below != nil && w.count == before.count {
			return w, nil
		}
		select {
		case <-time.After(apart):
		case <-ctx.Done():
			return w, ctx.Err()
		}
	}
	return w, fmt.Errorf("the workers count waits although nothing is sent, for %v", settleTimeout)
}

func (c *cluster) waits(ctx context.Context, but string) (histogram, error) {
	text, err := c.do(ctx, 0, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return histogram{}, err
	}
	return readHistogram(text, "tenure_lease_wait_seconds", but)
}

// histogram is one of Prometheus, all its series added up. Times are in seconds.
type histogram struct {
	// below counts what is not above a limit.
	below map[float64]uint64
	count uint64
	sum   float64
}

// readHistogram reads a histogram in Prometheus' text form, without the series of one
// worker.
func readHistogram(text []byte, name, but string) (histogram, error) {
	h := histogram{below: map[float64]uint64{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		rest, ours := strings.CutPrefix(lines.Text(), name+"_")
		labels, value, ok := strings.Cut(rest, "} ")
		if !ours || !ok || strings.Contains(labels, fmt.Sprintf("{worker=%q", but)) {
			continue
		}
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return h, fmt.Errorf("metric %s: %w", lines.Text(), err)
		}
		switch kind, labels, _ := strings.Cut(labels, "{"); kind {
		case "count":
			h.count += uint64(x)
		case "sum":
			h.sum += x
		case "bucket":
			_, limit, _ := strings.Cut(labels, `le="`)
			le, err := strconv.ParseFloat(strings.TrimSuffix(limit, `"`), 64)
			if err != nil {
				return h, fmt.Errorf("metric %s: %w", lines.Text(), err)
			}
			h.below[le] += uint64(x)
		}
	}
	return h, lines.Err()
}

func (h histogram) minus(o histogram) histogram {
	d := histogram{below: map[float64]uint64{}, count: h.count - o.count, sum: h.sum - o.sum}
	for limit, n := range h.below {
		d.below[limit] = n - o.below[limit]
	}
	return d
}

// quantile finds the bucket of a quantile: where the quantile is if the bucket is
// filled evenly, and the limits of the bucket, in microseconds.
func (h histogram) quantile(q float64) (at, over, upTo float64) {
	var limits []float64
	for limit := range h.below {
		limits = append(limits, limit)
	}
	slices.SortFunc(limits, cmp.Compare[float64])
	want, last := q*float64(h.count), uint64(0)
	for _, limit := range limits {
		n := h.below[limit]
		if upTo = limit; float64(n) >= want && n > last {
			break
		}
		over, last = limit, n
	}
	if math.IsInf(upTo, 1) {
		return over * 1e6, over * 1e6, upTo
	}
	part := (want - float64(last)) / float64(h.below[upTo]-last)
	return (over + part*(upTo-over)) * 1e6, over * 1e6, upTo * 1e6
}
