package meter

// constant decodes a constant expression and appends it to dst with shifted function indices. WebAssembly 2.0 has exactly
// one instruction in it.
func (m *module) constant(r *reader, dst []byte) []byte {
	start := r.pos
	switch op := r.byte(); op {
	case opI32Const:
		r.signed(32)
	case opI64Const:
		r.signed(64)
	case opF32Const:
		r.bytes(4)
	case opF64Const:
		r.bytes(8)
	case opGlobalGet:
		r.index("global", m.globals)
	case opRefNull:
		refType(r)
	case opRefFunc:
		dst = appendU32(append(dst, opRefFunc), m.function(r))
		start = r.pos
	case opVec:
		if sub := r.byte(); r.err == nil && sub != vecConst {
			r.failAt(start, "vector operation %#x in a constant expression", sub)
		}
		r.bytes(16)
	default:
		r.failAt(start, "opcode %#x in a constant expression is not supported", op)
	}
	if op := r.byte(); r.err == nil && op != opEnd {
		r.failAt(r.pos-1, "constant expression goes on with opcode %#x; extended ones are not supported", op)
	}
	return append(dst, r.code[start:r.pos]...)
}

// The bits of the flags of an element segment.
const (
	elemPassive  = 1 // or declared, with elemExplicit
	elemExplicit = 2 // an active segment names its table
	elemExprs    = 4 // expressions instead of function indices
)

func (m *module) decodeElements(r *reader) []byte {
	m.elements = r.count("element segments")
	out := appendU32(make([]byte, 0, 2*(r.end-r.pos)), uint32(m.elements))
	for n := m.elements; n > 0 && r.err == nil; n-- {
		flags := r.u32()
		if flags > 7 {
			r.fail("element segment of kind %d is not supported", flags)
		}
		out = appendU32(out, flags)
		if flags&elemPassive == 0 {
			if flags&elemExplicit != 0 {
				out = appendU32(out, r.index("table", m.tables))
			}
			out = m.constant(r, out)
		}
		if flags&(elemPassive|elemExplicit) != 0 {
			kind := r.pos
			if flags&elemExprs != 0 {
				refType(r)
			} else if b := r.byte(); r.err == nil && b != 0 {
				r.failAt(kind, "element kind %#x is not supported", b)
			}
			out = append(out, r.code[kind:r.pos]...)
		}
		items := r.count("elements")
		out = appendU32(out, uint32(items))
		for ; items > 0 && r.err == nil; items-- {
			if flags&elemExprs != 0 {
				out = m.constant(r, out)
			} else {
				out = appendU32(out, m.function(r))
			}
		}
	}
	return out
}

// decodeData only checks: data segments hold nothing that shifts.
func (m *module) decodeData(r *reader) {
	m.dataSegments = r.count("data segments")
	for n := m.dataSegments; n > 0 && r.err == nil; n-- {
		flags := r.u32()
		if flags > 2 {
			r.fail("data segment of kind %d is not supported", flags)
		}
		if flags == 2 {
			r.index("memory", m.memories)
		}
		if flags != 1 {
			if r.more() && r.code[r.pos] == opRefFunc {
				r.fail("function reference as an offset")
			}
			m.constant(r, nil)
		}
		r.bytes(r.u32())
	}
}
