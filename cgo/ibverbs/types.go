package ibverbs

import "fmt"

// Op is the verb of a Descriptor.
type Op uint8

// The verbs.
const (
	OpRead Op = iota + 1
	OpWrite
	OpWriteImm
	OpCompareSwap
	OpFetchAdd
)

// Flag modifies a Descriptor.
type Flag uint8

// The flags, as in ibv_send_flags.
const (
	FlagSignaled Flag = 1 << iota
	FlagFence
	FlagInline
)

// Descriptor is a work request without pointers, so that a batch of them crosses
// to C as it is. Its layout is that of struct tenure_wr.
type Descriptor struct {
	// ID comes back in the completion.
	ID uint64
	// LocalAddr, Length and LKey are the local side.
	LocalAddr uint64
	Length    uint32
	LKey      uint32
	// RemoteAddr and RKey are the remote side.
	RemoteAddr uint64
	// CompareAdd and Swap are the operands of atomics.
	CompareAdd uint64
	Swap       uint64
	RKey       uint32
	// Imm is in the byte order of this machine.
	Imm   uint32
	Op    Op
	Flags Flag
	_     [6]byte
}

// Completion is a work completion: struct tenure_wc.
type Completion struct {
	// ID is that of the request.
	ID uint64
	// Length of the payload that a receive got, in bytes.
	Length uint32
	// Imm is in the byte order of this machine; 0 if there is none.
	Imm uint32
	// QP is the number of the queue pair.
	QP uint32
	// Vendor says more about an error, in the words of the device's maker.
	Vendor uint32
	Status Status
	_      uint32
}

// Status is ibv_wc_status.
type Status uint32

// The statuses, in the order of verbs.h.
const (
	Success Status = iota
	LocalLength
	LocalQPOperation
	LocalEECOperation
	LocalProtection
	Flushed
	MemoryWindowBind
	BadResponse
	LocalAccess
	RemoteInvalidRequest
	RemoteAccess
	RemoteOperation
	RetryExceeded
	RNRRetryExceeded
	LocalRDDViolation
	RemoteInvalidRDRequest
	RemoteAborted
	InvalidEECNumber
	InvalidEECState
	Fatal
	ResponseTimeout
	General
	statuses // how many there are
)

var statusNames = [statuses]string{"success", "local length", "local QP operation", "local EEC operation", "local protection",
	"flushed", "memory window bind", "bad response", "local access", "remote invalid request", "remote access", "remote operation",
	"retries exceeded", "RNR retries exceeded", "local RDD violation", "remote invalid RD request", "remote aborted",
	"invalid EEC number", "invalid EEC state", "fatal", "response timeout", "general"}

// String returns the words of the InfiniBand specification.
func (s Status) String() string {
	if s < statuses {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// State is a state of a queue pair, as in ibv_qp_state.
type State int

// The states that queue pairs are in here.
const (
	StateReset State = 0
	StateInit  State = 1
	StateRTR   State = 2
	StateRTS   State = 3
	StateError State = 6
)

// MTU is a path MTU code, 1 to 5.
type MTU uint8

// Bytes is the MTU in bytes, or 0 if there is no such code.
func (m MTU) Bytes() int {
	if m < 1 || m > 5 {
		return 0
	}
	return 128 << m
}

// AtomicCap is what a device promises of its atomics.
type AtomicCap uint32

// The capabilities, as in ibv_atomic_cap.
const (
	// AtomicNone: there are no atomics.
	AtomicNone AtomicCap = iota
	// AtomicDevice: atomic among the queue pairs of this device.
	AtomicDevice
	// AtomicGlobal: atomic with the CPU, too.
	AtomicGlobal
)

// String returns the words of ibv_devinfo.
func (c AtomicCap) String() string {
	switch c {
	case AtomicNone:
		return "none"
	case AtomicDevice:
		return "HCA"
	case AtomicGlobal:
		return "global"
	default:
		return fmt.Sprintf("atomic capability %d", uint32(c))
	}
}

// PortState is ibv_port_state.
type PortState uint32

// PortActive is the only state in which a port carries traffic.
const PortActive PortState = 4

// String returns the words of ibv_devinfo.
func (s PortState) String() string {
	names := [...]string{"NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// LinkLayer is what a port speaks.
type LinkLayer uint32

// The link layers, as in verbs.h.
const (
	InfiniBand LinkLayer = 1
	Ethernet   LinkLayer = 2
)

// String returns the words of ibv_devinfo.
func (l LinkLayer) String() string {
	switch l {
	case InfiniBand:
		return "InfiniBand"
	case Ethernet:
		return "Ethernet"
	default:
		return "unspecified"
	}
}

// Transport is ibv_transport_type.
type Transport int

// The transports that matter: RoCE is TransportIB, too.
const (
	TransportIB    Transport = 0
	TransportIWARP Transport = 1
)

// String returns the words of ibv_devinfo.
func (t Transport) String() string {
	switch t {
	case TransportIB:
		return "InfiniBand"
	case TransportIWARP:
		return "iWARP"
	default:
		return fmt.Sprintf("transport %d", int(t))
	}
}

// DeviceAttr says what a device can do.
type DeviceAttr struct {
	// MaxRegion is in bytes.
	MaxRegion uint64
	// MaxQueuePairs, MaxWorkRequests (a queue), MaxCompletions (a queue) and
	// MaxRegions are how many there may be.
	MaxQueuePairs, MaxWorkRequests, MaxCompletions, MaxRegions int
	// MaxResponderAtomics and MaxInitiatorAtomics are how many READs and atomics
	// of one queue pair may be in flight at its two ends.
	MaxResponderAtomics, MaxInitiatorAtomics int
	Atomics                                  AtomicCap
	// Ports are numbered from 1.
	Ports    int
	Firmware string
}

// PortAttr describes a port.
type PortAttr struct {
	State                PortState
	ActiveMTU, MaxMTU    MTU
	LinkLayer            LinkLayer
	MaxMessage, GIDCount int
	LID                  uint16
}

// GID is an address of a port; the index in its table is what queue pairs use.
type GID [16]byte

// Path is all that a queue pair must know to be connected.
type Path struct {
	RemoteQP, RemotePSN, LocalPSN uint32
	RemoteLID                     uint16
	// RemoteGID counts if Global, which it always is on Ethernet.
	RemoteGID GID
	Global    bool
	// GIDIndex is that of the local address.
	GIDIndex, HopLimit, Port uint8
	MTU                      MTU
	// ResponderAtomics and InitiatorAtomics are how many READs and atomics of the
	// peer and of ours may be in flight.
	ResponderAtomics, InitiatorAtomics uint8
	// MinRNRTimer and Timeout are codes of the InfiniBand specification.
	MinRNRTimer, Timeout uint8
	// Retries and RNRRetries are at most 7; of RNRRetries, 7 means for ever.
	Retries, RNRRetries uint8
}

// EventType is ibv_event_type.
type EventType int

// The asynchronous events that matter here.
const (
	EventCQError     EventType = 0
	EventQPFatal     EventType = 1
	EventQPRequest   EventType = 2
	EventQPAccess    EventType = 3
	EventDeviceFatal EventType = 8
	EventPortActive  EventType = 9
	EventPortError   EventType = 10
	EventGIDChange   EventType = 18
	eventTypes       EventType = 19
)

// String returns the words of verbs.h.
func (e EventType) String() string {
	names := [eventTypes]string{"CQ error", "QP fatal", "QP request error", "QP access error", "communication established",
		"send queue drained", "path migrated", "path migration error", "device fatal", "port active", "port error",
		"LID change", "P_Key change", "SM change", "SRQ error", "SRQ limit reached", "last WQE reached", "client reregister", "GID change"}
	if e >= 0 && e < eventTypes {
		return names[e]
	}
	return fmt.Sprintf("event %d", int(e))
}

// Event is an asynchronous event of a device.
type Event struct {
	Type EventType
	// QP is the number of the queue pair it is about, or 0.
	QP uint32
	// Port is the port it is about, or 0.
	Port int
	// CQ says whether it is about a completion queue, see CQ.Is.
	CQ uint64
}
