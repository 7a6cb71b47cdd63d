//go:build !(linux && cgo && rdma)

package verbs

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// Built says whether this program has the provider.
const Built = false

// Provider is the provider that this program was built without.
type Provider struct{ rdma.Provider }

// errAbsent says how to build it.
func errAbsent() error {
	return fmt.Errorf("%w: this program was built without libibverbs; build it on Linux with: CGO_ENABLED=1 go build -tags rdma (on Debian: apt-get install gcc libibverbs-dev)", rdma.ErrNotSupported)
}

// Open fails with rdma.ErrNotSupported.
func Open(Options) (*Provider, error) { return nil, errAbsent() }

// Devices fails with rdma.ErrNotSupported.
func Devices() ([]Device, error) { return nil, errAbsent() }
