//go:build linux && cgo && rdma

package ibverbs

// No noescape and nocallback here: batches live on the heap anyway, and a call
// costs the same without (see BenchmarkCrossing).

// #include "shim.h"
import "C"

import (
	"syscall"
	"time"
	"unsafe"
)

// maxPoll is how many completions one Poll gets at most: CHUNK in data.c.
const maxPoll = 64

// acknowledgeEvery is how many events of a queue are acknowledged at once: it
// takes a lock in the library.
const acknowledgeEvery = 64

// CQ is a completion queue with its own completion channel.
type CQ struct {
	cq      *C.struct_ibv_cq
	channel *C.struct_ibv_comp_channel
	events  *poller
	// unacknowledged events; of the goroutine in WaitEvent, then of Close.
	unacknowledged int
}

// CreateCQ makes a queue for at least depth completions.
func (c *Context) CreateCQ(depth int) (*CQ, error) {
	channel, err := C.tenure_create_channel(c.c)
	if channel == nil {
		return nil, failedPointer("ibv_create_comp_channel", err)
	}
	q := &CQ{channel: channel}
	if q.cq, err = C.tenure_create_cq(c.c, C.int(depth), channel); q.cq == nil {
		err = failedPointer("ibv_create_cq", err)
		C.tenure_destroy_channel(channel)
		return nil, err
	}
	if q.events, err = newPoller(C.tenure_channel_fd(channel), "completion events"); err != nil {
		C.tenure_destroy_cq(q.cq)
		C.tenure_destroy_channel(channel)
		return nil, err
	}
	return q, nil
}

// Poll fills out, looking for up to spin, at least once. It returns how many it
// got, at most 64.
func (q *CQ) Poll(out []Completion, spin time.Duration) (int, error) {
	return q.poll(out, spin, 0)
}

// ArmAndPoll asks for an event at the next completion, and then looks once: what
// came before the asking makes no event.
func (q *CQ) ArmAndPoll(out []Completion) (int, error) {
	return q.poll(out, 0, 1)
}

func (q *CQ) poll(out []Completion, spin time.Duration, arm C.int) (int, error) {
	n := C.tenure_poll(q.cq, (*C.struct_tenure_wc)(unsafe.Pointer(unsafe.SliceData(out))), C.int(min(len(out), maxPoll)), C.uint32_t(spin), arm)
	if n < 0 {
		return 0, failed("ibv_poll_cq", syscall.Errno(-n))
	}
	return int(n), nil
}

// WaitEvent waits for the event that ArmAndPoll asked for. It ends with
// os.ErrClosed after Shut. One goroutine at a time.
func (q *CQ) WaitEvent() error {
	if err := q.events.await("ibv_get_cq_event", func() C.int { return C.tenure_get_cq_event(q.channel) }); err != nil {
		return err
	}
	if q.unacknowledged++; q.unacknowledged == acknowledgeEvery {
		q.acknowledge()
	}
	return nil
}

func (q *CQ) acknowledge() {
	C.tenure_ack_cq_events(q.cq, C.uint(q.unacknowledged))
	q.unacknowledged = 0
}

// Is says whether an event is about this queue.
func (q *CQ) Is(e *Event) bool {
	return e.Type == EventCQError && e.CQ == uint64(uintptr(unsafe.Pointer(q.cq)))
}

// Shut ends WaitEvent. Close it afterwards.
func (q *CQ) Shut() error { return q.events.close() }

// Close frees the queue, after Shut and when WaitEvent has returned; no queue
// pair may use it.
func (q *CQ) Close() error {
	q.acknowledge()
	if err := failed("ibv_destroy_cq", syscall.Errno(C.tenure_destroy_cq(q.cq))); err != nil {
		return err
	}
	return failed("ibv_destroy_comp_channel", syscall.Errno(C.tenure_destroy_channel(q.channel)))
}

// QP is a queue pair of type RC.
type QP struct {
	qp *C.struct_ibv_qp
	// Number is its number on the device.
	Number uint32
}

// QPOptions are the sizes of a queue pair.
type QPOptions struct {
	SendCQ, ReceiveCQ *CQ
	// SendDepth and ReceiveDepth are in requests, MaxInline in bytes.
	SendDepth, ReceiveDepth, MaxInline int
}

// CreateQP makes a queue pair in state RESET.
func (p *PD) CreateQP(o QPOptions) (*QP, error) {
	qp, err := C.tenure_create_qp(p.pd, o.SendCQ.cq, o.ReceiveCQ.cq, C.uint32_t(o.SendDepth), C.uint32_t(o.ReceiveDepth), C.uint32_t(o.MaxInline))
	if qp == nil {
		return nil, failedPointer("ibv_create_qp", err)
	}
	return &QP{qp, uint32(C.tenure_qp_number(qp))}, nil
}

// Init moves the queue pair from RESET to INIT: it takes receives from now on.
func (q *QP) Init(port int) error {
	return failed("ibv_modify_qp to INIT", syscall.Errno(C.tenure_modify_init(q.qp, C.int(port))))
}

// Connect moves the queue pair from INIT over RTR to RTS. It does not talk to
// the peer, but may ask the network for its hardware address, which takes up to
// seconds if there is none.
func (q *QP) Connect(p *Path) error {
	c := C.struct_tenure_path{
		remote_qp:         C.uint32_t(p.RemoteQP),
		remote_psn:        C.uint32_t(p.RemotePSN),
		local_psn:         C.uint32_t(p.LocalPSN),
		remote_lid:        C.uint16_t(p.RemoteLID),
		gid_index:         C.uint8_t(p.GIDIndex),
		hop_limit:         C.uint8_t(p.HopLimit),
		port:              C.uint8_t(p.Port),
		mtu:               C.uint8_t(p.MTU),
		responder_atomics: C.uint8_t(p.ResponderAtomics),
		initiator_atomics: C.uint8_t(p.InitiatorAtomics),
		min_rnr_timer:     C.uint8_t(p.MinRNRTimer),
		timeout:           C.uint8_t(p.Timeout),
		retries:           C.uint8_t(p.Retries),
		rnr_retries:       C.uint8_t(p.RNRRetries),
	}
	if p.Global {
		c.global = 1
	}
	for i, b := range p.RemoteGID {
		c.gid[i] = C.uint8_t(b)
	}
	if err := failed("ibv_modify_qp to RTR", syscall.Errno(C.tenure_modify_rtr(q.qp, &c))); err != nil {
		return err
	}
	return failed("ibv_modify_qp to RTS", syscall.Errno(C.tenure_modify_rts(q.qp, &c)))
}

// Fail moves the queue pair to ERR: what is outstanding is flushed.
func (q *QP) Fail() error {
	return failed("ibv_modify_qp to ERR", syscall.Errno(C.tenure_modify_state(q.qp, C.int(StateError))))
}

// Reset moves the queue pair to RESET. When it has returned nil, nothing of it or
// of its peer is in progress.
func (q *QP) Reset() error {
	return failed("ibv_modify_qp to RESET", syscall.Errno(C.tenure_modify_state(q.qp, C.int(StateReset))))
}

// State asks the device for the state.
func (q *QP) State() (State, error) {
	var s C.int
	err := failed("ibv_query_qp", syscall.Errno(C.tenure_query_state(q.qp, &s)))
	return State(s), err
}

// Close frees the queue pair.
func (q *QP) Close() error {
	return failed("ibv_destroy_qp", syscall.Errno(C.tenure_destroy_qp(q.qp)))
}

// PostSend posts a batch in one crossing and returns how many were taken. ENOMEM
// means that the send queue is full. The slice is not kept.
func (q *QP) PostSend(batch []Descriptor) (int, error) {
	r := uint64(C.tenure_post_send(q.qp, (*C.struct_tenure_wr)(unsafe.Pointer(unsafe.SliceData(batch))), C.int(len(batch))))
	return posted("ibv_post_send", r)
}

// PostReceives posts n receives without memory, as doorbells need them, all with
// this ID, and returns how many were taken.
func (q *QP) PostReceives(id uint64, n int) (int, error) {
	return posted("ibv_post_recv", uint64(C.tenure_post_receives(q.qp, C.uint64_t(id), C.int(n))))
}

func posted(call string, r uint64) (int, error) {
	return int(uint32(r)), failed(call, syscall.Errno(r>>32))
}
