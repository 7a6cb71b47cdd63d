// Package verbs measures a provider of one-sided verbs: the latency of each verb
// alone, its rate alone and in batches, and the round trip of a doorbell.
//
//	┌ node A (measures) ┐  READ WRITE CAS FAA      ┌ node B ┐
//	│ region, queue pair│ ───────────────────────► │ region │
//	│                   │ ◄─── doorbell ────────── │ Answer │  answers doorbells only
//	└───────────────────┘                          └────────┘
//
// Both nodes are in this process (Run), or B is another process that was started
// with Serve, here or on another machine (Connect): what perftest's programs
// are for libibverbs. Addresses are exchanged over gRPC then.
//
// Invariants: the cases take turns in short rounds, so that a machine that
// becomes slower does so for all of them; every wait is bounded, also for a
// doorbell that does not come back; a failed verb ends the run. A verb faster
// than a few microseconds is timed in groups, because reading the clock would be
// a good part of it; the report says so. From the others the time that it takes
// to read the clock once is subtracted: in a virtual machine that may be
// microseconds.
package verbs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tenure-faas/tenure/rdma"
)

// Options say what is measured.
type Options struct {
	// Size of READ and WRITE, in bytes; 0 means 64.
	Size int
	// Batch is how many requests a batch has; 0 means 64.
	Batch int
	// Duration of each case, in all rounds together; 0 means one second.
	Duration time.Duration
	// Spin is how long a wait looks before it sleeps; see
	// rdma.CompletionQueueOptions.
	Spin time.Duration
	// Echo also measures a bare TCP echo of Size bytes over loopback.
	Echo bool
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.Size == 0 {
		o.Size = 64
	}
	if o.Batch == 0 {
		o.Batch = 64
	}
	if o.Duration == 0 {
		o.Duration = time.Second
	}
}

// Limits of Options.
const (
	maxSize  = 1 << 20
	maxBatch = 1024
	rounds   = 10
	// opTimeout bounds the wait for any single completion, and that for all verbs
	// between two readings of the clock.
	opTimeout = 10 * time.Second
)

// Validate says what is out of range.
func (o *Options) Validate() error {
	if o.Size < 1 || o.Size > maxSize || o.Batch < 1 || o.Batch > maxBatch || o.Duration < 0 || o.Spin < 0 {
		return fmt.Errorf("bench verbs: size %d (1..%d bytes), batch %d (1..%d), duration %v, spin %v", o.Size, maxSize, o.Batch, maxBatch, o.Duration, o.Spin)
	}
	return nil
}

// Opener opens the provider under test for a node of this name.
type Opener func(name string) (rdma.Provider, error)

// Run measures between two nodes of this process.
func Run(ctx context.Context, open Opener, o Options) (report *Report, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b, err := newNode(open, "b", o)
	if err != nil {
		return nil, err
	}
	defer closeAfter(b, &err)
	a, err := newNode(open, "a", o)
	if err != nil {
		return nil, err
	}
	defer closeAfter(a, &err)
	if err := b.qp.Accept(a.qp.Address()); err != nil {
		return nil, err
	}
	if err := a.qp.Connect(ctx, b.qp.Address()); err != nil {
		return nil, err
	}
	stop := b.answer(a.region.Remote())
	report, err = measure(ctx, a, b.region.Remote(), o)
	if err = errors.Join(err, stop()); err != nil {
		return nil, err
	}
	return report, nil
}

// closeAfter closes a node and keeps the first error.
func closeAfter(n *node, err *error) {
	if closeErr := n.close(); *err == nil {
		*err = closeErr
	}
}

// measure runs all cases from a against the remote region.
func measure(ctx context.Context, a *node, remote rdma.RemoteRegion, o Options) (*Report, error) {
	report := &Report{Provider: a.provider.Name(), Size: o.Size, Batch: o.Batch, Clock: clockCost()}
	cases := casesOf(a, remote, o)
	if o.Echo {
		e, err := newEcho(o.Size)
		if err != nil {
			return nil, err
		}
		defer e.close()
		cases = append([]*benchCase{e.benchCase()}, cases...)
	}
	for _, c := range cases {
		if err := c.calibrate(ctx); err != nil {
			return nil, err
		}
	}
	for range rounds {
		for _, c := range cases {
			if err := c.round(ctx, o.Duration/rounds/2, report.Clock); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range cases {
		report.Rows = append(report.Rows, c.row())
	}
	return report, nil
}

// benchCase is one verb.
type benchCase struct {
	name string
	// size in bytes, for the report.
	size int
	// one does the verb once and waits for it.
	one func(context.Context) error
	// many does it batch times with one post and one wait; nil if that makes no
	// sense.
	many  func(context.Context) error
	batch int
	// patience bounds how much longer than planned calibration and a round of single
	// verbs may take. Batches need no bound: they wait for completions of own
	// requests, which all end in time.
	patience time.Duration
	// bound is for a case whose waits do not end with the context; nil otherwise.
	bound func(deadline time.Time) error

	group     int // verbs per reading of the clock
	latency   *hdrhistogram.Histogram
	single    rate
	batched   rate
	perRounds []float64 // median latency of each round, in nanoseconds
}

// rate counts what was done in which time.
type rate struct {
	done int
	took time.Duration
}

func (r rate) perSecond() float64 {
	if r.took == 0 {
		return 0
	}
	return float64(r.done) / r.took.Seconds()
}

// groupBelow is the latency below which verbs are timed in groups of groupSize.
const (
	groupBelow = 3 * time.Microsecond
	groupSize  = 32
)

// calibrate warms up and decides whether the clock is read for every verb.
func (c *benchCase) calibrate(ctx context.Context) error {
	const warm = 50
	c.latency = hdrhistogram.New(1, int64(opTimeout), 3)
	ctx, cancel, err := c.patiently(ctx, 0)
	if err != nil {
		return err
	}
	defer cancel()
	took, err := c.times(ctx, warm)
	c.group = 1
	if took/warm < groupBelow {
		c.group = groupSize
	}
	return err
}

// patiently bounds what takes d: it ends within the patience of the case after
// that. Made once for many verbs, because a context and its timer cost as much as
// one.
func (c *benchCase) patiently(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc, error) {
	deadline := time.Now().Add(d + c.patience)
	if c.bound != nil {
		if err := c.bound(deadline); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	return ctx, cancel, nil
}

// times does n verbs one by one and returns the time that they took.
func (c *benchCase) times(ctx context.Context, n int) (time.Duration, error) {
	start := time.Now()
	for range n {
		if err := c.one(ctx); err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return time.Since(start), nil
}

// clockCost is the median of the time between two readings of the clock with
// nothing between.
func clockCost() time.Duration {
	costs := make([]time.Duration, 1001)
	for i := range costs {
		start := time.Now()
		costs[i] = time.Since(start)
	}
	slices.Sort(costs)
	return costs[len(costs)/2]
}

// round measures single verbs for d, then batches for d.
func (c *benchCase) round(ctx context.Context, d, clock time.Duration) error {
	inRound := hdrhistogram.New(1, int64(opTimeout), 3)
	single, cancel, err := c.patiently(ctx, d)
	if err != nil {
		return err
	}
	defer cancel()
	for begin := time.Now(); time.Since(begin) < d; {
		took, err := c.times(single, c.group)
		if err != nil {
			return err
		}
		c.single.done, c.single.took = c.single.done+c.group, c.single.took+took
		if c.group == 1 {
			took -= clock
		}
		each := max(1, int64(took)/int64(c.group))
		if err := inRound.RecordValue(each); err != nil {
			return err
		}
		if err := c.latency.RecordValue(each); err != nil {
			return err
		}
	}
	c.perRounds = append(c.perRounds, float64(inRound.ValueAtQuantile(50)))
	if c.many == nil {
		return nil
	}
	for begin := time.Now(); time.Since(begin) < d; {
		start := time.Now()
		if err := c.many(ctx); err != nil {
			return fmt.Errorf("%s in batches: %w", c.name, err)
		}
		c.batched.done, c.batched.took = c.batched.done+c.batch, c.batched.took+time.Since(start)
	}
	return nil
}
