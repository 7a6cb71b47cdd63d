//go:build !linux

package wire

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// Counter counts the packets of one interface; only Linux has the means.
type Counter struct{}

// Attach fails with rdma.ErrNotSupported.
func Attach(interfaceName string, options Options) (*Counter, error) {
	options.ensureDefaults(0)
	if err := options.validate(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: wire counter on %s: eBPF needs Linux", rdma.ErrNotSupported, interfaceName)
}

// Mode is ModeAuto: there is no hook.
func (c *Counter) Mode() Mode { return ModeAuto }

// Read fails with rdma.ErrNotSupported.
func (c *Counter) Read() (Snapshot, error) { return Snapshot{}, rdma.ErrNotSupported }

// Close does nothing.
func (c *Counter) Close() error { return nil }
