package rdmatest

import (
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

func registerGivesMemory(sc *scene) {
	for _, size := range []int{1, 7, 8, 100, 4095, 4096, 4097, 1 << 20} {
		r := sc.a.region(size) // checks size, alignment and zeroes
		r.fill(uint64(size))
		r.close()
		sc.a.region(size) // must be zeroed although memory may come back
	}
	r := sc.a.region(16)
	r.store(8, 0x0102030405060708)
	if got := r.load(8); got != 0x0102030405060708 {
		sc.Errorf("a stored word is loaded as %#x", got)
	}
}

// sizes of transfers: around words, cache lines and pages, and large ones.
func (sc *scene) sizes(limits rdma.Limits) (sizes []int) {
	largest := min(sc.Largest, limits.MaxMessage)
	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 4095, 4096, 4097, 65536 + 3, 1 << 20} {
		if n < largest {
			sizes = append(sizes, n)
		}
	}
	return append(sizes, largest)
}

// transfer is a set of copies of one size, one for each pair of alignments,
// between regions whose bytes all differ.
type transfer struct {
	size   int
	from   *region
	to     *region
	copies []copied
	// sources are the offsets in from.
	sources []int
}

// Seeds of patterns.
const (
	groundSeed = 1
	sourceSeed = 2
)

// transfer prepares the regions: what is copied lies apart, with a guard before
// and after it.
func (sc *scene) transfer(from, to *node, size int) *transfer {
	sc.Helper()
	alignments := 8
	if size > 1<<16 {
		alignments = 2 // these two are 0 and 5
	}
	stride := (size+48)/16*16 + 16
	n := alignments * alignments
	x := &transfer{size: size, from: from.painted(n*stride, sourceSeed), to: to.painted(n*stride, groundSeed)}
	for i := range n {
		sourceAlignment, alignment := i/alignments, i%alignments
		if alignments == 2 {
			sourceAlignment, alignment = 5*sourceAlignment, 5*alignment
		}
		x.sources = append(x.sources, i*stride+16+sourceAlignment)
		x.copies = append(x.copies, copied{At: i*stride + 16 + alignment, Length: size, Seed: sourceSeed, From: i*stride + 16 + sourceAlignment})
	}
	return x
}

// verify checks that the copies are where they belong and nothing else changed,
// and closes the regions.
func (x *transfer) verify(what string) {
	x.to.node.Helper()
	x.to.verifyLast(what, groundSeed, x.copies...)
	x.from.verifyLast(what+" (the source)", sourceSeed)
}

// varied gives requests different flags: some inline, some without completion.
// The last is always signaled.
func varied(requests []rdma.WorkRequest, limits rdma.Limits) []rdma.WorkRequest {
	for i := range requests {
		r := &requests[i]
		if r.Op != rdma.OpRead && i%2 == 1 && int(r.Local.Length) <= limits.MaxInline {
			r.Flags |= rdma.Inline
		}
		if i%3 == 1 && i != len(requests)-1 {
			r.Flags &^= rdma.Signaled
		}
	}
	return requests
}

func writeEverySize(sc *scene) {
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	for _, size := range sc.sizes(sc.a.Limits) {
		what := fmt.Sprintf("WRITE of %d bytes", size)
		tr := sc.transfer(sc.a, sc.b, size)
		var requests []rdma.WorkRequest
		for i, c := range tr.copies {
			requests = append(requests, rdma.Write(uint64(1000+i), tr.from.local(tr.sources[i], size), tr.to.remote, uint64(c.At)))
		}
		x.complete(what, varied(requests, sc.a.Limits)...)
		x.settle(y)
		tr.verify(what)
	}
}

func readEverySize(sc *scene) {
	x, _ := sc.connect(sc.a, sc.b, pairOptions{})
	for _, size := range sc.sizes(sc.a.Limits) {
		what := fmt.Sprintf("READ of %d bytes", size)
		tr := sc.transfer(sc.b, sc.a, size)
		var requests []rdma.WorkRequest
		for i, c := range tr.copies {
			requests = append(requests, rdma.Read(uint64(1000+i), tr.to.local(c.At, size), tr.from.remote, uint64(tr.sources[i])))
		}
		x.complete(what, varied(requests, sc.a.Limits)...)
		tr.verify(what)
	}
}

func writeImmEverySize(sc *scene) {
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	for _, size := range sc.sizes(sc.a.Limits) {
		what := fmt.Sprintf("WRITE_IMM of %d bytes", size)
		tr := sc.transfer(sc.a, sc.b, size)
		var requests []rdma.WorkRequest
		for i, c := range tr.copies {
			requests = append(requests, rdma.WriteImm(uint64(1000+i), tr.from.local(tr.sources[i], size), tr.to.remote, uint64(c.At), 0xfedc0000+uint32(size^i)))
		}
		x.complete(what, varied(requests, sc.a.Limits)...)
		y.rings(what, requests...)
		tr.verify(what)
	}
}

// ownPeer uses a queue pair that is connected to itself, which is how an owner
// changes the words that its peers change by CAS.
func ownPeer(sc *scene) {
	const size = 5000
	from, to, old := sc.b.painted(size, sourceSeed), sc.b.painted(size, groundSeed), sc.b.region(16)
	x := sc.b.own()
	write := rdma.Write(1, from.local(100, 3000), to.remote, 201)
	x.complete("WRITE to itself", write)
	bell := rdma.WriteImm(2, from.local(1, 77), to.remote, 4001, 0xabcd)
	// The doorbell and the completion of its WRITE_IMM share a queue; which comes
	// first is open.
	got := x.results("a WRITE_IMM to itself and its doorbell", 2, bell)
	if got[0].Op == rdma.OpReceive {
		got[0], got[1] = got[1], got[0]
	}
	sc.b.compare("a WRITE_IMM to itself and its doorbell", got, []rdma.Completion{
		{ID: 2, QP: x.Number, Op: rdma.OpWriteImm}, {QP: x.Number, Op: rdma.OpReceive, Imm: 0xabcd, Length: 77},
	})
	to.verify("WRITEs to itself", groundSeed, copied{201, 3000, sourceSeed, 100}, copied{4001, 77, sourceSeed, 1})
	x.complete("READ of itself", rdma.Read(3, to.local(0, 3000), from.remote, 1000))
	to.verify("READ of itself", groundSeed, copied{0, 3000, sourceSeed, 1000}, copied{3000, 201, sourceSeed, 2899}, copied{4001, 77, sourceSeed, 1})
	to.store(8, 41)
	x.complete("atomics on itself", rdma.FAA(4, old.local(0, 8), to.remote, 8, 1))
	x.complete("atomics on itself", rdma.CAS(5, old.local(8, 8), to.remote, 8, 42, 7))
	if found, now := old.words(0, 2), to.load(8); found[0] != 41 || found[1] != 42 || now != 7 {
		sc.Errorf("FAA of 1 and CAS from 42 to 7 on 41 find %v and leave %d", found, now)
	}
	x.revoke()
	x.broken("after Revoke of a queue pair that is its own peer")
}
