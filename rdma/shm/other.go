//go:build !linux

package shm

import (
	"fmt"
	"runtime"

	"github.com/tenure-faas/tenure/rdma"
)

// Provider implements rdma.Provider between the processes of one host; there is
// none on this system.
type Provider struct{ rdma.Provider }

// Open fails with rdma.ErrNotSupported: memfd, eventfd and pidfd are Linux's.
func Open(Options) (*Provider, error) {
	return nil, fmt.Errorf("%w: shm needs Linux (memfd, eventfd, pidfd), this is %s; use tcp", rdma.ErrNotSupported, runtime.GOOS)
}
