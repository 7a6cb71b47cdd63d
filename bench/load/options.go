package load

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"
)

// Limits of a run, so that a slip of the keyboard does not exhaust the machine.
const (
	maxConnections = 10_000
	maxAccounts    = 1 << 27
	maxRate        = 10_000_000
	maxQueue       = 10_000_000
)

// Options says what to send, how fast and for how long. The zero value of a
// field stands for the default that its comment names.
type Options struct {
	// Server is the base URL of the server. Default: http://127.0.0.1:8080.
	Server string `json:"server"`
	// Token is sent as bearer token unless it is empty. It is not part of
	// results.
	Token string `json:"-"`
	// Workload is one of Workloads. Default: bank.
	Workload string `json:"workload"`
	// Accounts is how many accounts (users, movies, ...) requests draw from, 2
	// to 134,217,728. Default: 10,000.
	Accounts int `json:"accounts"`
	// Theta is the exponent of Zipf's law by which accounts are drawn. 0: all
	// accounts are equally likely.
	Theta float64 `json:"theta"`
	// Duration is how long to measure. Default: 10 s.
	Duration time.Duration `json:"duration_ns"`
	// Warmup is how long to send before measuring. 0: no warm-up.
	Warmup time.Duration `json:"warmup_ns"`
	// Connections is the number of connections, 1 to 10,000. Default: 64.
	Connections int `json:"connections"`
	// Rate is the number of arrivals per second of an open loop. 0: closed loop.
	Rate float64 `json:"rate"`
	// Queue bounds the arrivals of an open loop that are due and that no
	// connection is free to send. Default: those of five seconds, at least 1,000.
	Queue int `json:"queue"`
	// Seed makes the drawn accounts and amounts repeatable; any value will do.
	Seed uint64 `json:"seed"`
	// Idempotency sends an Idempotency-Key with each request and repeats a
	// request, at most 8 times, whose connection broke.
	Idempotency bool `json:"idempotency"`
	// Timeout bounds each request with its repetitions, and how long late
	// arrivals are still sent after the end. Default: 30 s.
	Timeout time.Duration `json:"timeout_ns"`
	// Progress, if not nil, is called about ten times a second, from one
	// goroutine, with the time that has passed and the time that it takes.
	Progress func(done, total time.Duration) `json:"-"`
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	if o.Server == "" {
		o.Server = "http://127.0.0.1:8080"
	}
	if o.Workload == "" {
		o.Workload = "bank"
	}
	if o.Accounts == 0 {
		o.Accounts = 10_000
	}
	if o.Duration == 0 {
		o.Duration = 10 * time.Second
	}
	if o.Connections == 0 {
		o.Connections = 64
	}
	if o.Queue == 0 && o.Rate > 0 {
		o.Queue = int(min(max(o.Rate*5, 1000), maxQueue))
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
}

// Validate returns all faults of the options at once, after EnsureDefaults.
func (o *Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	if _, err := parseServer(o.Server); err != nil {
		faults = append(faults, err)
	}
	_, known := workloads[o.Workload]
	check(known, "workload %q is not known, choose one of %s", o.Workload, strings.Join(Workloads(), ", "))
	check(o.Accounts >= 2 && o.Accounts <= maxAccounts, "accounts is %d, choose 2 to %d", o.Accounts, maxAccounts)
	check(o.Theta >= 0 && o.Theta <= 16, "theta is %v, choose 0 (uniform) to 16", o.Theta)
	check(o.Duration > 0, "duration is %v, it must be positive", o.Duration)
	check(o.Warmup >= 0, "warmup is %v, it must not be negative", o.Warmup)
	check(o.Connections >= 1 && o.Connections <= maxConnections, "connections is %d, choose 1 to %d", o.Connections, maxConnections)
	check(o.Rate >= 0 && o.Rate <= maxRate && !math.IsNaN(o.Rate), "rate is %v, choose 0 (closed loop) to %d per second", o.Rate, maxRate)
	check(o.Queue >= 0 && o.Queue <= maxQueue, "queue is %d, choose 1 to %d", o.Queue, maxQueue)
	check(o.Timeout > 0, "timeout is %v, it must be positive", o.Timeout)
	check(!strings.ContainsAny(o.Token, "\r\n"), "token contains a line break")
	return errors.Join(faults...)
}

// parseServer accepts what requests can be sent to: an http or https URL with
// a host and at most a path before /v1.
func parseServer(server string) (*url.URL, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server %q: %w", server, err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("server %q is not of the form http://host:port or https://host:port", server)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("server %q has a query or fragment, leave it out", server)
	}
	return u, nil
}
