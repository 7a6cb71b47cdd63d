package meter_test

import "slices"

// A small assembler. Everything is a byte slice, so that a test can build any module, valid or not.

// cat joins parts.
func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// u encodes an unsigned LEB128 number.
func u(v uint64) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// s encodes a signed LEB128 number.
func s(v int64) []byte {
	var b []byte
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && low < 0x40) || (v == -1 && low >= 0x40) {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

// str encodes a name.
func str(name string) []byte { return append(u(uint64(len(name))), name...) }

// vec encodes a vector of encoded items.
func vec(items ...[]byte) []byte { return append(u(uint64(len(items))), cat(items...)...) }

// sec encodes a section.
func sec(id byte, body ...[]byte) []byte {
	b := cat(body...)
	return cat([]byte{id}, u(uint64(len(b))), b)
}

// wasm joins sections to a module.
func wasm(sections ...[]byte) []byte {
	return cat([]byte("\x00asm\x01\x00\x00\x00"), cat(sections...))
}

const (
	i32, i64, f32, f64, v128, funcref, externref, void = 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f, 0x40

	unreachable, nop, block, loop, if_, else_, end     = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0b
	br, brIf, brTable, ret, call, callIndirect         = 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11
	drop, sel                                          = 0x1a, 0x1b
	localGet, localSet, localTee, globalGet, globalSet = 0x20, 0x21, 0x22, 0x23, 0x24
	i32Const, i64Const                                 = 0x41, 0x42
	i32Eqz, i32Add, i32Sub, i32Mul, i64Add             = 0x45, 0x6a, 0x6b, 0x6c, 0x7c
	refNull, refFunc, misc, simd                       = 0xd0, 0xd2, 0xfc, 0xfd
)

// typ encodes a function type.
func typ(params, results []byte) []byte {
	return cat([]byte{0x60}, u(uint64(len(params))), params, u(uint64(len(results))), results)
}

// fn encodes a body with locals of the given types, one group each; the end is added.
func fn(locals []byte, code ...byte) []byte {
	groups := make([][]byte, 0, len(locals))
	for _, t := range locals {
		groups = append(groups, []byte{1, t})
	}
	b := cat(vec(groups...), code, []byte{end})
	return append(u(uint64(len(b))), b...)
}

func export(name string, kind byte, index uint64) []byte {
	return cat(str(name), []byte{kind}, u(index))
}

func importOf(module, name string, desc ...byte) []byte {
	return cat(str(module), str(name), desc)
}

// check is the sequence that the rewriter inserts, for fewer than 128 globals and functions.
func check(fuel, yield byte) []byte {
	return []byte{
		globalGet, fuel, i64Const, 1, 0x7d, globalSet, fuel,
		globalGet, fuel, i64Const, 0, 0x53, if_, void, call, yield, globalSet, fuel, end,
	}
}

// single is a module with one exported function "f" of the given type and the given body, one memory and one table.
func single(params, results, locals []byte, code ...byte) []byte {
	return wasm(
		sec(1, vec(typ(params, results))),
		sec(3, vec(u(0))),
		sec(4, vec([]byte{funcref, 0, 4})),
		sec(5, vec([]byte{0, 1})),
		sec(7, vec(export("f", 0, 0))),
		sec(10, vec(fn(locals, code...))),
	)
}
