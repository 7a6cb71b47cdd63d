package rdmatest

import (
	"fmt"
	"slices"

	"github.com/tenure-faas/tenure/rdma"
)

// atomicCase is one atomic on one word.
type atomicCase struct {
	name           string
	op             rdma.Opcode
	before         uint64
	compareAdd     uint64
	swap           uint64
	after          uint64
	localAlignment int
}

func atomicsOneByOne(sc *scene) {
	const big = 0xfedcba9876543210
	cases := []atomicCase{
		{"CAS that finds what it compares with", rdma.OpCAS, big, big, 7, 7, 0},
		{"CAS that finds something else", rdma.OpCAS, big, big + 1, 7, big, 0},
		{"CAS that finds what it would store", rdma.OpCAS, 7, big, 7, 7, 0},
		{"CAS of half a word", rdma.OpCAS, big, big & (1<<32 - 1), 7, big, 0},
		{"CAS with equal halves swapped", rdma.OpCAS, 1, 1 << 32, 7, 1, 0},
		{"CAS to what it finds", rdma.OpCAS, big, big, big, big, 0},
		{"CAS of zeroes", rdma.OpCAS, 0, 0, 0, 0, 0},
		{"CAS with unaligned local memory", rdma.OpCAS, big, big, 9, 9, 3},
		{"FAA", rdma.OpFAA, big, 1, 0, big + 1, 0},
		{"FAA of nothing", rdma.OpFAA, big, 0, 0, big, 0},
		{"FAA that carries into the upper half", rdma.OpFAA, 1<<32 - 1, 1, 0, 1 << 32, 0},
		{"FAA that wraps around", rdma.OpFAA, 1<<64 - 1, 2, 0, 1, 0},
		{"FAA of a negative number", rdma.OpFAA, 5, 1<<64 - 3, 0, 2, 0},
		{"FAA with unaligned local memory", rdma.OpFAA, big, 1 << 63, 0, big ^ 1<<63, 5},
	}
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	for i, c := range cases {
		old, word := sc.a.region(48), sc.b.region(40)
		at := 16 + c.localAlignment
		old.fill(groundSeed)
		word.fill(groundSeed)
		word.store(16, c.before)
		request := rdma.CAS(uint64(i+1), old.local(at, 8), word.remote, 16, c.compareAdd, c.swap)
		if c.op == rdma.OpFAA {
			request = rdma.FAA(uint64(i+1), old.local(at, 8), word.remote, 16, c.compareAdd)
		}
		x.complete(c.name, request)
		x.settle(y)
		if got := word.load(16); got != c.after {
			sc.Errorf("%s: the word became %#x, want %#x", c.name, got, c.after)
		}
		if got := old.words(at, 1)[0]; got != c.before {
			sc.Errorf("%s: it reports that it found %#x, want %#x", c.name, got, c.before)
		}
		// What is around must not change: both words are painted over to compare.
		old.set(at, painted(at, 8))
		word.set(16, painted(16, 8))
		old.verify(c.name, groundSeed)
		word.verify(c.name, groundSeed)
		old.close()
		word.close()
	}
}

// painted is the ground pattern of a part of a region.
func painted(at, length int) []byte {
	b := make([]byte, length)
	paint(b, groundSeed, at)
	return b
}

// words returns words of a region.
func (r *region) words(at, count int) []uint64 {
	r.node.Helper()
	return ask[words](r.node, doWords{r.number, at, count}).Words
}

// crowd connects many queue pairs to node b: two from a, two from c, and two from
// b itself, of which one is its own peer.
func (sc *scene) crowd() (ends []*end) {
	sc.Helper()
	for i, n := range []*node{sc.a, sc.c, sc.b, sc.a, sc.c} {
		x, y := n.pair(pairOptions{peer: fmt.Sprintf("crowd %d", i)}), sc.b.pair(pairOptions{})
		if i%2 == 0 {
			join(x, y)
		} else {
			join(y, x) // who connects and who accepts makes no difference
		}
		ends = append(ends, x)
	}
	return append(ends, sc.b.own())
}

// own makes a queue pair that is its own peer.
func (n *node) own() *end {
	n.Helper()
	x := n.pair(pairOptions{})
	join(x, x)
	return x
}

func faaFromManyAddsUp(sc *scene) {
	word := sc.b.region(64)
	per := sc.Rounds
	var running []*pending
	var olds []*region
	for _, x := range sc.crowd() {
		old := x.node.region(8 * per)
		olds = append(olds, old)
		running = append(running, x.stream(doStream{
			Steps:  []step{{Request: rdma.FAA(0, old.local(0, 8), word.remote, 24, 1), LocalStep: 8}},
			Rounds: per, Batch: 7,
		}))
	}
	var all []uint64
	for i, p := range running {
		sc.goodStream("FAA", p)
		all = append(all, olds[i].words(0, per)...)
	}
	slices.Sort(all)
	for i, got := range all {
		if got != uint64(i) {
			sc.Fatalf("the %d FAA of one word found, in order of size, %d at place %d: each value must be found once", len(all), got, i)
		}
	}
	x, y := sc.connect(sc.a, sc.b, pairOptions{})
	old := sc.a.region(8)
	x.complete("READ of the sum", rdma.Read(1, old.local(0, 8), word.remote, 24))
	if got := old.load(0); got != uint64(len(all)) {
		sc.Errorf("after %d FAA of 1, a READ finds %d", len(all), got)
	}
	x.settle(y)
	if got := word.load(24); got != uint64(len(all)) {
		sc.Errorf("after %d FAA of 1, the owner loads %d", len(all), got)
	}
}

func casFromManyAddsUp(sc *scene) {
	word := sc.b.region(8)
	times := max(sc.Rounds/5, 10)
	var running []*pending
	ends := sc.crowd()
	for _, x := range ends {
		old := x.node.region(8)
		running = append(running, x.node.begin(doIncrement{
			Pair: x.Pair, Queue: x.cq.number, Request: rdma.CAS(0, old.local(0, 8), word.remote, 0, 0, 0), Region: old.number,
			Times: times, Bound: sc.Bound,
		}))
	}
	for _, p := range running {
		take[uint64](p)
	}
	old := sc.a.region(8)
	ends[0].complete("READ of the sum", rdma.Read(1<<40, old.local(0, 8), word.remote, 0))
	if got, want := old.load(0), uint64(times*len(ends)); got != want {
		sc.Errorf("after %d increments by CAS the word is %d", want, got)
	}
}

// wordsAreNeverHalf changes a word by FAA while its owner loads it and a peer
// looks at it by a CAS that never succeeds. WRITEs and READs may be torn, also
// those of a word: rxe copies bytes.
func wordsAreNeverHalf(sc *scene) {
	const unit = 1<<32 + 1 // a multiple of it has equal halves
	rounds := 10 * sc.Rounds
	word := sc.b.region(24)
	last := uint64(rounds) * unit
	change := step{Request: rdma.FAA(0, sc.a.region(8).local(0, 8), word.remote, 8, unit)}
	writer, owner := sc.connect(sc.a, sc.b, pairOptions{})
	reader, _ := sc.connect(sc.c, sc.b, pairOptions{})
	into := sc.c.region(16)
	word.store(16, 0)
	const never = 1 // has unequal halves
	look := rdma.CAS(5, into.local(0, 8), word.remote, 8, never, never)
	loads := sc.b.begin(doWatchHalves{word.number, 8, 16, last, sc.Bound})
	looks := sc.c.begin(doReadHalves{reader.Pair, reader.cq.number, look, into.number, 0, 8, last, sc.Bound})
	word.reach(16, 1)
	into.reach(8, 1)
	sc.goodStream("FAA", writer.stream(doStream{Steps: []step{change}, Rounds: rounds, Window: 16}))
	writer.settle(owner)
	if wrong := take[string](loads); wrong != "" {
		sc.Errorf("while a word was changed by FAA, its owner %s", wrong)
	}
	if wrong := take[string](looks); wrong != "" {
		sc.Errorf("while a word was changed by FAA, a peer %s", wrong)
	}
}

// reach waits until a word is at least value.
func (r *region) reach(at int, value uint64) {
	r.node.Helper()
	if got := ask[uint64](r.node, doReach{r.number, at, value, r.node.scene.Bound}); got < value {
		r.node.Fatalf("node %s: after %v the word at %d is %d, want at least %d", r.node.name, r.node.scene.Bound, at, got, value)
	}
}

// stream begins a stream on this end.
func (e *end) stream(s doStream) *pending {
	s.Pair, s.Queue, s.Bound = e.Pair, e.cq.number, e.node.scene.Bound
	return e.node.begin(s)
}

// goodStream waits for a stream, all of which must have gone well.
func (sc *scene) goodStream(what string, p *pending) {
	sc.Helper()
	op := p.op.(doStream)
	s := sc.anyStream(what, p)
	if total := op.Rounds * len(op.Steps); s.Done != total {
		sc.Fatalf("%s: %d of %d requests were posted (%v), %d are done, %d failed, the first as %v", what, s.Posted, total, s.Refused.err(), s.Done, s.Failed, s.Status)
	}
}

// anyStream waits for a stream that may have failed, but as the contract says.
func (sc *scene) anyStream(what string, p *pending) streamed {
	sc.Helper()
	s := take[streamed](p)
	if s.Wrong != "" {
		sc.Fatalf("%s: %s (%+v)", what, s.Wrong, s)
	}
	return s
}
