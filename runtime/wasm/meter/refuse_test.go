package meter_test

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

func TestRefusals(t *testing.T) {
	body := func(code ...byte) []byte { return single(nil, nil, nil, code...) }
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	fnType := sec(1, vec(typ(nil, nil)))
	for _, test := range []struct {
		name, reason string
		code         []byte
	}{
		// The index spaces to which the rewriter adds.
		{"set of the fuel", "global index 0", body(i64Const, 0, globalSet, 0)},
		{"get of the fuel", "global index 0", body(globalGet, 0, drop)},
		{"export of the fuel", "global index 0", wasm(sec(7, vec(export("g", 3, 0))))},
		{"initialiser from the fuel", "global index 0", wasm(sec(6, vec([]byte{i64, 0, globalGet, 0, end})))},
		{"data offset from the fuel", "global index 0", wasm(sec(5, vec([]byte{0, 1})), sec(11, vec([]byte{0, globalGet, 0, end, 0})))},
		{"element offset from the fuel", "global index 0",
			wasm(sec(4, vec([]byte{funcref, 0, 1})), sec(9, vec([]byte{0, globalGet, 0, end, 0})))},
		{"call past the end", "function index 1", body(call, 1)},
		{"reference past the end", "function index 1", body(refFunc, 1, drop)},
		{"export past the end", "function index 0", wasm(sec(7, vec(export("f", 0, 0))))},
		{"start past the end", "function index 0", wasm(sec(8, u(0)))},
		{"element past the end", "function index 0", wasm(sec(9, vec([]byte{1, 0, 1, 0})))},
		{"element expression past the end", "function index 0", wasm(sec(9, vec([]byte{5, funcref, 1, refFunc, 0, end})))},
		{"initialiser past the end", "function index 0", wasm(sec(6, vec([]byte{funcref, 0, refFunc, 0, end})))},
		{"function of the added type", "type index 1", wasm(fnType, sec(3, vec(u(1))))},
		{"import of the added type", "type index 1", wasm(fnType, sec(2, vec(importOf("env", "f", 0, 1))))},
		{"indirect call of the added type", "type index 1", body(i32Const, 0, callIndirect, 1, 0, drop)},
		{"block of the added type", "block type 1", body(block, 1, end)},
		{"the scratch local", "local index 0",
			body(localGet, 0, drop, i32Const, 0, i32Const, 0, i32Const, 0, misc, 0x0b, 0)},
		// Names.
		{"reserved export", "reserved", wasm(fnType, sec(5, vec([]byte{0, 1})), sec(7, vec(export("tenure_rt.x", 2, 0))))},
		{"import of yield", "reserved module", wasm(fnType, sec(2, vec(importOf("tenure_rt", "yield", 0, 0))))},
		{"name that is not UTF-8", "UTF-8", wasm(fnType, sec(2, vec(importOf("\xff", "f", 0, 0))))},
		// Opcodes of other proposals, and holes.
		{"return_call", "opcode 0x12", body(0x12, 0)},
		{"return_call_indirect", "opcode 0x13", body(0x13, 0, 0)},
		{"call_ref", "opcode 0x14", body(0x14, 0)},
		{"try", "opcode 0x6 ", body(0x06, void, end)},
		{"throw", "opcode 0x8 ", body(0x08, 0)},
		{"try_table", "opcode 0x1f", body(0x1f, void, 0, end)},
		{"ref.as_non_null", "opcode 0xd4", body(0xd4)},
		{"garbage collection", "opcode 0xfb", body(0xfb, 0, 0)},
		{"atomics", "opcode 0xfe", body(0xfe, 0x03, 0)},
		{"sign extension and one", "opcode 0xc5", body(0xc5)},
		{"misc past the end", "operation 0xfc 0x12", body(misc, 0x12)},
		{"misc in long form", "operation 0xfc 0x8b", body(misc, 0x8b, 0, 0)},
		{"vector hole", "opcode 0xfd", body(simd, 0x9a, 1)},
		{"relaxed vectors", "vector operation", body(simd, 0x80, 2)},
		{"vector in long form", "vector operation", body(simd, 0x8c, 0)},
		{"block with a long negative type", "block type -64", body(block, 0xc0, 0x7f, end)},
		{"tag section", "section 13", wasm(sec(13, vec()))},
		{"import of a tag", "kind 0x4", wasm(fnType, sec(2, vec(importOf("env", "t", 4, 0, 0))))},
		{"recursive types", "type form 0x4e", wasm(sec(1, vec([]byte{0x4e, 0})))},
		{"shared memory", "limits flag 0x3", wasm(sec(5, vec([]byte{3, 1, 1})))},
		{"64-bit memory", "limits flag 0x4", wasm(sec(5, vec([]byte{4, 1})))},
		{"second memory in an instruction", "memory index 1", body(0x3f, 1, drop)},
		{"extended constant", "goes on", wasm(sec(6, vec([]byte{i32, 0, i32Const, 1, i32Const, 1, i32Add, end})))},
		{"exception reference", "value type 0x69", wasm(sec(6, vec([]byte{0x69, 0, refNull, 0x69, end})))},
		// Structure.
		{"no module", "not a WebAssembly module", []byte("\x00asm\x02\x00\x00\x00")},
		{"nothing", "8 bytes announced", nil},
		{"sections out of order", "out of order", wasm(sec(3, vec()), fnType)},
		{"section twice", "repeated", wasm(fnType, fnType)},
		{"section too long", "announced", wasm([]byte{1, 9, 0})},
		{"bytes behind a section", "too many", wasm(sec(1, vec(), []byte{0}))},
		{"function without body", "1 functions have 0 bodies", wasm(fnType, sec(3, vec(u(0))))},
		{"body without function", "0 functions have 1 bodies", wasm(fnType, sec(10, vec(fn(nil))))},
		{"data count", "2 data segments announced", wasm(sec(12, u(2)), sec(11, vec([]byte{1, 0})))},
		{"body that does not end", "unexpected end", wasm(fnType, sec(3, vec(u(0))), sec(10, vec([]byte{2, 0, nop})))},
		{"body that goes on", "too many", body(end)},
		{"else without if", "else without if", body(block, void, else_, end)},
		{"second else", "else without if", body(i32Const, 0, if_, void, else_, else_, end)},
		{"label past the function", "label index 2", body(block, void, br, 2, end)},
		{"label of the inserted if", "label index 1", body(i32Const, 0, brIf, 1)},
		{"long number", "does not fit 32", body(i32Const, 0xff, 0xff, 0xff, 0xff, 0x4f, drop)},
		{"select of two types", "select with 2", body(0x1c, 2, i32, i32)},
		{"absurd alignment", "alignment", body(i32Const, 0, 0x28, 5, 0, drop)},
		{"absurd number of types", "types announced", wasm(sec(1, huge))},
		{"absurd number of labels", "labels announced", body(cat([]byte{brTable}, huge)...)},
		{"absurd number of locals", "more than 50000 locals",
			wasm(fnType, sec(3, vec(u(0))), sec(10, vec(cat(u(8), vec(cat(huge, []byte{i32})), []byte{end}))))},
		{"absurd number of elements", "elements announced", wasm(sec(9, vec(cat([]byte{1, 0}, huge))))},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := meter.Rewrite(test.code, meter.Options{})
			var refused *meter.Error
			if !errors.As(err, &refused) {
				t.Fatalf("error %v, module %v; want a refusal because of %q", err, out, test.reason)
			}
			if !strings.Contains(refused.Reason, test.reason) {
				t.Errorf("refused with %q, want %q", refused, test.reason)
			}
			if refused.Offset < 0 || refused.Offset > len(test.code) {
				t.Errorf("offset %d of %d bytes", refused.Offset, len(test.code))
			}
		})
	}
	if _, err := meter.Rewrite(wasm(), meter.Options{Slice: -1}); err == nil {
		t.Error("a negative slice was taken")
	}
}

// TestLocalsOfAllFunctions keeps a small module from claiming the memory of the engine.
func TestLocalsOfAllFunctions(t *testing.T) {
	const n = 100
	many := cat(u(6), vec(cat(u(50_000), []byte{i32})), []byte{end})
	code := wasm(
		sec(1, vec(typ(nil, nil))), sec(3, vec(slices.Repeat([][]byte{u(0)}, n)...)),
		sec(10, vec(slices.Repeat([][]byte{many}, n)...)),
	)
	if _, err := meter.Rewrite(code, meter.Options{}); err == nil || !strings.Contains(err.Error(), "in all functions") {
		t.Errorf("%d functions of 50,000 locals: error %v", n, err)
	}
}

// TestTruncations cuts a real module at many places, and flips bytes there.
func TestTruncations(t *testing.T) {
	code := asGuest(t)
	for i := 0; i < len(code); i += 3 {
		if _, err := meter.Rewrite(code[:i], meter.Options{}); err == nil && !wholeSections(code[:i]) {
			t.Fatalf("the first %d bytes were taken", i)
		}
		flipped := bytes.Clone(code)
		flipped[i] ^= 0xff
		_, _ = meter.Rewrite(flipped, meter.Options{}) // must not panic; most flips are refused, those in data are not
	}
}

// wholeSections reports whether code ends where a section ends.
func wholeSections(code []byte) bool {
	pos := 8
	for pos < len(code) {
		size, n := 0, 0
		for shift := 0; pos+1+n < len(code); shift += 7 {
			b := code[pos+1+n]
			n++
			size |= int(b&0x7f) << shift
			if b < 0x80 {
				break
			}
		}
		pos += 1 + n + size
	}
	return pos == len(code)
}

// TestMemoryIsBounded compares what a rewrite allocates with the size of its input, for inputs made of what costs most.
func TestMemoryIsBounded(t *testing.T) {
	const n = 200_000
	for name, code := range map[string][]byte{
		"loops":  single(nil, nil, nil, cat(slices.Repeat([]byte{loop, void}, n), slices.Repeat([]byte{end}, n))...),
		"blocks": single(nil, nil, nil, cat(slices.Repeat([]byte{block, void}, n), slices.Repeat([]byte{end}, n))...),
		"br_if":  single(nil, nil, nil, cat([]byte{loop, void}, slices.Repeat([]byte{i32Const, 0, brIf, 0}, n), []byte{end})...),
		"headers": single(nil, nil, []byte{i32}, cat(
			slices.Repeat([]byte{loop, void, block, void, localGet, 0, brTable, 0, 0, end, end}, n))...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out := rewrite(t, code)
		runtime.ReadMemStats(&after)
		if factor := (after.TotalAlloc - before.TotalAlloc) / uint64(len(code)); factor > 200 {
			t.Errorf("%s: allocates %d bytes per byte of input (output %d of %d)", name, factor, len(out.Code), len(code))
		}
	}
}
