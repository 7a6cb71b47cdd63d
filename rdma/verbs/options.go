package verbs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/tenure-faas/tenure/rdma"
)

// Options are the options of Open. The zero value chooses everything.
type Options struct {
	// Device is its name, like mlx5_0 or rxe0; empty means the first one that has
	// atomics, an active port and a usable GID.
	Device string
	// Port is its number, from 1; 0 means the first one that is active.
	Port int
	// GID is the address to use, as text: "10.0.0.1" or "fe80::1". Empty chooses
	// by content: RoCE v2 before all else, and what can be routed before what
	// cannot.
	GID string
	// Logger gets what operators must know, like a port that goes down; nil means
	// slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Validate says all that is wrong, as rdma.ErrInvalid.
func (o *Options) Validate() error {
	var faults []error
	if o.Port < 0 || o.Port > 255 {
		faults = append(faults, fmt.Errorf("%w option Port %d: 0 to 255", rdma.ErrInvalid, o.Port))
	}
	if o.GID != "" {
		if _, err := parseGID(o.GID); err != nil {
			faults = append(faults, fmt.Errorf("%w option GID: %w", rdma.ErrInvalid, err))
		}
	}
	return errors.Join(faults...)
}

// parseGID reads a GID as people write it; IPv4 is mapped into IPv6.
func parseGID(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom16(a.As16()), nil // without a zone
}
