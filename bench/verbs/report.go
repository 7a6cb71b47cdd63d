package verbs

import (
	"fmt"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// echoName is the name of the row that others are compared with.
const echoName = "bare TCP echo"

// Row is one case.
type Row struct {
	// Verb is its name, Size the payload in bytes.
	Verb string `json:"verb"`
	Size int    `json:"size_bytes"`
	// P50 and P99 are latencies of a verb alone; with Grouped, of the means of
	// groups of 32.
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Grouped bool          `json:"grouped"`
	// RoundMedian is the median of the rounds' medians, which a burst of noise
	// does not move.
	RoundMedian time.Duration `json:"round_median_ns"`
	// Rate and BatchedRate are verbs a second, alone and in batches; 0: not
	// measured.
	Rate        float64 `json:"per_second"`
	BatchedRate float64 `json:"batched_per_second"`
	// Gain is BatchedRate / Rate.
	Gain float64 `json:"batched_over_single"`
}

// Report is what a run found.
type Report struct {
	Provider string `json:"provider"`
	Size     int    `json:"size_bytes"`
	Batch    int    `json:"batch"`
	// Clock is what it takes to read the clock once; it is not in the latencies.
	Clock time.Duration `json:"clock_ns"`
	Rows  []Row         `json:"rows"`
}

func (c *benchCase) row() Row {
	slices.Sort(c.perRounds)
	r := Row{Verb: c.name, Size: c.size, Grouped: c.group > 1,
		P50: time.Duration(c.latency.ValueAtQuantile(50)), P99: time.Duration(c.latency.ValueAtQuantile(99)),
		RoundMedian: time.Duration(c.perRounds[len(c.perRounds)/2]),
		Rate:        c.single.perSecond(), BatchedRate: c.batched.perSecond()}
	if r.Rate > 0 {
		r.Gain = r.BatchedRate / r.Rate
	}
	return r
}

// String is the table for people.
func (r *Report) String() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"verb", "bytes", "p50", "p99", "per s", fmt.Sprintf("per s, batches of %d", r.Batch), "gain"})
	var echo time.Duration
	for _, row := range r.Rows {
		batched, gain, p50 := "", "", row.P50.String()
		if row.BatchedRate > 0 {
			batched, gain = fmt.Sprintf("%.0f", row.BatchedRate), fmt.Sprintf("%.1fx", row.Gain)
		}
		if row.Verb == echoName {
			echo = row.RoundMedian
		} else if echo > 0 {
			p50 += fmt.Sprintf(" (%.2f of echo)", float64(row.RoundMedian)/float64(echo))
		}
		t.AppendRow(table.Row{row.Verb, row.Size, p50, row.P99, fmt.Sprintf("%.0f", row.Rate), batched, gain})
	}
	text := fmt.Sprintf("provider %s\n%s", r.Provider, t.Render())
	if slices.ContainsFunc(r.Rows, func(row Row) bool { return row.Grouped }) {
		text += fmt.Sprintf("\nVerbs below %v are timed in groups of %d: their p50 and p99 are those of the groups' means.", groupBelow, groupSize)
	}
	return text + fmt.Sprintf("\nReading the clock takes %v, which is subtracted from each verb timed alone.", r.Clock)
}
