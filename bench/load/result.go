package load

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jedib0t/go-pretty/v6/table"
)

// Result is what a run measured; its JSON form is what --output json prints.
// Counts are of requests that were due inside the measured window.
type Result struct {
	// Loop is closed or open.
	Loop string `json:"loop"`
	// Interrupted says that the run ended before its time.
	Interrupted bool `json:"interrupted"`
	// Seconds is the length of the measured window, until the last answer.
	Seconds float64 `json:"seconds"`
	// Sent counts requests with an end, warm-up included.
	Sent uint64 `json:"sent"`
	// OK counts answers with a 2xx status, Failed all other ends.
	OK     uint64 `json:"ok"`
	Failed uint64 `json:"failed"`
	// Throughput is OK per second.
	Throughput float64 `json:"throughput"`
	// Latency is of the OK answers.
	Latency Latency `json:"latency_us"`
	// Statuses counts answers by HTTP status, Problems refusals by the last
	// word of their problem type, Errors requests without an answer by what
	// went wrong: connect, connection (broken or not HTTP), timeout.
	Statuses map[string]uint64 `json:"statuses"`
	Problems map[string]uint64 `json:"problems"`
	Errors   map[string]uint64 `json:"errors"`
	// Retries counts repetitions, Replayed answers that a server gave from its
	// record of an earlier request with the same idempotency key.
	Retries  uint64 `json:"retries"`
	Replayed uint64 `json:"replayed"`
	// Dropped counts arrivals of an open loop that were never sent because the
	// queue was full or the time was up. They are in no percentile.
	Dropped uint64 `json:"dropped"`
	// Client is what this process used inside the window.
	Client Client `json:"client"`
	// Environment and Options make the run repeatable.
	Environment Environment `json:"environment"`
	Options     Options     `json:"options"`
}

// Latency is a distribution in microseconds, exact to three digits.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Client is the load generator's own cost, which it takes from the server when
// both run on one machine.
type Client struct {
	CPUSeconds            float64 `json:"cpu_seconds"`
	CPUMicrosPerRequest   float64 `json:"cpu_us_per_request"`
	AllocationsPerRequest float64 `json:"allocations_per_request"`
}

// add merges what another worker counted.
func (t *tally) add(o *tally) {
	t.latency.Merge(o.latency)
	t.sent += o.sent
	t.ok += o.ok
	t.failed += o.failed
	t.retries += o.retries
	t.replayed += o.replayed
	t.last = max(t.last, o.last)
	for status, n := range o.statuses {
		t.statuses[status] += n
	}
	for word, n := range o.problems {
		t.problems[word] += n
	}
	for word, n := range o.errors {
		t.errors[word] += n
	}
}

func newResult(o *Options, sum *tally, measured time.Duration) *Result {
	r := &Result{
		Loop:        "closed",
		Seconds:     measured.Seconds(),
		Sent:        sum.sent,
		OK:          sum.ok,
		Failed:      sum.failed,
		Latency:     newLatency(sum.latency),
		Statuses:    map[string]uint64{},
		Problems:    sum.problems,
		Errors:      sum.errors,
		Retries:     sum.retries,
		Replayed:    sum.replayed,
		Environment: CurrentEnvironment(),
		Options:     *o,
	}
	if o.Rate > 0 {
		r.Loop = "open"
	}
	if measured > 0 {
		r.Throughput = float64(r.OK) / measured.Seconds()
	}
	for status, n := range sum.statuses {
		if n > 0 {
			r.Statuses[strconv.Itoa(status)] = n
		}
	}
	return r
}

func newLatency(h *hdrhistogram.Histogram) Latency {
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	return Latency{
		Mean: h.Mean() / 1e3,
		P50:  us(h.ValueAtQuantile(50)),
		P90:  us(h.ValueAtQuantile(90)),
		P99:  us(h.ValueAtQuantile(99)),
		P999: us(h.ValueAtQuantile(99.9)),
		Max:  us(h.Max()),
	}
}

// Table returns the result as a table for people.
func (r *Result) Table() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	row := func(name string, value string) { t.AppendRow(table.Row{name, value}) }
	o := &r.Options
	row("workload", o.Workload+", "+strconv.Itoa(o.Accounts)+" accounts, "+distribution(o.Theta))
	loop := r.Loop + " loop, " + strconv.Itoa(o.Connections) + " connections"
	if o.Rate > 0 {
		loop += ", " + strconv.FormatFloat(o.Rate, 'f', -1, 64) + " arrivals/s"
	}
	row("load", loop)
	seconds := strconv.FormatFloat(r.Seconds, 'f', 2, 64) + " s"
	if r.Interrupted {
		seconds += " (interrupted)"
	}
	row("measured", seconds)
	t.AppendSeparator()
	row("throughput", strconv.FormatFloat(r.Throughput, 'f', 0, 64)+" /s")
	row("p50", milliseconds(r.Latency.P50))
	row("p90", milliseconds(r.Latency.P90))
	row("p99", milliseconds(r.Latency.P99))
	row("p99.9", milliseconds(r.Latency.P999))
	row("max", milliseconds(r.Latency.Max))
	row("mean", milliseconds(r.Latency.Mean))
	t.AppendSeparator()
	row("ok", strconv.FormatUint(r.OK, 10))
	row("failed", strconv.FormatUint(r.Failed, 10))
	counts := func(prefix string, counted map[string]uint64) {
		for _, word := range slices.Sorted(maps.Keys(counted)) {
			row(prefix+word, strconv.FormatUint(counted[word], 10))
		}
	}
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		code, _ := strconv.Atoi(status)
		row("  "+status+" "+http.StatusText(code), strconv.FormatUint(r.Statuses[status], 10))
	}
	counts("  problem: ", r.Problems)
	counts("  no answer: ", r.Errors)
	if o.Idempotency {
		row("retries", strconv.FormatUint(r.Retries, 10))
		row("replayed", strconv.FormatUint(r.Replayed, 10))
	}
	if o.Rate > 0 {
		row("dropped (in no percentile)", strconv.FormatUint(r.Dropped, 10))
	}
	t.AppendSeparator()
	row("client CPU", strconv.FormatFloat(r.Client.CPUMicrosPerRequest, 'f', 1, 64)+" µs/request")
	row("client allocations", strconv.FormatFloat(r.Client.AllocationsPerRequest, 'f', 1, 64)+" /request")
	row("machine", r.Environment.String())
	return t.Render()
}

func distribution(theta float64) string {
	if theta == 0 {
		return "uniform"
	}
	return "zipfian " + strconv.FormatFloat(theta, 'f', -1, 64)
}

func milliseconds(us float64) string { return strconv.FormatFloat(us/1e3, 'f', 3, 64) + " ms" }
