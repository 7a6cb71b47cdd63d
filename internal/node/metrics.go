package node

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/service"
)

// metrics are those of the workers of a cluster, one series a worker. They are
// read when Prometheus asks, and cost nothing before.
type metrics struct {
	*inProcess
	view, known, running, queued *prometheus.Desc
	counters                     []counter
	verbs, messages, reconnects  *prometheus.Desc
	waits                        waitMetric
}

// counter is one of the sums over the parts of a worker's leases.
type counter struct {
	desc *prometheus.Desc
	of   func(*leases.Stats) uint64
}

func newMetrics(c *inProcess) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tenure_"+name, help, append([]string{"worker"}, labels...), nil)
	}
	return &metrics{
		inProcess: c,
		view:      desc("view", "The view that the worker has installed."),
		known:     desc("lease_slots", "Slots that the worker holds, has a copy of, or waits for."),
		running:   desc("running", "Invocations that run on the worker."),
		queued:    desc("queued", "Invocations that wait to run on the worker."),
		counters: []counter{
			{desc("lease_turns_total", "Turns that transactions asked for, one a slot."), func(s *leases.Stats) uint64 { return s.Turns }},
			{desc("lease_hits_total", "Turns that were given at once: the lease or a copy was there."), func(s *leases.Stats) uint64 { return s.Hits }},
			{desc("lease_cas_total", "CAS posted to be next in the chain of a slot."), func(s *leases.Stats) uint64 { return s.CAS }},
			{desc("lease_reads_total", "Lease words read."), func(s *leases.Stats) uint64 { return s.Reads }},
			{desc("lease_copies_total", "Shared copies that other workers sent."), func(s *leases.Stats) uint64 { return s.Copies }},
			{desc("lease_invalidations_total", "Shared copies that were given up because another worker writes."), func(s *leases.Stats) uint64 { return s.Invalidated }},
			{desc("lease_lost_total", "Turns on copies that a change of view has taken away."), func(s *leases.Stats) uint64 { return s.Lost }},
		},
		verbs:      desc("verbs_total", "One-sided verbs posted to another worker; RECEIVE: doorbells of it.", "peer", "verb"),
		messages:   desc("lease_messages_total", "Messages sent to another worker.", "peer"),
		reconnects: desc("link_reconnects_total", "How often the link to another worker was made anew.", "peer"),
		waits:      newWaitMetric(),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.view, m.known, m.running, m.queued, m.verbs, m.messages, m.reconnects, m.waits.desc} {
		out <- d
	}
	for _, c := range m.counters {
		out <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	names := map[lease.Worker]string{}
	for _, x := range m.members {
		if n := x.now.Load(); n != nil {
			names[n.session.Member().Worker] = x.opt.Name
		}
	}
	for _, x := range m.members {
		if n := x.now.Load(); n != nil {
			m.collect(out, x.opt.Name, n, names)
		}
	}
}

func (m *metrics) collect(out chan<- prometheus.Metric, name string, n *incarnation, names map[lease.Worker]string) {
	gauge := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{name}, labels...)...)
	}
	status := n.worker.Status()
	stats, known := n.worker.Leases().Stats()
	gauge(m.view, float64(status.View))
	gauge(m.known, float64(known))
	gauge(m.running, float64(status.Running))
	gauge(m.queued, float64(status.Queued))
	for _, c := range m.counters {
		count(c.desc, c.of(&stats))
	}
	waits := n.worker.Leases().Waits()
	m.waits.collect(out, name, &waits)
	for _, l := range n.worker.Leases().Counters() {
		peer := names[l.Worker]
		if peer == "" {
			peer = fmt.Sprintf("number %d", l.Worker)
		}
		for op := rdma.OpRead; op <= rdma.OpReceive; op++ {
			if posted := l.Verbs[op].Posted; posted > 0 {
				count(m.verbs, posted, peer, op.String())
			}
		}
		count(m.messages, l.Sent, peer)
		count(m.reconnects, l.Reconnects, peer)
	}
}

// waitMetric is the histogram of waits for turns, one a worker.
type waitMetric struct{ desc *prometheus.Desc }

func newWaitMetric() waitMetric {
	return waitMetric{prometheus.NewDesc("tenure_lease_wait_seconds",
		"How long transactions waited for turns that were not given at once, until they went on or gave up.", []string{"worker"}, nil)}
}

func (m waitMetric) collect(out chan<- prometheus.Metric, name string, w *leases.Waits) {
	below, buckets := uint64(0), make(map[float64]uint64, leases.WaitBuckets)
	for i, limit := range leases.WaitLimits() {
		below += w.Counts[i]
		buckets[limit.Seconds()] = below
	}
	all := below + w.Counts[leases.WaitBuckets-1]
	out <- prometheus.MustNewConstHistogram(m.desc, all, w.Sum.Seconds(), buckets, name)
}

// fleetMetrics are those of workers in other processes, as they told last.
type fleetMetrics struct {
	fleet *cluster.Fleet
	waits waitMetric
}

// Describe implements prometheus.Collector.
func (m *fleetMetrics) Describe(out chan<- *prometheus.Desc) { out <- m.waits.desc }

// Collect implements prometheus.Collector.
func (m *fleetMetrics) Collect(out chan<- prometheus.Metric) {
	m.fleet.Told(func(name string, s *service.Status) { m.waits.collect(out, name, &s.Waits) })
}
