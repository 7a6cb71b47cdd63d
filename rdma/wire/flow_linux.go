package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Layout of a key of the flows: addresses (IPv4 ones mapped into IPv6), then
// queue pair and direction in the byte order of this machine.
const (
	keySource      = 0
	keyDestination = 16
	keyQP          = 32
	keyDirection   = 36
	keySize        = 40
)

// Layout of a flow. All of it is guarded by its lock, so that two processors that
// handle packets of one queue pair do not count one repeat twice.
const (
	flowLock    = 0  // struct bpf_spin_lock
	flowNext    = 4  // u32: the PSN after the highest that was seen
	flowWindow  = 8  // windowWords u64: bit i is set if PSN next-1-i was seen
	flowStarted = 40 // u32: whether next and window are valid
	flowDropped = 48 // u64
	flowNaks    = 56 // u64 by Syndrome
	flowOpcodes = 112
	flowSize    = flowOpcodes + opcodeSlots*slotSize

	// A slot counts an opcode.
	slotAll     = 0
	slotRepeats = 8
	slotBytes   = 16
	slotSize    = 24

	windowWords = 4
	windowBits  = 64 * windowWords
	// maxBehind is how far behind a repeat can be; beyond is a new connection.
	maxBehind = 1 << 20
)

// The counters that belong to no flow: indices of an array of u64 by processor.
const (
	statMalformed = iota
	statUntracked
	statCount
)

// flowsSpec describes the map of the flows. It is a plain hash table because
// only that may have a lock in its values, and its types are described because
// the kernel wants to know where the lock is.
func flowsSpec(entries int) *ebpf.MapSpec {
	u32 := &btf.Int{Name: "u32", Size: 4}
	lock := &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: u32}}}
	words := func(size int) *btf.Array { return &btf.Array{Index: u32, Type: u32, Nelems: uint32(size / 4)} }
	return &ebpf.MapSpec{
		Name: "wire_flows", Type: ebpf.Hash, KeySize: keySize, ValueSize: flowSize, MaxEntries: uint32(entries),
		Key: &btf.Struct{Name: "flow_key", Size: keySize, Members: []btf.Member{{Name: "words", Type: words(keySize)}}},
		Value: &btf.Struct{Name: "flow", Size: flowSize, Members: []btf.Member{
			{Name: "lock", Type: lock, Offset: flowLock},
			{Name: "words", Type: words(flowSize - flowNext), Offset: 8 * flowNext},
		}},
	}
}

// parseFlow reads an entry of the flows.
func parseFlow(key, value []byte) Flow {
	u64 := func(offset int) uint64 { return binary.NativeEndian.Uint64(value[offset:]) }
	f := Flow{
		Source:      netip.AddrFrom16([16]byte(key[keySource:])).Unmap(),
		Destination: netip.AddrFrom16([16]byte(key[keyDestination:])).Unmap(),
		QP:          binary.NativeEndian.Uint32(key[keyQP:]),
		Direction:   Direction(binary.NativeEndian.Uint32(key[keyDirection:])),
		Dropped:     u64(flowDropped),
	}
	for i := range f.Naks {
		f.Naks[i] = u64(flowNaks + 8*i)
	}
	for i := range f.Opcodes {
		at := flowOpcodes + slotSize*i
		f.Opcodes[i] = Packets{All: u64(at + slotAll), Repeats: u64(at + slotRepeats), Bytes: u64(at + slotBytes)}
	}
	return f
}
