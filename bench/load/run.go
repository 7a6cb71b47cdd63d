package load

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/bench/zipf"
)

// Errors of Run and Preload that callers branch on.
var (
	// ErrInterrupted says that ctx was done before the time was up. The result
	// that comes with it is of the part that was measured until then.
	ErrInterrupted = errors.New("interrupted")
	// ErrUnreachable says that no connection to the server could be opened.
	ErrUnreachable = errors.New("server is unreachable")
)

// progressInterval is how often Options.Progress is called.
const progressInterval = 100 * time.Millisecond

// Run sends the workload and blocks until Options.Warmup and Duration are over
// and every request that was sent has its answer or its timeout. It sends
// nothing unless all connections can be opened. The error is nil, wraps
// ErrInterrupted (the result is partial, and nil if nothing was sent yet),
// wraps ErrUnreachable, or names all faults of the options; failed requests are
// no error, they are counted in the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	return run(ctx, o, nil)
}

// run is Run with the way to reach the server as a seam for tests; nil is the
// network.
func run(ctx context.Context, o Options, dial dialFunc) (*Result, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("load options: %w", err)
	}
	var source arrivals = closedLoop{end: o.Warmup + o.Duration}
	if o.Rate > 0 {
		source = newSchedule(&o)
	}
	workers, err := newWorkers(&o, source, dial)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, workers); err != nil {
		return nil, err
	}

	start := time.Now()
	var group errgroup.Group
	for _, w := range workers {
		w.start = start
		group.Go(func() error {
			w.run(ctx)
			return nil
		})
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	m := monitor{options: &o, start: start}
	var watch sync.WaitGroup
	watch.Go(func() { m.run(watching) })
	_ = group.Wait() // workers count their errors and return none
	stop()
	watch.Wait()

	result := m.result(workers, time.Since(start), source.settle())
	if ctx.Err() != nil {
		result.Interrupted = true
		return result, fmt.Errorf("%w after %v", ErrInterrupted, time.Since(start).Round(time.Millisecond))
	}
	return result, nil
}

func newWorkers(o *Options, source arrivals, dial dialFunc) ([]*worker, error) {
	server, err := parseServer(o.Server)
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = dialer(server)
	}
	var skew *zipf.Generator
	if o.Theta > 0 {
		if skew, err = zipf.New(o.Accounts, o.Theta); err != nil {
			return nil, err
		}
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // documented never to return an error
	kind := workloads[o.Workload]
	head := renderHead(server, kind.path, o.Token, o.Idempotency)
	workers := make([]*worker, o.Connections)
	for i := range workers {
		w := &worker{
			arrivals: source,
			draw:     newDraw(o, skew, i),
			workload: kind,
			conn:     newConn(dial, address(server)),
			window:   o.Warmup,
			timeout:  o.Timeout,
			timer:    time.NewTimer(time.Hour),
			head:     head,
			tally:    tally{latency: newHistogram(), problems: map[string]uint64{}, errors: map[string]uint64{}},
		}
		w.timer.Stop()
		if o.Idempotency {
			w.key = keyPrefix(binary.BigEndian.Uint64(nonce[:]), i)
		}
		workers[i] = w
	}
	return workers, nil
}

// connect opens all connections, so that no handshake is measured and a server
// that is not there is noticed at once. After an error none is open.
func connect(ctx context.Context, workers []*worker) error {
	group, dialing := errgroup.WithContext(ctx)
	group.SetLimit(64) // a full backlog of the server would cost a retransmission
	deadline := time.Now().Add(dialTimeout)
	for _, w := range workers {
		group.Go(func() error {
			if dialing.Err() != nil {
				return dialing.Err()
			}
			return w.conn.open(ctx, deadline)
		})
	}
	err := group.Wait()
	if err == nil {
		return nil
	}
	for _, w := range workers {
		w.conn.close()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w before the first request", ErrInterrupted)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// monitor watches the clock of a run: it notes what the client has used when
// the measured window opens and reports progress. One goroutine runs it.
type monitor struct {
	options *Options
	start   time.Time
	// opened says that the window was reached; before is the usage then.
	opened bool
	before usage
}

// run returns when ctx is done.
func (m *monitor) run(ctx context.Context) {
	total := m.options.Warmup + m.options.Duration
	window := time.NewTimer(m.options.Warmup)
	defer window.Stop()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-window.C:
			m.before, m.opened = currentUsage(), true
		case <-tick.C:
			if m.options.Progress != nil {
				m.options.Progress(min(time.Since(m.start), total), total)
			}
		}
	}
}

// result merges what the workers counted. It is called after they and run have
// ended; end is when that was, since the start.
func (m *monitor) result(workers []*worker, end time.Duration, dropped uint64) *Result {
	sum := tally{latency: newHistogram(), problems: map[string]uint64{}, errors: map[string]uint64{}}
	for _, w := range workers {
		sum.add(&w.tally)
	}
	// A run that was not interrupted lasts until its end, or until the last
	// answer if that came later; dividing by less would flatter the server.
	planned := m.options.Warmup + m.options.Duration
	if end > planned {
		end = max(planned, sum.last)
	}
	r := newResult(m.options, &sum, max(end-m.options.Warmup, 0))
	r.Dropped = dropped
	if m.opened {
		after := currentUsage()
		r.Client.CPUSeconds = (after.cpu - m.before.cpu).Seconds()
		if n := r.OK + r.Failed; n > 0 {
			r.Client.CPUMicrosPerRequest = r.Client.CPUSeconds * 1e6 / float64(n)
			r.Client.AllocationsPerRequest = float64(after.allocations-m.before.allocations) / float64(n)
		}
	}
	return r
}
