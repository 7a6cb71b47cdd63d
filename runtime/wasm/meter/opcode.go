package meter

// immediate says what follows an opcode in the code.
type immediate byte

const (
	immUnknown  immediate = iota // not an opcode of WebAssembly 2.0: refuse the module
	immNone                      // nothing
	immBlock                     // a block type: block, loop, if
	immElse                      // nothing, but it changes the control stack
	immEnd                       // nothing, but it changes the control stack
	immLabel                     // a label: br, br_if
	immBrTable                   // a vector of labels and one more
	immCall                      // a function index
	immIndirect                  // a type index and a table index
	immSelect                    // a vector of exactly one value type
	immLocal                     // a local index
	immGlobal                    // a global index
	immTable                     // a table index
	immMemArg                    // alignment and offset
	immMemory                    // the memory index, one zero byte
	immI32                       // a signed 32-bit number
	immI64                       // a signed 64-bit number
	immF32                       // four bytes
	immF64                       // eight bytes
	immRefType                   // a reference type
	immRefFunc                   // a function index
	immMisc                      // the second byte of a bulk or saturating operation
	immVec                       // the second byte of a vector operation
	immV128                      // sixteen bytes: v128.const and i8x16.shuffle
	immLane                      // a lane index
	immLaneArg                   // alignment, offset and a lane index
	immSegment                   // a data or element segment index
	immSegMem                    // a data segment index and the memory index
	immSegTable                  // an element segment index and a table index
	immMemories                  // two memory indices
	immTables                    // two table indices
)

// immediateOf returns what follows the opcode op.
func immediateOf(op byte) immediate {
	switch {
	case op >= 0x45 && op <= 0xc4: // numeric instructions up to sign extension
		return immNone
	case op >= 0x28 && op <= 0x3e:
		return immMemArg
	case op >= opLocalGet && op <= opLocalTee:
		return immLocal
	}
	switch op {
	case opBlock, opLoop, opIf:
		return immBlock
	case opElse:
		return immElse
	case opEnd:
		return immEnd
	case opBr, opBrIf:
		return immLabel
	case opBrTable:
		return immBrTable
	case opCall:
		return immCall
	case 0x11:
		return immIndirect
	case 0x1c:
		return immSelect
	case opGlobalGet, opGlobalSet:
		return immGlobal
	case 0x25, opTableSet:
		return immTable
	case 0x3f, 0x40:
		return immMemory
	case opI32Const:
		return immI32
	case opI64Const:
		return immI64
	case opF32Const:
		return immF32
	case opF64Const:
		return immF64
	case opRefNull:
		return immRefType
	case opRefFunc:
		return immRefFunc
	case opMisc:
		return immMisc
	case opVec:
		return immVec
	case 0x00, 0x01, 0x0f, 0x1a, 0x1b, 0xd1: // unreachable, nop, return, drop, select, ref.is_null
		return immNone
	}
	return immUnknown
}

// The operations behind opMisc from memory.init on.
const (
	miscMemoryInit = 0x08 + iota
	miscDataDrop
	miscMemoryCopy
	miscMemoryFill
	miscTableInit
	miscElemDrop
	miscTableCopy
	miscTableGrow
	miscTableSize
	miscTableFill
)

// miscOperation describes one operation behind opMisc.
type miscOperation struct {
	imm    immediate
	bulk   bool // the operand on top of the stack is a length, to be charged
	shift  byte // a unit of fuel pays for 2^shift elements: 64 bytes of memory, or 8 table slots of 8 bytes
	tables bool // it changes a table or drops an element segment, which snapshots do not hold
}

// miscOf returns the operation behind opMisc with the given second byte.
func miscOf(op byte) miscOperation {
	switch op {
	case miscMemoryInit:
		return miscOperation{imm: immSegMem, bulk: true, shift: 6}
	case miscDataDrop:
		return miscOperation{imm: immSegment}
	case miscMemoryCopy:
		return miscOperation{imm: immMemories, bulk: true, shift: 6}
	case miscMemoryFill:
		return miscOperation{imm: immMemory, bulk: true, shift: 6}
	case miscTableInit:
		return miscOperation{imm: immSegTable, bulk: true, shift: 3, tables: true}
	case miscElemDrop:
		return miscOperation{imm: immSegment, tables: true}
	case miscTableCopy:
		return miscOperation{imm: immTables, bulk: true, shift: 3, tables: true}
	case miscTableGrow, miscTableFill:
		return miscOperation{imm: immTable, bulk: true, shift: 3, tables: true}
	case miscTableSize:
		return miscOperation{imm: immTable}
	}
	if op <= 0x07 { // saturating float to integer
		return miscOperation{imm: immNone}
	}
	return miscOperation{imm: immUnknown}
}

// vecImmediateOf returns what follows the vector operation with the given number.
func vecImmediateOf(op byte) immediate {
	switch {
	case op <= 0x0b, op == 0x5c, op == 0x5d:
		return immMemArg
	case op == vecConst, op == 0x0d:
		return immV128
	case op >= 0x15 && op <= 0x22:
		return immLane
	case op >= 0x54 && op <= 0x5b:
		return immLaneArg
	}
	switch op { // the holes that relaxed SIMD and earlier drafts left
	case 0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee:
		return immUnknown
	}
	return immNone
}

func isRefType(t byte) bool { return t == typeFuncref || t == typeExternref }

func isNumType(t byte) bool { return t >= typeF64 && t <= typeI32 }

func isValueType(t byte) bool { return isNumType(t) || t == typeV128 || isRefType(t) }
