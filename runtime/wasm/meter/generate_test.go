package meter_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
)

// sig is a function type.
type sig struct{ params, results []byte }

// label is what a branch may name: the types that it must bring along.
type label struct {
	types []byte
	loop  bool
}

// generator makes random valid modules: structured bodies with blocks, loops and branches of all shapes, with parameters
// and results, calls, dispatch loops as the Go compiler emits them, and bulk operations. Statements leave the operand
// stack as they found it, so that one may follow any other, also behind an unconditional branch.
type generator struct {
	rand *rand.Rand
	// bounded makes every branch back and every call depend on a budget of steps in global 0, so that the module ends.
	bounded bool

	types  []sig
	funcs  []sig
	params []byte // of the function in work
	labels []label
	out    []byte
	fuel   int // statements that may still follow
	depth  int // expressions around
	nested int // dispatch loops around
}

// The locals behind the parameters of every function. The last ones are the states of dispatch loops.
var localTypes = []byte{i32, i32, i32, i64, i64, f64, f64, v128, i32, i32, i32, i32}

const (
	stateLocals = 8
	tableSize   = 6
	globalSteps = 0 // i32; 1 is i32, 2 i64, 3 f64
)

var globalTypes = []byte{i32, i32, i64, f64}

func newGenerator(seed uint64, bounded bool) *generator {
	return &generator{rand: rand.New(rand.NewPCG(seed, 0)), bounded: bounded}
}

func (g *generator) n(limit int) int { return g.rand.IntN(limit) }

func (g *generator) emit(code ...byte) { g.out = append(g.out, code...) }

func (g *generator) valueTypes(limit int) []byte {
	list := make([]byte, g.n(limit+1))
	for i := range list {
		list[i] = []byte{i32, i64, f64, i32}[g.n(4)]
	}
	return list
}

func (g *generator) typeIndex(s sig) []byte {
	for i, have := range g.types {
		if bytes.Equal(have.params, s.params) && bytes.Equal(have.results, s.results) {
			return u(uint64(i))
		}
	}
	g.types = append(g.types, s)
	return u(uint64(len(g.types) - 1))
}

// local returns the encoded index of some local of type t that is not a state.
func (g *generator) local(t byte) []byte {
	var found []int
	for i, have := range slices.Concat(g.params, localTypes[:stateLocals]) {
		if have == t {
			found = append(found, i)
		}
	}
	return u(uint64(found[g.n(len(found))]))
}

// module generates a module that exports every function as f0, f1, ..., every global as v0, ... and the memory.
func (g *generator) module() []byte {
	for range 2 + g.n(3) {
		g.funcs = append(g.funcs, sig{g.valueTypes(3), g.valueTypes(3)})
	}
	var declared, bodies, exports, indices [][]byte
	for i, f := range g.funcs {
		declared = append(declared, g.typeIndex(f))
		indices = append(indices, u(uint64(i)))
		exports = append(exports, export("f"+string(rune('0'+i)), 0, uint64(i)))
	}
	for _, f := range g.funcs {
		g.params, g.out, g.fuel, g.depth = f.params, nil, 40, 0
		g.labels = []label{{types: f.results}}
		g.statements()
		g.values(f.results)
		bodies = append(bodies, fn(localTypes, g.out...))
	}
	for i := range globalTypes {
		exports = append(exports, export("v"+string(rune('0'+i)), 3, uint64(i)))
	}
	exports = append(exports, export("memory", 2, 0))
	var types [][]byte
	for _, s := range g.types {
		types = append(types, typ(s.params, s.results))
	}
	return wasm(
		sec(1, vec(types...)),
		sec(3, vec(declared...)),
		sec(4, vec([]byte{funcref, 0, tableSize})),
		sec(5, vec([]byte{0, 1})),
		sec(6, vec(
			cat([]byte{i32, 1, i32Const}, s(300), []byte{end}), []byte{i32, 1, i32Const, 5, end},
			[]byte{i64, 1, i64Const, 9, end}, cat([]byte{f64, 1, 0x44}, make([]byte, 6), []byte{0xf8, 0x3f, end}))),
		sec(7, vec(exports...)),
		sec(9, vec(cat([]byte{0, i32Const, 0, end}, vec(indices...)), cat([]byte{1, 0}, vec(indices...)))),
		sec(12, u(1)),
		sec(10, vec(bodies...)),
		sec(11, vec(cat([]byte{1}, str("some passive bytes")))),
	)
}

func (g *generator) statements() {
	for range 1 + g.n(6) {
		g.statement()
	}
}

func (g *generator) statement() {
	if g.fuel--; g.fuel < 0 {
		g.emit(nop)
		return
	}
	switch g.n(16) {
	case 0, 1:
		t := []byte{i32, i64, f64, v128}[g.n(4)]
		g.value(t)
		g.emit(cat([]byte{localSet}, g.local(t))...)
	case 2:
		i := 1 + g.n(len(globalTypes)-1)
		g.value(globalTypes[i])
		g.emit(globalSet, byte(i))
	case 3:
		g.address()
		g.value(i64)
		g.emit(0x37, 0, byte(g.n(64))) // i64.store
	case 4:
		g.structure(block)
	case 5, 6:
		g.structure(loop)
	case 7, 8:
		g.back()
	case 9, 10:
		g.ahead()
	case 11, 12:
		g.call()
	case 13:
		g.bulk()
	case 14:
		g.dispatch()
	case 15:
		g.value(i32)
		g.structure(if_)
	}
}

// address leaves an i32 below 1024.
func (g *generator) address() {
	g.value(i32)
	g.emit(cat([]byte{i32Const}, s(1023), []byte{0x71})...)
}

func (g *generator) values(types []byte) {
	for _, t := range types {
		g.value(t)
	}
}

func (g *generator) drops(types []byte) {
	for range types {
		g.emit(drop)
	}
}

// value leaves one value of type t.
func (g *generator) value(t byte) {
	g.depth++
	defer func() { g.depth-- }()
	leaf := g.depth > 3
	if t != v128 && !leaf && g.fuel > 0 && g.n(8) == 0 {
		g.choice(t)
		return
	}
	switch t {
	case i32:
		g.valueI32(leaf)
	case i64:
		switch {
		case leaf || g.n(3) == 0:
			g.emit(cat([]byte{i64Const}, s(int64(g.rand.Uint64())>>g.n(64)))...)
		case g.n(2) == 0:
			g.value(i64)
			g.value(i64)
			g.emit([]byte{0x7c, 0x7d, 0x7e, 0x83, 0x85, 0x86, 0x88}[g.n(7)])
		case g.n(2) == 0:
			g.value(v128)
			g.emit(simd, 0x1d, byte(g.n(2))) // i64x2.extract_lane
		default:
			g.emit(cat([]byte{localGet}, g.local(i64))...)
		}
	case f64:
		switch {
		case leaf || g.n(3) == 0:
			g.value(i32)
			g.emit(0xb7) // f64.convert_i32_s
		case g.n(2) == 0:
			g.value(f64)
			g.value(f64)
			g.emit([]byte{0xa0, 0xa1, 0xa2, 0xa4}[g.n(4)])
		default:
			g.emit(cat([]byte{localGet}, g.local(f64))...)
		}
	case v128:
		if leaf || g.n(2) == 0 {
			g.emit(cat([]byte{simd, 0x0c}, bytes.Repeat([]byte{byte(g.n(256))}, 16))...)
			return
		}
		g.emit(cat([]byte{localGet}, g.local(v128))...)
		g.value(i64)
		g.emit(simd, 0x12, simd, 0xce, 0x01) // i64x2.splat, i64x2.add
	}
}

func (g *generator) valueI32(leaf bool) {
	switch {
	case leaf || g.n(4) == 0:
		g.emit(cat([]byte{i32Const}, s(int64(int32(g.rand.Uint32())>>g.n(32))))...)
	case g.n(3) == 0:
		g.value(i32)
		g.value(i32)
		g.emit([]byte{0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x73, 0x74, 0x46, 0x48, 0x49}[g.n(10)])
	case g.n(5) == 0:
		g.value(f64)
		g.emit(misc, 0x02) // i32.trunc_sat_f64_s
	case g.n(4) == 0:
		g.address()
		g.emit(0x2d, 0, byte(g.n(64))) // i32.load8_u
	case g.n(3) == 0:
		g.value(i64)
		g.emit(0xa7) // i32.wrap_i64
	case g.n(2) == 0:
		g.value(i32)
		g.emit(cat([]byte{localTee}, g.local(i32))...)
	default:
		g.emit(cat([]byte{localGet}, g.local(i32))...)
	}
}

// choice leaves a value of type t by select or by a block or if with a result.
func (g *generator) choice(t byte) {
	switch g.n(3) {
	case 0:
		g.value(t)
		g.value(t)
		g.value(i32)
		g.emit(0x1c, 1, t) // select with a type
	case 1:
		g.emit(block, t)
		g.inside(label{types: []byte{t}}, func() { g.statements(); g.value(t) })
		g.emit(end)
	case 2:
		g.value(i32)
		g.emit(if_, t)
		g.inside(label{types: []byte{t}}, func() {
			g.value(t)
			g.emit(else_)
			g.statements()
			g.value(t)
		})
		g.emit(end)
	}
}

// inside runs body with one more label.
func (g *generator) inside(l label, body func()) {
	g.labels = append(g.labels, l)
	body()
	g.labels = g.labels[:len(g.labels)-1]
}

// structure emits a block, loop or if with random parameters and results. For an if the condition is on the stack.
func (g *generator) structure(op byte) {
	s := sig{g.valueTypes(2), g.valueTypes(2)}
	if g.n(2) == 0 {
		s = sig{}
	}
	if op == if_ && len(s.params) > 0 {
		g.emit(cat([]byte{localSet}, g.local(i32))...)
		g.values(s.params)
		g.value(i32)
	} else {
		g.values(s.params)
	}
	if len(s.params) == 0 && len(s.results) == 0 && g.n(3) > 0 {
		g.emit(op, void)
	} else {
		g.emit(cat([]byte{op}, g.typeIndex(s))...)
	}
	l := label{types: s.results}
	if op == loop {
		l = label{types: s.params, loop: true}
	}
	arm := func() {
		for _, p := range slices.Backward(s.params) {
			g.emit(cat([]byte{localSet}, g.local(p))...)
		}
		g.statements()
		g.values(s.results)
	}
	g.inside(l, func() {
		arm()
		if op == if_ && (g.n(2) == 0 || !bytes.Equal(s.params, s.results)) {
			g.emit(else_)
			arm()
		}
	})
	g.emit(end)
	g.drops(s.results)
}

// condition leaves an i32 that is false when the budget of steps is spent.
func (g *generator) condition() {
	g.value(i32)
	g.emit(i32Const, 7, 0x71)
	if g.bounded {
		g.emit(globalGet, globalSteps, i32Const, 1, i32Sub, globalSet, globalSteps)
		g.emit(globalGet, globalSteps, i32Const, 0, 0x4a, i32Mul) // i32.gt_s
	}
}

// targets returns the depths of the labels that branch back or ahead, as wanted, with the types of one chosen of them.
func (g *generator) targets(loops bool) (depths []int, types []byte) {
	for i := range g.labels {
		if g.labels[i].loop == loops {
			depths = append(depths, len(g.labels)-1-i)
		}
	}
	if len(depths) == 0 {
		return nil, nil
	}
	types = g.labels[len(g.labels)-1-depths[g.n(len(depths))]].types
	same := depths[:0]
	for _, d := range depths {
		if bytes.Equal(g.labels[len(g.labels)-1-d].types, types) {
			same = append(same, d)
		}
	}
	return same, types
}

// back emits a branch to a loop, under the condition.
func (g *generator) back() { g.branch(true) }

// ahead emits a branch out of a block, or a return.
func (g *generator) ahead() { g.branch(false) }

func (g *generator) branch(loops bool) {
	depths, types := g.targets(loops)
	if len(depths) == 0 {
		return
	}
	pick := func() byte { return byte(depths[g.n(len(depths))]) }
	if g.n(2) == 0 {
		g.values(types)
		g.condition()
		g.emit(brIf, pick())
		g.drops(types)
		return
	}
	g.condition()
	g.emit(if_, void)
	g.inside(label{}, func() {
		g.values(types)
		if g.n(2) == 0 {
			g.emit(br, pick()+1)
		} else {
			g.value(i32)
			g.emit(i32Const, 3, 0x71, brTable)
			g.emit(vec([]byte{pick() + 1}, []byte{pick() + 1})...)
			g.emit(pick() + 1)
		}
		if g.n(4) == 0 {
			g.statement() // unreachable
		}
	})
	g.emit(end)
}

// call emits a direct or indirect call under the condition.
func (g *generator) call() {
	i := g.n(len(g.funcs))
	f := g.funcs[i]
	g.condition()
	g.emit(if_, void)
	g.inside(label{}, func() {
		g.values(f.params)
		if g.n(3) > 0 {
			g.emit(call, byte(i))
		} else {
			g.emit(i32Const, byte(i))
			g.emit(cat([]byte{callIndirect}, g.typeIndex(f), u(0))...)
		}
		for _, t := range slices.Backward(f.results) {
			g.emit(cat([]byte{localSet}, g.local(t))...)
		}
	})
	g.emit(end)
}

// bulk emits one operation on a length. The addresses stay inside, but a table operation may trap.
func (g *generator) bulk() {
	switch g.n(5) {
	case 0:
		g.address()
		g.value(i32)
		g.address()
		g.emit(misc, 0x0b, 0)
	case 1:
		g.address()
		g.address()
		g.address()
		g.emit(misc, 0x0a, 0, 0)
	case 2:
		g.address()
		g.emit(i32Const, byte(g.n(8)), i32Const, byte(g.n(10)), misc, 0x08, 0, 0)
	case 3:
		g.emit(i32Const, byte(g.n(3)), refFunc, byte(g.n(len(g.funcs))), i32Const, byte(g.n(4)), misc, 0x11, 0)
	case 4:
		g.emit(i32Const, byte(g.n(3)), i32Const, byte(g.n(2)), i32Const, byte(g.n(3)), misc, 0x0c, 1, 0)
	}
}

// dispatch emits a loop as the Go compiler does, with jumps ahead and back, and now and then one that is spoiled.
func (g *generator) dispatch() {
	if g.nested == len(localTypes)-stateLocals {
		return
	}
	state := byte(len(g.params) + stateLocals + g.nested)
	g.nested++
	blocks := 1 + g.n(4)
	table := make([]int, 1+g.n(6))
	for i := range table {
		table[i] = g.n(blocks)
	}
	g.emit(i32Const, byte(g.n(8)), localSet, state, loop, void)
	g.emit(bytes.Repeat([]byte{block, void}, blocks)...)
	g.emit(localGet, state, brTable)
	g.emit(u(uint64(len(table) - 1))...)
	for _, depth := range table {
		g.emit(byte(depth))
	}
	g.labels = append(g.labels, label{}) // not a loop: branches to it would not set the state
	for range blocks {
		g.labels = append(g.labels, label{})
	}
	for ended := range blocks {
		g.emit(end)
		g.labels = g.labels[:len(g.labels)-1]
		g.statements()
		for range g.n(3) {
			g.jump(state, table, ended, blocks)
		}
	}
	g.emit(end)
	g.labels = g.labels[:len(g.labels)-1]
	g.nested--
}

// jump emits one jump of a dispatch loop, of which the blocks of depth 0 to ended have ended.
func (g *generator) jump(state byte, table []int, ended, blocks int) {
	to := g.n(len(table) + 2)
	depth := byte(blocks - 1 - ended)
	if !g.bounded && g.n(3) == 0 {
		g.spoiled(state, to, depth)
		return
	}
	if table[min(to, len(table)-1)] > ended {
		g.emit(i32Const, byte(to), localSet, state, br, depth)
		return
	}
	g.condition()
	g.emit(if_, void, i32Const, byte(to), localSet, state)
	if g.n(8) == 0 {
		g.emit(nop)
	}
	g.emit(br, depth+1, end)
}

// spoiled emits a jump of a dispatch loop that looks like one to a known place, and may go back without a condition.
func (g *generator) spoiled(state byte, to int, depth byte) {
	switch g.n(6) {
	case 0: // the table uses another local
		g.emit(i32Const, byte(to))
		g.emit(cat([]byte{localSet}, g.local(i32), []byte{br, depth})...)
	case 1: // the state is computed
		g.emit(cat([]byte{localGet}, g.local(i32), []byte{localSet, state, br, depth})...)
	case 2: // a label lies between
		g.emit(block, void)
		g.inside(label{}, func() { g.value(i32) })
		g.emit(brIf, 0, i32Const, byte(to), localSet, state, end, br, depth)
	case 3: // the jump is conditional
		g.value(i32)
		g.emit(i32Const, byte(to), localSet, state, brIf, depth)
	case 4: // the state is not set; br discards what is left on the stack
		g.emit(i32Const, byte(to), localGet, state, br, depth)
	case 5: // the jump goes back, perhaps
		g.emit(i32Const, byte(to), localSet, state, br, depth)
	}
}
