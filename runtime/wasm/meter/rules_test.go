package meter_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// The body tests use single, in which the fuel is global 0 and yield function 0.
var chk = check(0, 0)

// charge is what stands before a bulk operation, behind its operands.
func charge(scratch, shift byte) []byte {
	return cat([]byte{
		localTee, scratch, globalGet, 0, localGet, scratch, i32Const, shift, 0x76, 0xad, 0x7d, globalSet, 0,
	}, chk)
}

// expected is what single becomes: the additions to every section, and the given body.
func expected(params, results []byte, body []byte) []byte {
	return wasm(
		sec(1, vec(typ(params, results), typ(nil, []byte{i64}))),
		sec(2, vec(importOf("tenure_rt", "yield", 0, 1))),
		sec(3, vec(u(0))),
		sec(4, vec([]byte{funcref, 0, 4})),
		sec(5, vec([]byte{0, 1})),
		sec(6, vec(cat([]byte{i64, 1, i64Const}, s(10_000), []byte{end}))),
		sec(7, vec(export("f", 0, 1), export("tenure_rt.fuel", 3, 0))),
		sec(10, vec(body)),
	)
}

func TestBodies(t *testing.T) {
	header := []byte{loop, void, block, void, block, void, localGet, 0, brTable, 2, 0, 1, 1}
	for _, test := range []struct {
		name           string
		params, locals []byte
		code           []byte
		want           []byte // without the check on entry
	}{
		{"nothing", nil, nil, nil, nil},
		{"br back", nil, nil,
			[]byte{loop, void, br, 0, end},
			cat([]byte{loop, void}, chk, []byte{br, 0, end})},
		{"br back out of a block", nil, nil,
			[]byte{loop, void, block, void, br, 1, end, end},
			cat([]byte{loop, void, block, void}, chk, []byte{br, 1, end, end})},
		{"br ahead", nil, nil,
			[]byte{block, void, loop, void, br, 1, end, end},
			[]byte{block, void, loop, void, br, 1, end, end}},
		{"br to the function", nil, nil,
			[]byte{loop, void, br, 1, end},
			[]byte{loop, void, br, 1, end}},
		{"br_if back", []byte{i32}, nil,
			[]byte{loop, void, localGet, 0, brIf, 0, end},
			cat([]byte{loop, void, localGet, 0, if_, void}, chk, []byte{br, 1, end, end})},
		{"br_if back out of an if", []byte{i32}, nil,
			[]byte{loop, void, localGet, 0, if_, void, localGet, 0, brIf, 1, else_, nop, end, end},
			cat([]byte{loop, void, localGet, 0, if_, void, localGet, 0, if_, void}, chk, []byte{br, 2, end, else_, nop, end, end})},
		{"br_if back with a result of the loop", []byte{i32}, nil,
			[]byte{loop, i32, localGet, 0, brIf, 0, i32Const, 1, end, drop},
			cat([]byte{loop, i32, localGet, 0, if_, void}, chk, []byte{br, 1, end, i32Const, 1, end, drop})},
		{"br_if back with operands", []byte{i32}, nil, // type 0 is (i32) -> ()
			[]byte{i32Const, 3, loop, 0, localGet, 0, brIf, 0, drop, end},
			cat([]byte{i32Const, 3, loop, 0, localGet, 0}, chk, []byte{brIf, 0, drop, end})},
		{"br_if ahead", []byte{i32}, nil,
			[]byte{block, void, localGet, 0, brIf, 0, end},
			[]byte{block, void, localGet, 0, brIf, 0, end}},
		{"br_table back by an entry", []byte{i32}, nil,
			[]byte{loop, void, localGet, 0, brTable, 1, 0, 1, end},
			cat([]byte{loop, void, localGet, 0}, chk, []byte{brTable, 1, 0, 1, end})},
		{"br_table back by default", []byte{i32}, nil,
			[]byte{loop, void, localGet, 0, brTable, 1, 1, 0, end},
			cat([]byte{loop, void, localGet, 0}, chk, []byte{brTable, 1, 1, 0, end})},
		{"br_table ahead", []byte{i32}, nil,
			[]byte{block, void, localGet, 0, brTable, 1, 0, 0, end},
			[]byte{block, void, localGet, 0, brTable, 1, 0, 0, end}},

		{"dispatch ahead", []byte{i32}, nil,
			cat(header, []byte{end, i32Const, 1, localSet, 0, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 1, localSet, 0, br, 1, end, end})},
		{"dispatch ahead by default", []byte{i32}, nil,
			cat(header, []byte{end, i32Const, 0x7f, localSet, 0, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 0x7f, localSet, 0, br, 1, end, end})},
		{"dispatch back", []byte{i32}, nil,
			cat(header, []byte{end, i32Const, 0, localSet, 0, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 0, localSet, 0}, chk, []byte{br, 1, end, end})},
		{"dispatch to a closed block whose place is taken", []byte{i32}, nil,
			cat(header, []byte{end, end, block, void, i32Const, 1, localSet, 0, br, 1, end, end}),
			cat(header, []byte{end, end, block, void, i32Const, 1, localSet, 0}, chk, []byte{br, 1, end, end})},
		{"dispatch by another local", []byte{i32, i32}, nil,
			cat(header, []byte{end, i32Const, 1, localSet, 1, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 1, localSet, 1}, chk, []byte{br, 1, end, end})},
		{"dispatch by a computed state", []byte{i32, i32}, nil,
			cat(header, []byte{end, localGet, 1, localSet, 0, br, 1, end, end}),
			cat(header, []byte{end, localGet, 1, localSet, 0}, chk, []byte{br, 1, end, end})},
		{"dispatch with something between", []byte{i32}, nil,
			cat(header, []byte{end, i32Const, 1, localSet, 0, nop, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 1, localSet, 0, nop}, chk, []byte{br, 1, end, end})},
		{"dispatch without a set", []byte{i32}, nil,
			cat(header, []byte{end, i32Const, 1, localGet, 0, br, 1, end, end}),
			cat(header, []byte{end, i32Const, 1, localGet, 0}, chk, []byte{br, 1, end, end})},
		{"dispatch with a label between", []byte{i32}, nil,
			cat(header, []byte{end, block, void, i32Const, 1, localSet, 0, end, br, 1, end, end}),
			cat(header, []byte{end, block, void, i32Const, 1, localSet, 0, end}, chk, []byte{br, 1, end, end})},
		{"dispatch by br_if", []byte{i32}, nil,
			cat(header, []byte{end, localGet, 0, i32Const, 1, localSet, 0, brIf, 1, end, end}),
			cat(header, []byte{end, localGet, 0, i32Const, 1, localSet, 0, if_, void}, chk, []byte{br, 2, end, end, end})},
		{"header with something between", []byte{i32}, nil,
			[]byte{loop, void, block, void, nop, localGet, 0, brTable, 0, 0, end, i32Const, 0, localSet, 0, br, 0, end},
			cat([]byte{loop, void, block, void, nop, localGet, 0, brTable, 0, 0, end, i32Const, 0, localSet, 0}, chk, []byte{br, 0, end})},
		{"header that changes the state", []byte{i32}, nil,
			[]byte{loop, void, block, void, i32Const, 0, localSet, 0, localGet, 0, brTable, 0, 0, i32Const, 0, localSet, 0, br, 1, end, end},
			cat([]byte{loop, void, block, void, i32Const, 0, localSet, 0, localGet, 0, brTable, 0, 0, i32Const, 0, localSet, 0}, chk, []byte{br, 1, end, end})},
		{"header whose table names the loop", []byte{i32}, nil,
			[]byte{loop, void, block, void, localGet, 0, brTable, 1, 1, 0, i32Const, 0, localSet, 0, br, 1, end, end},
			cat([]byte{loop, void, block, void, localGet, 0}, chk, []byte{brTable, 1, 1, 0, i32Const, 0, localSet, 0}, chk, []byte{br, 1, end, end})},

		{"memory.fill", nil, nil,
			[]byte{i32Const, 0, i32Const, 0, i32Const, 9, misc, 0x0b, 0},
			cat([]byte{i32Const, 0, i32Const, 0, i32Const, 9}, charge(0, 6), []byte{misc, 0x0b, 0})},
		{"memory.copy behind a parameter and locals", []byte{i32}, []byte{i64, f32},
			[]byte{i32Const, 0, i32Const, 0, i32Const, 9, misc, 0x0a, 0, 0},
			cat([]byte{i32Const, 0, i32Const, 0, i32Const, 9}, charge(3, 6), []byte{misc, 0x0a, 0, 0})},
		{"table.fill", nil, nil,
			[]byte{i32Const, 0, refNull, funcref, i32Const, 9, misc, 0x11, 0},
			cat([]byte{i32Const, 0, refNull, funcref, i32Const, 9}, charge(0, 3), []byte{misc, 0x11, 0})},
		{"table.grow", nil, nil,
			[]byte{refNull, funcref, i32Const, 9, misc, 0x0f, 0, drop},
			cat([]byte{refNull, funcref, i32Const, 9}, charge(0, 3), []byte{misc, 0x0f, 0, drop})},
		{"table.copy", nil, nil,
			[]byte{i32Const, 0, i32Const, 0, i32Const, 9, misc, 0x0e, 0, 0},
			cat([]byte{i32Const, 0, i32Const, 0, i32Const, 9}, charge(0, 3), []byte{misc, 0x0e, 0, 0})},
		{"table.size and saturation", nil, nil,
			[]byte{misc, 0x10, 0, drop, 0x43, 0, 0, 0, 0, misc, 0, drop},
			[]byte{misc, 0x10, 0, drop, 0x43, 0, 0, 0, 0, misc, 0, drop}},

		{"call", nil, nil, []byte{call, 0}, []byte{call, 1}},
		{"vectors", nil, nil,
			cat([]byte{simd, 0x0c}, make([]byte, 16), []byte{simd, 0x80, 1, simd, 0x1b, 2, drop, i32Const, 0, simd, 0, 4, 9, drop,
				i32Const, 0}, []byte{simd, 0x0c}, make([]byte, 16), []byte{simd, 0x54, 0, 0, 3, drop}),
			cat([]byte{simd, 0x0c}, make([]byte, 16), []byte{simd, 0x80, 1, simd, 0x1b, 2, drop, i32Const, 0, simd, 0, 4, 9, drop,
				i32Const, 0}, []byte{simd, 0x0c}, make([]byte, 16), []byte{simd, 0x54, 0, 0, 3, drop})},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := rewrite(t, single(test.params, nil, test.locals, test.code...))
			locals := test.locals
			if bytes.Contains(test.want, []byte{0x76, 0xad}) {
				locals = append(slices.Clone(locals), i32)
			}
			want := expected(test.params, nil, fn(locals, cat(chk, test.want)...))
			if !bytes.Equal(out.Code, want) {
				t.Errorf("got\n%x\nwant\n%x", out.Code, want)
			}
			if n := bytes.Count(out.Code, chk); n != out.Checks {
				t.Errorf("%d checks reported, %d found", out.Checks, n)
			}
			newHost(t).instance(t, out.Code)
		})
	}
}

// TestWeights checks that code is paid for where it is entered, by its length.
func TestWeights(t *testing.T) {
	weighted := func(weight int64) []byte {
		return cat([]byte{globalGet, 0, i64Const}, s(weight), chk[4:])
	}
	pad := slices.Repeat([]byte{nop}, 1000)
	for _, test := range []struct {
		name       string
		code, want []byte
	}{
		{"entry", pad, cat(weighted(1+1001/256), pad)},
		{"branch back", cat([]byte{loop, void}, pad, []byte{br, 0, end}),
			cat(weighted(1+1006/256), []byte{loop, void}, pad, weighted(1+1002/256), []byte{br, 0, end})},
		{"call with a long tail", cat([]byte{call, 0}, pad), cat(weighted(1+1003/256), []byte{call, 1}, weighted(1+1001/256), pad)},
		{"indirect call with a long tail", cat([]byte{i32Const, 0, callIndirect, 0, 0}, pad),
			cat(weighted(1+1006/256), []byte{i32Const, 0, callIndirect, 0, 0}, weighted(1+1001/256), pad)},
		{"call with a short tail", cat(pad, []byte{call, 0}), cat(weighted(1+1003/256), pad, []byte{call, 1})},
		{"dispatch back to a near place",
			cat(pad, []byte{loop, void, block, void, i32Const, 0, localSet, 0, end}, pad, []byte{end}),
			cat(weighted(1+2011/256), pad, []byte{loop, void, block, void, i32Const, 0, localSet, 0, end}, pad, []byte{end})},
		{"dispatch back over little",
			cat([]byte{loop, void, block, void, localGet, 0, brTable, 0, 0}, pad, []byte{end, i32Const, 0, localSet, 0, br, 0, end}),
			cat(weighted(1+1017/256), []byte{loop, void, block, void, localGet, 0, brTable, 0, 0}, pad,
				[]byte{end, i32Const, 0, localSet, 0}, weighted(1), []byte{br, 0, end})},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := rewrite(t, single(nil, nil, []byte{i32}, test.code...))
			if want := expected(nil, nil, fn([]byte{i32}, test.want...)); !bytes.Equal(out.Code, want) {
				t.Errorf("got\n%x\nwant\n%x", out.Code, want)
			}
		})
	}
}

// TestScratchLocal checks that only a function with a bulk operation gets the scratch local, and that its index is right.
func TestScratchLocal(t *testing.T) {
	plain, bulk := []byte{nop}, []byte{i32Const, 0, i32Const, 0, i32Const, 9}
	code := wasm(
		sec(1, vec(typ(nil, nil))), sec(3, vec(u(0), u(0), u(0))), sec(5, vec([]byte{0, 1})),
		sec(10, vec(fn(nil, plain...), fn([]byte{f64}, cat(bulk, []byte{misc, 0x0b, 0})...), fn([]byte{i64}, plain...))),
	)
	bodies := vec(
		fn(nil, cat(chk, plain)...),
		fn([]byte{f64, i32}, cat(chk, bulk, charge(1, 6), []byte{misc, 0x0b, 0})...),
		fn([]byte{i64}, cat(chk, plain)...),
	)
	if out := rewrite(t, code); !bytes.HasSuffix(out.Code, sec(10, bodies)) {
		t.Errorf("got\n%x\nwant at the end\n%x", out.Code, sec(10, bodies))
	}
}

// TestIndices rewrites a module with an imported function and a reference to a function in every place that has one.
func TestIndices(t *testing.T) {
	// shifted builds the module with the index of its defined function, which is also in every segment.
	build := func(f byte, additions bool) []byte {
		ref, exprs := []byte{refFunc, f, end}, vec([]byte{refFunc, f, end}, []byte{refNull, funcref, end}, []byte{refFunc, 0, end})
		indices := vec([]byte{f}, []byte{0})
		at := []byte{i32Const, 0, end}
		types, imports := [][]byte{typ(nil, nil)}, [][]byte{importOf("env", "host", 0, 0)}
		globals := [][]byte{cat([]byte{funcref, 0}, ref)}
		exports := [][]byte{export("f", 0, uint64(f)), export("host", 0, 0), export("t", 1, 1), export("g", 3, 0)}
		var entry []byte
		if additions {
			types = append(types, typ(nil, []byte{i64}))
			imports = append(imports, importOf("tenure_rt", "yield", 0, 1))
			globals = append(globals, cat([]byte{i64, 1, i64Const}, s(77), []byte{end}))
			exports = append(exports, export("tenure_rt.fuel", 3, 1))
			entry = check(1, 1)
		}
		body := cat(entry, []byte{call, 0, call, f, refFunc, f, drop, refFunc, 0, drop})
		return wasm(
			sec(1, vec(types...)), sec(2, vec(imports...)), sec(3, vec(u(0))),
			sec(4, vec([]byte{funcref, 0, 4}, []byte{funcref, 1, 4, 8})),
			sec(6, vec(globals...)), sec(7, vec(exports...)), sec(8, []byte{f}),
			sec(9, vec(
				cat([]byte{0}, at, indices), cat([]byte{1, 0}, indices),
				cat([]byte{2, 1}, at, []byte{0}, indices), cat([]byte{3, 0}, indices),
				cat([]byte{4}, at, exprs), cat([]byte{5, funcref}, exprs),
				cat([]byte{6, 1}, at, []byte{funcref}, exprs), cat([]byte{7, funcref}, exprs),
			)),
			sec(10, vec(fn(nil, body...))),
		)
	}
	out, err := meter.Rewrite(build(1, false), meter.Options{Slice: 77})
	if err != nil {
		t.Fatal(err)
	}
	if want := build(2, true); !bytes.Equal(out.Code, want) {
		t.Errorf("got\n%x\nwant\n%x", out.Code, want)
	}
}

// TestSections checks what is dropped, kept and created.
func TestSections(t *testing.T) {
	created := cat(
		sec(1, vec(typ(nil, []byte{i64}))), sec(2, vec(importOf("tenure_rt", "yield", 0, 0))),
		sec(6, vec(cat([]byte{i64, 1, i64Const}, s(10_000), []byte{end}))), sec(7, vec(export("tenure_rt.fuel", 3, 0))),
	)
	keep := sec(0, str("producers"), []byte("kept"))
	for _, test := range []struct {
		name     string
		in, want []byte
	}{
		{"empty module", wasm(), wasm(created)},
		{"custom sections", wasm(
			keep, sec(0, str("name"), []byte("x")), sec(0, str(".debug_info"), []byte("x")), sec(0, str("sourceMappingURL"), str("x")),
			sec(0, str("reloc.CODE"), []byte("x")), sec(0, str("linking"), []byte("x")),
		), wasm(keep, created)},
		{"data without count", wasm(sec(5, vec([]byte{0, 1})), sec(11, vec([]byte{0, i32Const, 0, end, 1, 'x'}))), wasm(
			sec(1, vec(typ(nil, []byte{i64}))), sec(2, vec(importOf("tenure_rt", "yield", 0, 0))), sec(5, vec([]byte{0, 1})),
			sec(6, vec(cat([]byte{i64, 1, i64Const}, s(10_000), []byte{end}))), sec(7, vec(export("tenure_rt.fuel", 3, 0))),
			sec(11, vec([]byte{0, i32Const, 0, end, 1, 'x'})))},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := rewrite(t, test.in)
			if !bytes.Equal(out.Code, test.want) {
				t.Errorf("got\n%x\nwant\n%x", out.Code, test.want)
			}
			newHost(t).instance(t, out.Code)
		})
	}
}

func TestSnapshotable(t *testing.T) {
	globals := func(g ...byte) []byte { return wasm(sec(6, vec(g))) }
	table := []byte{i32Const, 0, refNull, funcref}
	dropped := func(code ...byte) []byte {
		return wasm(sec(1, vec(typ(nil, nil))), sec(3, vec(u(0))), sec(5, vec([]byte{0, 1})), sec(12, u(1)),
			sec(10, vec(fn(nil, code...))), sec(11, vec([]byte{1, 1, 'x'})))
	}
	init := []byte{i32Const, 0, i32Const, 0, i32Const, 0, misc, 0x08, 0, 0}
	for _, test := range []struct {
		name string
		code []byte
		want bool
	}{
		{"memory", single(nil, nil, nil, i32Const, 0, i32Const, 0, i32Const, 0, misc, 0x0b, 0), true},
		{"table.get", single(nil, nil, nil, i32Const, 0, 0x25, 0, drop), true},
		{"table.set", single(nil, nil, nil, cat(table, []byte{0x26, 0})...), false},
		{"table.grow", single(nil, nil, nil, refNull, funcref, i32Const, 0, misc, 0x0f, 0, drop), false},
		{"table.fill", single(nil, nil, nil, cat(table, []byte{i32Const, 0, misc, 0x11, 0})...), false},
		{"table.copy", single(nil, nil, nil, i32Const, 0, i32Const, 0, i32Const, 0, misc, 0x0e, 0, 0), false},
		{"memory.init", dropped(init...), true},
		{"data.drop", dropped(misc, 0x09, 0), true},
		{"memory.init and data.drop", dropped(cat(init, []byte{misc, 0x09, 0})...), false},
		{"elem.drop", wasm(sec(1, vec(typ(nil, nil))), sec(3, vec(u(0))), sec(9, vec([]byte{1, 0, 0})),
			sec(10, vec(fn(nil, misc, 0x0d, 0)))), false},
		{"table.init", wasm(sec(1, vec(typ(nil, nil))), sec(3, vec(u(0))), sec(4, vec([]byte{funcref, 0, 1})), sec(9, vec([]byte{1, 0, 0})),
			sec(10, vec(fn(nil, i32Const, 0, i32Const, 0, i32Const, 0, misc, 0x0c, 0, 0)))), false},
		{"mutable number", globals(i64, 1, i64Const, 0, end), true},
		{"constant reference", globals(funcref, 0, refNull, funcref, end), true},
		{"mutable reference", globals(externref, 1, refNull, externref, end), false},
		{"mutable vector", globals(cat([]byte{v128, 1, simd, 0x0c}, make([]byte, 16), []byte{end})...), false},
		{"imported constant", wasm(sec(2, vec(importOf("env", "g", 3, i32, 0)))), true},
		{"imported mutable global", wasm(sec(2, vec(importOf("env", "g", 3, i32, 1)))), false},
		{"imported memory", wasm(sec(2, vec(importOf("env", "m", 2, 0, 1)))), false},
		{"imported table", wasm(sec(2, vec(importOf("env", "t", 1, funcref, 0, 1)))), false},
		{"two memories", wasm(sec(5, vec([]byte{0, 1}, []byte{0, 1}))), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := rewrite(t, test.code).Snapshotable; got != test.want {
				t.Errorf("snapshotable is %v, want %v", got, test.want)
			}
		})
	}
}
