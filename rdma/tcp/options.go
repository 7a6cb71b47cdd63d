package tcp

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

const (
	// maxMessage bounds the time for which one request keeps the others of its
	// connection waiting.
	maxMessage = 16 << 20
	// maxInline is what network cards offer; code that fits here fits there.
	maxInline = 256
	// maxDepth bounds what a connection keeps in memory: see copyMax.
	maxDepth = 1024
	// copyMax is the longest payload, in bytes, that is copied between a frame and
	// a region. Longer ones go between the socket and the region by themselves. A
	// connection buffers at most this for each outstanding request.
	copyMax = 4096
	// maxHost is what MaxAddress leaves for host:port.
	maxHost = rdma.MaxAddress - addressFixed
	// maxName bounds QueuePairOptions.Peer.
	maxName = 64
)

// limits are the same for all providers of this package.
func limits() rdma.Limits {
	return rdma.Limits{
		MaxMessage: maxMessage, MaxInline: maxInline, MaxSendDepth: maxDepth, MaxReceiveDepth: maxDepth,
		MaxCompletions: 1 << 17, MaxRegion: math.MaxInt / 2,
	}
}

// Options are the options of Open.
type Options struct {
	// Listen is the host:port where connections of queue pairs arrive. Empty means
	// a free port of 127.0.0.1.
	Listen string
	// Advertise is the host:port where peers reach Listen. Empty means the address
	// of the listener, which must not be a wildcard then.
	Advertise string
	// HandshakeTimeout bounds Connect, besides its context, and how long a new
	// connection may take to say hello. 0 means 5 seconds.
	HandshakeTimeout time.Duration
	// Handshakes is how many new connections may be about to say hello; more wait
	// in the kernel. 0 means 64.
	Handshakes int
	// DoorbellPatience is how long a peer's doorbell waits for a place here, but
	// never longer than half of the peer's Timeout. Then its queue pair breaks.
	// 0 means half a second.
	DoorbellPatience time.Duration
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.Handshakes == 0 {
		o.Handshakes = 64
	}
	if o.DoorbellPatience == 0 {
		o.DoorbellPatience = 500 * time.Millisecond
	}
}

// Validate returns all that is wrong with the options, as ErrInvalid.
func (o *Options) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w option of rdma/tcp: "+format, append([]any{rdma.ErrInvalid}, args...)...))
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		wrong("Listen %q is not host:port", o.Listen)
	}
	if o.Advertise != "" {
		host, port, err := net.SplitHostPort(o.Advertise)
		if ip := net.ParseIP(host); err != nil || host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
			wrong("Advertise %q is not a host:port to connect to", o.Advertise)
		}
		if len(o.Advertise) > maxHost {
			wrong("Advertise has %d bytes, the limit is %d", len(o.Advertise), maxHost)
		}
	}
	if o.HandshakeTimeout <= 0 {
		wrong("HandshakeTimeout %v is not positive", o.HandshakeTimeout)
	}
	if o.Handshakes <= 0 {
		wrong("Handshakes %d is not positive", o.Handshakes)
	}
	if o.DoorbellPatience <= 0 {
		wrong("DoorbellPatience %v is not positive", o.DoorbellPatience)
	}
	return errors.Join(errs...)
}
