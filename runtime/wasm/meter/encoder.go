package meter

// Opcodes that the rewriter emits or looks at.
const (
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opBrTable     = 0x0e
	opCall        = 0x10
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opLocalTee    = 0x22
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opTableSet    = 0x26
	opI32Const    = 0x41
	opI64Const    = 0x42
	opF32Const    = 0x43
	opF64Const    = 0x44
	opI64LtS      = 0x53
	opI32ShrU     = 0x76
	opI64Sub      = 0x7d
	opI64ExtendU  = 0xad
	opRefNull     = 0xd0
	opRefFunc     = 0xd2
	opMisc        = 0xfc
	opVec         = 0xfd
	vecConst      = 0x0c
	typeI32       = 0x7f
	typeI64       = 0x7e
	typeF32       = 0x7d
	typeF64       = 0x7c
	typeV128      = 0x7b
	typeFuncref   = 0x70
	typeExternref = 0x6f
	typeVoid      = 0x40
	typeFunc      = 0x60
)

func appendU32(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func appendS64(dst []byte, v int64) []byte {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && b&0x40 == 0) || (v == -1 && b&0x40 != 0) {
			return append(dst, b)
		}
		dst = append(dst, b|0x80)
	}
}

func appendName(dst []byte, name string) []byte {
	return append(appendU32(dst, uint32(len(name))), name...)
}

func appendSized(dst, body []byte) []byte {
	return append(appendU32(dst, uint32(len(body))), body...)
}

// appendCheck emits CHECK(weight): take weight units of fuel, and yield for more if that leaves less than none. It needs
// no operand and leaves none, so it may stand anywhere in a body.
func appendCheck(dst []byte, fuel, yield uint32, weight int) []byte {
	dst = appendU32(append(dst, opGlobalGet), fuel)
	dst = appendS64(append(dst, opI64Const), int64(weight))
	dst = appendU32(append(dst, opI64Sub, opGlobalSet), fuel)
	dst = appendU32(append(dst, opGlobalGet), fuel)
	dst = append(dst, opI64Const, 0, opI64LtS, opIf, typeVoid)
	dst = appendU32(append(dst, opCall), yield)
	dst = appendU32(append(dst, opGlobalSet), fuel)
	return append(dst, opEnd)
}

// appendCharge emits code that takes n>>shift units of fuel, where n is the i32 on top of the stack; n stays there. It
// copies n to the scratch local. The length is unsigned: a signed one would give fuel back for lengths past 2 GiB.
func appendCharge(dst []byte, fuel, scratch uint32, shift byte) []byte {
	dst = appendU32(append(dst, opLocalTee), scratch)
	dst = appendU32(append(dst, opGlobalGet), fuel)
	dst = appendU32(append(dst, opLocalGet), scratch)
	dst = append(dst, opI32Const, shift, opI32ShrU, opI64ExtendU, opI64Sub)
	return appendU32(append(dst, opGlobalSet), fuel)
}
