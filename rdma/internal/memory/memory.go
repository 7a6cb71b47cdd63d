// Package memory maps memory outside the Go heap and gives views of it: bytes
// and atomic words. With cgo/ibverbs it is the only place that uses unsafe.
//
// Registered memory must not be Go memory: the collector may reuse it while a
// device still writes, and a device's writes bypass its barriers.
package memory

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Mapping is mapped memory. It has no lock: whoever owns it makes sure that
// nothing uses it after Unmap.
type Mapping struct{ bytes []byte }

// Bytes is the memory; invalid after Unmap.
func (m *Mapping) Bytes() []byte { return m.bytes }

// Addr is the address of the first byte, divisible by 8.
func (m *Mapping) Addr() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.bytes)))) }

// word returns the aligned word at offset. A wrong offset is a fault of the
// program and panics, as an index out of range does.
func (m *Mapping) word(offset int) *uint64 {
	if offset%8 != 0 {
		panic(fmt.Sprintf("memory: word at offset %d, which is not divisible by 8", offset))
	}
	return (*uint64)(unsafe.Pointer(&m.bytes[offset : offset+8][0]))
}

// Load loads the word at offset atomically.
func (m *Mapping) Load(offset int) uint64 { return atomic.LoadUint64(m.word(offset)) }

// Store stores the word at offset atomically.
func (m *Mapping) Store(offset int, v uint64) { atomic.StoreUint64(m.word(offset), v) }

// CompareSwap replaces the word at offset by swap if it equals compare, and
// returns what it found: the CAS of a NIC, done by this CPU.
func (m *Mapping) CompareSwap(offset int, compare, swap uint64) (old uint64) {
	w := m.word(offset)
	for {
		if old = atomic.LoadUint64(w); old != compare || atomic.CompareAndSwapUint64(w, compare, swap) {
			return old
		}
	}
}

// FetchAdd adds to the word at offset and returns what it found.
func (m *Mapping) FetchAdd(offset int, add uint64) (old uint64) {
	return atomic.AddUint64(m.word(offset), add) - add
}

// Copy copies src to dst like copy, but 8 bytes of which one side is aligned move
// as one word there, as in an RNIC. Nobody may rely on that: the contract lets any
// READ or WRITE be torn at any byte.
func Copy(dst, src []byte) {
	if len(dst) == 8 && len(src) == 8 {
		d, s := unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src))
		if uintptr(d)%8 == 0 && uintptr(s)%8 == 0 {
			atomic.StoreUint64((*uint64)(d), atomic.LoadUint64((*uint64)(s)))
			return
		}
		if uintptr(d)%8 == 0 { // the source is ours: only the destination is shared
			var w uint64
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&w)), 8), src)
			atomic.StoreUint64((*uint64)(d), w)
			return
		}
		if uintptr(s)%8 == 0 {
			w := atomic.LoadUint64((*uint64)(s))
			copy(dst, unsafe.Slice((*byte)(unsafe.Pointer(&w)), 8))
			return
		}
	}
	copy(dst, src)
}

// PutWord puts w into the first 8 bytes of dst in the byte order of this machine.
func PutWord(dst []byte, w uint64) {
	Copy(dst[:8], unsafe.Slice((*byte)(unsafe.Pointer(&w)), 8))
}
