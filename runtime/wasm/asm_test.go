package wasm

import "encoding/binary"

// asm describes a small module; bytes lays it out in the binary format. It has one page of memory.
type asm struct {
	imports []asmImport
	funcs   []asmFunc
	data    string // at address 0
	memory  string // name of the exported memory; "" means exportMemory, "-" none
	table   []byte // limits of a funcref table, nil: none
	start   bool   // the last function is the start function
}

type asmImport struct{ module, name, params, results string }

// asmFunc is a function; export may be empty. code is what stands before the closing end.
type asmFunc struct {
	export, params, results string
	code                    []byte
}

// handlersAt0 is the body of tenure_handlers for names in the data.
func handlersAt0(names string) asmFunc {
	return asmFunc{exportHandlers, "", "I", append([]byte{0x42}, sleb(int64(len(names)))...)}
}

// invokeWith is tenure_invoke with a body.
func invokeWith(code ...byte) asmFunc { return asmFunc{exportInvoke, "ii", "i", code} }

// guestOf is a module with the handler "h".
func guestOf(invoke asmFunc) asm {
	return asm{data: "h", funcs: []asmFunc{handlersAt0("h"), invoke}}
}

// return0 is a handler that answers success without an output.
var return0 = []byte{0x41, 0}

func (a asm) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, count int, body []byte) {
		body = append(uleb(uint64(count)), body...)
		out = append(append(append(out, id), uleb(uint64(len(body)))...), body...)
	}
	var typeBytes, importBytes, funcBytes, exportBytes, codeBytes []byte
	index := 0
	addType := func(params, results string) []byte {
		typeBytes = append(typeBytes, 0x60)
		for _, list := range []string{params, results} {
			typeBytes = append(typeBytes, uleb(uint64(len(list)))...)
			for _, v := range types(list) {
				typeBytes = append(typeBytes, v)
			}
		}
		index++
		return uleb(uint64(index - 1))
	}
	for _, i := range a.imports {
		importBytes = append(importBytes, name(i.module)...)
		importBytes = append(append(importBytes, name(i.name)...), 0)
		importBytes = append(importBytes, addType(i.params, i.results)...)
	}
	exports := 0
	for i, f := range a.funcs {
		funcBytes = append(funcBytes, addType(f.params, f.results)...)
		if f.export != "" {
			exportBytes = append(append(exportBytes, name(f.export)...), 0)
			exportBytes = append(exportBytes, uleb(uint64(len(a.imports)+i))...)
			exports++
		}
		body := append([]byte{0}, f.code...)
		body = append(body, 0x0b)
		codeBytes = append(append(codeBytes, uleb(uint64(len(body)))...), body...)
	}
	memory := a.memory
	if memory == "" {
		memory = exportMemory
	}
	if memory != "-" {
		exportBytes = append(append(exportBytes, name(memory)...), 2, 0)
		exports++
	}
	section(1, index, typeBytes)
	section(2, len(a.imports), importBytes)
	section(3, len(a.funcs), funcBytes)
	if a.table != nil {
		section(4, 1, append([]byte{0x70}, a.table...))
	}
	section(5, 1, []byte{0, 1})
	section(7, exports, exportBytes)
	if a.start {
		body := uleb(uint64(len(a.imports) + len(a.funcs) - 1))
		out = append(append(append(out, 8), uleb(uint64(len(body)))...), body...)
	}
	section(10, len(a.funcs), codeBytes)
	section(11, 1, append([]byte{0, 0x41, 0, 0x0b}, name(a.data)...))
	return out
}

func name(s string) []byte { return append(uleb(uint64(len(s))), s...) }

func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

// sleb encodes a signed constant.
func sleb(v int64) []byte {
	var out []byte
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}
