package wire

import (
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

// script is a little of everything, by which the reports are checked.
func script() Snapshot {
	r := newRecorder(4096)
	back := func(p *testPacket) { p.source, p.destination, p.qp = nodeB, nodeA, 0x34 }
	for _, p := range []testPacket{
		packet(ReadRequest, 1, func(p *testPacket) { p.readLength = 5000 }),
		packet(ReadRequest, 2, func(p *testPacket) { p.readLength = 904 }), // its tail again
		packet(WriteFirst, 3), packet(WriteMiddle, 4), packet(WriteLast, 5),
		packet(WriteFirst, 6), packet(WriteLastImm, 7), packet(WriteLastImm, 7),
		packet(WriteOnly, 8), packet(WriteOnlyImm, 9), packet(WriteOnly, 10),
		packet(CompareSwap, 11), packet(FetchAdd, 12), packet(FetchAdd, 12),
		packet(SendOnly, 13), packet(WriteFirst, 14), packet(0x81, 0),
	} {
		r.record(Ingress, p.frame())
	}
	for _, p := range []testPacket{
		packet(ReadFirst, 1, back), packet(ReadLast, 2, back), packet(AtomicAck, 11, back), packet(CompareSwap, 90, back),
		packet(Acknowledge, 5, back), packet(Acknowledge, 9, back),
		packet(Acknowledge, 12, back, func(p *testPacket) { p.syndrome = 0x60 }),
		packet(Acknowledge, 12, back, func(p *testPacket) { p.syndrome = 0x2a }),
	} {
		r.record(Egress, p.frame())
	}
	r.record(Ingress, packet(SendOnly, 1, func(p *testPacket) { p.version = 3 }).frame())
	s := r.snapshot()
	s.Interface, s.Mode, s.Untracked = "eth0", ModeTCX, 7
	return s
}

func TestVerbs(t *testing.T) {
	s := script()
	if got, want := s.Verbs(Ingress), (Verbs{rdma.OpRead: 1, rdma.OpWrite: 3, rdma.OpWriteImm: 2, rdma.OpCAS: 1, rdma.OpFAA: 1}); got != want {
		t.Errorf("in: got %v, want %v", got, want)
	}
	if got, want := s.Verbs(Egress), (Verbs{rdma.OpCAS: 1}); got != want {
		t.Errorf("out: got %v, want %v", got, want)
	}
	in, out := s.Flows[0], s.Flows[1]
	if in.Repeats() != 3 || in.Packets(ReadRequest).Repeats != 1 || in.Packets(WriteLastImm).Repeats != 1 || in.Packets(FetchAdd).Repeats != 1 {
		t.Errorf("%d repeats, want 3: of READ, WRITE_IMM and FAA", in.Repeats())
	}
	if out.Acknowledgements() != 2 || out.Naks != [syndromes]uint64{NakSequence: 1, NakReceiverNotReady: 1} {
		t.Errorf("%d acknowledgements and NAKs %v, want 2 and one of each of two kinds", out.Acknowledgements(), out.Naks)
	}
}

func TestSnapshotString(t *testing.T) {
	s := script()
	s.Flows[0].Dropped = 2
	want := `RoCEv2 on eth0 by TCX (ingress and egress)
DIR  FROM       TO         QP    PACKET                   PACKETS  REPEATS  BYTES
in   10.77.0.1  10.77.0.2  0x12  SEND_ONLY                1        0        24
in   10.77.0.1  10.77.0.2  0x12  WRITE_FIRST              3        0        120
in   10.77.0.1  10.77.0.2  0x12  WRITE_MIDDLE             1        0        24
in   10.77.0.1  10.77.0.2  0x12  WRITE_LAST               1        0        24
in   10.77.0.1  10.77.0.2  0x12  WRITE_LAST_IMM           2        1        48
in   10.77.0.1  10.77.0.2  0x12  WRITE_ONLY               2        0        80
in   10.77.0.1  10.77.0.2  0x12  WRITE_ONLY_IMM           1        0        40
in   10.77.0.1  10.77.0.2  0x12  READ_REQUEST             2        1        80
in   10.77.0.1  10.77.0.2  0x12  COMPARE_SWAP             1        0        52
in   10.77.0.1  10.77.0.2  0x12  FETCH_ADD                2        1        104
in   10.77.0.1  10.77.0.2  0x12  other transports         1        0        24
in   10.77.0.1  10.77.0.2  0x12  dropped on demand        2                 
out  10.77.0.2  10.77.0.1  0x34  READ_RESPONSE_FIRST      1        0        28
out  10.77.0.2  10.77.0.1  0x34  READ_RESPONSE_LAST       1        0        28
out  10.77.0.2  10.77.0.1  0x34  ACKNOWLEDGE              4        0        112
out  10.77.0.2  10.77.0.1  0x34  ATOMIC_ACKNOWLEDGE       1        0        28
out  10.77.0.2  10.77.0.1  0x34  COMPARE_SWAP             1        0        52
out  10.77.0.2  10.77.0.1  0x34  NAK: sequence error      1                 
out  10.77.0.2  10.77.0.1  0x34  NAK: receiver not ready  1                 
verbs in:  READ 1  WRITE 3  WRITE_IMM 2  CAS 1  FAA 1
verbs out: READ 0  WRITE 0  WRITE_IMM 0  CAS 1  FAA 0
malformed 1, of more flows than there is room for 7
`
	if got := s.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	empty := Snapshot{Interface: "eth1", Mode: ModeXDPGeneric}
	got := empty.String()
	for _, part := range []string{"no packets: an RNIC bypasses the kernel", "verbs in:  READ 0", "verbs out: not seen by this hook"} {
		if !strings.Contains(got, part) {
			t.Errorf("the empty report lacks %q:\n%s", part, got)
		}
	}
}

func TestLargestPathMTU(t *testing.T) {
	for mtu, want := range map[int]int{0: 256, 576: 256, 592: 512, 1280: 1024, 1500: 1024, 2127: 1024, 2128: 2048, 4175: 2048, 4176: 4096, 9000: 4096, 65536: 4096} {
		if got := rxePathMTU(mtu); got != want {
			t.Errorf("interface of %d bytes: path MTU %d, want %d", mtu, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		WriteLastImm.String(): "WRITE_LAST_IMM", Opcode(0x81).String(): "opcode-0x81", Opcode(0x1f).String(): "opcode-0x1f", otherOpcode.String(): "opcode-0x20",
		ModeTC.String(): "TC clsact (ingress and egress)", Mode(9).String(): "mode-9", NakRemoteAccess.String(): "remote access", syndromes.String(): "none",
		Ingress.String(): "in", Egress.String(): "out",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !FetchAdd.Request() || AtomicAck.Request() || Opcode(0x64).Request() {
		t.Error("wrong opcodes are requests")
	}
}
