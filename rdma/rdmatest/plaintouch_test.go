package rdmatest

import (
	"encoding/binary"
	"runtime"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	regions "github.com/tenure-faas/tenure/rdma/internal/region"
)

// touch moves the bytes of a request.
func (q *plainPair) touch(j *job, local []byte, remote *regions.Span) {
	switch j.Op {
	case rdma.OpRead:
		if len(local) > 4096 && q.fault("READ ends at a page") {
			local = local[:4096]
		}
		memory.Copy(local, remote.Bytes[:len(local)])
	case rdma.OpWrite, rdma.OpWriteImm:
		q.write(j, local, remote)
	case rdma.OpCAS, rdma.OpFAA:
		q.putOld(local, q.atomic(j, remote), remote)
	}
}

func (q *plainPair) write(j *job, local []byte, remote *regions.Span) {
	switch all := remote.Bytes; {
	case len(all) == 0:
		return
	case j.RemoteAddr%2 == 1 && q.fault("odd addresses lose a byte"):
		memory.Copy(all[:len(all)-1], local[:len(all)-1])
	default:
		memory.Copy(all, local)
	}
	if end := remote.Offset + len(local); q.fault("writes a byte too many") && end < len(remote.Mapping.Bytes()) {
		remote.Mapping.Bytes()[end] ^= 0xff
	}
}

// atomic executes a CAS or FAA and returns the old word.
func (q *plainPair) atomic(j *job, remote *regions.Span) uint64 {
	m, at := remote.Mapping, remote.Offset&^7
	if j.Op == rdma.OpCAS {
		compare, swap := j.CompareAdd, j.Swap
		if q.fault("CAS exchanges its operands") {
			compare, swap = swap, compare
		}
		if q.fault("CAS always stores") {
			compare = m.Load(at)
		}
		if q.fault("CAS compares half") && m.Load(at)&(1<<32-1) == compare&(1<<32-1) {
			compare = m.Load(at)
		}
		return m.CompareSwap(at, compare, swap)
	}
	old := m.Load(at)
	switch {
	case q.fault("FAA stops at the top") && old+j.CompareAdd < old:
		m.Store(at, 1<<64-1)
		return old
	case q.fault("FAA adds halves"):
		m.Store(at, old&^(1<<32-1)+j.CompareAdd&^(1<<32-1)|(old+j.CompareAdd)&(1<<32-1))
		return old
	case q.fault("words move in halves"):
		m.Store(at, old&^(1<<32-1)|(old+j.CompareAdd)&(1<<32-1))
		runtime.Gosched()
		m.Store(at, old+j.CompareAdd)
		return old
	case q.fault("FAA is not atomic"):
		runtime.Gosched()
		m.Store(at, old+j.CompareAdd)
		return old
	}
	return m.FetchAdd(at, j.CompareAdd)
}

func (q *plainPair) putOld(local []byte, old uint64, remote *regions.Span) {
	switch {
	case q.fault("old words in the wrong byte order"):
		binary.BigEndian.PutUint64(local, old)
	case q.fault("reports the new word"):
		memory.PutWord(local, remote.Mapping.Load(remote.Offset))
	case q.fault("reports nothing"):
	default:
		memory.PutWord(local, old)
	}
}
