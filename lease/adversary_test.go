package lease

import (
	"fmt"
	"math/rand/v2"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// The adversary runs a cluster of cores, one a worker, with a membership and a
// store. Whatever is on its way may be next, so no order between two posts is
// assumed. Workers have memory (words, inbox: verbs land there while the CPU is
// paused) and a CPU. The model of lease_protocol.md section 16 is its pattern.

const (
	timeToLive = 900
	margin     = 30
	turns      = 2
	// member and disk are the addresses of the membership and the store.
	member Worker = 1000
	disk   Worker = 1001
)

// violation ends a run: an invariant does not hold.
type violation struct{ text string }

func violate(format string, args ...any) { panic(violation{fmt.Sprintf(format, args...)}) }

type post struct {
	kind       string // cas, read, write, rpc
	src, dst   Worker
	srcInc     uint32
	dstInc     uint32
	anyInc     bool // dst in whatever incarnation
	generation int
	view       base.View
	posted     bool
	failed     bool // the sender has been told that it failed
	after      int
	slot       base.Slot
	expect     Word
	next       Word
	record     *letter
	call       any // of an rpc
	key        rpcKey
	done       func(ok bool, old Word)
}

// letter is a record with what the shell adds.
type letter struct {
	Record
	version base.Version
	value   int
}

type rpcKey struct {
	src  Worker
	inc  uint32
	view base.View
	dst  Worker
	kind string
	slot base.Slot
	seq  base.Number
}

type stored struct {
	version base.Version
	value   int // the transaction that wrote it; 0 none
}

type committed struct {
	txn    *txn
	reads  map[base.Slot]stored
	writes map[base.Slot]stored
}

type blockKey struct{ from, to Worker }

type adversary struct {
	r        *rand.Rand
	now      int
	steps    int
	faults   bool
	slots    int
	network  []*post
	calls    map[rpcKey]bool
	workers  []*simWorker
	txns     []*txn
	nextTxn  int
	shared   bool
	gate     bool // slot 0 stands for the others, see txn.passGate
	prefetch bool
	// probabilities of this run
	pError, pSlow, pCrash, pPause, pPartition float64
	blocked                                   map[blockKey]int
	coverage                                  map[string]int

	// store
	store   map[base.Slot]stored
	seal    base.View
	applied map[Worker]map[uint32]base.Number
	log     []committed

	// membership
	view    base.View
	members map[Worker]uint32
	joins   map[Worker]uint32
	seen    map[Worker]uint32
	last    map[Worker]int

	lastHeld map[heldKey]Ticket
	trace    func(string)

	// for planted bugs
	lateSeal int
	lateView base.View
	keyView  map[base.Slot]base.View
}

// fresh is the check of FencePerKey.
func (a *adversary) fresh(b batch) bool {
	for slot, v := range b.writes {
		if a.store[slot].version+1 != v.version || a.keyView[slot] > b.view {
			return false
		}
	}
	return true
}

func (a *adversary) logged(t *txn) bool {
	for _, c := range a.log {
		if c.txn == t {
			return true
		}
	}
	return false
}

type heldKey struct {
	slot base.Slot
	view base.View
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func newAdversary(seed uint64, steps int) *adversary {
	r := rand.New(rand.NewPCG(seed, 0))
	a := &adversary{r: r, steps: steps, faults: true, slots: pick(r, 1, 2, 2, 3, 4), calls: map[rpcKey]bool{},
		shared: r.Float64() < .8, prefetch: r.Float64() < .4,
		pError: pick(r, 0, .01, .04, .1), pSlow: pick(r, 0, .01, .05), pCrash: pick(r, 0, 0, .0003, .001),
		pPause: pick(r, 0, .0005, .0012), pPartition: pick(r, 0, .0005, .0015),
		blocked: map[blockKey]int{}, coverage: map[string]int{}, store: map[base.Slot]stored{}, seal: 1,
		applied: map[Worker]map[uint32]base.Number{}, view: 1, members: map[Worker]uint32{}, joins: map[Worker]uint32{},
		seen: map[Worker]uint32{}, last: map[Worker]int{}, lastHeld: map[heldKey]Ticket{}, keyView: map[base.Slot]base.View{}}
	a.gate = a.slots > 1 && r.Float64() < .3
	n := pick(r, 2, 3, 3, 4)
	for i := range n {
		w := &simWorker{a: a, id: Worker(i + 1), alive: true}
		w.reset()
		a.workers = append(a.workers, w)
		a.members[w.id], a.seen[w.id] = w.inc, w.inc
		a.applied[w.id] = map[uint32]base.Number{}
	}
	for _, w := range a.workers {
		w.expiry = timeToLive
		w.install(1, a.memberList())
	}
	return a
}

// tracef notes an event if the run is traced.
func (a *adversary) tracef(format string, args ...any) {
	if a.trace != nil {
		a.trace(fmt.Sprintf("%5d ", a.now) + fmt.Sprintf(format, args...))
	}
}

func (a *adversary) hit(name string) { a.coverage[name]++ }

func (a *adversary) worker(id Worker) *simWorker { return a.workers[id-1] }

// memberList is the membership in order.
func (a *adversary) memberList() []Member {
	var list []Member
	for _, w := range a.workers {
		if inc, ok := a.members[w.id]; ok {
			list = append(list, Member{w.id, inc})
		}
	}
	return list
}

// slow draws how long a post stays away; anything may overtake it.
func (a *adversary) slow() int {
	if a.faults && a.r.Float64() < a.pSlow {
		return a.now + pick(a.r, 50, 200, 800, 1600)
	}
	return 0
}

func (a *adversary) isBlocked(from, to Worker) bool {
	return from != to && a.blocked[blockKey{from, to}] > a.now
}

// reachable says whether the queue pair a post was made for still exists.
func (a *adversary) reachable(d *simWorker, p *post) bool {
	end, ok := d.ends[p.src]
	return d.alive && d.inc == p.dstInc && ok && end.inc == p.srcInc && (end.generation == p.generation || plant.Is(plant.NoReconnect))
}

func (a *adversary) take(i int) {
	last := len(a.network) - 1
	a.network[i] = a.network[last]
	a.network[last] = nil
	a.network = a.network[:last]
}

// deliver lets a post make progress.
func (a *adversary) deliver(i int) {
	p := a.network[i]
	if p.after > a.now && a.faults {
		return
	}
	if !p.posted {
		if p.src < member {
			src := a.worker(p.src)
			if !src.alive || src.inc != p.srcInc {
				a.take(i)
				return
			}
			if src.until > a.now {
				return // a paused worker posts what it had prepared when it wakes
			}
		}
		p.posted = true
		if a.r.Float64() < .5 {
			return
		}
	}
	a.take(i)
	if p.kind == "rpc" {
		a.deliverCall(p)
		return
	}
	a.deliverVerb(p)
}

func (a *adversary) deliverCall(p *post) {
	delete(a.calls, p.key)
	if a.isBlocked(p.src, p.dst) || a.faults && a.r.Float64() < a.pError {
		return
	}
	switch p.dst {
	case member:
		a.membership(p)
	case disk:
		a.storage(p)
	default:
		if d := a.worker(p.dst); d.alive && (p.anyInc || d.inc == p.dstInc) {
			d.inbox = append(d.inbox, func() { d.onCall(p) })
		}
	}
}

func (a *adversary) deliverVerb(p *post) {
	d := a.worker(p.dst)
	fate := "ok"
	switch {
	case !a.reachable(d, p):
		fate = "lost"
	case a.isBlocked(p.src, p.dst):
		fate = pick(a.r, "lost", "late")
	case p.src != p.dst && a.faults && a.r.Float64() < a.pError:
		fate = pick(a.r, "noreply", "noreply", "lost", "late")
	}
	if fate == "late" && !p.failed {
		p.failed = true
		a.network = append(a.network, p)
		a.reply(p, false, 0)
		return
	}
	var old Word
	if fate == "ok" || fate == "noreply" {
		if d.core.active && p.view < d.core.View() {
			violate("cut: a verb of an old view landed after activation")
		}
		old = d.words[p.slot]
		switch p.kind {
		case "cas":
			if plant.Is(plant.CASNoTicket) && old.View() == p.expect.View() && old.Owner() == p.expect.Owner() {
				old = p.expect
			}
			if old == p.expect {
				d.words[p.slot] = p.next
			}
		case "word": // only a planted bug does that
			d.words[p.slot] = p.next
		case "write":
			r := p.record
			d.inbox = append(d.inbox, func() { d.onRecord(r) })
		}
	}
	if !p.failed {
		a.reply(p, fate == "ok" && !a.isBlocked(p.dst, p.src), old)
	}
}

func (a *adversary) reply(p *post, ok bool, old Word) {
	if w := a.worker(p.src); w.alive && w.inc == p.srcInc {
		w.inbox = append(w.inbox, func() { w.onCompletion(p, ok, old) })
	}
}

// back answers a call.
func (a *adversary) back(from Worker, p *post, call any) {
	a.network = append(a.network, &post{kind: "rpc", src: from, dst: p.src, dstInc: p.srcInc, posted: true, after: a.slow(), call: call})
}

// ---- membership

type renewCall struct{ sent int }
type joinCall struct{}
type viewReply struct {
	ok      bool
	sent    int
	view    base.View
	members []Member
}

func (a *adversary) membership(p *post) {
	switch call := p.call.(type) {
	case joinCall:
		// An evicted incarnation never comes back.
		if a.members[p.src] != p.srcInc && p.srcInc > a.seen[p.src] {
			a.joins[p.src] = max(p.srcInc, a.joins[p.src])
		}
	case renewCall:
		if inc, in := a.members[p.src]; in && inc == p.srcInc {
			a.last[p.src] = a.now
			a.back(member, p, viewReply{true, call.sent, a.view, a.memberList()})
		} else if a.joins[p.src] != p.srcInc {
			a.back(member, p, viewReply{})
		}
	}
}

func (a *adversary) decide() {
	changed := false
	dead := map[Worker]bool{}
	for _, w := range a.workers {
		limit := timeToLive + margin
		if plant.Is(plant.EarlyDeclare) {
			limit = timeToLive / 3
		}
		if _, in := a.members[w.id]; in && a.now > a.last[w.id]+limit {
			dead[w.id], changed = true, true
		}
	}
	for _, w := range a.workers {
		inc, joins := a.joins[w.id]
		_, in := a.members[w.id]
		if !joins || in && !dead[w.id] {
			continue // an old incarnation is waited out first
		}
		delete(a.joins, w.id)
		delete(dead, w.id)
		a.members[w.id], a.seen[w.id], a.last[w.id] = inc, inc, a.now
		changed = true
	}
	if !changed {
		return
	}
	for w := range dead {
		delete(a.members, w)
	}
	a.view++
	a.hit("view")
	switch { // seal the store first, then publish
	case plant.Is(plant.SealLate):
		a.lateSeal, a.lateView = a.now+300, a.view
	case plant.Is(plant.NoSeal) || plant.Is(plant.FencePerKey):
	default:
		a.seal = a.view
	}
}

// ---- store

type loadCall struct {
	slot   base.Slot
	ticket Ticket
	view   base.View
}
type loadReply struct {
	loadCall
	stored
}
type commitCall struct{ batch batch }
type commitReply struct{ seq base.Number }

func (a *adversary) storage(p *post) {
	switch call := p.call.(type) {
	case loadCall:
		a.back(disk, p, loadReply{call, a.store[call.slot]})
	case commitCall:
		b := call.batch
		applied := a.applied[p.src]
		if b.seq <= applied[p.srcInc] {
			a.back(disk, p, commitReply{b.seq})
			return
		}
		if b.view < a.seal {
			a.hit("sealed off")
			return
		}
		if b.seq != applied[p.srcInc]+1 && !plant.Is(plant.PipelineAnyOrder) {
			return
		}
		if plant.Is(plant.FencePerKey) && !a.fresh(b) || plant.Is(plant.PipelineAnyOrder) && a.logged(b.txn) {
			return
		}
		for slot, v := range b.writes {
			if v.version != a.store[slot].version+1 {
				violate("store: version %d of slot %d over %d", v.version, slot, a.store[slot].version)
			}
			a.store[slot] = v
			a.keyView[slot] = b.view
		}
		applied[p.srcInc] = b.seq
		a.log = append(a.log, committed{b.txn, b.reads, b.writes})
		a.back(disk, p, commitReply{b.seq})
	}
}

// ---- invariants

func (a *adversary) unexpired(w *simWorker) bool { return w.alive && a.now < w.expiry }

// exclusive checks that nobody else holds what w has just got, with ticket t.
func (a *adversary) exclusive(w *simWorker, id base.Slot, t Ticket, granted, again bool) {
	for _, x := range a.workers {
		if x == w || !x.alive {
			continue
		}
		if o := x.core.at(id); o != nil {
			for y := o.nodes; y != nil; y = y.next {
				if (y.state == held || y.state == loading) && (x.core.View() == w.core.View() || a.unexpired(x) && a.unexpired(w)) {
					violate("two holders of slot %d: %d and %d", id, w.id, x.id)
				}
			}
		}
	}
	if again {
		return
	}
	key := heldKey{id, w.core.View()}
	last := a.lastHeld[key]
	if t <= last || granted && last != t-1 {
		violate("order: slot %d: ticket %d holds after %d", id, t, last)
	}
	a.lastHeld[key] = t
}

// noReader checks that no copy is alive elsewhere while w writes.
func (a *adversary) noReader(w *simWorker, id base.Slot) {
	if !a.unexpired(w) {
		return
	}
	for _, x := range a.workers {
		if x == w || !a.unexpired(x) {
			continue
		}
		if o := x.core.at(id); o != nil && o.shared != nil {
			violate("a copy of slot %d is alive at %d while %d writes", id, x.id, w.id)
		}
	}
}

// ---- a run

func (a *adversary) fault() {
	x := a.r.Float64()
	w := a.workers[a.r.IntN(len(a.workers))]
	switch {
	case x < a.pCrash:
		if w.alive {
			w.alive = false
			w.back = a.now + 50 + a.r.IntN(1450)
			a.hit("crash")
		}
	case x < a.pCrash+a.pPause:
		w.until = a.now + pick(a.r, 100, 300, 600, 1200, 2500)
		a.hit("pause")
	case x < a.pCrash+a.pPause+a.pPartition:
		ids := []Worker{member, disk}
		for _, w := range a.workers {
			ids = append(ids, w.id)
		}
		a.r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		a.blocked[blockKey{ids[0], ids[1]}] = a.now + pick(a.r, 100, 300, 600, 1500)
		a.hit("partition")
	}
}

// run plays until all transactions have ended.
func (a *adversary) run() {
	wanted := 20 + a.r.IntN(40)
	for end := a.steps + 80000; a.now < end; {
		a.now++
		if a.now == a.steps {
			a.faults = false
			clear(a.blocked)
			for _, w := range a.workers {
				w.until = 0
			}
		}
		x := a.r.Float64()
		if a.faults {
			a.fault()
			if x < .02 && len(a.txns) < wanted {
				a.newTxn()
			}
		} else if a.now%64 == 0 && a.settled() {
			a.checkHistory()
			return
		}
		for _, w := range a.workers {
			if !w.alive && (w.back < a.now || !a.faults) {
				w.alive, w.until = true, 0
				w.reset()
			}
		}
		switch {
		case x < .55 || len(a.network) == 0:
			if w := a.workers[a.r.IntN(len(a.workers))]; w.alive && w.until <= a.now {
				w.turn()
			}
		case x < .97:
			a.deliver(a.r.IntN(len(a.network)))
		default:
			a.decide()
		}
		if a.lateSeal != 0 && a.now > a.lateSeal {
			a.seal, a.lateSeal = max(a.seal, a.lateView), 0
		}
	}
	for _, t := range a.txns {
		if t.state != txnDone && t.state != txnGone {
			violate("live: transaction %d of worker %d is %v at place %d of %v", t.id, t.w.id, t.state, len(t.users), t.order)
		}
	}
	violate("live: a worker does not come back")
}

func (a *adversary) settled() bool {
	for _, w := range a.workers {
		if !w.alive {
			return false
		}
	}
	for _, t := range a.txns {
		if t.state != txnDone && t.state != txnGone {
			return false
		}
	}
	return true
}
