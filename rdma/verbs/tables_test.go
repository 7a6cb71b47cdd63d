package verbs

import (
	"reflect"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

func TestStatusTable(t *testing.T) {
	for s := range ibverbs.General + 1 {
		got := statusOf(s)
		if (got == rdma.StatusOK) != (s == ibverbs.Success) {
			t.Errorf("%v becomes %v", s, got)
		}
		notDone := s == ibverbs.RemoteAccess || s == ibverbs.RemoteInvalidRequest || s == ibverbs.RemoteInvalidRDRequest
		if s != ibverbs.Success && (got.Outcome() == rdma.NotDone) != notDone {
			t.Errorf("%v becomes %v", s, got)
		}
	}
	for s, want := range map[ibverbs.Status]rdma.Status{
		ibverbs.Flushed:          rdma.StatusFlushed,
		ibverbs.LocalProtection:  rdma.StatusLocal,
		ibverbs.RemoteAccess:     rdma.StatusRemoteAccess,
		ibverbs.RemoteOperation:  rdma.StatusRemoteOperation,
		ibverbs.RetryExceeded:    rdma.StatusUnreachable,
		ibverbs.RNRRetryExceeded: rdma.StatusReceiverNotReady,
		ibverbs.General:          rdma.StatusFatal,
		ibverbs.General + 1:      rdma.StatusFatal,
		1 << 31:                  rdma.StatusFatal,
	} {
		if got := statusOf(s); got != want {
			t.Errorf("%v becomes %v, want %v", s, got, want)
		}
	}
}

// TestStatusOfRequest holds that a WRITE of several packets which the peer refused
// may have happened in part, and all other refused requests have not.
func TestStatusOfRequest(t *testing.T) {
	const mtu = 1024
	for _, c := range []struct {
		status ibverbs.Status
		op     rdma.Opcode
		length uint32
		want   rdma.Status
	}{
		{ibverbs.RemoteAccess, rdma.OpWrite, 0, rdma.StatusRemoteAccess},
		{ibverbs.RemoteAccess, rdma.OpWrite, mtu, rdma.StatusRemoteAccess},
		{ibverbs.RemoteAccess, rdma.OpWrite, mtu + 1, rdma.StatusRemoteOperation},
		{ibverbs.RemoteAccess, rdma.OpWrite, 1 << 31, rdma.StatusRemoteOperation},
		{ibverbs.RemoteAccess, rdma.OpWriteImm, mtu, rdma.StatusRemoteAccess},
		{ibverbs.RemoteAccess, rdma.OpWriteImm, mtu + 1, rdma.StatusRemoteOperation},
		{ibverbs.RemoteInvalidRequest, rdma.OpWrite, mtu, rdma.StatusRemoteInvalid},
		{ibverbs.RemoteInvalidRequest, rdma.OpWriteImm, mtu + 1, rdma.StatusRemoteOperation},
		{ibverbs.RemoteInvalidRDRequest, rdma.OpWrite, mtu + 1, rdma.StatusRemoteOperation},
		// A READ changes nothing at the peer, and an atomic is one packet.
		{ibverbs.RemoteAccess, rdma.OpRead, mtu + 1, rdma.StatusRemoteAccess},
		{ibverbs.RemoteAccess, rdma.OpCAS, 8, rdma.StatusRemoteAccess},
		{ibverbs.RemoteAccess, rdma.OpFAA, 8, rdma.StatusRemoteAccess},
		// Nothing else depends on the length.
		{ibverbs.Success, rdma.OpWrite, mtu + 1, rdma.StatusOK},
		{ibverbs.Flushed, rdma.OpWrite, mtu + 1, rdma.StatusFlushed},
		{ibverbs.RetryExceeded, rdma.OpWrite, mtu + 1, rdma.StatusUnreachable},
	} {
		if got := statusOfRequest(c.status, c.op, c.length, mtu); got != c.want {
			t.Errorf("%v of %v with %d bytes becomes %v, want %v", c.status, c.op, c.length, got, c.want)
		}
	}
}

// TestNumbersOfRequests holds that a request crosses without a table: verbs and
// flags have the same numbers on both sides, and the same things have the same
// size.
func TestNumbersOfRequests(t *testing.T) {
	for ours, theirs := range map[rdma.Opcode]ibverbs.Op{rdma.OpRead: ibverbs.OpRead, rdma.OpWrite: ibverbs.OpWrite,
		rdma.OpWriteImm: ibverbs.OpWriteImm, rdma.OpCAS: ibverbs.OpCompareSwap, rdma.OpFAA: ibverbs.OpFetchAdd} {
		if uint8(ours) != uint8(theirs) {
			t.Errorf("%v is %d here and %d in the binding", ours, ours, theirs)
		}
	}
	for ours, theirs := range map[rdma.Flags]ibverbs.Flag{rdma.Signaled: ibverbs.FlagSignaled, rdma.Fence: ibverbs.FlagFence, rdma.Inline: ibverbs.FlagInline} {
		if uint8(ours) != uint8(theirs) {
			t.Errorf("flag %d is %d in the binding", ours, theirs)
		}
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[rdma.WorkRequest](), reflect.TypeFor[ibverbs.Descriptor]()} {
		if typ.Size() != 64 {
			t.Errorf("%v has %d bytes, not a cache line", typ, typ.Size())
		}
	}
}

func TestRequestID(t *testing.T) {
	for _, receive := range []bool{false, true} {
		for _, slot := range []int{0, 1, maxSlots - 1} {
			for _, generation := range []uint16{0, 1, 0xffff} {
				for _, sequence := range []uint32{0, 1, 0xffffffff} {
					id := requestID(newRequestID(receive, slot, generation).at(sequence))
					if id.receive() != receive || id.slot() != slot || id.generation() != generation || id.sequence() != sequence {
						t.Errorf("%v %d %d %d became %v %d %d %d", receive, slot, generation, sequence, id.receive(), id.slot(), id.generation(), id.sequence())
					}
				}
			}
		}
	}
}

func TestTimeoutCode(t *testing.T) {
	for _, c := range []struct {
		wish time.Duration
		want uint8
	}{
		{1, minTimeoutCode},
		{timeoutTotal(10), 10},
		{timeoutTotal(10) + timeoutTotal(10)*41/100, 10},
		{timeoutTotal(10) + timeoutTotal(10)*42/100, 11},
		{timeoutTotal(10) - 1, 10},
		{time.Second, 15},
		{10 * time.Second, 18},
		{time.Duration(1<<63 - 1), maxTimeoutCode},
	} {
		if got := timeoutCode(c.wish); got != c.want {
			t.Errorf("%v: code %d (%v), want %d (%v)", c.wish, got, timeoutTotal(got), c.want, timeoutTotal(c.want))
		}
	}
	// The nearest one is never further than a factor of sqrt(2) away.
	for wish := timeoutTotal(minTimeoutCode); wish < timeoutTotal(maxTimeoutCode); wish += wish / 7 {
		if ratio := float64(timeoutTotal(timeoutCode(wish))) / float64(wish); ratio < 0.70 || ratio > 1.42 {
			t.Errorf("%v became %v", wish, timeoutTotal(timeoutCode(wish)))
		}
	}
}
