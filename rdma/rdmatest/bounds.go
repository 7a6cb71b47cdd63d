package rdmatest

import (
	"errors"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// trespass is a place of the peer that a request must not reach.
type trespass struct {
	name string
	// addr and rkey are the request's, given the region next to which it aims and
	// the request's length.
	at func(r rdma.RemoteRegion, length uint64) (addr uint64, rkey uint32)
}

// trespasses are aimed at a region whose size is divisible by 8 and not by the
// size of a page, so that there is mapped memory behind it. All are aligned for
// atomics.
func trespasses() []trespass {
	type r = rdma.RemoteRegion
	return []trespass{
		{"a key with one bit changed", func(r r, _ uint64) (uint64, uint32) { return r.Addr, r.RKey ^ 1 }},
		{"a key with the highest bit changed", func(r r, _ uint64) (uint64, uint32) { return r.Addr, r.RKey ^ 1<<31 }},
		{"all bits of a key changed", func(r r, _ uint64) (uint64, uint32) { return r.Addr, ^r.RKey }},
		{"8 bytes before the region", func(r r, _ uint64) (uint64, uint32) { return r.Addr - 8, r.RKey }},
		{"a page before the region", func(r r, _ uint64) (uint64, uint32) { return r.Addr - 4096, r.RKey }},
		{"8 bytes beyond the end", func(r r, n uint64) (uint64, uint32) { return r.Addr + r.Size - n + 8, r.RKey }},
		{"just behind the end", func(r r, _ uint64) (uint64, uint32) { return r.Addr + r.Size, r.RKey }},
		{"far behind the end", func(r r, _ uint64) (uint64, uint32) { return r.Addr + r.Size + 1<<40, r.RKey }},
		{"address 0", func(r, uint64) (uint64, uint32) { return 0, 0 }},
		{"address 0 with a good key", func(r r, _ uint64) (uint64, uint32) { return 0, r.RKey }},
		{"an address at which the sum with the length overflows", func(r r, _ uint64) (uint64, uint32) { return ^uint64(0) - 7, r.RKey }},
		{"half of all addresses away", func(r r, _ uint64) (uint64, uint32) { return r.Addr + 1<<63, r.RKey }},
	}
}

// verbsOf returns one request of every opcode, all of length bytes but for the
// atomics.
func verbsOf(local *region, length int) []rdma.WorkRequest {
	return []rdma.WorkRequest{
		rdma.Read(0, local.local(0, length), rdma.RemoteRegion{}, 0),
		rdma.Write(0, local.local(0, length), rdma.RemoteRegion{}, 0),
		rdma.WriteImm(0, local.local(0, length), rdma.RemoteRegion{}, 0, 77),
		rdma.CAS(0, local.local(0, 8), rdma.RemoteRegion{}, 0, 0, 1),
		rdma.FAA(0, local.local(0, 8), rdma.RemoteRegion{}, 0, 1),
	}
}

// remoteBoundsHold tries every verb at every forbidden place.
func remoteBoundsHold(sc *scene) {
	b := sc.bystanders()
	for _, p := range trespasses() {
		for _, bad := range verbsOf(b.local, 64) {
			bad.RemoteAddr, bad.RKey = p.at(b.target.remote, uint64(bad.Local.Length))
			sc.trespass(fmt.Sprintf("%v at %s", bad.Op, p.name), b, bad)
		}
	}
	b.check()
}

// unevenBoundsHold is about single bytes at the ends of regions whose size is
// not round, where a device may think in words or pages.
func unevenBoundsHold(sc *scene) {
	b := sc.bystanders()
	for _, size := range []int{1, 7, 4093} {
		target := sc.b.painted(size, sourceSeed)
		for _, c := range []struct {
			offset int
			length int
		}{{size, 1}, {size - 1, 2}, {-1, 1}, {-1, 2}, {0, size + 1}} {
			for _, bad := range verbsOf(b.local, c.length)[:3] {
				bad.RemoteAddr, bad.RKey = target.remote.Addr+uint64(c.offset), target.remote.RKey
				sc.trespass(fmt.Sprintf("%v of %d bytes at %d in a region of %d bytes", bad.Op, c.length, c.offset, size), b, bad)
			}
		}
		// All of it, and its last byte, may be reached.
		b.x.complete("READ of all of an uneven region", rdma.Read(1, b.local.local(0, size), target.remote, 0), rdma.Read(2, b.local.local(0, 1), target.remote, uint64(size-1)))
		target.verify("a region after requests that went beyond it", sourceSeed)
		target.close()
		b.local.fill(sourceSeed)
	}
	b.check()
}

// closedRegionsStayClosed uses the key of a region that was closed, also when
// another has come in its place.
func closedRegionsStayClosed(sc *scene) {
	b := sc.bystanders()
	closed := sc.b.region(4096)
	b.x.complete("WRITE to a region that is still open", rdma.Write(1, b.local.local(0, 64), closed.remote, 0))
	closed.close()
	for _, bad := range verbsOf(b.local, 64) {
		bad.RemoteAddr, bad.RKey = closed.remote.Addr, closed.remote.RKey
		sc.trespass(fmt.Sprintf("%v in a closed region", bad.Op), b, bad)
	}
	next := sc.b.painted(4096, groundSeed)
	for _, bad := range verbsOf(b.local, 64) {
		bad.RemoteAddr, bad.RKey = next.remote.Addr, closed.remote.RKey
		sc.trespass(fmt.Sprintf("%v in a region with the key of one that was closed", bad.Op), b, bad)
	}
	next.verify("a region that was aimed at with an old key", groundSeed)
	b.check()
}

// bystanders are what a trespass must not harm: the memory around, and another
// queue pair between the same nodes.
type bystanders struct {
	scene  *scene
	x, y   *end
	local  *region
	target *region
	// word counts the trespasses, each of which adds one before it fails; old is
	// for what is found there.
	word, old *region
	count     uint64
}

func (sc *scene) bystanders() *bystanders {
	sc.Helper()
	b := &bystanders{
		scene: sc, local: sc.a.painted(8192, sourceSeed), target: sc.b.painted(1000, groundSeed),
		word: sc.b.region(8), old: sc.a.region(8),
	}
	b.x, b.y = sc.connect(sc.a, sc.b, pairOptions{})
	return b
}

// check checks that they are unharmed.
func (b *bystanders) check() {
	b.scene.Helper()
	b.x.complete("another queue pair", rdma.Read(1<<32, b.old.local(0, 8), b.word.remote, 0))
	if got := b.old.load(0); got&(1<<32-1) != b.count {
		b.scene.Errorf("%d FAA were done before requests that failed, and the word is %#x", b.count, got)
	}
	b.x.settle(b.y)
	b.y.settle(b.x)
	b.target.verify("the region that was aimed at", groundSeed)
	b.local.verify("the local memory of the requests", sourceSeed)
}

// smallestPacket is the least that a device moves at once, in bytes.
const smallestPacket = 256

// trespass posts good, bad, good, good on a queue pair of its own. Bad must fail
// as an access error and break the queue pair; what came before is done, what
// comes after is flushed or not taken.
func (sc *scene) trespass(what string, b *bystanders, bad rdma.WorkRequest) {
	sc.Helper()
	x := sc.a.pair(pairOptions{timeout: sc.Timeout})
	y := sc.b.pair(pairOptions{timeout: sc.Timeout, accept: x})
	before, after := rdma.FAA(1, b.old.local(0, 8), b.word.remote, 0, 1), rdma.FAA(3, b.old.local(0, 8), b.word.remote, 0, 1<<32)
	bad.ID = 2
	b.count++
	if b.count%2 == 0 {
		bad.Flags &^= rdma.Signaled // a failure has a completion all the same
	}
	other := []rdma.WorkRequest{rdma.Read(b.count, b.old.local(0, 8), b.word.remote, 0)}
	// All that happens at this end in one crossing: there are many trespasses.
	all := ask[answers](sc.a, doAll{[]operation{
		doConnect{x.Pair, y.Address, sc.Bound},
		doPost{Pair: x.Pair, Requests: []rdma.WorkRequest{before, bad, after, after}, Wait: doWait{x.cq.number, -1, sc.Bound}},
		doPairErr{x.Pair},
		doClosePair{x.Pair, x.cq.number},
		b.x.completing(other),
	}}).Answers
	p := all[1].Value.(posted)
	if p.Count < 2 || p.Count < 4 && !errors.Is(p.Fault.err(), rdma.ErrBroken) {
		sc.Fatalf("%s between others: %d of 4 were taken with error %v", what, p.Count, p.Fault.err())
	}
	sc.failed(what, x, x.cq.enough(what, p.Count, p.Waited), bad, func(s rdma.Status) bool {
		// A device does not tell at which packet of a request it was refused.
		return s == rdma.StatusRemoteAccess || s == rdma.StatusRemoteInvalid || s == rdma.StatusRemoteOperation && bad.Local.Length > smallestPacket
	})
	x.refuses("after "+what, all[2].Value.(state))
	if got := all[3].Value.(waited).Completions; len(got) > 0 {
		sc.Errorf("%s: a completion too many: %+v", what, got)
	}
	if got := y.last(); len(got) > 0 {
		sc.Errorf("%s: at the peer arrived %+v", what, got)
	}
	b.x.completed("another queue pair after "+what, other, all[4].Value.(posted))
}

// failed checks the completions of a good request, a bad one with ID 2 and those
// behind it, which are flushed.
func (sc *scene) failed(what string, x *end, got []rdma.Completion, bad rdma.WorkRequest, expected func(rdma.Status) bool) {
	sc.Helper()
	if want := (rdma.Completion{ID: 1, QP: x.Number, Op: rdma.OpFAA}); got[0] != want {
		sc.Fatalf("%s: what was posted before it ended as %+v (%v), want %+v", what, got[0], got[0].Status, want)
	}
	if want := (rdma.Completion{ID: 2, QP: x.Number, Op: bad.Op, Status: got[1].Status}); got[1] != want || !expected(got[1].Status) {
		sc.Fatalf("%s ended as %+v: %v", what, got[1], got[1].Status)
	}
	for _, c := range got[2:] {
		if want := (rdma.Completion{ID: 3, QP: x.Number, Op: rdma.OpFAA, Status: rdma.StatusFlushed}); c != want {
			sc.Fatalf("%s: what was posted after it ended as %+v (%v), want %+v", what, c, c.Status, want)
		}
	}
}

// localBoundsHold gives requests local memory that their key does not allow.
func localBoundsHold(sc *scene) {
	b := sc.bystanders()
	closed := sc.a.region(4096)
	closed.close()
	neighbour := sc.a.painted(4096, groundSeed)
	scratch := sc.b.region(64) // StatusLocal does not say whether the peer has executed it
	all := b.local.all
	for _, c := range []struct {
		name  string
		local rdma.Local
	}{
		{"a wrong key", rdma.Local{Addr: all.Addr, LKey: ^all.LKey}},
		{"the key of another region", rdma.Local{Addr: all.Addr, LKey: neighbour.all.LKey}},
		{"8 bytes before the region", rdma.Local{Addr: all.Addr - 8, LKey: all.LKey}},
		{"beyond the end", rdma.Local{Addr: all.Addr + uint64(all.Length) - 4, LKey: all.LKey}},
		{"behind the end", rdma.Local{Addr: all.Addr + uint64(all.Length), LKey: all.LKey}},
		{"an address that overflows", rdma.Local{Addr: ^uint64(0) - 7, LKey: all.LKey}},
		{"a closed region", rdma.Local{Addr: closed.all.Addr, LKey: closed.all.LKey}},
	} {
		for _, bad := range verbsOf(b.local, 64) {
			what := fmt.Sprintf("%v with local memory at %s", bad.Op, c.name)
			bad.ID, bad.Local.Addr, bad.Local.LKey = 2, c.local.Addr, c.local.LKey
			bad.RemoteAddr, bad.RKey = scratch.remote.Addr, scratch.remote.RKey
			x, y := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
			before := rdma.FAA(1, b.old.local(0, 8), b.word.remote, 0, 1)
			b.count++
			x.complete(what, before)
			got := append([]rdma.Completion{{ID: 1, QP: x.Number, Op: rdma.OpFAA}}, x.results(what, 1, bad)...)
			sc.failed(what, x, got, bad, func(s rdma.Status) bool { return s == rdma.StatusLocal })
			x.broken("after " + what)
			x.close()
			y.close()
		}
	}
	neighbour.verify("a region whose key was used elsewhere", groundSeed)
	b.check()
}

// regionsCloseUnderFire closes regions while streams use them, at the side of
// the owner and at the side of whoever reads into them. What is demanded is that
// everything ends and nobody else is harmed.
func regionsCloseUnderFire(sc *scene) {
	b := sc.bystanders()
	for _, c := range []struct {
		name     string
		op       rdma.Opcode
		remotely bool
	}{
		{"WRITEs to a region that its owner closes", rdma.OpWrite, true},
		{"READs of a region that its owner closes", rdma.OpRead, true},
		{"WRITEs from a region that is closed", rdma.OpWrite, false},
		{"READs into a region that is closed", rdma.OpRead, false},
	} {
		x, y := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
		const size = 64 << 10
		near, far := sc.a.region(size), sc.b.region(size)
		progress, beats := sc.b.region(8), sc.a.region(8)
		request := rdma.Write(0, near.local(0, size), far.remote, 0)
		request.Op = c.op
		p := x.stream(doStream{
			Steps:  []step{{Request: request}, {Request: rdma.FAA(0, beats.local(0, 8), progress.remote, 0, 1)}},
			Rounds: endless, Window: 8,
		})
		progress.reach(0, 10)
		if c.remotely {
			far.close()
		} else {
			near.close()
		}
		s := sc.anyStream(c.name, p)
		// What the owner's Close meets half-way may end as any failure.
		if s.Failed == 0 || !c.remotely && s.Status != rdma.StatusLocal {
			sc.Errorf("%s ended as %v (%d failed)", c.name, s.Status, s.Failed)
		}
		x.close()
		y.close()
	}
	for range 4 {
		sc.closeInside()
	}
	b.check()
}

// closeInside has the owner of a region close it as soon as it sees that a part
// of a WRITE has landed. Nobody may say of that WRITE that it was not done.
func (sc *scene) closeInside() {
	sc.Helper()
	const count = 24
	size := min(sc.Largest, sc.a.Limits.MaxMessage, 256<<10)
	x, y := sc.connect(sc.a, sc.b, pairOptions{timeout: sc.Timeout})
	near, far := sc.a.region(count*size), sc.b.region(size)
	word, old := sc.b.region(8), sc.a.region(8)
	sc.a.must(doStamp{near.number, size})
	look := sc.b.begin(doCloseInside{far.number, count, sc.Bound})
	s := sc.anyStream("WRITEs to a region that its owner closes in the middle of one", x.stream(doStream{
		Steps: []step{
			{Request: rdma.Write(0, near.local(0, size), far.remote, 0), LocalStep: uint64(size)},
			{Request: rdma.Read(0, old.local(0, 8), word.remote, 0)}, // when it is done, the WRITE is in place
		},
		Rounds: count, Window: 4,
	}))
	seen := int(take[uint64](look))
	if failed := s.Done/2 + 1; s.Failed > 0 && s.Status.Outcome() == rdma.NotDone && failed <= seen {
		sc.Errorf("WRITE %d of %d ended as: %v; before it closed the region, its owner had seen a part of WRITE %d", failed, count, s.Status, seen)
	}
	near.close()
	x.close()
	y.close()
}
