package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// All numbers travel little endian; a length counts bytes.
//
// The address of a queue pair, which travels over the control plane:
//
//	0        4        8                        24
//	| magic  | number | token                  | host:port ... |
//
// The hello of the active end, and the welcome of the passive one. Each end
// shows that it knows the other's address by its token:
//
//	0        4         8        12       16                       32      36           40
//	| magic  | version | to     | from   | token of to            | depth | timeout ms |
//	| magic  | version | verdict| zero   | token of from          | depth | timeout ms |
//
// A request, which the peer executes:
//
//	0      1      4        8                 16       20       24
//	| kind | zero | length | address         | rkey   | imm    | WRITE, WRITE_IMM: length bytes
//	                                                           | CAS: compare (8), swap (8)
//	                                                           | FAA: add (8)
//
// A response, which ends the oldest requests that have none yet:
//
//	0      1        2      4        8
//	| kind | status | zero | n      |            ACK: n WRITEs or WRITE_IMMs are done
//	                                | n bytes    DATA: of a READ, or 8 that CAS or FAA found
//	                                |            ERROR: one failed with status, and is the last
const (
	// The magics change with the layout.
	addressMagic = 0x31615174 // "tQa1"
	helloMagic   = 0x31685174 // "tQh1"
	welcomeMagic = 0x31775174 // "tQw1"
	wireVersion  = 1

	tokenSize     = 16
	addressFixed  = 8 + tokenSize
	helloSize     = 40
	requestHeader = 24
	// maxRequestHead is the longest request without payload: a CAS.
	maxRequestHead = requestHeader + 16
	responseHeader = 8

	// kindAck, kindData and kindError are responses; the kind of a request is its
	// rdma.Opcode.
	kindAck   = 0x81
	kindData  = 0x82
	kindError = 0x83
)

// token proves to a peer that its opposite got the address from the control
// plane.
type token [tokenSize]byte

// address is where a queue pair is reached.
type address struct {
	number uint32
	token  token
	host   string // host:port
}

func (a *address) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, addressMagic)
	b = binary.LittleEndian.AppendUint32(b, a.number)
	b = append(b, a.token[:]...)
	return append(b, a.host...)
}

// parseAddress decodes an address, which may be anything, also one of another
// provider.
func parseAddress(b []byte) (a address, err error) {
	if len(b) <= addressFixed || len(b) > rdma.MaxAddress || binary.LittleEndian.Uint32(b) != addressMagic {
		return a, fmt.Errorf("%w address of %d bytes: it is not one of provider tcp", rdma.ErrInvalid, len(b))
	}
	a.number = binary.LittleEndian.Uint32(b[4:])
	a.token = token(b[8:addressFixed])
	a.host = string(b[addressFixed:])
	if host, port, err := net.SplitHostPort(a.host); err != nil || host == "" || port == "" {
		return a, fmt.Errorf("%w address: %q is not host:port", rdma.ErrInvalid, a.host)
	}
	return a, nil
}

// verdict is the answer to a hello.
type verdict uint32

const (
	// welcome: the connection is made.
	verdictWelcome verdict = iota
	// verdictVersion: the passive end speaks another version.
	verdictVersion
	// verdictUnknown: no queue pair has this number and token.
	verdictUnknown
	// verdictNotAccepted: the queue pair has not accepted the active end, or is
	// connected already, or broken.
	verdictNotAccepted
)

func (v verdict) String() string {
	switch v {
	case verdictWelcome:
		return "welcome"
	case verdictVersion:
		return "the peer speaks another version of the protocol"
	case verdictUnknown:
		return "the peer has no such queue pair (any more)"
	case verdictNotAccepted:
		return "the peer's queue pair has not accepted this one, or no longer does"
	default:
		return fmt.Sprintf("verdict-%d", uint32(v))
	}
}

// hello opens a connection.
type hello struct {
	version  uint32
	to, from uint32
	token    token // of to
	terms    terms
}

// greeting answers a hello.
type greeting struct {
	version uint32
	verdict verdict
	token   token // of the active end, which is in no hello
	terms   terms
}

// terms are what one end tells the other about itself.
type terms struct {
	// depth is how many requests it has outstanding at most.
	depth uint32
	// timeout is how long it waits for an answer.
	timeout time.Duration
}

func (t *terms) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, t.depth)
	return binary.LittleEndian.AppendUint32(b, uint32(min(t.timeout.Milliseconds(), 1<<32-1)))
}

func (t *terms) parse(b []byte) error {
	t.depth = binary.LittleEndian.Uint32(b)
	t.timeout = time.Duration(binary.LittleEndian.Uint32(b[4:])) * time.Millisecond
	if t.depth == 0 || t.depth > maxDepth {
		return fmt.Errorf("the peer wants %d outstanding requests, the limit is %d", t.depth, maxDepth)
	}
	return nil
}

func (h *hello) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, helloMagic)
	b = binary.LittleEndian.AppendUint32(b, h.version)
	b = binary.LittleEndian.AppendUint32(b, h.to)
	b = binary.LittleEndian.AppendUint32(b, h.from)
	return h.terms.append(append(b, h.token[:]...))
}

// parseHello decodes a hello. What follows the version is checked only if the
// version is ours.
func parseHello(b []byte) (h hello, err error) {
	if len(b) != helloSize || binary.LittleEndian.Uint32(b) != helloMagic {
		return h, errors.New("what connected does not say hello as a queue pair does")
	}
	if h.version = binary.LittleEndian.Uint32(b[4:]); h.version != wireVersion {
		return h, nil
	}
	h.to, h.from = binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	h.token = token(b[16:32])
	return h, h.terms.parse(b[32:])
}

func (g *greeting) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, welcomeMagic)
	b = binary.LittleEndian.AppendUint32(b, g.version)
	b = binary.LittleEndian.AppendUint32(b, uint32(g.verdict))
	b = append(b, 0, 0, 0, 0)
	return g.terms.append(append(b, g.token[:]...))
}

// parseGreeting decodes the answer to a hello; what comes with a refusal is not
// looked at.
func parseGreeting(b []byte) (g greeting, err error) {
	if len(b) != helloSize || binary.LittleEndian.Uint32(b) != welcomeMagic || binary.LittleEndian.Uint32(b[12:]) != 0 {
		return g, errors.New("what listens there does not answer as a queue pair does")
	}
	g.version, g.verdict = binary.LittleEndian.Uint32(b[4:]), verdict(binary.LittleEndian.Uint32(b[8:]))
	if g.verdict != verdictWelcome {
		return g, nil
	}
	if g.version != wireVersion {
		return g, fmt.Errorf("the peer speaks version %d, this is %d", g.version, wireVersion)
	}
	g.token = token(b[16:32])
	return g, g.terms.parse(b[32:])
}

// request is the head of a request on the wire.
type request struct {
	op     rdma.Opcode
	length uint32
	addr   uint64
	rkey   uint32
	imm    uint32
	// compareAdd and swap are CAS's and FAA's.
	compareAdd, swap uint64
}

// isRequest says whether a frame of this kind is a request.
func isRequest(kind byte) bool { return kind >= byte(rdma.OpRead) && kind <= byte(rdma.OpFAA) }

func isResponse(kind byte) bool { return kind >= kindAck && kind <= kindError }

// headOf is the length of a request without payload.
func headOf(op rdma.Opcode) int {
	switch op {
	case rdma.OpCAS:
		return requestHeader + 16
	case rdma.OpFAA:
		return requestHeader + 8
	default:
		return requestHeader
	}
}

// appendRequest encodes the head of a posted request.
func appendRequest(b []byte, w *rdma.WorkRequest) []byte {
	b = append(b, byte(w.Op), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, w.Local.Length)
	b = binary.LittleEndian.AppendUint64(b, w.RemoteAddr)
	b = binary.LittleEndian.AppendUint32(b, w.RKey)
	imm := w.Imm
	if w.Op != rdma.OpWriteImm {
		imm = 0
	}
	b = binary.LittleEndian.AppendUint32(b, imm)
	if w.Op.Atomic() {
		b = binary.LittleEndian.AppendUint64(b, w.CompareAdd)
	}
	if w.Op == rdma.OpCAS {
		b = binary.LittleEndian.AppendUint64(b, w.Swap)
	}
	return b
}

// parseRequest decodes the head of a request, all of which is in b. Whether it
// may be executed is a question of its own, see refusal.
func parseRequest(b []byte) (r request, err error) {
	r.op = rdma.Opcode(b[0])
	r.length = binary.LittleEndian.Uint32(b[4:])
	r.addr = binary.LittleEndian.Uint64(b[8:])
	r.rkey = binary.LittleEndian.Uint32(b[16:])
	r.imm = binary.LittleEndian.Uint32(b[20:])
	if b[1]|b[2]|b[3] != 0 || r.imm != 0 && r.op != rdma.OpWriteImm {
		return r, fmt.Errorf("malformed %v", r.op)
	}
	if r.op.Atomic() {
		r.compareAdd = binary.LittleEndian.Uint64(b[requestHeader:])
	}
	if r.op == rdma.OpCAS {
		r.swap = binary.LittleEndian.Uint64(b[requestHeader+8:])
	}
	return r, nil
}

// refusal is the status of a request that is well formed but must not be
// executed, whatever the regions are.
func (r *request) refusal() rdma.Status {
	if r.length > maxMessage || r.op.Atomic() && (r.length != 8 || r.addr%8 != 0) {
		return rdma.StatusRemoteInvalid
	}
	return rdma.StatusOK
}

// response is the head of a response on the wire.
type response struct {
	kind   byte
	status rdma.Status
	n      uint32
}

func appendResponse(b []byte, r response) []byte {
	return binary.LittleEndian.AppendUint32(append(b, r.kind, byte(r.status), 0, 0), r.n)
}

// parseResponse decodes the head of a response, all of which is in b.
func parseResponse(b []byte) (response, error) {
	r := response{kind: b[0], status: rdma.Status(b[1]), n: binary.LittleEndian.Uint32(b[4:])}
	ok := b[2]|b[3] == 0
	switch r.kind {
	case kindAck:
		ok = ok && r.status == rdma.StatusOK && r.n > 0
	case kindData:
		ok = ok && r.status == rdma.StatusOK && r.n <= maxMessage
	case kindError:
		// What may come from a peer; other statuses are given here.
		switch r.status {
		case rdma.StatusRemoteAccess, rdma.StatusRemoteInvalid, rdma.StatusRemoteOperation, rdma.StatusReceiverNotReady:
			ok = ok && r.n == 0
		default:
			ok = false
		}
	default:
		ok = false
	}
	if !ok {
		return r, fmt.Errorf("malformed frame of kind %#x", r.kind)
	}
	return r, nil
}

// appendData64 encodes the answer to a CAS or FAA.
func appendData64(b []byte, old uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendResponse(b, response{kind: kindData, n: 8}), old)
}

// word decodes the data of such an answer.
func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
