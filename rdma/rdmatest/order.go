package rdmatest

import (
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// slotSize is of the slots that are filled one after the other, in bytes: it
// takes time to fill one, so that an observer can catch a word that comes first.
const slotSize = 1024

// slots prepares what an ordered stream needs: a source and a destination of n
// slots.
func (sc *scene) slots(from, to *node, n int) (source, destination *region) {
	sc.Helper()
	return from.painted(n*slotSize, sourceSeed), to.region(n * slotSize)
}

// flagsAt is where the count or the marks of slots begin; the word before says
// that the observer looks.
const flagsAt = 8

// observed streams rounds of a WRITE into the next slot and then flag, which
// says that it is filled, while the owner watches.
func (sc *scene) observed(what string, flags *region, flag step, stream doStream) {
	sc.Helper()
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	source, slots := sc.slots(sc.a, sc.b, stream.Rounds)
	data := rdma.Write(0, source.local(0, slotSize), slots.remote, 0)
	data.Flags = 0
	stream.Steps = []step{{Request: data, LocalStep: slotSize, RemoteStep: slotSize}, flag}
	watch := sc.b.begin(doObserve{
		Flags: flags.number, Offset: flagsAt, Ready: 0, Marks: flag.Request.Op == rdma.OpWrite,
		Region: slots.number, Slots: stream.Rounds, Size: slotSize, Bound: sc.Bound,
	})
	flags.reach(0, 1)
	sc.goodStream(what, x.stream(stream))
	x.settle(y) // or the last ones need not be visible yet
	if wrong := take[string](watch); wrong != "" {
		sc.Errorf("%s: %s", what, wrong)
	}
}

func writeThenWrite(sc *scene) {
	rounds := 10 * sc.Rounds
	one, marks := sc.a.region(8), sc.b.region(flagsAt+(rounds+7)/8*8)
	one.set(0, []byte{1})
	sc.observed("WRITE, then WRITE", marks, step{Request: rdma.Write(0, one.local(0, 1), marks.remote, flagsAt), RemoteStep: 1},
		doStream{Rounds: rounds, Batch: 3})
}

func writeThenAtomic(sc *scene) {
	// Two FAA have no order, but each comes after the WRITE before it, so that
	// never more are counted than slots are filled.
	count, old := sc.b.region(16), sc.a.region(8)
	sc.observed("WRITE, then FAA", count, step{Request: rdma.FAA(0, old.local(0, 8), count.remote, flagsAt, 1)},
		doStream{Rounds: 10 * sc.Rounds, Batch: 3})

	// A CAS must know what it finds, so one at a time.
	count, olds := sc.b.region(16), sc.a.region(8*sc.Rounds)
	sc.observed("WRITE, then CAS", count, step{
		Request: rdma.CAS(0, olds.local(0, 8), count.remote, flagsAt, 0, 1), LocalStep: 8, CompareStep: 1, SwapStep: 1,
	}, doStream{Rounds: sc.Rounds, Window: 1})
	olds.counts("the CAS that count slots find", 0)
}

// counts checks that all words of a region count from first.
func (r *region) counts(what string, first uint64) {
	r.node.Helper()
	for i, got := range r.words(0, r.size/8) {
		if got != first+uint64(i) {
			r.node.Fatalf("%s: word %d is %#x, want %#x", what, i, got, first+uint64(i))
		}
	}
}

// writeThenItself checks that what a queue pair has written is there for what it
// posts next: a READ, a CAS and a FAA of the same place.
func writeThenItself(sc *scene) {
	x, _ := sc.connect(sc.a, sc.b, pairOptions{})
	n := sc.Rounds
	target, count := sc.b.region(64), sc.a.region(8*n)
	count.node.must(doCount{count.number, 1, 1})
	write := rdma.Write(0, count.local(0, 8), target.remote, 16)
	write.Flags = 0
	read, cas, faa := sc.a.region(8*n), sc.a.region(8*n), sc.a.region(8*n)
	for _, c := range []struct {
		name string
		into *region
		step step
	}{
		{"READ", read, step{Request: rdma.Read(0, read.local(0, 8), target.remote, 16), LocalStep: 8}},
		{"CAS", cas, step{Request: rdma.CAS(0, cas.local(0, 8), target.remote, 16, 1, 1<<40), LocalStep: 8, CompareStep: 1}},
		{"FAA", faa, step{Request: rdma.FAA(0, faa.local(0, 8), target.remote, 16, 1<<50), LocalStep: 8}},
	} {
		sc.goodStream("WRITE, then "+c.name, x.stream(doStream{Steps: []step{{Request: write, LocalStep: 8}, c.step}, Rounds: n, Window: 1}))
		c.into.counts("what "+c.name+" finds after a WRITE of the same word", 1)
	}
}

func doorbellComesAfterData(sc *scene) {
	n := min(sc.Rounds, sc.b.Limits.MaxReceiveDepth)
	// Who looks all the time sees a doorbell that comes too early.
	hot := rdma.CompletionQueueOptions{Depth: n + 128, Spin: time.Millisecond}
	x, y := sc.a.pair(pairOptions{}), sc.b.pair(pairOptions{send: sc.b.queue(hot), receiveDepth: n})
	join(x, y)
	source, slots := sc.slots(sc.a, sc.b, n)
	const half = slotSize / 2
	first := rdma.Write(0, source.local(0, half), slots.remote, 0)
	first.Flags = 0
	second := rdma.WriteImm(0, source.local(half, half), slots.remote, half, 0)
	rings := sc.b.begin(doRings{y.doorbells.number, slots.number, n, slotSize, sc.Bound})
	sc.goodStream("WRITE, then WRITE_IMM", x.stream(doStream{
		Steps: []step{
			{Request: first, LocalStep: slotSize, RemoteStep: slotSize},
			{Request: second, LocalStep: slotSize, RemoteStep: slotSize, ImmStep: 1},
		},
		Rounds: n, Batch: 2,
	}))
	if wrong := take[string](rings); wrong != "" {
		sc.Errorf("%s", wrong)
	}
}

// fenceHoldsBack posts a READ and then, with Fence, a WRITE of the same place:
// the READ must find the old. The same for a FAA.
func fenceHoldsBack(sc *scene) {
	const size = 2048
	n := max(sc.Rounds/2, 16)
	x, _ := sc.connect(sc.a, sc.b, pairOptions{})
	target, source, into := sc.b.region(size), sc.a.region(n*size), sc.a.region(n*size)
	target.fill(groundSeed)
	source.fill(sourceSeed)
	into.fill(3)
	write := rdma.Write(0, source.local(0, size), target.remote, 0)
	write.Flags |= rdma.Fence
	sc.goodStream("READ, then fenced WRITE", x.stream(doStream{
		Steps:  []step{{Request: rdma.Read(0, into.local(0, size), target.remote, 0), LocalStep: size}, {Request: write, LocalStep: size}},
		Rounds: n, Window: 1,
	}))
	found := []copied{{At: 0, Length: size, Seed: groundSeed}}
	for i := 1; i < n; i++ {
		found = append(found, copied{At: i * size, Length: size, Seed: sourceSeed, From: (i - 1) * size})
	}
	into.verify("what READs find that are followed by a fenced WRITE", 3, found...)

	word, count, old := sc.b.region(8), sc.a.region(8*n), sc.a.region(8*n)
	count.node.must(doCount{count.number, 1, 1})
	write = rdma.Write(0, count.local(0, 8), word.remote, 0)
	write.Flags |= rdma.Fence
	sc.goodStream("FAA, then fenced WRITE", x.stream(doStream{
		Steps:  []step{{Request: rdma.FAA(0, old.local(0, 8), word.remote, 0, 1<<40), LocalStep: 8}, {Request: write, LocalStep: 8}},
		Rounds: n, Window: 1,
	}))
	old.counts("what FAAs find that are followed by a fenced WRITE", 0)
}
