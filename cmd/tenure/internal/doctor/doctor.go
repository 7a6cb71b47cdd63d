// Package doctor is `tenure doctor`: what this machine offers for one-sided
// verbs, what is missing and the command that mends it, which provider is chosen
// and why, and whether it opens.
//
// Invariants: the report is printed whatever is found, and the exit status says
// whether a worker could start: 0 if the chosen provider was opened and closed
// again, 1 with one line on standard error if not. It changes nothing on the
// machine unless --rxe create is given.
//
// It decides nothing: package machine does.
//
// Start reading at Command.Run; text.go says what the report looks like.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/progress"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rdma/wire"
)

// Command is `tenure doctor`.
type Command struct {
	Provider  string        `enum:",verbs,shm,tcp" default:"" placeholder:"NAME" help:"Demand a provider, verbs, shm or tcp, instead of the best that works."`
	Scope     string        `enum:"host,cluster" default:"host" help:"Where the workers are: all on this machine (host) or on several (cluster) (default ${default})."`
	Device    string        `placeholder:"NAME" help:"RDMA device to use, such as rxe0, instead of the best."`
	GID       string        `name:"gid" placeholder:"GID" help:"Address of the device to use, as an IP address or its index, instead of the best."`
	Advertise string        `placeholder:"ADDRESS" help:"IP address at which other workers reach this machine."`
	PeerMTU   int           `name:"peer-mtu" placeholder:"BYTES" help:"RDMA MTU of the other machine, as this command shows it there."`
	RXE       string        `name:"rxe" enum:",create" default:"" placeholder:"create" help:"create: make a software RDMA device (SoftRoCE) if there is none; it stays. Needs root."`
	Wire      string        `placeholder:"INTERFACE" help:"Count the RDMA packets on a network interface as well. Needs root."`
	Duration  time.Duration `default:"10s" help:"How long --wire counts; ctrl-C ends it early (default ${default})."`
}

// Run examines the machine.
func (c *Command) Run(ctx context.Context, env *command.Env) error {
	demand, err := c.demand()
	if err != nil {
		return err
	}
	report := &Report{Demand: demand}
	err = progress.Run(env.Stderr, "looking at this machine", func() error {
		report.Facts, report.Verdict = machine.Choose(ctx, demand)
		return report.open(ctx, slog.New(slog.NewTextHandler(env.Stderr, nil)))
	})
	text := env.Output != "json"
	if text {
		err = errors.Join(err, report.Write(env.Stdout))
	}
	if c.Wire != "" {
		err = errors.Join(err, c.count(ctx, env, report, text))
	}
	if !text {
		encoder := json.NewEncoder(env.Stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		err = errors.Join(err, encoder.Encode(report))
	}
	return err
}

// demand reads the flags. The error is of wrong usage.
func (c *Command) demand() (machine.Demand, error) {
	d := machine.Demand{
		Provider: c.Provider, Scope: machine.Scope(c.Scope), Device: c.Device, GID: c.GID, PeerMTU: c.PeerMTU, RXE: c.RXE,
	}
	if c.Advertise != "" {
		var err error
		if d.Advertise, err = netip.ParseAddr(c.Advertise); err != nil {
			return d, cli.Usagef("--advertise %q is not an IP address", c.Advertise)
		}
	}
	if c.Wire != "" && c.Duration <= 0 {
		return d, cli.Usagef("--duration is %v, it must be more than 0", c.Duration)
	}
	if err := d.Validate(); err != nil {
		return d, cli.Usagef("%w", err)
	}
	return d, nil
}

// Report is what the doctor says, also as JSON.
type Report struct {
	// Demand is what was asked for.
	Demand machine.Demand `json:"-"`
	// Facts is what was found, Verdict what follows from it.
	Facts   machine.Facts   `json:"facts"`
	Verdict machine.Verdict `json:"verdict"`
	// Opened is the provider that was opened and closed again; empty for none.
	Opened string `json:"opened,omitempty"`
	// Error is why none was; empty for success.
	Error string `json:"error,omitempty"`
	// Wire is what --wire counted; nil without it.
	Wire *Wire `json:"wire,omitempty"`
}

// open opens the chosen provider and closes it again.
func (r *Report) open(ctx context.Context, logger *slog.Logger) (err error) {
	defer func() {
		if err != nil {
			// One line, also where several things are in the way.
			r.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
			err = errors.New(r.Error)
		}
	}()
	p, err := machine.Open(ctx, r.Verdict, logger)
	if err != nil {
		return err
	}
	r.Opened = p.Name()
	if err := p.Close(); err != nil {
		return fmt.Errorf("close %s: %w", r.Opened, err)
	}
	return nil
}

// Wire is what was seen on an interface.
type Wire struct {
	// Seconds is for how long.
	Seconds float64 `json:"seconds"`
	// Snapshot has the counters.
	Snapshot wire.Snapshot `json:"snapshot"`
	// Blind says what does not show on this interface.
	Blind []string `json:"blind"`
}

// count counts the packets of an interface until the time is over or ctx ends,
// which is not an error.
func (c *Command) count(ctx context.Context, env *command.Env, report *Report, text bool) error {
	counter, err := wire.Attach(c.Wire, wire.Options{})
	if err != nil {
		return fmt.Errorf("--wire %s: %w", c.Wire, err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.Duration)
	defer cancel()
	what := fmt.Sprintf("counting RDMA packets on %s for %v", c.Wire, c.Duration)
	_ = progress.Run(env.Stderr, what, func() error { <-ctx.Done(); return nil })
	seen, err := counter.Read()
	if err = errors.Join(err, counter.Close()); err != nil {
		return fmt.Errorf("--wire %s: %w", c.Wire, err)
	}
	report.Wire = &Wire{Seconds: time.Since(began).Seconds(), Snapshot: seen, Blind: blind(report.Facts, c.Wire)}
	if text {
		return report.Wire.Write(env.Stdout)
	}
	return nil
}

// blind says what the counter cannot see on an interface of this machine.
func blind(f machine.Facts, netdev string) (lines []string) {
	found := false
	for _, d := range f.Devices {
		for _, p := range d.Ports {
			if p.Netdev != netdev {
				continue
			}
			found = true
			if d.Driver == machine.DriverRXE {
				lines = append(lines, fmt.Sprintf("two processes on %s send each other no packets: only other machines show here", d.Name))
			} else {
				lines = append(lines, fmt.Sprintf("%s is hardware, its packets bypass the kernel and do not show here; run: rdma statistic show link %s/%d", d.Name, d.Name, p.Number))
			}
		}
	}
	if !found {
		lines = append(lines, fmt.Sprintf("no RDMA device is on %s: only packets of others that pass through it show here", netdev))
	}
	return lines
}
