package sim

import (
	"fmt"
	"hash/crc32"
	"math/bits"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// note is what a line of the trace says.
type note uint8

const (
	noteOpen note = iota
	noteCrash
	notePause
	noteResume
	noteCut
	noteHeal
	noteAccept
	noteConnect
	noteBroken
	noteRevoke
	noteClose
	noteTimeout
	notePost
	noteLost
	noteRelease
	notePark
	noteIgnored
	notePart
	noteLoad
	noteAtomic
	noteBell
	noteReply
	noteReplyLost
	noteDrop
)

var noteNames = [...]string{
	noteOpen: "open", noteCrash: "crash", notePause: "pause", noteResume: "resume", noteCut: "cut", noteHeal: "heal",
	noteAccept: "accept", noteConnect: "connect", noteBroken: "broken", noteRevoke: "revoke", noteClose: "close", noteTimeout: "time-out",
	notePost: "post", noteLost: "lost", noteRelease: "released", notePark: "waits", noteIgnored: "ignored by a broken end",
	notePart: "moves", noteLoad: "loads", noteAtomic: "executes", noteBell: "rings", noteReply: "reply", noteReplyLost: "reply lost",
	noteDrop: "comes to nothing",
}

// castagnoli is for sums of the bytes that move.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one line of the trace. All in it comes from counters and the caller,
// so it says the same wherever the memory lies.
type record struct {
	at time.Duration
	// request is the number of the request, or 0.
	request uint64
	// low and high bound the bytes of the request that moved; sum is of them. For a
	// word, low is the value found; for a post, the remote address, and high the
	// length.
	low, high uint64
	sum       uint32
	qp        uint32
	// from and to are indexes of nodes, -1 for none.
	from, to int32
	what     note
	op       rdma.Opcode
	status   rdma.Status
}

// trace hashes all records and keeps the last ones.
type trace struct {
	hash uint64
	ring []record
	next int
	full bool
}

func newTrace(length int) trace { return trace{ring: make([]record, length)} }

func (t *trace) add(r *record) {
	const prime = 0x9e3779b97f4a7c15
	h := t.hash
	for _, v := range [...]uint64{
		uint64(r.at), r.request, r.low, r.high, uint64(r.sum)<<32 | uint64(r.qp),
		uint64(uint32(r.from))<<32 | uint64(uint32(r.to)), uint64(r.what)<<16 | uint64(r.op)<<8 | uint64(r.status),
	} {
		h = bits.RotateLeft64(h^v, 29) * prime
	}
	t.hash = h
	if len(t.ring) == 0 {
		return
	}
	t.ring[t.next] = *r
	if t.next++; t.next == len(t.ring) {
		t.next, t.full = 0, true
	}
}

func (t *trace) lines(nodes []*node) []string {
	records := t.ring[:t.next]
	if t.full {
		records = append(t.ring[t.next:len(t.ring):len(t.ring)], records...)
	}
	all := make([]string, len(records))
	for i := range records {
		all[i] = records[i].line(nodes)
	}
	return all
}

func (r *record) line(nodes []*node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%12v", r.at)
	if r.from >= 0 {
		fmt.Fprintf(&b, " %s", nodes[r.from].name)
	}
	if r.qp != 0 {
		fmt.Fprintf(&b, "/%d", r.qp)
	}
	if r.to >= 0 {
		fmt.Fprintf(&b, " > %s", nodes[r.to].name)
	}
	if r.request != 0 {
		fmt.Fprintf(&b, " #%d %v", r.request, r.op)
	}
	fmt.Fprintf(&b, " %s", noteNames[r.what])
	switch r.what {
	case notePost:
		fmt.Fprintf(&b, " %d bytes at %#x", r.high, r.low)
	case notePart:
		fmt.Fprintf(&b, " [%d,%d) sum %08x", r.low, r.high, r.sum)
	case noteLoad, noteAtomic:
		fmt.Fprintf(&b, " found %#x", r.low)
	}
	if r.status != rdma.StatusOK {
		fmt.Fprintf(&b, ": %v", r.status)
	}
	return b.String()
}

func (f *Fabric) noteNode(what note, n *node) {
	f.trace.add(&record{at: f.now, what: what, from: int32(n.index), to: -1})
}

func (f *Fabric) noteLink(what note, from, to *node) {
	r := record{at: f.now, what: what, from: -1, to: -1}
	if from != nil {
		r.from, r.to = int32(from.index), int32(to.index)
	}
	f.trace.add(&r)
}

func (f *Fabric) noteEnd(what note, q *queuePair) {
	r := q.record(f.now, what)
	f.trace.add(&r)
}

func (f *Fabric) note(what note, r *request) {
	rec := r.record(f.now, what)
	switch what {
	case noteReply:
		rec.status = r.status
	case notePost:
		rec.low, rec.high = r.wr.RemoteAddr, uint64(r.wr.Local.Length)
	}
	f.trace.add(&rec)
}

func (f *Fabric) noteWord(what note, r *request, found uint64) {
	rec := r.record(f.now, what)
	rec.low = found
	f.trace.add(&rec)
}

func (f *Fabric) notePart(r *request, low uint32, moved []byte) {
	rec := r.record(f.now, notePart)
	rec.low, rec.high, rec.sum = uint64(low), uint64(low)+uint64(len(moved)), crc32.Checksum(moved, castagnoli)
	f.trace.add(&rec)
}

func (q *queuePair) record(at time.Duration, what note) record {
	r := record{at: at, what: what, qp: q.number, from: int32(q.provider.node.index), to: -1}
	if q.peer != nil {
		r.to = int32(q.peer.provider.node.index)
	}
	return r
}

func (r *request) record(at time.Duration, what note) record {
	rec := r.qp.record(at, what)
	rec.request, rec.op = r.number, r.wr.Op
	return rec
}
