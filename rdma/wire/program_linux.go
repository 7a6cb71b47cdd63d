package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// program is the assembly of one eBPF program. The instructions are emitted in
// order; a jump goes to where its label is marked.
//
// Registers: while the headers are read, R7 is where they are, R8 the end of the
// data and R6 the context. Then R6 is the opcode, R7 the PSN, R8 how many PSNs
// it takes and R9 the length of the datagram. From the lock on, R5 is the flow,
// R4 the slot of the opcode and R9 the verdict.
type program struct {
	options   *Options
	direction Direction
	kind      ebpf.ProgramType
	flows     *ebpf.Map // the counters
	zero      *ebpf.Map // one flow that is all zero: too large for the stack
	stats     *ebpf.Map
	ins       asm.Instructions
	label     string
}

// The stack. Offsets are from the frame pointer.
const (
	stackKey  = -keySize
	stackNak  = -48
	stackFlow = -56
	stackStat = -60
)

// Verdicts, by the kind of program: pass the packet on to whatever comes next,
// or lose it.
const (
	xdpDrop, xdpPass = 1, 2
	tcDrop, tcNext   = 2, -1
)

// Offsets in the contexts.
const (
	xdpData, xdpDataEnd         = 0, 4
	skbLen, skbData, skbDataEnd = 0, 76, 80
)

func (p *program) emit(ins ...asm.Instruction) {
	for _, in := range ins {
		if p.label != "" {
			in, p.label = in.WithSymbol(p.label), ""
		}
		p.ins = append(p.ins, in)
	}
}

// mark sets a label at the next instruction.
func (p *program) mark(label string) {
	if p.label != "" {
		panic("two labels at one instruction: " + p.label + " and " + label)
	}
	p.label = label
}

// need jumps to label unless n bytes follow the place in R7.
func (p *program) need(n int32, label string) {
	p.emit(asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Imm(asm.R1, n), asm.JGT.Reg(asm.R1, asm.R8, label))
}

// load loads a big-endian number at offset from R7.
func (p *program) load(dst asm.Register, offset int16, size asm.Size) {
	p.emit(asm.LoadMem(dst, asm.R7, offset, size))
	if size != asm.Byte {
		p.emit(asm.HostTo(asm.BE, dst, size))
	}
}

func (p *program) verdict(drop bool) int32 {
	switch {
	case p.kind == ebpf.XDP && drop:
		return xdpDrop
	case p.kind == ebpf.XDP:
		return xdpPass
	case drop:
		return tcDrop
	}
	return tcNext
}

// assemble returns the whole program.
func (p *program) assemble() asm.Instructions {
	p.prologue()
	p.link()
	p.ipv4()
	p.ipv6()
	p.transport()
	p.find()
	p.count()
	p.judge()
	p.advance()
	p.markSeen()
	p.epilogue()
	return p.ins
}

// prologue finds the data. Those of a socket buffer may lie in pages, out of the
// reach of programs, from any byte on; then the headers are pulled in.
func (p *program) prologue() {
	p.emit(asm.Mov.Reg(asm.R6, asm.R1))
	if p.kind == ebpf.XDP {
		p.emit(asm.LoadMem(asm.R7, asm.R6, xdpData, asm.Word), asm.LoadMem(asm.R8, asm.R6, xdpDataEnd, asm.Word))
		return
	}
	data := func() {
		p.emit(asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word), asm.LoadMem(asm.R8, asm.R6, skbDataEnd, asm.Word))
	}
	p.emit(asm.LoadMem(asm.R2, asm.R6, skbLen, asm.Word), asm.JLT.Imm(asm.R2, maxHeaders, "short"), asm.Mov.Imm(asm.R2, maxHeaders))
	p.mark("short")
	data()
	p.emit(asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Reg(asm.R1, asm.R2), asm.JLE.Reg(asm.R1, asm.R8, "link"),
		asm.Mov.Reg(asm.R1, asm.R6), asm.FnSkbPullData.Call())
	data()
}

// link reads the Ethernet header and at most one VLAN tag.
func (p *program) link() {
	p.mark("link")
	p.need(etherLen, "pass")
	p.load(asm.R2, 12, asm.Half)
	p.emit(asm.Add.Imm(asm.R7, etherLen),
		asm.JEq.Imm(asm.R2, etherVLAN, "vlan"), asm.JNE.Imm(asm.R2, etherQinQ, "network"))
	p.mark("vlan")
	p.need(vlanLen, "pass")
	p.load(asm.R2, 2, asm.Half)
	p.emit(asm.Add.Imm(asm.R7, vlanLen))
	p.mark("network")
	p.emit(asm.JEq.Imm(asm.R2, etherIPv6, "ipv6"), asm.JNE.Imm(asm.R2, etherIPv4, "pass"))
}

// ipv4 reads the IPv4 header into the key, as mapped addresses.
func (p *program) ipv4() {
	p.need(ipv4Len, "pass")
	p.load(asm.R2, 0, asm.Byte)
	p.emit(asm.Mov.Reg(asm.R1, asm.R2), asm.RSh.Imm(asm.R1, 4), asm.JNE.Imm(asm.R1, 4, "pass"),
		asm.And.Imm(asm.R2, 15), asm.LSh.Imm(asm.R2, 2), asm.JLT.Imm(asm.R2, ipv4Len, "pass"))
	p.load(asm.R1, 9, asm.Byte)
	p.emit(asm.JNE.Imm(asm.R1, protoUDP, "pass"))
	p.load(asm.R1, 6, asm.Half)
	p.emit(asm.And.Imm(asm.R1, 0x1fff), asm.JNE.Imm(asm.R1, 0, "pass"))
	mapped := int32(binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}))
	for _, side := range []struct{ key, packet int16 }{{keySource, 12}, {keyDestination, 16}} {
		p.emit(asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, stackKey+side.key, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R1, mapped), asm.StoreMem(asm.RFP, stackKey+side.key+8, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R7, side.packet, asm.Word), asm.StoreMem(asm.RFP, stackKey+side.key+12, asm.R1, asm.Word))
	}
	p.emit(asm.Add.Reg(asm.R7, asm.R2), asm.Ja.Label("udp"))
}

// ipv6 reads the IPv6 header into the key.
func (p *program) ipv6() {
	p.mark("ipv6")
	p.need(ipv6Len, "pass")
	p.load(asm.R1, 0, asm.Byte)
	p.emit(asm.RSh.Imm(asm.R1, 4), asm.JNE.Imm(asm.R1, 6, "pass"))
	p.load(asm.R1, 6, asm.Byte)
	p.emit(asm.JNE.Imm(asm.R1, protoUDP, "pass"))
	for i := int16(0); i < 32; i += 8 { // source and destination follow one another, as in the key
		p.emit(asm.LoadMem(asm.R1, asm.R7, 8+i, asm.DWord), asm.StoreMem(asm.RFP, stackKey+keySource+i, asm.R1, asm.DWord))
	}
	p.emit(asm.Add.Imm(asm.R7, ipv6Len))
}

// transport reads the UDP and base transport headers, and of the extended ones
// the length of a READ and the syndrome of an acknowledgement.
func (p *program) transport() {
	shift := int32(p.options.mtuShift())
	p.mark("udp")
	p.need(udpLen, "pass")
	p.load(asm.R1, 2, asm.Half)
	p.emit(asm.JNE.Imm(asm.R1, portRoCE, "pass"))
	p.load(asm.R9, 4, asm.Half)
	p.emit(asm.JLT.Imm(asm.R9, minUDP, "malformed"))
	p.need(udpLen+bthLen, "malformed")
	p.emit(asm.Add.Imm(asm.R7, udpLen))
	p.load(asm.R1, 1, asm.Byte)
	p.emit(asm.And.Imm(asm.R1, 15), asm.JNE.Imm(asm.R1, versionBTH, "malformed"))
	p.load(asm.R6, 0, asm.Byte)
	p.load(asm.R1, 4, asm.Word)
	p.emit(asm.And.Imm(asm.R1, psnMask), asm.StoreMem(asm.RFP, stackKey+keyQP, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R1, int32(p.direction)), asm.StoreMem(asm.RFP, stackKey+keyDirection, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R1, int32(syndromes)), asm.StoreMem(asm.RFP, stackNak, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1), asm.JEq.Imm(asm.R6, int32(Acknowledge), "acknowledge"), asm.JNE.Imm(asm.R6, int32(ReadRequest), "psn"))

	p.need(bthLen+rethLen, "malformed")
	p.load(asm.R0, bthLen+12, asm.Word)
	p.emit(asm.Add.Imm(asm.R0, 1<<shift-1), asm.RSh.Imm(asm.R0, shift),
		asm.JNE.Imm(asm.R0, 0, "capped"), asm.Mov.Imm(asm.R0, 1))
	p.mark("capped")
	p.emit(asm.JLE.Imm(asm.R0, maxSpan, "psn"), asm.Mov.Imm(asm.R0, maxSpan), asm.Ja.Label("psn"))

	p.mark("acknowledge")
	p.need(bthLen+aethLen, "malformed")
	p.load(asm.R1, bthLen, asm.Byte)
	p.emit(asm.Mov.Reg(asm.R2, asm.R1), asm.And.Imm(asm.R2, 0x1f), // the code
		asm.RSh.Imm(asm.R1, 5), asm.And.Imm(asm.R1, 3), asm.JEq.Imm(asm.R1, 0, "psn"),
		asm.Mov.Imm(asm.R3, int32(NakReceiverNotReady)), asm.JEq.Imm(asm.R1, 1, "nak"),
		asm.Mov.Imm(asm.R3, int32(NakReserved)), asm.JNE.Imm(asm.R1, 3, "nak"),
		asm.JGT.Imm(asm.R2, int32(NakInvalidRD), "nak"), asm.Mov.Reg(asm.R3, asm.R2))
	p.mark("nak")
	p.emit(asm.StoreMem(asm.RFP, stackNak, asm.R3, asm.DWord))

	p.mark("psn")
	p.load(asm.R1, 8, asm.Word)
	p.emit(asm.And.Imm(asm.R1, psnMask), asm.Mov.Reg(asm.R7, asm.R1), asm.Mov.Reg(asm.R8, asm.R0))
}

// find looks the flow up, or enters it, and leaves it at stackFlow.
func (p *program) find() {
	lookup := func() {
		p.emit(asm.LoadMapPtr(asm.R1, p.flows.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackKey),
			asm.FnMapLookupElem.Call(), asm.JNE.Imm(asm.R0, 0, "found"))
	}
	p.emit(asm.JLT.Imm(asm.R6, int32(otherOpcode), "lookup"), asm.Mov.Imm(asm.R6, int32(otherOpcode)))
	p.mark("lookup")
	lookup()
	p.emit(asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, stackStat, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, p.zero.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackStat),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMapPtr(asm.R1, p.flows.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackKey),
		asm.Mov.Reg(asm.R3, asm.R0), asm.Mov.Imm(asm.R4, int32(ebpf.UpdateNoExist)), asm.FnMapUpdateElem.Call())
	lookup() // finds it also if another processor was faster
	p.emit(asm.Mov.Imm(asm.R1, statUntracked), asm.Ja.Label("stat"))
	p.mark("found")
	p.emit(asm.StoreMem(asm.RFP, stackFlow, asm.R0, asm.DWord))
}

// increment adds one to the u64 at offset from base, and leaves the sum in R1.
func (p *program) increment(base asm.Register, offset int16) {
	p.emit(asm.LoadMem(asm.R1, base, offset, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(base, offset, asm.R1, asm.DWord))
}

// count takes the lock and counts packet, bytes, drop and NAK. No helper may be
// called until the lock is given back.
func (p *program) count() {
	p.emit(asm.Mov.Reg(asm.R1, asm.R0), asm.FnSpinLock.Call(),
		asm.LoadMem(asm.R5, asm.RFP, stackFlow, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R6), asm.Mul.Imm(asm.R4, slotSize), asm.Add.Reg(asm.R4, asm.R5), asm.Add.Imm(asm.R4, flowOpcodes),
		asm.LoadMem(asm.R1, asm.R4, slotBytes, asm.DWord), asm.Add.Reg(asm.R1, asm.R9), asm.StoreMem(asm.R4, slotBytes, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R9, p.verdict(false)))
	p.increment(asm.R4, slotAll)
	if drop := p.options.Drop; drop.Every > 0 && p.direction == Ingress {
		p.emit(asm.JNE.Imm(asm.R6, int32(drop.Opcode), "kept"),
			asm.Mod.Imm(asm.R1, int32(drop.Every)), asm.JNE.Imm(asm.R1, 0, "kept"))
		p.increment(asm.R5, flowDropped)
		p.emit(asm.Mov.Imm(asm.R9, p.verdict(true)))
		p.mark("kept")
	}
	p.emit(asm.LoadMem(asm.R2, asm.RFP, stackNak, asm.DWord), asm.JGE.Imm(asm.R2, int32(syndromes), "counted"),
		asm.LSh.Imm(asm.R2, 3), asm.Add.Reg(asm.R2, asm.R5))
	p.increment(asm.R2, flowNaks)
	p.mark("counted")
}

// judge decides whether a request is new, late or a repeat. It goes on with R1
// as how far the window must move to have this PSN just behind it (a new one), or
// jumps to "seen" with the bits to set (a late one).
func (p *program) judge() {
	// The mask has bit 31 clear, so that the immediate is not sign-extended.
	p.emit(asm.Mov.Imm(asm.R1, int32(requestMask())), asm.RSh.Reg(asm.R1, asm.R6), asm.And.Imm(asm.R1, 1), asm.JEq.Imm(asm.R1, 0, "done"),
		asm.LoadMem(asm.R1, asm.R5, flowStarted, asm.Word), asm.JEq.Imm(asm.R1, 0, "restart"),
		asm.LoadMem(asm.R2, asm.R5, flowNext, asm.Word), asm.Mov.Reg(asm.R1, asm.R7), asm.Sub.Reg(asm.R1, asm.R2),
		asm.And.Imm(asm.R1, psnMask), asm.JLT.Imm(asm.R1, 1<<23, "new"),
		// R2 becomes how far it is behind, 1 for the PSN before next.
		asm.Mov.Imm(asm.R2, 1<<24), asm.Sub.Reg(asm.R2, asm.R1), asm.JGT.Imm(asm.R2, maxBehind, "restart"),
		asm.JGT.Imm(asm.R2, windowBits, "repeat"),
		asm.Mov.Reg(asm.R1, asm.R2), asm.Sub.Imm(asm.R1, 1),
		asm.Mov.Reg(asm.R3, asm.R1), asm.RSh.Imm(asm.R3, 6), asm.LSh.Imm(asm.R3, 3), asm.Add.Reg(asm.R3, asm.R5),
		asm.LoadMem(asm.R0, asm.R3, flowWindow, asm.DWord), asm.And.Imm(asm.R1, 63), asm.RSh.Reg(asm.R0, asm.R1), asm.And.Imm(asm.R0, 1),
		asm.JNE.Imm(asm.R0, 0, "repeat"),
		asm.Mov.Reg(asm.R1, asm.R2), asm.Sub.Reg(asm.R1, asm.R8), asm.JSGE.Imm(asm.R1, 0, "seen"), asm.Mov.Imm(asm.R1, 0), asm.Ja.Label("seen"))
	p.mark("repeat")
	p.increment(asm.R4, slotRepeats)
	p.emit(asm.Ja.Label("done"))
	p.mark("restart")
	p.emit(asm.Mov.Imm(asm.R1, 1), asm.StoreMem(asm.R5, flowStarted, asm.R1, asm.Word), asm.Mov.Imm(asm.R1, windowBits))
}

func window(word int) int16 { return int16(flowWindow + 8*word) }

// advance moves the window by R1 and the PSNs of this packet, and leaves in R1
// and R2 which bits to set: from R1 up to but without R2.
func (p *program) advance() {
	copyWord := func(to, from int) {
		p.emit(asm.LoadMem(asm.R2, asm.R5, window(from), asm.DWord), asm.StoreMem(asm.R5, window(to), asm.R2, asm.DWord))
	}
	p.mark("new")
	p.emit(asm.Mov.Reg(asm.R2, asm.R7), asm.Add.Reg(asm.R2, asm.R8), asm.And.Imm(asm.R2, psnMask), asm.StoreMem(asm.R5, flowNext, asm.R2, asm.Word),
		asm.Add.Reg(asm.R1, asm.R8), asm.Mov.Imm(asm.R3, 0))
	// Whole words, by halves of what is left, with zeroes from behind.
	for move := windowWords; move > 0; move /= 2 {
		next := fmt.Sprintf("move%d", move/2)
		p.emit(asm.JLT.Imm(asm.R1, int32(64*move), next))
		for word := windowWords - 1; word >= 0; word-- {
			if word >= move {
				copyWord(word, word-move)
			} else {
				p.emit(asm.StoreMem(asm.R5, window(word), asm.R3, asm.DWord))
			}
		}
		if move == windowWords {
			p.emit(asm.Ja.Label("moved"))
		} else {
			p.emit(asm.Sub.Imm(asm.R1, int32(64*move)))
		}
		p.mark(next)
	}
	// Then the rest, less than a word.
	p.emit(asm.JEq.Imm(asm.R1, 0, "moved"), asm.Mov.Imm(asm.R2, 64), asm.Sub.Reg(asm.R2, asm.R1))
	for word := windowWords - 1; word >= 0; word-- {
		p.emit(asm.LoadMem(asm.R0, asm.R5, window(word), asm.DWord), asm.LSh.Reg(asm.R0, asm.R1))
		if word > 0 {
			p.emit(asm.LoadMem(asm.R3, asm.R5, window(word-1), asm.DWord), asm.RSh.Reg(asm.R3, asm.R2), asm.Or.Reg(asm.R0, asm.R3))
		}
		p.emit(asm.StoreMem(asm.R5, window(word), asm.R0, asm.DWord))
	}
	p.mark("moved")
	p.emit(asm.Mov.Imm(asm.R1, 0), asm.Mov.Reg(asm.R2, asm.R8), asm.JLE.Imm(asm.R2, windowBits, "seen"), asm.Mov.Imm(asm.R2, windowBits))
}

// markSeen sets the bits of the window from R1 up to but without R2.
func (p *program) markSeen() {
	p.mark("seen")
	for word := range windowWords {
		low, high, next := fmt.Sprintf("low%d", word), fmt.Sprintf("high%d", word), fmt.Sprintf("word%d", word+1)
		if word == windowWords-1 {
			next = "done"
		}
		base := int32(64 * word)
		p.emit(asm.Mov.Reg(asm.R3, asm.R1), asm.Sub.Imm(asm.R3, base), asm.JSGE.Imm(asm.R3, 0, low), asm.Mov.Imm(asm.R3, 0))
		p.mark(low)
		p.emit(asm.Mov.Reg(asm.R0, asm.R2), asm.Sub.Imm(asm.R0, base), asm.JSLE.Imm(asm.R0, 64, high), asm.Mov.Imm(asm.R0, 64))
		p.mark(high)
		p.emit(asm.JSGE.Reg(asm.R3, asm.R0, next), // none in this word
			asm.Mov.Imm(asm.R8, -1), asm.LSh.Reg(asm.R8, asm.R3), // from the low bit up
			asm.Mov.Imm(asm.R3, 64), asm.Sub.Reg(asm.R3, asm.R0), asm.Mov.Imm(asm.R7, -1), asm.RSh.Reg(asm.R7, asm.R3), // below the high one
			asm.And.Reg(asm.R8, asm.R7), asm.LoadMem(asm.R7, asm.R5, window(word), asm.DWord), asm.Or.Reg(asm.R7, asm.R8),
			asm.StoreMem(asm.R5, window(word), asm.R7, asm.DWord))
		p.mark(next)
	}
}

// epilogue gives back the lock and returns, and counts what belongs to no flow.
func (p *program) epilogue() {
	p.emit(asm.LoadMem(asm.R1, asm.RFP, stackFlow, asm.DWord), asm.FnSpinUnlock.Call(), asm.Mov.Reg(asm.R0, asm.R9), asm.Return())

	p.mark("malformed")
	p.emit(asm.Mov.Imm(asm.R1, statMalformed))
	p.mark("stat")
	p.emit(asm.StoreMem(asm.RFP, stackStat, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, p.stats.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackStat),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "pass"))
	p.increment(asm.R0, 0)
	p.mark("pass")
	p.emit(asm.Mov.Imm(asm.R0, p.verdict(false)), asm.Return())
}
