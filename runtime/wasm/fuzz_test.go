package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

// recordBytes is one call of a host function in the input of the forwarder: the number of the function, and at 8 its
// arguments, eight bytes each. maxRecords is how many it makes.
const (
	recordBytes = 8 + 9*8
	maxRecords  = 3
)

// forwarder is a module whose handler calls host functions as its input says.
func forwarder() asm {
	m := asm{data: "h"}
	var code []byte
	input := -1
	for i, f := range append(transactionImports(), wasiImports()...) {
		m.imports = append(m.imports, asmImport{f.module, f.name, letters(f.params), letters(f.results)})
		if f.name == "input" {
			input = i
		}
	}
	constant := func(v int) { code = append(append(code, 0x41), sleb(int64(v))...) }
	// The input begins at 0, where the handler's name is no longer needed.
	constant(0)
	code = append(append(code, 0x10), uleb(uint64(input))...)
	for record := range maxRecords {
		base := record * recordBytes
		for i, f := range m.imports {
			constant(base)
			code = append(code, 0x2d, 0, 0) // i32.load8_u
			constant(i)
			code = append(code, 0x46, 0x04, 0x40) // i32.eq; if
			for j, letter := range f.params {
				constant(base + 8 + 8*j)
				load := byte(0x28) // i32.load
				if letter == 'I' {
					load = 0x29
				}
				code = append(code, load, 0, 0)
			}
			code = append(append(code, 0x10), uleb(uint64(i))...)
			if f.results != "" {
				code = append(code, 0x1a) // drop
			}
			code = append(code, 0x0b)
		}
	}
	constant(0)
	m.funcs = []asmFunc{handlersAt0("h"), invokeWith(code...)}
	return m
}

func letters(types []byte) string {
	s := ""
	for _, t := range types {
		if t == i64 {
			s += "I"
		} else {
			s += "i"
		}
	}
	return s
}

// FuzzHostCalls gives host functions any arguments, in any order. The host must neither panic nor hang, and the call must
// end as a call may end.
func FuzzHostCalls(f *testing.F) {
	b := loadSmall(f, Options{}, forwarder(), false)
	for i := range forwarder().imports {
		for _, args := range [][9]uint64{
			{},
			{16, 4, 32, 4, 48, 4, 64, 4, 80},
			{65530, 100, 1, 100, 65530, 100, 2, 100, 65530},
			{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1},
			{1, 1000, 16, 1<<31 - 1, 16, 1 << 31, 0, 60000, 5},
		} {
			record := make([]byte, recordBytes)
			record[0] = byte(i)
			for j, v := range args {
				binary.LittleEndian.PutUint64(record[8+8*j:], v)
			}
			f.Add(append(append([]byte{}, record...), record...))
		}
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		host := &fakeHost{values: map[base.Key]string{{Table: "h", Key: "k"}: "value"}}
		input = input[:min(len(input), maxRecords*recordBytes)]
		_, err := b.Invoke(ctx, runtime.Call{Handler: "h", Input: input, Host: host})
		var e *base.Error
		if err != nil && (!errors.As(err, &e) || e.Kind != base.FunctionError && e.Kind != base.Aborted) {
			t.Errorf("error %v", err)
		}
		if err != nil && (strings.Contains(err.Error(), "runtime error") || strings.Contains(err.Error(), "recovered")) {
			t.Errorf("the host panicked: %v", err)
		}
	})
}
