package meter

import "strings"

func (m *module) decodeTypes(r *reader) []byte {
	n := r.count("types")
	start := r.pos
	for range n {
		if form := r.byte(); r.err == nil && form != typeFunc {
			r.failAt(r.pos-1, "type form %#x is not a function", form)
		}
		params := valueTypes(r)
		valueTypes(r)
		if r.err != nil {
			return nil
		}
		m.params = append(m.params, uint32(params))
	}
	return r.code[start:r.pos]
}

func valueTypes(r *reader) int {
	n := r.count("value types")
	if n > maxParams {
		r.fail("%d parameters or results in one type; at most %d are supported", n, maxParams)
	}
	for i := 0; i < n && r.err == nil; i++ {
		valueType(r)
	}
	return n
}

func valueType(r *reader) byte {
	t := r.byte()
	if r.err == nil && !isValueType(t) {
		r.failAt(r.pos-1, "value type %#x is not supported", t)
	}
	return t
}

func refType(r *reader) {
	if t := r.byte(); r.err == nil && !isRefType(t) {
		r.failAt(r.pos-1, "reference type %#x is not supported", t)
	}
}

func flag(r *reader, what string) bool {
	b := r.byte()
	if r.err == nil && b > 1 {
		r.failAt(r.pos-1, "%s %#x is not supported", what, b)
	}
	return b == 1
}

func (m *module) decodeImports(r *reader) []byte {
	m.imports = r.count("imports")
	start := r.pos
	for n := m.imports; n > 0 && r.err == nil; n-- {
		at := r.pos
		if r.name() == YieldModule && r.err == nil {
			r.failAt(at, "import from the reserved module %q", YieldModule)
		}
		r.name()
		switch kind := r.byte(); kind {
		case 0:
			m.functions = append(m.functions, r.index("type", len(m.params)))
			m.importedFuncs++
		case 1:
			m.decodeTable(r)
			m.out.Snapshotable = false
		case 2:
			m.decodeMemory(r)
			m.out.Snapshotable = false
		case 3:
			valueType(r)
			m.globals++
			if flag(r, "mutability") {
				m.out.Snapshotable = false
			}
		default:
			r.failAt(r.pos-1, "import of kind %#x is not supported", kind)
		}
	}
	return r.code[start:r.pos]
}

func (m *module) decodeTable(r *reader) {
	refType(r)
	limits(r)
	m.tables++
}

func (m *module) decodeMemory(r *reader) {
	limits(r)
	m.memories++
}

func limits(r *reader) {
	// The other flags belong to shared and 64-bit memories.
	bounded := flag(r, "limits flag")
	r.u32()
	if bounded {
		r.u32()
	}
}

func (m *module) decodeGlobals(r *reader) []byte {
	m.definedGlobals = r.count("globals")
	// An initialiser may refer to the globals before it, of which the engine allows only imported ones.
	out := make([]byte, 0, r.end-r.pos)
	for n := m.definedGlobals; n > 0 && r.err == nil; n-- {
		start := r.pos
		t := valueType(r)
		if flag(r, "mutability") {
			if isNumType(t) {
				m.snapshotGlobals = append(m.snapshotGlobals, uint32(m.globals))
			} else {
				// References mean nothing outside of the instance, and the host can read only half of a vector.
				m.out.Snapshotable = false
			}
		}
		out = append(out, r.code[start:r.pos]...)
		out = m.constant(r, out)
		m.globals++
	}
	return out
}

func (m *module) decodeExports(r *reader) []byte {
	m.exports = r.count("exports")
	out := make([]byte, 0, r.end-r.pos)
	for n := m.exports; n > 0 && r.err == nil; n-- {
		start := r.pos
		if name := r.name(); r.err == nil && strings.HasPrefix(name, reservedExports) {
			r.failAt(start, "export name %q begins with the reserved %q", name, reservedExports)
		}
		kind := r.byte()
		out = append(out, r.code[start:r.pos]...)
		var i uint32
		switch kind {
		case 0:
			i = m.function(r)
		case 1:
			i = r.index("table", m.tables)
		case 2:
			i = r.index("memory", m.memories)
		case 3:
			i = r.index("global", m.globals)
		default:
			r.failAt(r.pos-1, "export of kind %#x is not supported", kind)
		}
		out = appendU32(out, i)
	}
	return out
}

// function decodes an index of a function of the original and returns its index in the output: the import of yield
// stands between the imported and the defined functions.
func (m *module) function(r *reader) uint32 {
	i := r.index("function", len(m.functions))
	if int(i) >= m.importedFuncs {
		i++
	}
	return i
}
