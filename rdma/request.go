package rdma

import "fmt"

// Opcode says what a request does or what a completion was.
type Opcode uint8

// The opcodes. OpReceive occurs in completions only.
const (
	// OpRead copies remote memory to local memory.
	OpRead Opcode = iota + 1
	// OpWrite copies local memory to remote memory.
	OpWrite
	// OpWriteImm is OpWrite, then a doorbell: OpReceive at the peer with Imm.
	// Its length may be 0: only the doorbell.
	OpWriteImm
	// OpCAS replaces the remote word by Swap if it equals Compare, and puts what
	// it found into 8 bytes of local memory, in the byte order of this machine.
	OpCAS
	// OpFAA adds Add to the remote word and puts what it found into 8 bytes of
	// local memory.
	OpFAA
	// OpReceive says that a doorbell of the peer arrived.
	OpReceive
)

var opcodeNames = [...]string{OpRead: "READ", OpWrite: "WRITE", OpWriteImm: "WRITE_IMM", OpCAS: "CAS", OpFAA: "FAA", OpReceive: "RECEIVE"}

// String returns the field's name of the verb.
func (o Opcode) String() string {
	if int(o) < len(opcodeNames) && opcodeNames[o] != "" {
		return opcodeNames[o]
	}
	return fmt.Sprintf("opcode-%d", uint8(o))
}

// Atomic says whether o is CAS or FAA.
func (o Opcode) Atomic() bool { return o == OpCAS || o == OpFAA }

// Flags modify a request.
type Flags uint8

const (
	// Signaled asks for a completion also in the case of success.
	Signaled Flags = 1 << iota
	// Fence holds the request back until all READs and atomics posted before it
	// have taken effect.
	Fence
	// Inline copies the payload of a WRITE or WRITE_IMM at Post, so that the
	// local memory is free again at once; at most Limits.MaxInline bytes.
	Inline
)

// Local names local memory of a request: a scatter/gather entry with one part.
type Local struct {
	// Addr is the address in this process.
	Addr uint64
	// Length is in bytes.
	Length uint32
	// LKey is the key of the region that holds all of it.
	LKey uint32
}

// WorkRequest is one verb. It has no pointers and a fixed layout, so that a
// batch crosses to C as it is.
type WorkRequest struct {
	// ID comes back in the completion; the provider does not look at it.
	ID uint64
	// Local is the source of a WRITE, the destination of a READ, and where CAS
	// and FAA put the old word (8 bytes).
	Local Local
	// RemoteAddr is the address in the peer, see RemoteRegion.At.
	RemoteAddr uint64
	// CompareAdd is what CAS compares with and what FAA adds.
	CompareAdd uint64
	// Swap is what CAS stores.
	Swap uint64
	// RKey is the key of the peer's region.
	RKey uint32
	// Imm travels with WRITE_IMM.
	Imm uint32
	// Op is one of the opcodes but OpReceive.
	Op Opcode
	// Flags modify the request.
	Flags Flags
	_     [6]byte // the size is a multiple of 8: 64 bytes
}

// Check says what is wrong with the request under these limits, as ErrInvalid.
// Providers call it in Post; remote addresses are checked by their owner.
func (w *WorkRequest) Check(limits *Limits) error {
	switch {
	case w.Op < OpRead || w.Op > OpFAA:
		return fmt.Errorf("%w request %d: %v cannot be posted", ErrInvalid, w.ID, w.Op)
	case w.Op.Atomic() && w.Local.Length != 8:
		return fmt.Errorf("%w request %d: %v needs 8 bytes of local memory, not %d", ErrInvalid, w.ID, w.Op, w.Local.Length)
	case w.Op.Atomic() && w.RemoteAddr%8 != 0:
		return fmt.Errorf("%w request %d: %v at %#x, which is not divisible by 8", ErrInvalid, w.ID, w.Op, w.RemoteAddr)
	case int64(w.Local.Length) > int64(limits.MaxMessage):
		return fmt.Errorf("%w request %d: %v of %d bytes, the limit is %d", ErrInvalid, w.ID, w.Op, w.Local.Length, limits.MaxMessage)
	case w.Flags&Inline != 0 && w.Op != OpWrite && w.Op != OpWriteImm:
		return fmt.Errorf("%w request %d: %v cannot be inline", ErrInvalid, w.ID, w.Op)
	case w.Flags&Inline != 0 && int64(w.Local.Length) > int64(limits.MaxInline):
		return fmt.Errorf("%w request %d: %d bytes inline, the limit is %d", ErrInvalid, w.ID, w.Local.Length, limits.MaxInline)
	}
	return nil
}

// Read returns a request that copies from remote to local; both have the same
// length.
func Read(id uint64, local Local, remote RemoteRegion, offset uint64) WorkRequest {
	return WorkRequest{ID: id, Op: OpRead, Flags: Signaled, Local: local, RemoteAddr: remote.At(offset), RKey: remote.RKey}
}

// Write returns a request that copies local to offset in remote.
func Write(id uint64, local Local, remote RemoteRegion, offset uint64) WorkRequest {
	return WorkRequest{ID: id, Op: OpWrite, Flags: Signaled, Local: local, RemoteAddr: remote.At(offset), RKey: remote.RKey}
}

// WriteImm is Write with a doorbell that carries imm.
func WriteImm(id uint64, local Local, remote RemoteRegion, offset uint64, imm uint32) WorkRequest {
	w := Write(id, local, remote, offset)
	w.Op, w.Imm = OpWriteImm, imm
	return w
}

// CAS returns a request that replaces the word at offset in remote by swap if it
// equals compare; old is 8 bytes of local memory for what was found.
func CAS(id uint64, old Local, remote RemoteRegion, offset, compare, swap uint64) WorkRequest {
	return WorkRequest{ID: id, Op: OpCAS, Flags: Signaled, Local: old, RemoteAddr: remote.At(offset), RKey: remote.RKey, CompareAdd: compare, Swap: swap}
}

// FAA returns a request that adds add to the word at offset in remote; old is 8
// bytes of local memory for what was found.
func FAA(id uint64, old Local, remote RemoteRegion, offset, add uint64) WorkRequest {
	return WorkRequest{ID: id, Op: OpFAA, Flags: Signaled, Local: old, RemoteAddr: remote.At(offset), RKey: remote.RKey, CompareAdd: add}
}
