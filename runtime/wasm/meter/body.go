package meter

const (
	// maxLocals bounds the locals of one function, and maxAllLocals those of all. A body declares any number of locals in
	// a few bytes, but an engine keeps a record of each.
	maxLocals    = 50_000
	maxAllLocals = 4_000_000

	// unitBytes is how much code, in bytes of the original, one unit of fuel pays for. Code is charged where it is
	// entered: the whole body on entry, what is repeated on a branch back, what is left after a call.
	unitBytes = 256

	// maxTail is the most code, in bytes, that may stand behind a call without a check between. The frames of a deep
	// recursion paid on entry; were their tails free, a million of them could unwind through a million instructions
	// each without a single yield.
	maxTail = 256
)

// frame is one entry of the control stack of a body.
type frame struct {
	id       int       // position in the order in which the frames of the body were opened
	start    int       // offset of the code in it
	op       byte      // opBlock, opLoop, opIf, or opElse in the second arm of an if
	params   bool      // whether its type has parameters
	dispatch *dispatch // of a loop, its header; of a block of a header, that header; else nil
}

// instruction is what the recognisers of adjacent instructions remember of one.
type instruction struct {
	op    byte
	value uint32 // index or number
}

// body rewrites one function body.
type body struct {
	m *module
	r *reader

	out     []byte // the rewritten instructions, all before copied
	copied  int    // the offset up to which the original is in out
	locals  uint32 // parameters and locals; also the index of the scratch local
	scratch bool   // whether the scratch local is used

	frames     []frame
	nextID     int
	prev, last instruction // the two instructions before the current one

	// header is the loop whose dispatch header is being recognised: blocks counts those directly behind it, chosen is set
	// when the local.get stands behind them. It is nil elsewhere.
	header *dispatch
	chosen bool
}

func (m *module) decodeCode(r *reader) []byte {
	m.bodies = r.count("function bodies")
	if defined := len(m.functions) - m.importedFuncs; m.bodies != defined {
		r.fail("%d functions have %d bodies", defined, m.bodies)
		return nil
	}
	out := appendU32(make([]byte, 0, (r.end-r.pos)+(r.end-r.pos)/8), uint32(m.bodies))
	b := &body{m: m}
	for i := 0; i < m.bodies && r.err == nil; i++ {
		b.r = r.sub(r.u32())
		out = b.rewrite(out, m.params[m.functions[m.importedFuncs+i]])
		r.finish(b.r, "function body")
	}
	return out
}

// rewrite appends the rewritten body, with its size, to dst.
func (b *body) rewrite(dst []byte, params uint32) []byte {
	r := b.r
	groups, declared := b.decodeLocals(params)
	b.out, b.copied, b.scratch = b.out[:0], r.pos, false
	b.prev, b.last, b.header = instruction{}, instruction{}, nil
	b.frames, b.nextID = b.frames[:0], 0
	b.push(frame{op: opBlock})
	b.insertCheck(r.end - r.pos)
	for len(b.frames) > 0 && r.err == nil {
		b.instruction()
	}
	if r.err != nil {
		return dst
	}
	b.flush(r.pos)
	var head []byte
	if b.scratch {
		head = append(appendU32(head, uint32(groups+1)), declared...)
		head = append(head, 1, typeI32)
	} else {
		head = append(appendU32(head, uint32(groups)), declared...)
	}
	dst = appendU32(dst, uint32(len(head)+len(b.out)))
	return append(append(dst, head...), b.out...)
}

// decodeLocals returns the number of groups of locals and their encoding.
func (b *body) decodeLocals(params uint32) (int, []byte) {
	r := b.r
	groups := r.count("groups of locals")
	start := r.pos
	total := uint64(0)
	for i := 0; i < groups && r.err == nil; i++ {
		total += uint64(r.u32())
		valueType(r)
		if total > maxLocals {
			r.failAt(start, "more than %d locals in a function", maxLocals)
		}
	}
	if r.err != nil {
		return 0, nil
	}
	b.locals = params + uint32(total)
	b.m.locals += int(total)
	if b.m.locals > maxAllLocals {
		r.failAt(start, "more than %d locals in all functions", maxAllLocals)
	}
	return groups, r.code[start:r.pos]
}

func (b *body) push(f frame) {
	f.id, f.start = b.nextID, b.r.pos
	b.nextID++
	b.frames = append(b.frames, f)
}

// flush copies the original up to the offset end to the output.
func (b *body) flush(end int) {
	b.out = append(b.out, b.r.code[b.copied:end]...)
	b.copied = end
}

// replace puts code in the place of the instruction that begins at start, the last one decoded.
func (b *body) replace(start int, code ...byte) {
	b.flush(start)
	b.out = append(b.out, code...)
	b.copied = b.r.pos
}

// insertCheck emits a check that also pays for the given number of bytes of code.
func (b *body) insertCheck(bytes int) {
	b.out = appendCheck(b.out, uint32(b.m.globals), uint32(b.m.importedFuncs), 1+bytes/unitBytes)
	b.m.out.Checks++
}

// checkBefore puts a check in front of the instruction that begins at start.
func (b *body) checkBefore(start, bytes int) {
	b.flush(start)
	b.insertCheck(bytes)
}

// instruction decodes one instruction and rewrites it.
func (b *body) instruction() {
	r := b.r
	start := r.pos
	current := instruction{op: r.byte()}
	if r.err != nil {
		return
	}
	header := b.header
	b.header = nil // unless this instruction continues it
	switch imm := immediateOf(current.op); imm {
	case immNone:
	case immBlock:
		b.open(current.op, header)
	case immElse:
		top := &b.frames[len(b.frames)-1]
		if top.op != opIf {
			r.failAt(start, "else without if")
		}
		top.op = opElse
	case immEnd:
		b.close()
	case immLabel:
		b.branch(start, current.op)
	case immBrTable:
		b.branchTable(start, header)
	case immCall:
		b.replace(start, appendU32([]byte{opCall}, b.m.function(r))...)
		b.afterCall()
	case immIndirect:
		r.index("type", len(b.m.params))
		r.index("table", b.m.tables)
		b.afterCall()
	case immRefFunc:
		b.replace(start, appendU32([]byte{opRefFunc}, b.m.function(r))...)
	case immLocal:
		current.value = r.index("local", int(b.locals))
		if current.op == opLocalGet && header != nil && !b.chosen {
			header.local, b.chosen, b.header = current.value, true, header
		}
	case immI32:
		current.value = uint32(int32(r.signed(32)))
	case immMisc:
		b.misc(start)
	case immVec:
		b.vector(start)
	default:
		if current.op == opTableSet {
			b.m.out.Snapshotable = false
		}
		b.skip(start, imm)
	}
	b.prev, b.last = b.last, current
}

// open enters a block, loop or if.
func (b *body) open(op byte, header *dispatch) {
	r := b.r
	f := frame{op: op}
	t := byte(0)
	if r.pos < r.end {
		t = r.code[r.pos]
	}
	if t == typeVoid || isValueType(t) {
		r.pos++
	} else {
		start := r.pos
		i := r.signed(33)
		if r.err == nil && (i < 0 || i >= int64(len(b.m.params))) {
			r.failAt(start, "block type %d is not supported", i)
		}
		f.params = r.err == nil && b.m.params[i] > 0
	}
	switch {
	case op == opLoop:
		b.m.out.Loops++
		if t == typeVoid {
			f.dispatch = &dispatch{}
			b.header, b.chosen = f.dispatch, false
		}
	case op == opBlock && t == typeVoid && header != nil && !b.chosen:
		header.blocks++
		f.dispatch, b.header = header, header
	}
	b.push(f)
}

// close leaves a block, loop, if or the body, at the end that was just decoded.
func (b *body) close() {
	place := len(b.frames) - 1
	f := b.frames[place]
	b.frames = b.frames[:place]
	if f.op == opBlock && f.dispatch != nil && f.dispatch.ends != nil {
		// The loop of the header still stands below its blocks, which are numbered behind it.
		f.dispatch.ends[f.id-f.dispatch.id-1] = b.r.pos
	}
}

// label returns the position on the control stack of the frame that a label names.
func (b *body) label() int {
	return len(b.frames) - 1 - int(b.r.index("label", len(b.frames)))
}

// branch rewrites br and br_if. A branch forward stays as it is.
func (b *body) branch(start int, op byte) {
	at := b.label()
	if b.r.err != nil || b.frames[at].op != opLoop {
		return
	}
	repeated := b.r.pos - b.frames[at].start
	switch {
	case op == opBr:
		if to, known := b.jump(at); !known {
			b.checkBefore(start, repeated)
		} else if to != 0 {
			b.checkBefore(start, b.r.pos-to)
		}
	case b.frames[at].params:
		// An if would have to take the operands of the loop and return them; pay on both ways instead.
		b.checkBefore(start, repeated)
	default:
		b.replace(start, opIf, typeVoid)
		b.insertCheck(repeated)
		b.out = appendU32(append(b.out, opBr), uint32(len(b.frames)-at)) // one deeper, inside of the if
		b.out = append(b.out, opEnd)
	}
}

func (b *body) branchTable(start int, header *dispatch) {
	r := b.r
	n := r.count("labels") + 1
	var labels []uint32
	if header != nil && b.chosen {
		labels = make([]uint32, 0, n)
	}
	lowest := start // the first loop that a label names
	for ; n > 0 && r.err == nil; n-- {
		at := b.label()
		if r.err != nil {
			return
		}
		if b.frames[at].op == opLoop {
			lowest = min(lowest, b.frames[at].start)
		}
		if labels != nil {
			labels = append(labels, uint32(len(b.frames)-1-at))
		}
	}
	if labels != nil {
		// The blocks of the header are the innermost frames, behind their loop.
		header.id = b.frames[len(b.frames)-1-header.blocks].id
		header.labels, header.ends = labels, make([]int, header.blocks)
	}
	if lowest < start {
		b.checkBefore(start, r.pos-lowest)
	}
}

// afterCall puts a check behind a call if much code follows it. The position in the body stands for the code that can run
// before the function returns, since branches back are checked.
func (b *body) afterCall() {
	if tail := b.r.end - b.r.pos; b.r.err == nil && tail > maxTail {
		b.checkBefore(b.r.pos, tail)
	}
}

// misc rewrites the operations behind opMisc: those on a length are charged by it.
func (b *body) misc(start int) {
	r := b.r
	op := r.byte()
	operation := miscOf(op)
	if operation.imm == immUnknown {
		r.failAt(start, "operation 0xfc %#x is not supported", op)
	}
	switch op {
	case miscMemoryInit:
		b.m.memoryInit = true
	case miscDataDrop:
		b.m.dataDrop = true
	}
	if operation.tables {
		b.m.out.Snapshotable = false
	}
	b.skip(start, operation.imm)
	if !operation.bulk || r.err != nil {
		return
	}
	b.flush(start)
	b.out = appendCharge(b.out, uint32(b.m.globals), b.locals, operation.shift)
	b.insertCheck(0)
	b.scratch = true
}

// vector decodes a vector operation. The format has its number in LEB128; the engine reads a single byte and takes the
// second one for a nop, so any other encoding than the shortest would mean different things to the two.
func (b *body) vector(start int) {
	op := b.r.byte()
	if op >= 0x80 && b.r.byte() != 0x01 {
		b.r.failAt(start, "vector operation is not supported")
	}
	imm := vecImmediateOf(op)
	b.skip(start, imm)
}

// skip decodes immediates that need no change.
func (b *body) skip(start int, imm immediate) {
	r, m := b.r, b.m
	switch imm {
	case immUnknown:
		r.failAt(start, "opcode %#x is not supported", r.code[start])
	case immSelect:
		if n := r.byte(); r.err == nil && n != 1 {
			r.failAt(start, "select with %d types", n)
		}
		valueType(r)
	case immGlobal:
		r.index("global", m.globals)
	case immTable:
		r.index("table", m.tables)
	case immTables:
		r.index("table", m.tables)
		r.index("table", m.tables)
	case immMemory:
		b.memory()
	case immMemories:
		b.memory()
		b.memory()
	case immI64:
		r.signed(64)
	case immF32:
		r.bytes(4)
	case immF64:
		r.bytes(8)
	case immRefType:
		refType(r)
	case immV128:
		r.bytes(16)
	case immLane:
		r.byte()
	case immMemArg, immLaneArg:
		b.memArg()
		if imm == immLaneArg {
			r.byte()
		}
	case immSegment:
		r.u32()
	case immSegMem:
		r.u32()
		b.memory()
	case immSegTable:
		r.u32()
		r.index("table", m.tables)
	}
}

// memory decodes the one-byte index of the only memory.
func (b *body) memory() {
	if i := b.r.byte(); b.r.err == nil && i != 0 {
		b.r.failAt(b.r.pos-1, "memory index %d; several memories are not supported", i)
	}
}

func (b *body) memArg() {
	start := b.r.pos
	if align := b.r.u32(); b.r.err == nil && align > 4 {
		b.r.failAt(start, "alignment of 2^%d", align)
	}
	b.r.u32()
}
