package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"pgregory.net/rapid"
)

// kernel is a loaded program that a test gives frames to, without an interface.
type kernel struct {
	*loaded
	run *ebpf.Program
}

var kinds = []ebpf.ProgramType{ebpf.XDP, ebpf.SchedCLS}

// loadKernel loads a program, or skips the test where eBPF is not permitted.
func loadKernel(t testing.TB, kind ebpf.ProgramType, direction Direction, options Options) *kernel {
	options.ensureDefaults(1500)
	if err := options.validate(); err != nil {
		t.Fatal(err)
	}
	l, err := load(&options)
	if err == nil {
		t.Cleanup(func() { l.close() })
		var p *ebpf.Program
		if p, err = l.program(kind, direction); err == nil {
			return &kernel{l, p}
		}
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("eBPF is not permitted here: %v", err)
	}
	t.Fatalf("%+v", err)
	return nil
}

// shortestFrame is what the kernel takes for a test of any kind.
const shortestFrame = 15

// takes says whether the kernel can test with this frame: for socket buffers it
// wants network headers to be whole.
func (k *kernel) takes(frame []byte) bool {
	if len(frame) < shortestFrame || k.run.Type() == ebpf.XDP {
		return len(frame) >= shortestFrame
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		return len(frame) >= etherLen+ipv4Len
	case etherIPv6:
		return len(frame) >= etherLen+ipv6Len
	}
	return true
}

// pass gives the program one frame and returns its verdict.
func (k *kernel) pass(t interface{ Fatal(...any) }, frame []byte) int32 {
	out := make([]byte, len(frame)+512)
	options := &ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := k.run.Run(options)
	if err != nil {
		t.Fatal(err)
	}
	if string(options.DataOut) != string(frame) {
		t.Fatal("the program changed the packet")
	}
	return int32(verdict)
}

func (k *kernel) verdict(drop bool) int32 {
	return (&program{kind: k.run.Type()}).verdict(drop)
}

func (k *kernel) snapshot(t interface{ Fatal(...any) }) Snapshot {
	s, err := k.read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// clear forgets everything.
func (k *kernel) clear(t interface{ Fatal(...any) }) {
	for {
		key, err := k.flows.NextKeyBytes(nil)
		if err != nil {
			t.Fatal(err)
		}
		if key == nil {
			break
		}
		if err := k.flows.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
	for stat := range uint32(statCount) {
		if err := k.stats.Put(stat, make([]uint64, ebpf.MustPossibleCPU())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProgramDecodes: the program reads every hand-made packet as Decode does.
func TestProgramDecodes(t *testing.T) {
	for _, kind := range kinds {
		for _, direction := range []Direction{Ingress, Egress} {
			k := loadKernel(t, kind, direction, Options{})
			for _, c := range handMade {
				t.Run(fmt.Sprintf("%v %v %s", kind, direction, c.name), func(t *testing.T) {
					frame := c.packet.frame()
					if !k.takes(frame) {
						return // the kernel's test has no such frames; TestDecode has
					}
					k.clear(t)
					if got := k.pass(t, frame); got != k.verdict(false) {
						t.Errorf("verdict %d, want %d", got, k.verdict(false))
					}
					want := newRecorder(k.options.PathMTU)
					want.record(direction, frame)
					if got := k.snapshot(t); !reflect.DeepEqual(got, want.snapshot()) {
						t.Errorf("got %+v, want %+v", got, want.snapshot())
					}
				})
			}
		}
	}
}

// TestRepeats: sequences of requests on one queue pair, and which are repeats.
func TestRepeats(t *testing.T) {
	type request struct {
		psn    uint32
		length uint32 // of a READ; others are CAS
		repeat bool
	}
	cas := func(psn uint32) request { return request{psn: psn} }
	again := func(psn uint32) request { return request{psn: psn, repeat: true} }
	read := func(psn, length uint32) request { return request{psn: psn, length: length} }
	readAgain := func(psn, length uint32) request { return request{psn: psn, length: length, repeat: true} }
	for _, c := range []struct {
		name     string
		requests []request
	}{
		{"in order", []request{cas(5), cas(6), cas(7)}},
		{"one twice", []request{cas(5), again(5), cas(6)}},
		{"go back", []request{cas(5), cas(6), cas(7), again(5), again(6), again(7), cas(8)}},
		{"wrap", []request{cas(0xfffffe), cas(0xffffff), cas(0), again(0xffffff), again(0), cas(1)}},
		{"lost before us", []request{cas(5), cas(8), cas(6), cas(7), again(6), again(8), cas(9)}},
		{"lost before us over the wrap", []request{cas(0xffffff), cas(2), cas(0), cas(1), again(0), again(0xffffff)}},
		{"READ takes several", []request{read(10, 3000), cas(13), again(13), readAgain(10, 3000), cas(14)}},
		{"tail of a READ", []request{read(10, 3000), readAgain(11, 1976), readAgain(12, 952), cas(13)}},
		{"tail of a READ, wrapped", []request{read(0xfffffe, 4096), readAgain(0, 2048), readAgain(1, 1024), cas(2)}},
		{"late READ", []request{cas(9), cas(13), read(10, 3072), readAgain(11, 2048), readAgain(12, 1024), again(13)}},
		{"late READ of more than was missing", []request{cas(9), cas(11), read(10, 1<<20), again(11), cas(12)}},
		{"READ of nothing", []request{read(3, 0), cas(4)}},
		{"READ beyond the window", []request{cas(9), read(10, 1<<20), readAgain(10+512, 1<<19), readAgain(10, 1<<20), cas(10 + 1024)}},
		{"edge of the window", []request{cas(0), cas(256), cas(1), again(1), again(0), cas(2)}},
		{"shift by whole words", []request{cas(0), cas(64), cas(128), cas(192), again(0), again(64), again(128), cas(1), cas(63), cas(65)}},
		{"far ahead", []request{cas(0), cas(1 << 20), cas(1<<20 - 1), again(1<<20 - 1), again(1<<20 - 300)}},
		{"another connection behind", []request{cas(1 << 23), cas(5), again(5), cas(6)}},
		{"edge of another connection", []request{cas(1 << 21), again(1<<20 + 1), cas(1 << 20), again(1 << 20)}},
	} {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s %v", c.name, kind), func(t *testing.T) {
				k := loadKernel(t, kind, Ingress, Options{PathMTU: 1024})
				r := newRecorder(1024)
				repeats := uint64(0)
				for i, q := range c.requests {
					p := packet(CompareSwap, q.psn)
					if q.length > 0 || c.name == "READ of nothing" && i == 0 {
						p = packet(ReadRequest, q.psn, func(p *testPacket) { p.readLength = q.length })
					}
					if q.repeat {
						repeats++
					}
					k.pass(t, p.frame())
					r.record(Ingress, p.frame())
					for name, s := range map[string]Snapshot{"program": k.snapshot(t), "recorder": r.snapshot()} {
						if got := s.Flows[0].Repeats(); got != repeats {
							t.Fatalf("%s after request %d (%#x): %d repeats, want %d", name, i, q.psn, got, repeats)
						}
					}
				}
			})
		}
	}
}

// drawPackets makes packets as they come from a few queue pairs: mostly in
// order, with repeats, losses, wraps, long READs and damage.
func drawPackets(t *rapid.T) [][]byte {
	opcodes := []Opcode{WriteFirst, WriteMiddle, WriteLast, WriteLastImm, WriteOnly, WriteOnlyImm, ReadRequest, ReadRequest, CompareSwap, FetchAdd, Acknowledge, AtomicAck, ReadOnly}
	next := map[uint32]uint32{}
	frames := make([][]byte, 0, 64)
	for range rapid.IntRange(1, 64).Draw(t, "packets") {
		qp := rapid.Uint32Range(0x10, 0x12).Draw(t, "qp")
		if _, known := next[qp]; !known {
			next[qp] = rapid.SampledFrom([]uint32{0, 5, 0xfffff0, 0x7fffff}).Draw(t, "first psn")
		}
		p := packet(rapid.SampledFrom(opcodes).Draw(t, "opcode"), 0)
		p.qp = qp
		switch rapid.IntRange(0, 7).Draw(t, "place") {
		case 0:
			p.psn = (next[qp] + uint32(rapid.IntRange(-300, 300).Draw(t, "jump"))) & psnMask
		case 1:
			p.psn = (next[qp] + uint32(rapid.IntRange(-8, 8).Draw(t, "step"))) & psnMask
		case 2:
			if rapid.Bool().Draw(t, "far") {
				p.psn = rapid.Uint32Range(0, psnMask).Draw(t, "anywhere")
				break
			}
			fallthrough
		default:
			p.psn = next[qp]
			next[qp] = (p.psn + 1) & psnMask
		}
		if p.opcode == ReadRequest {
			p.readLength = rapid.SampledFrom([]uint32{0, 1, 1024, 1025, 5000, 65536, 300 << 10, 1 << 31, 1<<32 - 1}).Draw(t, "length")
			if p.psn+1 == next[qp] && p.readLength < 1<<30 {
				next[qp] = (p.psn + max(1, (p.readLength+1023)/1024)) & psnMask
			}
		}
		p.syndrome = rapid.SampledFrom([]uint8{0, 0x1f, 0x20, 0x60, 0x62, 0x65, 0x40, 0xff}).Draw(t, "syndrome")
		p.payload = rapid.SampledFrom([]int{0, 8, 100}).Draw(t, "payload")
		dress(t, &p)
		frames = append(frames, damage(t, p.frame()))
	}
	return frames
}

// dress puts a packet into one of the possible headers.
func dress(t *rapid.T, p *testPacket) {
	switch rapid.IntRange(0, 9).Draw(t, "dress") {
	case 0:
		p.vlan = rapid.SampledFrom([]uint16{etherVLAN, etherQinQ}).Draw(t, "tag")
	case 1:
		p.optionWords = rapid.IntRange(1, 10).Draw(t, "options")
	case 2, 3:
		p.source, p.destination = six1, six2
	case 4:
		p.source, p.destination = nodeB, nodeA
	case 5:
		p.fragment = rapid.SampledFrom([]uint16{0x2000, 0x4000, 0x2001, 185}).Draw(t, "fragment")
	}
}

// damage leaves most frames as they are, and shortens or changes the others.
func damage(t *rapid.T, frame []byte) []byte {
	switch rapid.IntRange(0, 9).Draw(t, "damage") {
	case 0:
		return frame[:rapid.IntRange(shortestFrame, len(frame)).Draw(t, "cut")]
	case 1:
		frame[rapid.IntRange(12, min(len(frame), maxHeaders)-1).Draw(t, "where")] = rapid.Byte().Draw(t, "byte")
	case 2:
		frame[rapid.IntRange(12, min(len(frame), maxHeaders)-1).Draw(t, "where")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	}
	return frame
}

// TestProgramAgrees: on any sequence of packets the program counts what Decode
// and the judge in Go count.
func TestProgramAgrees(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			k := loadKernel(t, kind, Ingress, Options{PathMTU: 1024})
			seen := Snapshot{}
			rapid.Check(t, func(t *rapid.T) {
				k.clear(t)
				r := newRecorder(1024)
				for _, frame := range drawPackets(t) {
					if !k.takes(frame) {
						continue
					}
					if k.pass(t, frame) != k.verdict(false) {
						t.Fatal("the packet was not passed on")
					}
					r.record(Ingress, frame)
				}
				got, want := k.snapshot(t), r.snapshot()
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got\n%v\nwant\n%v", &got, &want)
				}
				seen.Flows = append(seen.Flows, want.Flows...)
				seen.Malformed += want.Malformed
			})
			// The packets are of use only if everything occurs.
			verbs, repeats, naks := seen.Verbs(Ingress), uint64(0), uint64(0)
			for i := range seen.Flows {
				repeats += seen.Flows[i].Repeats()
				for _, n := range seen.Flows[i].Naks {
					naks += n
				}
			}
			t.Logf("%v, %d repeats, %d NAKs, %d malformed", verbs, repeats, naks, seen.Malformed)
			if min(verbs[1], verbs[2], verbs[3], verbs[4], verbs[5], repeats, naks, seen.Malformed) == 0 {
				t.Error("something never occurred")
			}
		})
	}
}

// TestDrop: every n-th packet of the opcode and of a flow is lost, and counted.
func TestDrop(t *testing.T) {
	for _, kind := range kinds {
		for _, every := range []uint32{0, 1, 3} {
			t.Run(fmt.Sprintf("%v every %d", kind, every), func(t *testing.T) {
				k := loadKernel(t, kind, Ingress, Options{Drop: Drop{Opcode: AtomicAck, Every: every}})
				for _, qp := range []uint32{0x20, 0x21} {
					for n := uint32(1); n <= 7; n++ {
						of := func(p *testPacket) { p.qp = qp }
						want := k.verdict(every > 0 && n%every == 0)
						if got := k.pass(t, packet(AtomicAck, n, of).frame()); got != want {
							t.Errorf("packet %d to %#x: verdict %d, want %d", n, qp, got, want)
						}
						if got := k.pass(t, packet(CompareSwap, n, of).frame()); got != k.verdict(false) {
							t.Errorf("a request was dropped: verdict %d", got)
						}
					}
				}
				for _, f := range k.snapshot(t).Flows {
					want := uint64(0)
					if every > 0 {
						want = 7 / uint64(every)
					}
					if f.Dropped != want || f.Packets(AtomicAck).All != 7 || f.Packets(CompareSwap).All != 7 {
						t.Errorf("got %+v, want %d of 7 dropped", f, want)
					}
				}
			})
		}
	}
	t.Run("not on egress", func(t *testing.T) {
		k := loadKernel(t, ebpf.SchedCLS, Egress, Options{Drop: Drop{Opcode: AtomicAck, Every: 1}})
		if got := k.pass(t, packet(AtomicAck, 1).frame()); got != k.verdict(false) {
			t.Errorf("verdict %d", got)
		}
	})
}

// TestFlowLimit: packets of flows beyond the limit are passed on and counted
// apart.
func TestFlowLimit(t *testing.T) {
	k := loadKernel(t, ebpf.XDP, Ingress, Options{Flows: 2})
	for qp := range uint32(5) {
		for psn := range uint32(3) {
			if got := k.pass(t, packet(WriteOnly, psn, func(p *testPacket) { p.qp = qp }).frame()); got != k.verdict(false) {
				t.Errorf("verdict %d", got)
			}
		}
	}
	s := k.snapshot(t)
	if len(s.Flows) != 2 || s.Untracked != 9 || s.Verbs(Ingress)[2] != 6 {
		t.Errorf("got %+v, want 2 flows with 3 WRITEs each, and 9 packets apart", s)
	}
}

// BenchmarkProgram measures the program in the kernel, without the hook.
func BenchmarkProgram(b *testing.B) {
	for _, kind := range kinds {
		for _, p := range []struct {
			name string
			testPacket
		}{
			{"READ repeated", packet(ReadRequest, 5, func(p *testPacket) { p.readLength = 4096 })},
			{"acknowledge", packet(Acknowledge, 5)},
			{"other port", packet(WriteOnly, 5, func(p *testPacket) { p.port = 53 })},
		} {
			b.Run(fmt.Sprintf("%v %s", kind, p.name), func(b *testing.B) {
				k := loadKernel(b, kind, Ingress, Options{})
				b.ResetTimer()
				_, d, err := k.run.Benchmark(p.frame(), b.N, b.ResetTimer)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(d.Nanoseconds()), "ns/packet")
			})
		}
	}
}

// TestProgramSize: the program stays small for the kernel's verifier.
func TestProgramSize(t *testing.T) {
	for _, kind := range kinds {
		k := loadKernel(t, kind, Ingress, Options{Drop: Drop{Opcode: AtomicAck, Every: 2}})
		info, err := k.run.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, _ := info.VerifiedInstructions() // since Linux 5.16
		n := len(k.assemble(kind, Ingress))
		t.Logf("%v: %d instructions, the verifier looked at %d", kind, n, verified)
		if n > 500 || verified > 100000 {
			t.Errorf("%v: %d instructions, %d looked at", kind, n, verified)
		}
	}
}
