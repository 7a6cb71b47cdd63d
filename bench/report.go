package bench

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tenure-faas/tenure/bench/load"
)

// Report is what Main measured; its JSON form is what --output json prints.
type Report struct {
	// Interrupted says that some rounds or cases are missing.
	Interrupted bool         `json:"interrupted"`
	Cases       []CaseReport `json:"cases"`
	// Asks are those of which all cases were measured.
	Asks        []Ask            `json:"asks"`
	Environment load.Environment `json:"environment"`
	Options     MainOptions      `json:"options"`
}

// CaseReport is one case with the medians of its rounds.
type CaseReport struct {
	Name string `json:"name"`
	// Throughput is requests per second that succeeded.
	Throughput float64 `json:"throughput"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	// Failed is the sum of the rounds, not a median.
	Failed uint64 `json:"failed"`
	// Sync is the disk's own median of a 4 KiB write with fdatasync beside the
	// runs; 0 where it was not measured.
	Sync   float64  `json:"sync_us"`
	Rounds []Figure `json:"rounds"`
}

// Figure is one case in one round. Times are in microseconds.
type Figure struct {
	Round      int               `json:"round"`
	Throughput float64           `json:"throughput"`
	P50        float64           `json:"p50_us"`
	P99        float64           `json:"p99_us"`
	Sync       float64           `json:"sync_us"`
	Failed     uint64            `json:"failed"`
	Problems   map[string]uint64 `json:"problems"`
	Errors     map[string]uint64 `json:"errors"`
	ClientCPU  float64           `json:"client_cpu_us"`
}

// Ask is one thing that the project asks of itself, and whether it holds.
type Ask struct {
	Name string `json:"name"`
	// Measured is of the medians. Lowest and Highest are what single rounds
	// would have given: how far to trust it.
	Measured float64 `json:"measured"`
	Lowest   float64 `json:"lowest"`
	Highest  float64 `json:"highest"`
	// Relation is >= or <=, between Measured and Limit.
	Relation string  `json:"relation"`
	Limit    float64 `json:"limit"`
	// Unit is ms, or empty for a ratio.
	Unit string `json:"unit"`
	Met  bool   `json:"met"`
}

func newFigure(round int, r *load.Result, sync time.Duration) Figure {
	return Figure{
		Round: round, Throughput: r.Throughput, P50: r.Latency.P50, P99: r.Latency.P99,
		Sync: float64(sync) / 1e3, Failed: r.Failed, Problems: r.Problems, Errors: r.Errors,
		ClientCPU: r.Client.CPUMicrosPerRequest,
	}
}

// newReport aggregates what a suite has measured until now.
func newReport(s *suite) *Report {
	r := &Report{Environment: load.CurrentEnvironment(), Options: *s.options}
	for i, k := range s.cases {
		figures := s.figures[i]
		if len(figures) < s.options.Rounds {
			r.Interrupted = true
		}
		if len(figures) == 0 {
			continue
		}
		c := CaseReport{
			Name:       k.name,
			Throughput: medianOf(figures, func(f *Figure) float64 { return f.Throughput }),
			P50:        medianOf(figures, func(f *Figure) float64 { return f.P50 }),
			P99:        medianOf(figures, func(f *Figure) float64 { return f.P99 }),
			Sync:       medianOf(figures, func(f *Figure) float64 { return f.Sync }),
			Rounds:     figures,
		}
		for _, f := range figures {
			c.Failed += f.Failed
		}
		r.Cases = append(r.Cases, c)
	}
	r.judge()
	return r
}

// judge fills in Asks from Cases.
func (r *Report) judge() {
	for _, a := range ratioAsks {
		over, under := r.find(a.over), r.find(a.under)
		if over == nil || under == nil {
			continue
		}
		ask := Ask{Name: a.over + " / " + a.under, Measured: over.Throughput / under.Throughput, Relation: ">=", Limit: a.atLeast}
		ask.Met = ask.Measured >= ask.Limit
		ask.span(over, under, func(o, u *Figure) float64 { return o.Throughput / u.Throughput })
		r.Asks = append(r.Asks, ask)
	}
	if single := r.find(caseUncontended); single != nil {
		ask := Ask{
			Name: caseUncontended + ": p50 over one fdatasync", Measured: (single.P50 - single.Sync) / 1e3,
			Relation: "<=", Limit: askUncontended, Unit: "ms",
		}
		ask.Met = ask.Measured <= ask.Limit
		ask.span(single, single, func(f, _ *Figure) float64 { return (f.P50 - f.Sync) / 1e3 })
		r.Asks = append(r.Asks, ask)
	}
}

// span sets Lowest and Highest from the rounds that both cases have.
func (a *Ask) span(over, under *CaseReport, of func(over, under *Figure) float64) {
	a.Lowest, a.Highest = a.Measured, a.Measured
	for i := range over.Rounds {
		for j := range under.Rounds {
			if over.Rounds[i].Round == under.Rounds[j].Round {
				value := of(&over.Rounds[i], &under.Rounds[j])
				a.Lowest, a.Highest = min(a.Lowest, value), max(a.Highest, value)
			}
		}
	}
}

func (r *Report) find(name string) *CaseReport {
	for i := range r.Cases {
		if r.Cases[i].Name == name {
			return &r.Cases[i]
		}
	}
	return nil
}

// medianOf returns the median of one field of the figures, the mean of the two
// in the middle where their number is even.
func medianOf(figures []Figure, field func(*Figure) float64) float64 {
	values := make([]float64, len(figures))
	for i := range figures {
		values[i] = field(&figures[i])
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// Text returns the report as tables for a terminal.
func (r *Report) Text() string {
	return r.render(func(t table.Writer) string {
		t.SetStyle(table.StyleLight)
		t.Style().Format.Header = text.FormatDefault // units are not upper case
		return t.Render()
	})
}

// Markdown returns the report as a document.
func (r *Report) Markdown() string {
	return "# Benchmark on one machine\n\n" + r.render(table.Writer.RenderMarkdown) + "\nMade by `tenure bench main`.\n"
}

func (r *Report) render(draw func(table.Writer) string) string {
	o := &r.Options
	s := fmt.Sprintf("%s, %s\n", r.Environment.Time.Format(time.RFC3339), r.Environment)
	s += fmt.Sprintf("%d rounds of %v after %v of warm-up, %d connections, %d and %d accounts, theta %v, seed %d, data in %s\n",
		o.Rounds, o.Duration, o.Warmup, o.Connections, o.Accounts, o.ManyAccounts, o.Theta, o.Seed, o.Dir)
	if r.Interrupted {
		s += "INTERRUPTED: rounds are missing.\n"
	}
	return s + "\n" + draw(r.caseTable()) + "\n\n" + draw(r.askTable()) + "\n"
}

func (r *Report) caseTable() table.Writer {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"median of the rounds", "requests/s", "p50 ms", "p99 ms", "fdatasync ms", "client µs CPU/request", "failed"})
	for _, c := range r.Cases {
		sync := ""
		if c.Sync > 0 {
			sync = fixed(c.Sync/1e3, 3)
		}
		cpu := medianOf(c.Rounds, func(f *Figure) float64 { return f.ClientCPU })
		t.AppendRow(table.Row{c.Name, fixed(c.Throughput, 0), fixed(c.P50/1e3, 3), fixed(c.P99/1e3, 3), sync, fixed(cpu, 1), c.Failed})
	}
	return t
}

func (r *Report) askTable() table.Writer {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"ask", "measured", "rounds", "asked", "verdict"})
	for _, a := range r.Asks {
		unit := ""
		if a.Unit != "" {
			unit = " " + a.Unit
		}
		verdict := "NOT MET"
		if a.Met {
			verdict = "met"
		}
		span := fixed(a.Lowest, 2) + " to " + fixed(a.Highest, 2)
		t.AppendRow(table.Row{a.Name, fixed(a.Measured, 2) + unit, span, a.Relation + " " + fixed(a.Limit, 1) + unit, verdict})
	}
	return t
}

func fixed(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
