package meter

import (
	"fmt"
	"strconv"
	"strings"
)

// Section numbers of the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

// maxParams bounds the parameters, and likewise the results, of one function type, as browsers do.
const maxParams = 1000

// section is one section of the output, complete but for its number and size.
type section struct {
	id   byte
	body []byte
}

// sectionRank is the place of a section in the order of a module. The data count section has a late number, because it
// came late, but stands before the code which needs it.
func sectionRank(id byte) int {
	switch {
	case id == secDataCount:
		return 2*secCode - 1
	case id <= secData:
		return 2 * int(id)
	}
	return -1
}

// module is the state of one rewrite: the index spaces of the original as they become known, section by section, and the
// output. The fixed order of sections makes everything known before something refers to it.
type module struct {
	slice int64
	out   Module

	params        []uint32 // number of parameters by type index
	functions     []uint32 // type index by function index, imported ones first
	importedFuncs int      // also the function index of yield, as its import comes last
	tables        int
	memories      int
	globals       int // also the index of the fuel

	imports, definedGlobals, exports int      // entries of sections to which the rewriter adds
	snapshotGlobals                  []uint32 // indices of the mutable numeric globals
	bodies, elements, dataSegments   int
	dataCount                        int // what the data count section announces, -1 without one

	locals               int  // locals of all bodies so far
	memoryInit, dataDrop bool // whether the operation occurs
}

// decode reads the whole module and returns its sections rewritten, in order. The sections to which the rewriter adds are
// always among them, if need be empty.
func (m *module) decode(r *reader) []section {
	m.dataCount = -1
	if string(r.bytes(8)) != "\x00asm\x01\x00\x00\x00" {
		r.failAt(0, "not a WebAssembly module of version 1")
		return nil
	}
	var sections []section
	missing := []byte{secType, secImport, secGlobal, secExport}
	last := 0
	for r.more() {
		start := r.pos
		id := r.byte()
		body := r.sub(r.u32())
		if id != secCustom && r.err == nil {
			rank := sectionRank(id)
			if rank < 0 {
				r.failAt(start, "section %d is not supported", id)
			} else if rank <= last {
				r.failAt(start, "section %d is repeated or out of order", id)
			}
			last = rank
			for len(missing) > 0 && sectionRank(missing[0]) < rank {
				sections = append(sections, section{id: missing[0]})
				missing = missing[1:]
			}
			if len(missing) > 0 && missing[0] == id {
				missing = missing[1:]
			}
		}
		if r.err != nil {
			return nil
		}
		if out, keep := m.decodeSection(id, body); keep {
			sections = append(sections, section{id, out})
		}
		r.finish(body, fmt.Sprintf("section %d", id))
	}
	for _, id := range missing {
		sections = append(sections, section{id: id})
	}
	m.finish(r)
	return sections
}

// finish checks and concludes what takes more than one section to know.
func (m *module) finish(r *reader) {
	if defined := len(m.functions) - m.importedFuncs; defined != m.bodies {
		r.fail("%d functions have %d bodies", defined, m.bodies)
	}
	if m.dataCount >= 0 && m.dataCount != m.dataSegments {
		r.fail("%d data segments announced, %d found", m.dataCount, m.dataSegments)
	}
	m.out.Functions = m.bodies
	// A dropped data segment shows only in a later memory.init.
	if m.memories > 1 || (m.memoryInit && m.dataDrop) {
		m.out.Snapshotable = false
	}
}

// decodeSection returns the rewritten body of a section, and false if the section is dropped. Of the sections to which
// the rewriter adds it returns the entries without their count; encode completes them.
func (m *module) decodeSection(id byte, r *reader) (body []byte, keep bool) {
	start := r.pos
	switch id {
	case secCustom:
		if isDebugName(r.name()) {
			r.pos = r.end
			return nil, false
		}
		r.bytes(uint32(r.end - r.pos))
	case secType:
		return m.decodeTypes(r), true
	case secImport:
		return m.decodeImports(r), true
	case secFunction:
		for n := r.count("functions"); n > 0 && r.err == nil; n-- {
			m.functions = append(m.functions, r.index("type", len(m.params)))
		}
	case secTable:
		for n := r.count("tables"); n > 0 && r.err == nil; n-- {
			m.decodeTable(r)
		}
	case secMemory:
		for n := r.count("memories"); n > 0 && r.err == nil; n-- {
			m.decodeMemory(r)
		}
	case secGlobal:
		return m.decodeGlobals(r), true
	case secExport:
		return m.decodeExports(r), true
	case secStart:
		return appendU32(nil, m.function(r)), true
	case secElement:
		return m.decodeElements(r), true
	case secCode:
		return m.decodeCode(r), true
	case secData:
		m.decodeData(r)
	case secDataCount:
		m.dataCount = int(r.u32())
	}
	return r.code[start:r.pos], true
}

// isDebugName reports whether a custom section describes the original code, by offsets or function indices which the
// rewrite makes wrong.
func isDebugName(name string) bool {
	return name == "name" || name == "linking" || name == "sourceMappingURL" || name == "external_debug_info" ||
		strings.HasPrefix(name, ".debug_") || strings.HasPrefix(name, "reloc.")
}

// encode joins the sections, and completes those to which the rewriter adds.
func (m *module) encode(sections []section) []byte {
	size := 128
	for i, s := range sections {
		switch s.id {
		case secType:
			sections[i].body = vector(len(m.params)+1, s.body, []byte{typeFunc, 0, 1, typeI64})
		case secImport:
			sections[i].body = vector(m.imports+1, s.body, m.yieldImport())
		case secGlobal:
			sections[i].body = vector(m.definedGlobals+1, s.body, m.fuelGlobal())
		case secExport:
			sections[i].body = vector(m.exports+1+len(m.snapshotGlobals), s.body, m.addedExports())
		}
		size += len(sections[i].body) + 6
	}
	out := make([]byte, 0, size)
	out = append(out, "\x00asm\x01\x00\x00\x00"...)
	for _, s := range sections {
		out = appendSized(append(out, s.id), s.body)
	}
	return out
}

func (m *module) yieldImport() []byte {
	entry := appendName(appendName(nil, YieldModule), YieldName)
	return appendU32(append(entry, 0), uint32(len(m.params)))
}

func (m *module) fuelGlobal() []byte {
	return append(appendS64([]byte{typeI64, 1, opI64Const}, m.slice), opEnd)
}

func (m *module) addedExports() []byte {
	entries := appendU32(append(appendName(nil, FuelExport), 3), uint32(m.globals))
	for _, i := range m.snapshotGlobals {
		name := GlobalExportPrefix + strconv.FormatUint(uint64(i), 10)
		m.out.SnapshotGlobals = append(m.out.SnapshotGlobals, name)
		entries = appendU32(append(appendName(entries, name), 3), i)
	}
	return entries
}

// vector joins the body of a section from the number of entries, the old entries and the added ones.
func vector(n int, old, added []byte) []byte {
	body := make([]byte, 0, len(old)+len(added)+5)
	return append(append(appendU32(body, uint32(n)), old...), added...)
}
