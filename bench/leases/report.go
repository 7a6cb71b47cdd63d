package leases

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/bench/load"
)

// What the project asks of itself.
const (
	askShm    = 30.0 // µs
	askEchoes = 4.0
	askReturn = 5 * time.Second
)

// Report is what Run measured; its JSON form is what --output json prints.
type Report struct {
	Transfers   []Transfer       `json:"transfers,omitempty"`
	Takeovers   []Takeover       `json:"takeovers,omitempty"`
	Growths     []Growth         `json:"growths,omitempty"`
	Environment load.Environment `json:"environment"`
	Options     Options          `json:"options"`
}

// slotsOf is how many slots the first n keys have.
func slotsOf(n int) (slots int) {
	seen := make([]bool, base.SlotCount)
	for i := range n {
		if s := (base.Key{Table: keyTable, Key: keyName(i)}).Slot(); !seen[s] {
			seen[s] = true
			slots++
		}
	}
	return slots
}

// Text returns the report as tables for a terminal.
func (r *Report) Text() string {
	s := fmt.Sprintf("%s, %s\n", r.Environment.Time.Format(time.RFC3339), r.Environment)
	if len(r.Transfers) > 0 {
		s += fmt.Sprintf("\nA key that alternates between two worker processes whose home is a third; p50 in µs.\nAsked: the lease over shm <= %.0f µs, over tcp <= %.0f bare round trips.\n%s\n",
			askShm, askEchoes, r.transfers())
	}
	if len(r.Takeovers) > 0 {
		s += fmt.Sprintf("\nA worker is killed that holds the leases of all keys; seconds since the view without it.\nAsked: the keys are taken over in <= %v.\n%s\n", askReturn, r.takeovers())
	}
	if len(r.Growths) > 0 {
		s += fmt.Sprintf("\nA third worker joins under load, and is drained; transfers/s of %d clients in windows of %v.\nAsked: none fails, and throughput is back at its new level within %v: not more than a tenth below it from then to half of the phase.\n%s\n%s",
			r.Options.Clients, r.Options.Window, askReturn, r.growths(), r.windows())
	}
	return s
}

func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault // units are not upper case
	t.AppendHeader(header)
	return t
}

func (r *Report) transfers() string {
	t := newTable("provider", "lease", "between", "p90 <=", "mean", "echo", "lease/echo", "moved", "held", "transfers", "waits", "load", "verdict")
	for _, x := range r.Transfers {
		met := x.Provider != "shm" || x.Lease <= askShm
		if x.Provider == "tcp" {
			met = x.Lease <= askEchoes*x.Echo
		}
		t.AppendRow(table.Row{x.Provider, fixed(x.Lease, 1), fixed(x.Over, 1) + " and " + fixed(x.UpTo, 1), fixed(x.P90, 0), fixed(x.Mean, 1),
			fixed(x.Echo, 1), fixed(x.Lease/x.Echo, 2), fixed(x.Moved, 0), fixed(x.Held, 0), x.Transfers, x.Waits, x.Load, verdict(met)})
	}
	return t.Render()
}

func (r *Report) takeovers() string {
	t := newTable("keys", "slots", "kill to view", "active", "first key", "sample", "all keys", "waits for leases", "(loading)", "retried", "load", "verdict")
	for _, x := range r.Takeovers {
		t.AppendRow(table.Row{x.Keys, x.Slots, seconds(x.Evicted), seconds(x.Active), seconds(x.First), fmt.Sprintf("%d: %s", x.Sample, seconds(x.Sampled)),
			seconds(x.All), fmt.Sprintf("%d: %s / %d", x.Waits, seconds(x.Waiting), takers), seconds(x.Loading), x.Retried, x.Load, verdict(x.Sampled <= askReturn)})
	}
	return t.Render()
}

func (r *Report) growths() string {
	t := newTable("event", "took", "level before", "level after", "back at 5 s", "reached", "settled", "(calm)", "lowest", "failed", "ok", "load", "verdict")
	for _, x := range r.Growths {
		for _, c := range []struct {
			name string
			*Change
		}{{"join", &x.Join}, {"drain", &x.Drain}} {
			t.AppendRow(table.Row{c.name, seconds(c.Took), fixed(c.Before, 0), fixed(c.After, 0), fixed(100*c.Back, 0) + " %", seconds(c.Reached), seconds(c.Settled), seconds(x.Calm),
				fixed(c.Least, 0), x.Failed, x.OK, x.Load, verdict(x.Failed == 0 && c.Back >= 1-within)})
		}
	}
	return t.Render()
}

// windows lists every window, those of an event's beginning marked.
func (r *Report) windows() string {
	var s strings.Builder
	for i, g := range r.Growths {
		fmt.Fprintf(&s, "round %d:", i+1)
		for n, w := range g.Windows {
			switch n {
			case g.Join.Window:
				s.WriteString("  JOIN")
			case g.Drain.Window:
				s.WriteString("  DRAIN")
			}
			s.WriteString(" " + fixed(w, 0))
		}
		s.WriteString("\n")
		for _, e := range slices.Compact(slices.Clone(g.Errors)) {
			s.WriteString("  failed: " + e + "\n")
		}
	}
	return s.String()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "NOT MET"
}

func fixed(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }

func seconds(d time.Duration) string { return fixed(d.Seconds(), 2) }
