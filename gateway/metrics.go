package gateway

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	outcomeCompleted = "completed"
	// maxSeries bounds the workflows with a label of their own: a name stays
	// a label after its workflow is gone, so that deploying ever new names
	// would grow the registry without end. Later ones are counted as "other".
	maxSeries   = 1000
	otherSeries = "other"
)

// metrics are the gateway's own. Handles of labelled counters are looked up
// once per workflow and outcome, not per request.
type metrics struct {
	handler     http.Handler
	invocations *prometheus.CounterVec
	seconds     prometheus.Histogram

	// byName is replaced, never changed: readers take no lock.
	byName atomic.Pointer[map[string]*series]
	// mu serialises the writers of byName.
	mu sync.Mutex
}

// series has the counters of one workflow.
type series struct {
	name      string
	completed prometheus.Counter
}

// newMetrics registers the metrics.
func newMetrics(registry *prometheus.Registry, executor Executor) (*metrics, error) {
	if registry == nil {
		return nil, errors.New("gateway: a prometheus registry is needed")
	}
	m := &metrics{
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}),
		invocations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenure_invocations_total",
			Help: "Invocations by workflow and outcome: completed, replayed, or the word of the problem.",
		}, []string{"workflow", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tenure_invocation_seconds",
			Help:    "Time from the end of the request's body to the durable outcome.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 20), // 50 µs to 26 s
		}),
	}
	m.byName.Store(&map[string]*series{})
	local := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tenure_invocations_local_total",
		Help: "Invocations for which the worker that ran them held every lease already.",
	}, func() float64 { return total(executor, func(s *Status) uint64 { return s.LocalInvocations }) })
	pulls := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tenure_lease_pulls_total",
		Help: "Leases that were fetched from another worker.",
	}, func() float64 { return total(executor, func(s *Status) uint64 { return s.LeasePulls }) })
	for _, collector := range []prometheus.Collector{m.invocations, m.seconds, local, pulls} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// total adds up a counter of the workers.
func total(executor Executor, of func(*Status) uint64) (sum float64) {
	for _, s := range executor.Workers() {
		sum += float64(of(&s))
	}
	return sum
}

// series returns the counters of a workflow that exists. Names that nobody
// deployed must not come here: they would become labels.
func (m *metrics) series(name string) *series {
	if s := (*m.byName.Load())[name]; s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.byName.Load()
	if s := known[name]; s != nil {
		return s
	}
	if len(known) >= maxSeries {
		return &series{name: otherSeries, completed: m.invocations.WithLabelValues(otherSeries, outcomeCompleted)}
	}
	s := &series{name: name, completed: m.invocations.WithLabelValues(name, outcomeCompleted)}
	next := maps.Clone(known)
	next[name] = s
	m.byName.Store(&next)
	return s
}

// count adds one invocation. Only the common outcome has a handle: the others
// are rare, and a handle would show a zero for each.
func (s *series) count(m *metrics, outcome string) {
	if outcome == outcomeCompleted {
		s.completed.Inc()
		return
	}
	m.invocations.WithLabelValues(s.name, outcome).Inc()
}

// serveMetrics is GET /metrics.
func (g *Gateway) serveMetrics(c *call) error {
	c.started = true
	g.metrics.handler.ServeHTTP(c.w, c.r)
	return nil
}
