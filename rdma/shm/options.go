package shm

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// Options are the options of Open.
type Options struct {
	// Directory is where Open makes a private directory with a random name for
	// the provider's socket; "" means os.TempDir. Peers must see it under the same
	// path, which has to be short: at most 75 bytes.
	Directory string
	// StopAfter is how long Revoke and Close wait for a request of the peer that
	// has begun, before they stop the peer's process with SIGKILL; 0 means one
	// second. A process that merely waits for the processor must not look
	// stopped: less than 100 ms is for tests.
	StopAfter time.Duration
	// HandshakeTimeout bounds Connect, besides its context, and how long a new
	// connection may take to say hello; 0 means 5 seconds.
	HandshakeTimeout time.Duration
}

// EnsureDefaults replaces zero values by the documented defaults, except for
// Directory.
func (o *Options) EnsureDefaults() {
	if o.StopAfter == 0 {
		o.StopAfter = time.Second
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
}

// Validate says what is wrong, as rdma.ErrInvalid.
func (o *Options) Validate() error {
	if o.StopAfter < 0 {
		return fmt.Errorf("%w option StopAfter of shm: %v is negative", rdma.ErrInvalid, o.StopAfter)
	}
	if o.HandshakeTimeout < 0 {
		return fmt.Errorf("%w option HandshakeTimeout of shm: %v is negative", rdma.ErrInvalid, o.HandshakeTimeout)
	}
	return nil
}

// The limits of the provider.
const (
	maxMessage     = 1 << 30
	maxInline      = 512
	maxDepth       = 4096
	maxCompletions = 1 << 20
	// maxRegion is 64 GiB, or 1 GiB where addresses have 32 bits.
	maxRegion = 1 << (30 + 6*(^uint(0)>>63))
)

// limits returns what Limits returns: every provider's are the same.
func limits() rdma.Limits {
	return rdma.Limits{MaxMessage: maxMessage, MaxInline: maxInline, MaxSendDepth: maxDepth, MaxReceiveDepth: maxDepth,
		MaxCompletions: maxCompletions, MaxRegion: maxRegion}
}
