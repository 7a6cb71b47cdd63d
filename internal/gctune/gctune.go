// Package gctune sets the garbage collector of a server process.
//
// A server's live heap is small beside what it allocates for requests, so that
// with Go's default the collector runs several times a second and takes a tenth
// of the processors. A larger heap between collections costs memory that is
// there anyway; a limit keeps it from costing more than that.
//
// Start reading at Server.
package gctune

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// percent is how far the heap may grow over what is live before a
	// collection, unless GOGC says otherwise.
	percent = 400
	// ratio is the part of the memory (of the cgroup, else of the machine) from
	// which on the collector works harder, unless GOMEMLIMIT says otherwise.
	ratio = 0.7
)

// Server configures the collector of this process for a server. GOGC and
// GOMEMLIMIT, where they are set, win.
func Server(logger *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	provider := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)
	if _, err := memlimit.Set(memlimit.WithProvider(provider), memlimit.WithRatio(ratio), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		logger.Warn("no memory limit is set for the garbage collector", "err", err)
	}
}
