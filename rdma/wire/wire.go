package wire

import (
	"fmt"
	"math/bits"

	"github.com/tenure-faas/tenure/rdma"
)

// Mode is a hook of the kernel where the packets of an interface are seen.
type Mode uint8

const (
	// ModeAuto tries TCX, TC and ModeXDPGeneric, in this order; with Drop, it
	// leaves out TC. Counter.Mode says which it was.
	ModeAuto Mode = iota
	// ModeTCX sees both directions. Linux 6.6 or newer.
	ModeTCX
	// ModeTC sees both directions by filters on a clsact queueing discipline.
	// Unlike the others they stay behind if this process is killed; they count
	// into nowhere then. It cannot drop.
	ModeTC
	// ModeXDPGeneric sees ingress only, in any driver.
	ModeXDPGeneric
	// ModeXDPNative sees ingress only, in drivers that can. Many restart their
	// queues, and lose packets, when it comes and goes, so it is never chosen
	// automatically.
	ModeXDPNative
)

var modeNames = [...]string{
	ModeAuto: "automatic mode", ModeTCX: "TCX (ingress and egress)", ModeTC: "TC clsact (ingress and egress)",
	ModeXDPGeneric: "generic XDP (ingress only)", ModeXDPNative: "native XDP (ingress only)",
}

// String names the hook and says what it sees.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode-%d", uint8(m))
}

// Egress says whether outgoing packets are seen.
func (m Mode) Egress() bool { return m == ModeTCX || m == ModeTC }

// Drop is a rule to lose packets on their way in, after they were counted. It is
// for tests: losing acknowledgements makes unknown outcomes.
type Drop struct {
	// Opcode says what to drop; an RC one.
	Opcode Opcode
	// Every is how many packets of this opcode and of a flow there are for one
	// that is dropped; 1 drops all, 0 none.
	Every uint32
}

// Options are the options of Attach. The zero value counts and drops nothing.
type Options struct {
	// Mode is the hook to use; zero is ModeAuto.
	Mode Mode
	// PathMTU is that of the connections in bytes, a power of two from 256 to
	// 4096, and serves only to judge repeated READs. Zero means the largest that
	// rxe uses on the interface.
	PathMTU int
	// Flows is how many flows there is room for, 1 to 65536, in 1 KiB each; zero means 1024.
	// Packets of more flows only count as Untracked.
	Flows int
	// Drop makes faults; zero means none.
	Drop Drop
}

// Limits of Options.
const (
	minPathMTU, maxPathMTU = 256, 4096
	defaultFlows, maxFlows = 1024, 65536
)

// ensureDefaults replaces zero values for an interface with this MTU.
func (o *Options) ensureDefaults(interfaceMTU int) {
	if o.PathMTU == 0 {
		o.PathMTU = rxePathMTU(interfaceMTU)
	}
	if o.Flows == 0 {
		o.Flows = defaultFlows
	}
}

// validate says what is wrong, as rdma.ErrInvalid.
func (o *Options) validate() error {
	switch {
	case o.Mode > ModeXDPNative:
		return fmt.Errorf("%w: wire counter in %v", rdma.ErrInvalid, o.Mode)
	case o.PathMTU < minPathMTU || o.PathMTU > maxPathMTU || bits.OnesCount(uint(o.PathMTU)) != 1:
		return fmt.Errorf("%w: path MTU of %d bytes, not 256, 512, 1024, 2048 or 4096", rdma.ErrInvalid, o.PathMTU)
	case o.Flows < 1 || o.Flows > maxFlows:
		return fmt.Errorf("%w: wire counter with %d flows, not 1 to %d", rdma.ErrInvalid, o.Flows, maxFlows)
	case o.Drop.Every > 0 && o.Drop.Opcode >= otherOpcode:
		return fmt.Errorf("%w: cannot drop %v: only opcodes of RC", rdma.ErrInvalid, o.Drop.Opcode)
	case o.Drop.Every > 1<<31-1:
		return fmt.Errorf("%w: cannot drop one in %d: at most one in 2^31-1", rdma.ErrInvalid, o.Drop.Every)
	case o.Drop.Every > 0 && o.Mode == ModeTC:
		return fmt.Errorf("%w: %v cannot drop: the rule would survive this process", rdma.ErrInvalid, o.Mode)
	}
	return nil
}

// mtuShift is the logarithm of the path MTU.
func (o *Options) mtuShift() uint { return uint(bits.TrailingZeros(uint(o.PathMTU))) }

// rxeHeaders is what rxe keeps free for headers in the MTU of its interface.
const rxeHeaders = 80

// rxePathMTU is the path MTU of rxe on an interface, in bytes.
func rxePathMTU(interfaceMTU int) int {
	mtu := minPathMTU
	for mtu < maxPathMTU && 2*mtu <= interfaceMTU-rxeHeaders {
		mtu *= 2
	}
	return mtu
}
