package sim_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// The words of a stream in the memory of its receiver, each in a place of its
// own, so that whatever changes there was posted on that stream.
const (
	wordA     = 8 * iota // written first, counting up
	wordB                // written after A, with the same number
	wordBell             // the data of doorbells
	wordCount            // FAA by one
	wordTorn             // 24 bytes of no meaning
	wordNone  = wordTorn + 24
	stride    = wordNone
)

const (
	sharedCAS    = 0  // a word of each node that all its peers swap
	streamsBegin = 64 // of the first stream
	memorySize   = 1 << 16
	guard        = 8 // bytes at the end, which only requests out of bounds touch
	stagingSize  = 16
	// ownPlaces is the offset of the first local memory that belongs to one request
	// alone; the others share what is before it.
	ownPlaces    = 64
	receiveDepth = 3
	// spread puts a number into each byte of a word, so that a torn one shows both
	// of its WRITEs. Numbers end at most.
	spread = 0x0101_0101_0101_0101
	most   = 255
	// poison is left in local memory that is no longer the provider's.
	poison = 0xdead_dead_dead_dead
)

// posted is a request and what must be true of it.
type posted struct {
	w         rdma.WorkRequest
	completed bool
	status    rdma.Status
	// least is the least that a READ may find; if it is exact, it finds just that.
	least uint64
	exact bool
	// bad requests are refused by the peer.
	bad bool
	// scrap requests go to the region that comes and goes.
	scrap bool
	// value is what a WRITE writes.
	value uint64
	// place is where the local memory is, if it is the request's own; found is what
	// is there after completion.
	place int
	found uint64
}

// stream is one direction of a connection.
type stream struct {
	from, to *member
	qp       rdma.QueuePair
	offset   int // of its words in the memory of to
	log      []*posted
	broken   bool // a completion said so
	dead     bool // nobody will complete the rest

	written     uint64 // last number posted for A and B
	rung, heard uint64 // doorbells posted and received
	counted     uint64 // FAAs posted
	// frozen are the words when the receiver revoked its end; nil if it has not.
	frozen []uint64
	last   [4]uint64 // words as last seen
	// unpolled counts the doorbells of one poll.
	unpolled int
}

// member is a node of the world.
type member struct {
	name    string
	p       *sim.Provider
	memory  rdma.Region
	staging rdma.Region
	scrap   rdma.Region // closed and made anew now and then
	cq      rdma.CompletionQueue
	dead    bool
	next    int // offset of the next stream
	place   int // offset of the next local memory of a request
	placed  int // how many there were
	swaps   []*posted
	by      map[uint32]*stream // streams that this node posts, by queue pair
}

// world is a script under way: a fabric, and a model of what may be seen.
type world struct {
	t       *rapid.T
	f       *sim.Fabric
	members []*member
	streams []*stream
	swap    uint64
	// calm worlds have no adversity that may break a queue pair, so none may.
	calm bool
}

func newWorld(t *rapid.T) *world {
	seed := rapid.Uint64().Draw(t, "seed")
	faults := sim.Swarm(rapid.Uint64().Draw(t, "swarm"))
	w := &world{t: t, calm: rapid.IntRange(0, 3).Draw(t, "calm") == 0}
	if w.calm {
		faults.LoseRequest, faults.LoseReply, faults.RemoteOperation, faults.Fatal = 0, 0, 0, 0
		faults.FailConnect, faults.FailRevoke = 0, 0
	}
	w.f = sim.New(sim.Options{Seed: seed, Faults: faults, TraceLength: 200})
	for _, name := range []string{"a", "b", "c"} {
		m := &member{name: name, by: map[uint32]*stream{}, next: streamsBegin, place: ownPlaces}
		m.p = check(w, w.f.Open, name)
		m.memory = check(w, m.p.Register, memorySize)
		m.staging = check(w, m.p.Register, memorySize)
		m.scrap = check(w, m.p.Register, 64)
		m.cq = check(w, m.p.NewCompletionQueue, rdma.CompletionQueueOptions{Depth: 1 << 14})
		w.members = append(w.members, m)
	}
	return w
}

func check[T, A any](w *world, make func(A) (T, error), a A) T {
	v, err := make(a)
	if err != nil {
		w.fatalf("%v", err)
	}
	return v
}

// fatalf ends the script, with the end of the trace.
func (w *world) fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, line := range w.f.Trace() {
		w.t.Log(line)
	}
	w.t.Fatal(text)
}

func (w *world) member() *member {
	return w.members[rapid.IntRange(0, len(w.members)-1).Draw(w.t, "node")]
}

// local gives a request local memory of its own.
func (m *member) local(value uint64) (place int, local rdma.Local) {
	place = m.place
	m.placed++
	if m.place += stagingSize; m.place == memorySize {
		m.place = ownPlaces
	}
	m.staging.Store(place, value)
	return place, m.staging.Local(place, 8)
}

// stream draws a stream to post on, or nil.
func (w *world) stream() *stream {
	if len(w.streams) == 0 {
		return nil
	}
	return w.streams[rapid.IntRange(0, len(w.streams)-1).Draw(w.t, "stream")]
}

// connect makes a connection of two streams.
func (w *world) connect() {
	a, b := w.member(), w.member()
	if a.dead || b.dead || len(w.streams) >= 60 {
		return
	}
	timeout := rapid.SampledFrom([]time.Duration{50 * us, time.Millisecond}).Draw(w.t, "timeout")
	if w.calm {
		timeout = time.Second
	}
	pair := func(m *member, peer string) rdma.QueuePair {
		return check(w, m.p.NewQueuePair, rdma.QueuePairOptions{Peer: peer, SendCQ: m.cq, SendDepth: 32, ReceiveDepth: receiveDepth, Timeout: timeout})
	}
	x, y := pair(a, b.name), pair(b, a.name)
	if err := y.Accept(x.Address()); err != nil {
		w.fatalf("accept: %v", err)
	}
	s, r := w.enter(a, b, x), w.enter(b, a, y)
	if rapid.Bool().Draw(w.t, "post before the connection") {
		w.post(r, rdma.OpWrite, 0)
	}
	if err := x.Connect(context.Background(), y.Address()); err != nil {
		s.broken = true
	}
}

func (w *world) enter(from, to *member, qp rdma.QueuePair) *stream {
	s := &stream{from: from, to: to, qp: qp, offset: to.next}
	to.next += stride
	from.by[qp.Number()] = s
	w.streams = append(w.streams, s)
	return s
}

// requests makes the requests of one kind and notes what they may do.
func (w *world) requests(s *stream, op rdma.Opcode, flags rdma.Flags) []*posted {
	remote := s.to.memory.Remote()
	var all []*posted
	add := func(p posted, value uint64, make func(local rdma.Local) rdma.WorkRequest) {
		var local rdma.Local
		p.place, local = s.from.local(value * spread)
		p.w, p.value = make(local), value
		p.w.ID, p.w.Flags = uint64(len(s.log)+len(all)), flags
		all = append(all, &p)
	}
	switch op {
	case rdma.OpWrite:
		s.written++
		for _, word := range []int{wordA, wordB} {
			add(posted{}, s.written, func(l rdma.Local) rdma.WorkRequest { return rdma.Write(0, l, remote, uint64(s.offset+word)) })
		}
	case rdma.OpWriteImm:
		s.rung++
		add(posted{}, s.rung, func(l rdma.Local) rdma.WorkRequest {
			return rdma.WriteImm(0, l, remote, uint64(s.offset+wordBell), uint32(s.rung))
		})
	case rdma.OpRead:
		add(posted{least: s.written}, 0, func(l rdma.Local) rdma.WorkRequest { return rdma.Read(0, l, remote, uint64(s.offset+wordA)) })
	case rdma.OpCAS:
		w.swap++
		// Guess what is there now, as a user may who knows it by other ways.
		guess := s.to.memory.Load(sharedCAS)
		add(posted{}, 0, func(l rdma.Local) rdma.WorkRequest { return rdma.CAS(0, l, remote, sharedCAS, guess, w.swap) })
		s.to.swaps = append(s.to.swaps, all[0])
	case rdma.OpFAA:
		s.counted++
		add(posted{}, 0, func(l rdma.Local) rdma.WorkRequest { return rdma.FAA(0, l, remote, uint64(s.offset+wordCount), spread) })
	}
	return all
}

// post posts the requests of one kind. What is refused has not happened.
func (w *world) post(s *stream, op rdma.Opcode, flags rdma.Flags) {
	before := *s
	swaps := len(s.to.swaps)
	all := w.requests(s, op, flags)
	n, err := w.send(s, all)
	if err == nil {
		return
	}
	s.written, s.rung, s.counted = before.written, before.rung, before.counted
	s.to.swaps = s.to.swaps[:swaps]
	if n == 1 { // A without its B: no more pairs here
		s.dead, s.written = true, s.written+1
	}
}

func (w *world) send(s *stream, all []*posted) (int, error) {
	requests := make([]rdma.WorkRequest, len(all))
	for i, p := range all {
		requests[i] = p.w
	}
	n, err := s.qp.Post(requests)
	s.log = append(s.log, all[:n]...)
	return n, err
}

// act posts something on some stream.
func (w *world) act() {
	s := w.stream()
	if s == nil || s.dead || max(s.written, s.rung, s.counted) == most || len(s.log) > 2000 {
		return
	}
	flags := rapid.SampledFrom([]rdma.Flags{rdma.Signaled, 0, rdma.Signaled | rdma.Fence}).Draw(w.t, "flags")
	switch kind := rapid.IntRange(0, 9).Draw(w.t, "kind"); kind {
	case 0, 1, 2, 3, 4:
		op := rdma.OpRead + rdma.Opcode(kind)
		if op == rdma.OpRead {
			flags |= rdma.Signaled
		}
		if op == rdma.OpWriteImm && w.calm && s.rung-s.heard == receiveDepth {
			return // a careful sender has credits
		}
		w.post(s, op, flags)
	case 5: // a READ, and a WRITE that must not overtake it
		w.fencedWrite(s)
	case 6: // without meaning, but large and torn
		_, _ = w.send(s, []*posted{{w: rdma.WorkRequest{
			ID: uint64(len(s.log)), Op: rdma.OpWrite, Flags: flags, Local: s.from.staging.Local(3, 24),
			RemoteAddr: s.to.memory.Remote().At(uint64(s.offset + wordTorn)), RKey: s.to.memory.Remote().RKey,
		}}})
	case 7, 8:
		if !w.calm {
			w.postBad(s, kind == 7)
		}
	case 9:
		_, _ = w.send(s, []*posted{{scrap: true, w: rdma.Write(uint64(len(s.log)), s.from.staging.Local(0, 8), s.to.scrap.Remote(), 8)}})
	}
}

// renew closes the scrap region of a node and makes another. In a calm world
// nobody uses it at that time, as far as can be seen by completions.
func (w *world) renew() {
	m := w.member()
	if m.dead {
		return
	}
	for _, s := range w.streams {
		for _, p := range s.log {
			if w.calm && s.to == m && p.scrap && !p.completed {
				return
			}
		}
	}
	if err := m.scrap.Close(); err != nil {
		w.fatalf("close: %v", err)
	}
	m.scrap = check(w, m.p.Register, 64)
}

// fencedWrite posts a READ of A, then a fenced WRITE of it: the READ finds
// exactly what was written before.
func (w *world) fencedWrite(s *stream) {
	read := w.requests(s, rdma.OpRead, rdma.Signaled)[0]
	read.exact = true
	if n, _ := w.send(s, []*posted{read}); n == 1 {
		w.post(s, rdma.OpWrite, rdma.Signaled|rdma.Fence)
	}
}

// postBad posts a WRITE that the peer must refuse.
func (w *world) postBad(s *stream, wrongKey bool) {
	remote := s.to.memory.Remote()
	bad := rdma.Write(uint64(len(s.log)), s.from.staging.Local(0, 2*guard), remote, memorySize-guard)
	if wrongKey {
		bad.RKey, bad.RemoteAddr = s.to.memory.Local(0, 8).LKey, remote.At(uint64(s.offset))
	}
	if n, _ := w.send(s, []*posted{{w: bad, bad: true}}); n > 1 {
		w.fatalf("one request posted, %d taken", n)
	}
}

// step lets some events happen.
func (w *world) step() {
	for range rapid.IntRange(1, 40).Draw(w.t, "steps") {
		if !w.f.Step() {
			return
		}
		w.look()
	}
}

// revoke revokes or closes the receiving end of a stream. From then on nothing
// changes there.
func (w *world) revoke() {
	s := w.stream()
	if s == nil || s.to.dead || w.calm {
		return
	}
	back := w.other(s)
	if rapid.Bool().Draw(w.t, "close") {
		if err := back.qp.Close(); err != nil {
			w.fatalf("close: %v", err)
		}
	} else if err := back.qp.Revoke(context.Background()); err != nil {
		return // nothing is certain
	}
	s.frozen = s.words()
}

// other is the stream in the other direction: they are entered in pairs.
func (w *world) other(s *stream) *stream {
	for i, o := range w.streams {
		if o == s {
			return w.streams[i^1]
		}
	}
	panic("the stream is none of the world")
}

func (w *world) crash() {
	m := w.member()
	if w.calm {
		return
	}
	w.f.Crash(m.name)
	m.dead = true
	for _, s := range w.streams {
		s.dead = s.dead || s.from == m
	}
}

func (w *world) links() {
	a, b := w.member().name, w.member().name
	if w.calm {
		return
	}
	switch rapid.IntRange(0, 4).Draw(w.t, "link") {
	case 0:
		w.f.Partition(a, b)
	case 1:
		w.f.PartitionOneWay(a, b)
	case 2:
		w.f.Heal(a, b)
	case 3:
		w.f.Pause(a)
	case 4:
		w.f.Resume(a)
	}
}

// TestContractHoldsUnderAllFaults runs random scripts on random fabrics; several
// times, because some mistakes need hundreds of scripts to show.
func TestContractHoldsUnderAllFaults(t *testing.T) {
	for i := range 5 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { rapid.Check(t, script) })
	}
}

// FuzzContract lets the fuzzer write the scripts.
func FuzzContract(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(script))
}

func script(t *rapid.T) {
	w := newWorld(t)
	defer w.f.Close() //nolint:errcheck // the script may have failed already
	w.connect()
	t.Repeat(map[string]func(*rapid.T){
		"connect": func(*rapid.T) { w.connect() },
		"act":     func(*rapid.T) { w.act() },
		"act 2":   func(*rapid.T) { w.act() },
		"act 3":   func(*rapid.T) { w.act() },
		"step":    func(*rapid.T) { w.step() },
		"poll":    func(*rapid.T) { w.poll() },
		"renew":   func(*rapid.T) { w.renew() },
		"revoke":  func(*rapid.T) { w.revoke() },
		"links":   func(*rapid.T) { w.links() },
		"crash": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
				w.crash()
			}
		},
		"": func(*rapid.T) { w.look() },
	})
	w.f.HealAll()
	for _, m := range w.members {
		w.f.Resume(m.name)
	}
	for steps := 0; w.f.Step(); steps++ {
		w.look()
		w.poll()
		if steps > 100_000 {
			w.fatalf("there is no end to it")
		}
	}
	w.poll()
	w.end()
}
