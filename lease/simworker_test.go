package lease

import (
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// simWorker is the shell of one worker in the adversary's cluster.
type simWorker struct {
	a      *adversary
	id     Worker
	inc    uint32
	alive  bool
	back   int // when a crashed one returns
	until  int // paused until
	expiry int

	core    *Core
	members *Members
	words   map[base.Slot]Word
	inbox   []func()
	// ends are the queue pairs that peers have to us, links ours to them.
	ends  map[Worker]end
	links map[Worker]*simLink
	out   map[*post]bool
	// resend are records whose WRITE failed.
	resend []addressed
	ready  map[Worker]bool
	home   *Home

	values  map[base.Slot]stored
	txns    []*txn
	pipe    []batch
	seq     base.Number
	durable base.Number
	// installed is the newest batch when the view was installed.
	installed base.Number
	locks     map[base.Slot]*txn
	loading   map[base.Slot]Ticket
	byUser    map[*User]*txn
	// asked are the held slots that a successor waits for, turns what was given
	// since.
	asked   map[base.Slot]bool
	turns   map[base.Slot]int
	scratch []Action
}

type end struct {
	inc        uint32
	generation int
}

type simLink struct {
	generation int
	ok         bool
}

type addressed struct {
	to Worker
	r  *letter
}

type batch struct {
	seq    base.Number
	txn    *txn
	view   base.View
	reads  map[base.Slot]stored
	writes map[base.Slot]stored
}

// reset makes a new incarnation: nothing survives.
func (w *simWorker) reset() {
	for _, t := range w.txns {
		if t.state != txnDone {
			t.state = txnGone
		}
	}
	w.inc++
	w.core = New(Options{Me: w.id, Turns: turns, Burst: 2 * turns, Slots: base.Slot(w.a.slots), Exclusive: !w.a.shared})
	w.members, w.expiry = nil, 0
	w.words, w.inbox, w.resend = map[base.Slot]Word{}, nil, nil
	w.ends, w.links, w.out = map[Worker]end{}, map[Worker]*simLink{}, map[*post]bool{}
	w.ready, w.home = map[Worker]bool{}, NewHome(w.id)
	w.values, w.txns, w.pipe, w.seq, w.durable, w.installed = map[base.Slot]stored{}, nil, nil, 0, 0, 0
	w.locks, w.asked, w.turns = map[base.Slot]*txn{}, map[base.Slot]bool{}, map[base.Slot]int{}
	w.loading, w.byUser = map[base.Slot]Ticket{}, map[*User]*txn{}
}

// ---- verbs

func (w *simWorker) post(p *post) {
	p.src, p.srcInc, p.view, p.after = w.id, w.inc, w.core.View(), w.a.slow()
	if inc, ok := w.members.Incarnation(p.dst); ok {
		p.dstInc = inc
	}
	p.generation = w.links[p.dst].generation
	w.out[p] = true
	w.a.network = append(w.a.network, p)
}

func (w *simWorker) send(to Worker, r *letter) {
	if _, ok := w.members.Incarnation(to); !ok {
		return
	}
	if !w.links[to].ok {
		w.resend = append(w.resend, addressed{to, r})
		return
	}
	w.post(&post{kind: "write", dst: to, slot: r.Slot, record: r})
}

// call posts a call, of which one of a kind is on its way at a time.
func (w *simWorker) call(dst Worker, kind string, slot base.Slot, seq base.Number, call any) {
	key := rpcKey{w.id, w.inc, w.core.View(), dst, kind, slot, seq}
	if w.a.calls[key] {
		return
	}
	w.a.calls[key] = true
	p := &post{kind: "rpc", src: w.id, srcInc: w.inc, dst: dst, view: w.core.View(), after: w.a.slow(), call: call, key: key, anyInc: true}
	if w.members != nil {
		if inc, ok := w.members.Incarnation(dst); ok {
			p.dstInc, p.anyInc = inc, false
		}
	}
	w.a.network = append(w.a.network, p)
}

func (w *simWorker) onCompletion(p *post, ok bool, old Word) {
	delete(w.out, p)
	if !ok && w.members != nil {
		if inc, in := w.members.Incarnation(p.dst); in && inc == p.dstInc && w.links[p.dst].generation == p.generation {
			w.links[p.dst].ok = false
			w.core.LinkDown(p.dst)
		}
	}
	if p.view != w.core.View() {
		return
	}
	if p.kind == "write" && !ok {
		w.a.hit("resend")
		w.resend = append(w.resend, addressed{p.dst, p.record})
	}
	if p.done != nil {
		p.done(ok, old)
		w.carryOut()
	}
}

// ---- the core

// carryOut does what the core asks for.
func (w *simWorker) carryOut() {
	for {
		w.scratch = w.core.Actions(w.scratch[:0])
		if len(w.scratch) == 0 {
			return
		}
		for _, act := range w.scratch {
			w.do(act)
		}
	}
}

func (w *simWorker) do(act Action) {
	id, v, t := act.Slot, w.core.View(), act.Ticket
	if act.Kind == Send {
		w.a.tracef("w%d sends w%d %v %+v", w.id, act.To, act.Record.Kind, act.Record)
	} else {
		w.a.tracef("w%d does %d slot=%d to=%d ticket=%d nonce=%d %v -> %v", w.id, act.Kind, act.Slot, act.To, act.Ticket, act.Nonce, act.Expect, act.New)
	}
	switch act.Kind {
	case CAS:
		w.post(&post{kind: "cas", dst: act.To, slot: id, expect: act.Expect, next: act.New, done: func(ok bool, old Word) {
			w.count(id, t, ok, "cas")
			w.core.Swung(id, v, t, ok, old)
		}})
	case Release:
		w.a.hit("release")
		if plant.Is(plant.WriteRelease) {
			w.post(&post{kind: "word", dst: act.To, slot: id, next: act.New})
			w.core.Released(id, v, t, true, act.Expect)
			return
		}
		w.post(&post{kind: "cas", dst: act.To, slot: id, expect: act.Expect, next: act.New, done: func(ok bool, old Word) {
			w.count(id, t, ok, "release")
			w.core.Released(id, v, t, ok, old)
		}})
	case ReadWord:
		w.post(&post{kind: "read", dst: act.To, slot: id, done: func(ok bool, word Word) {
			w.core.WordRead(id, v, t, ok, word)
			if s := w.core.at(id); s != nil && s.find(t) != nil && s.find(t).inert {
				w.a.hit("undecidable")
			}
		}})
	case ReadTail:
		w.post(&post{kind: "read", dst: act.To, slot: id, done: func(ok bool, word Word) { w.core.TailRead(id, v, act.Nonce, ok, word) }})
	case Send:
		if act.Record.Kind == Grant {
			w.asked[id], w.turns[id] = false, 0
		}
		l := &letter{Record: act.Record}
		if act.Record.Kind == Grant || act.Record.Kind == Copy {
			l.version, l.value = w.values[id].version, w.values[id].value
			w.a.hit(act.Record.Kind.String())
			if len(act.Record.Readers) > 0 {
				w.a.hit("GRANT with readers")
			}
		}
		w.send(act.To, l)
	case Load:
		w.loading[id] = t
		w.a.exclusive(w, id, t, false, t == 0)
	case Forget:
		delete(w.values, id)
	case Wake:
		w.turned(act.User)
	case Abort:
		if t := w.byUser[act.User]; t != nil { // it may have been told about another pin
			t.abort()
		}
	}
}

// turned counts the turns on a lease after its successor is known.
func (w *simWorker) turned(u *User) {
	if u.Pinned() || !w.asked[u.Slot()] {
		return
	}
	// A writer may have begun its turn, and waited for copies, before the request.
	if w.turns[u.Slot()]++; w.turns[u.Slot()] > 3*turns {
		violate("fair: %d turns of slot %d at %d while another worker waits", w.turns[u.Slot()], u.Slot(), w.id)
	}
}

func (w *simWorker) count(id base.Slot, t Ticket, ok bool, what string) {
	if !ok {
		w.a.hit(what + " unknown")
		return
	}
	if s := w.core.at(id); s != nil {
		if n := s.find(t); n != nil && n.state != casing && n.state != releasing {
			w.a.hit(what + " overtaken by evidence")
		}
	}
}

func (w *simWorker) onRecord(l *letter) {
	if l.View < w.core.View() {
		w.a.hit("stale record")
	}
	if s := w.core.at(l.Slot); s != nil && l.View == w.core.View() {
		t := l.Pred
		if l.Kind == ReadReq {
			t = l.Ticket
		}
		if n := s.find(t); n != nil && (l.Kind == Req || l.Kind == ReadReq) && n.state != held && n.state != waiting && n.state != loading {
			w.a.hit(l.Kind.String() + " while " + n.state.String())
		}
		if l.Kind == Copy && s.pending != nil && s.pending.nonce == l.Nonce && l.Stamp.Less(s.pending.floor) {
			w.a.hit("copy overtaken")
		}
	}
	if l.Kind == Req && l.View == w.core.View() {
		if s := w.core.at(l.Slot); s != nil {
			if n := s.held(); n != nil && n.ticket == l.Pred && n.succ.worker == Free {
				w.asked[l.Slot], w.turns[l.Slot] = true, 0
			}
		}
	}
	install, err := w.core.Receive(&l.Record)
	w.a.tracef("w%d receives %v %+v install=%v", w.id, l.Kind, l.Record, install)
	if err != nil {
		violate("future: %v", err)
	}
	if install {
		w.values[l.Slot] = stored{l.version, l.value}
	}
	if install && l.Kind == Grant {
		w.a.exclusive(w, l.Slot, l.Ticket, true, false)
	}
	w.carryOut()
}

// ---- calls

type reconnectCall struct{ generation int }
type reconnected struct{ generation int }
type reportCall struct {
	view  base.View
	slots []base.Slot
}
type readyCall struct{ view base.View }

func (w *simWorker) onCall(p *post) {
	switch call := p.call.(type) {
	case reconnectCall:
		if w.members == nil {
			return
		}
		if inc, ok := w.members.Incarnation(p.src); !ok || inc != p.srcInc {
			return
		}
		if e, ok := w.ends[p.src]; !ok || e.generation < call.generation || e.inc != p.srcInc {
			w.ends[p.src] = end{p.srcInc, call.generation}
			w.a.hit("reconnect")
		}
		w.call(p.src, "reconnected", 0, base.Number(call.generation), reconnected{call.generation})
	case reconnected:
		if w.members == nil {
			return
		}
		inc, ok := w.members.Incarnation(p.src)
		if l := w.links[p.src]; ok && inc == p.srcInc && call.generation > l.generation {
			l.generation, l.ok = call.generation, true
			w.core.LinkUp(p.src)
		}
	case loadReply:
		if t, ok := w.loading[call.slot]; ok && t == call.ticket && call.view == w.core.View() {
			if s := w.core.at(call.slot); s != nil {
				if n := s.find(t); n != nil && n.state == loading {
					w.values[call.slot] = call.stored
					delete(w.loading, call.slot)
				}
			}
			w.a.tracef("w%d loaded %+v", w.id, call)
			w.core.Loaded(call.slot, call.view, call.ticket)
		}
	case commitReply:
		w.durable = max(w.durable, call.seq)
		w.pipe = slices.DeleteFunc(w.pipe, func(b batch) bool { return b.seq <= w.durable })
		w.core.Durable(w.durable)
	case reportCall:
		w.onReport(p, call)
	case readyCall:
		if call.view == w.core.View() {
			w.ready[p.src] = true
			w.core.Ready(p.src, call.view)
		}
	case viewReply:
		w.onView(call)
	}
	w.carryOut()
}

func (w *simWorker) onReport(p *post, call reportCall) {
	if w.members == nil || call.view != w.core.View() {
		return
	}
	if w.home.Built() {
		w.call(p.src, "ready", 0, 0, readyCall{call.view})
		return
	}
	whole, err := w.home.Report(Member{p.src, p.srcInc}, call.view, call.slots)
	if err != nil {
		violate("%v", err)
	}
	if plant.Is(plant.RebuildEarly) && len(w.members.All) > 2 {
		whole = whole || len(w.home.reported) == len(w.members.All)-1
	}
	if !whole {
		return
	}
	w.a.hit("rebuild")
	for _, o := range w.a.network { // the CPU writes the words now
		if o.kind != "rpc" && o.dst == w.id && o.view < w.core.View() && w.a.reachable(w, o) {
			violate("rebuild: an old verb can still land")
		}
	}
	w.home.Words(base.Slot(w.a.slots), func(id base.Slot, word Word) { w.words[id] = word })
	w.home.Done()
	for _, m := range w.members.All {
		w.call(m.Worker, "ready", 0, 0, readyCall{w.core.View()})
	}
}

func (w *simWorker) onView(v viewReply) {
	if !v.ok {
		w.a.hit("evicted")
		w.reset()
		w.call(member, "join", 0, 0, joinCall{})
		return
	}
	w.expiry = max(w.expiry, v.sent+timeToLive)
	if v.view > w.core.View() {
		w.install(v.view, v.members)
	}
}

func (w *simWorker) install(v base.View, list []Member) {
	m, err := NewMembers(v, list)
	if err != nil {
		violate("%v", err)
	}
	for p, e := range w.ends {
		if inc, ok := m.Incarnation(p); (!ok || inc != e.inc) && (ok || !plant.Is(plant.SkipFence)) {
			delete(w.ends, p)
		}
	}
	for p := range w.links {
		if !m.Same(w.members, p) {
			delete(w.links, p)
		}
	}
	down := []Worker{}
	for _, x := range m.All {
		if _, ok := w.ends[x.Worker]; !ok {
			w.ends[x.Worker] = end{x.Incarnation, 0}
		}
		if l, ok := w.links[x.Worker]; !ok {
			w.links[x.Worker] = &simLink{0, true}
		} else if !l.ok {
			down = append(down, x.Worker)
		}
	}
	w.members, w.resend = m, nil
	w.home.Install(m)
	clear(w.ready)
	clear(w.loading)
	clear(w.asked)
	clear(w.turns)
	w.a.tracef("w%d installs view %d", w.id, v)
	w.installed = w.seq
	w.core.Install(m)
	for _, d := range down {
		w.core.LinkDown(d)
	}
	w.a.hit("install")
	for i := range w.pipe { // resent in order
		if !plant.Is(plant.BatchKeepsView) {
			w.pipe[i].view = v
		}
	}
	for s := range w.core.each {
		if n := s.held(); n != nil {
			w.a.hit("carried")
			w.a.exclusive(w, s.id, n.ticket, false, true)
		}
	}
	w.carryOut()
}

// drained says that no own verb of an older view to a member is on its way, and
// that what users of gates have written is durable.
func (w *simWorker) drained() bool {
	if w.durable < w.installed && !plant.Is(plant.ReportDirty) {
		return false
	}
	for _, l := range w.links {
		if !l.ok {
			return false
		}
	}
	for o := range w.out {
		if inc, in := w.members.Incarnation(o.dst); in && inc == o.dstInc && o.view < w.core.View() {
			return false
		}
	}
	return true
}

// turn lets the CPU do one thing.
func (w *simWorker) turn() {
	r := w.a.r
	if len(w.inbox) > 0 {
		i := r.IntN(len(w.inbox))
		event := w.inbox[i]
		w.inbox = slices.Delete(w.inbox, i, i+1)
		event()
		return
	}
	x := r.Float64()
	if x < .12 || w.members == nil {
		if w.members == nil && r.Float64() < .2 {
			w.call(member, "join", 0, 0, joinCall{})
			return
		}
		w.call(member, "renew", 0, 0, renewCall{w.a.now})
		return
	}
	for _, m := range w.members.All {
		if l := w.links[m.Worker]; !l.ok && plant.Is(plant.NoReconnect) {
			l.generation++
			l.ok = true
			w.core.LinkUp(m.Worker)
			w.carryOut()
		} else if !l.ok && r.Float64() < .3 {
			w.call(m.Worker, "reconnect", 0, 0, reconnectCall{l.generation + 1})
			return
		}
	}
	todo := w.resend
	w.resend = nil
	for _, d := range todo {
		w.send(d.to, d.r)
	}
	if len(w.ready) < len(w.members.All) && r.Float64() < .3 && (w.drained() || plant.Is(plant.NoDrain)) {
		for _, m := range w.members.All {
			if !w.ready[m.Worker] {
				w.call(m.Worker, "report", 0, 0, reportCall{w.core.View(), w.core.Held(m.Worker, nil)})
			}
		}
	}
	if x < .5 {
		if n := len(w.pipe); n > 0 && plant.Is(plant.PipelineAnyOrder) {
			b := w.pipe[r.IntN(n)]
			w.call(disk, "commit", 0, b.seq, commitCall{b})
		} else {
			for _, b := range w.pipe[:min(2, n)] {
				w.call(disk, "commit", 0, b.seq, commitCall{b})
			}
		}
	}
	if x > .2 {
		w.work()
	}
}

func (w *simWorker) work() {
	for id, t := range w.loading {
		if w.a.slots > int(id) {
			w.call(disk, "load", id, 0, loadCall{id, t, w.core.View()})
		}
	}
	if w.a.r.Float64() < .04*float64(w.a.slots) {
		w.core.Evict(base.Slot(w.a.r.IntN(w.a.slots)))
		w.carryOut()
	}
	for _, t := range slices.Clone(w.txns) {
		t.step()
		w.carryOut()
	}
}
