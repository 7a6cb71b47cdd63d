package lease

import (
	"maps"
	"slices"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

type txnState int

const (
	txnRun txnState = iota
	txnWait
	txnDone
	txnGone
)

// turnState is where the transaction stands with the last of its users: it has
// its turn on the lease first, then the lock inside this worker.
type turnState int

const (
	asking turnState = iota
	forLease
	forLock
)

// txn is a transaction of the adversary's cluster: it takes its slots in order,
// reads all, writes some, appends, and waits until that is durable.
type txn struct {
	w      *simWorker
	id     int
	state  txnState
	begun  int
	ended  int
	modes  map[base.Slot]Mode
	hidden base.Slot // an undeclared one
	hides  bool
	// upgrade is a slot that it reads first and writes in the end.
	upgrade  base.Slot
	upgrades bool
	scans    bool // it has the gate for itself and reads all from the store
	order    []base.Slot
	users    []*User
	turn     turnState
	reads    map[base.Slot]stored
	// dirty is the newest batch it has read, then its own.
	dirty   base.Number
	tries   int
	fetched bool
}

func (a *adversary) newTxn() {
	w := a.workers[a.r.IntN(len(a.workers))]
	if !w.alive || w.members == nil {
		return
	}
	a.nextTxn++
	t := &txn{w: w, id: a.nextTxn, begun: a.now, modes: map[base.Slot]Mode{}}
	readOnly := a.r.Float64() < .4
	for _, s := range a.r.Perm(a.slots)[:1+a.r.IntN(min(3, a.slots))] {
		if a.isGate(base.Slot(s)) {
			continue
		}
		t.modes[base.Slot(s)] = Write
		if readOnly || a.r.Float64() < .35 {
			t.modes[base.Slot(s)] = Read
			t.upgrade, t.upgrades = base.Slot(s), !readOnly && a.r.Float64() < .3
		}
	}
	if !readOnly && a.r.Float64() < .15 {
		t.hidden, t.hides = base.Slot(a.r.IntN(a.slots)), true
		t.hides = !a.isGate(t.hidden)
	}
	if a.gate {
		t.passGate(readOnly)
	}
	t.start()
	a.txns = append(a.txns, t)
	w.txns = append(w.txns, t)
}

// passGate declares the gate: read by those who write, written by those who scan.
func (t *txn) passGate(readOnly bool) {
	if !readOnly {
		t.modes[0] = Read
	}
	if t.w.a.r.Float64() < .3 {
		t.modes[0], t.scans = Write, true
	}
}

// isGate says whether a slot is the gate of the others.
func (a *adversary) isGate(id base.Slot) bool { return a.gate && id == 0 }

func (t *txn) start() {
	t.order = slices.Sorted(maps.Keys(t.modes))
	if plant.Is(plant.NoOrder) {
		t.w.a.r.Shuffle(len(t.order), func(i, j int) { t.order[i], t.order[j] = t.order[j], t.order[i] })
	}
	t.users, t.turn, t.fetched = nil, asking, false
	t.reads, t.dirty = map[base.Slot]stored{}, 0
}

// abort gives the attempt up and begins again.
func (t *txn) abort() {
	if t.state != txnRun {
		return
	}
	t.w.a.hit("abort")
	t.release(0)
	t.tries++
	t.start()
}

func (t *txn) release(own base.Number) {
	users := t.users
	t.users = nil
	for _, u := range users {
		dirty := base.Number(0)
		if t.modes[u.Slot()] == Write || t.w.a.isGate(u.Slot()) {
			dirty = own
		}
		delete(t.w.byUser, u)
		if t.w.locks[u.Slot()] == t {
			delete(t.w.locks, u.Slot())
		}
		t.w.core.Release(u, dirty)
	}
}

// ask asks for the slot; the user is the last of users until it has its turn.
func (t *txn) ask(id base.Slot, wait bool) Status {
	u := &User{Mode: t.modes[id]}
	status := t.w.core.Acquire(id, u, wait)
	if status != Refused {
		t.users = append(t.users, u)
		t.w.byUser[u] = t
	}
	if status == Granted {
		t.w.turned(u)
	}
	return status
}

// got takes the lock of the slot that the last user has, and reads its value;
// false if somebody else has the lock. Readers of a copy need none: nobody
// writes it.
func (t *txn) got() bool {
	u := t.users[len(t.users)-1]
	id := u.Slot()
	if !u.Pinned() {
		if t.w.locks[id] != nil {
			return false
		}
		t.w.locks[id] = t
	}
	v, ok := t.w.values[id]
	if !ok {
		violate("slot %d is used at %d without a value", id, t.w.id)
	}
	if _, scanned := t.reads[id]; !scanned { // what it has seen twice must be the same: the history tells
		t.reads[id] = v
	}
	if t.scans && id == 0 {
		t.scan()
	}
	if s := t.w.core.at(id); !u.Pinned() {
		t.dirty = max(t.dirty, s.held().dirty)
	}
	return true
}

func (t *txn) step() {
	w := t.w
	if t.state == txnWait {
		if w.durable >= t.dirty || plant.Is(plant.AckBeforeDurable) {
			t.state, t.ended = txnDone, w.a.now
			w.txns = slices.DeleteFunc(w.txns, func(x *txn) bool { return x == t })
		}
		return
	}
	if t.state != txnRun {
		return
	}
	if w.a.prefetch && !t.fetched && t.tries == 0 {
		t.fetched = true
		for _, id := range t.order {
			if t.modes[id] == Write {
				w.core.Prefetch(id)
			}
		}
	}
	switch {
	case t.turn == forLease && !t.users[len(t.users)-1].Has():
		return
	case t.turn != asking:
		t.turn = forLock
		if t.got() {
			t.turn = asking
		}
		return
	}
	if n := len(t.users); n < len(t.order) {
		if t.ask(t.order[n], true); !t.users[n].Has() || !t.got() {
			t.turn = forLease
		}
		return
	}
	if _, declared := t.modes[t.hidden]; t.hides && !declared {
		t.undeclared()
		return
	}
	if t.upgrades && t.modes[t.upgrade] == Read {
		t.modes[t.upgrade] = Write
		if u := t.users[slices.Index(t.order, t.upgrade)]; !w.core.Upgrade(u) {
			t.abort()
			return
		}
		w.a.hit("upgrade")
	}
	t.finish()
}

// scan reads all slots from the store, and from the own pipeline what is not
// there yet: nobody else has anything that is not durable.
func (t *txn) scan() {
	w := t.w
	w.a.noReader(w, 0)
	for id := base.Slot(1); id < base.Slot(w.a.slots); id++ {
		v := w.a.store[id]
		for _, b := range w.pipe {
			if own, ok := b.writes[id]; ok {
				v = own
			}
		}
		t.reads[id] = v
	}
	t.dirty = max(t.dirty, w.seq)
	w.a.hit("scan")
}

// undeclared takes a slot that was not in the set: in order with waiting, out of
// order at once or not at all.
func (t *txn) undeclared() {
	t.modes[t.hidden] = Write
	if t.hidden > t.order[len(t.order)-1] || plant.Is(plant.UndeclaredWaits) {
		t.order = append(t.order, t.hidden)
		return
	}
	if t.w.locks[t.hidden] == nil && t.ask(t.hidden, false) == Granted {
		t.order = append(t.order, t.hidden)
		t.got()
		return
	}
	t.abort()
}

func (t *txn) finish() {
	w := t.w
	writes := map[base.Slot]stored{}
	for _, id := range t.order {
		if t.modes[id] == Write && !w.a.isGate(id) {
			writes[id] = stored{w.values[id].version + 1, t.id}
		}
	}
	if len(writes) == 0 {
		if w.a.now >= w.expiry && !plant.Is(plant.NoSelfFence) {
			w.a.hit("self-fenced")
			t.abort()
			return
		}
		t.release(0)
		t.state = txnWait
		return
	}
	w.seq++
	t.dirty = w.seq
	for id, v := range writes {
		w.a.noReader(w, id)
		w.values[id] = v
	}
	w.pipe = append(w.pipe, batch{w.seq, t, w.core.View(), maps.Clone(t.reads), writes})
	t.state = txnWait
	t.release(w.seq) // early lock release: the place in the pipeline is the order
}

// checkHistory looks for lost commits and for cycles of dependencies and real
// time among those that happened.
func (a *adversary) checkHistory() {
	happened := map[*txn]committed{}
	for _, c := range a.log {
		happened[c.txn] = c
	}
	for _, t := range a.txns {
		if t.state != txnDone {
			continue
		}
		if _, ok := happened[t]; ok {
			continue
		}
		for s, m := range t.modes {
			if m == Write && !a.isGate(s) {
				violate("lost: transaction %d was acknowledged and is not in the store", t.id)
			}
		}
		happened[t] = committed{t, t.reads, nil}
	}
	type version struct {
		slot base.Slot
		v    base.Version
	}
	writer := map[version]*txn{}
	for t, c := range happened {
		for s, v := range c.writes {
			writer[version{s, v.version}] = t
		}
	}
	after := map[*txn][]*txn{}
	edge := func(from, to *txn) {
		if from != nil && to != nil && from != to {
			after[from] = append(after[from], to)
		}
	}
	for t, c := range happened {
		for s, v := range c.reads {
			if v.version > 0 {
				w := writer[version{s, v.version}]
				if w == nil || w.id != v.value {
					violate("serial: transaction %d read version %d of slot %d, which nobody committed", t.id, v.version, s)
				}
				edge(w, t)
			}
			edge(t, writer[version{s, v.version + 1}])
		}
		if t.state == txnDone {
			for o := range happened {
				if t.ended < o.begun {
					edge(t, o)
				}
			}
		}
	}
	if cyclic(after) {
		violate("serial: the dependencies have a cycle")
	}
}

func cyclic(after map[*txn][]*txn) bool {
	state := map[*txn]int{}
	var visit func(*txn) bool
	visit = func(t *txn) bool {
		state[t] = 1
		for _, next := range after[t] {
			if state[next] == 1 || state[next] == 0 && visit(next) {
				return true
			}
		}
		state[t] = 2
		return false
	}
	for t := range after {
		if state[t] == 0 && visit(t) {
			return true
		}
	}
	return false
}
