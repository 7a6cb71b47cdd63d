package sim

import (
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// Effect is how much of its effect an injected failure lets a request have.
type Effect uint8

const (
	// EffectNone: nothing happens at the peer.
	EffectNone Effect = iota
	// EffectHalf: a part of a WRITE moves; nothing of what is atomic.
	EffectHalf
	// EffectAll: it takes effect.
	EffectAll
)

// Fate is what happens to a request. The zero value is: nothing special.
type Fate struct {
	// LoseRequest: it does not reach the peer while its requester waits for it.
	LoseRequest bool
	// LoseReply: it takes effect, and the requester does not learn of it.
	LoseReply bool
	// Late: if its requester gives it up before it took effect, it still does,
	// Faults.LateDelay after that.
	Late bool
	// EarlyAck: a WRITE completes Gap before its bytes are in place.
	EarlyAck bool
	// Split: a CAS or FAA loads, and stores Gap later.
	Split bool
	// Hold keeps it from arriving, also after its requester has given it up, until
	// Release is called with this name; "" does not.
	Hold string
	// Delay and ReplyDelay are added to the way there and back.
	Delay, ReplyDelay time.Duration
	// Cut tears a READ or WRITE of more bytes in two there: the bytes from Cut on
	// move first, the others Gap later. 0 means in one piece.
	Cut uint32
	// Gap is the time between two halves of what is cut, split or acked early.
	Gap time.Duration
	// Status, if not StatusOK, is how it ends, with this Effect; a status that
	// means NotDone has none.
	Status rdma.Status
	Effect Effect
}

// Rule gives a fate to requests as they are posted. The fate takes the place of
// all chance but that of Delay and ReplyDelay.
type Rule struct {
	// From and To are the names of the nodes; "" means any.
	From, To string
	// Op is the opcode; 0 means any.
	Op rdma.Opcode
	// ID is the request's; 0 means any.
	ID uint64
	// Skip is how many requests that match are let pass first.
	Skip int
	// Times is how many then meet the fate; 0 means one.
	Times int
	// Fate is the fate.
	Fate Fate
}

// lot is the fate of a request, drawn or scripted.
type lot struct {
	Fate
	// scripted lots are left alone by chance.
	scripted bool
	// torn means that its parts are drawn.
	torn bool
}

// Script adds a rule. Of several that match a request, the oldest counts.
func (f *Fabric) Script(rule Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rule.Times == 0 {
		rule.Times = 1
	}
	f.rules = append(f.rules, rule)
}

// Unspent is how many rules have not yet met all of their requests. A story that
// ends with one has not happened as it was written.
func (f *Fabric) Unspent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rules)
}

// Release lets the requests arrive that a rule with this Hold keeps, and returns
// how many they are; what has come to nothing meanwhile is not among them.
func (f *Fabric) Release(hold string) (n int) {
	f.lock()
	defer f.mu.Unlock()
	still := f.held[:0]
	for _, p := range f.held {
		switch {
		case p.stale():
		case p.r.fate.Hold == hold:
			p.r.fate.Hold = ""
			f.note(noteRelease, p.r)
			f.then(p.r, kindArrive, f.now)
			n++
		default:
			still = append(still, p)
		}
	}
	clear(f.held[len(still):])
	f.held = still
	f.notify()
	return n
}

// scripted gives r the fate of a rule, if one matches.
func (f *Fabric) script(r *request) bool {
	for i := range f.rules {
		rule := &f.rules[i]
		if !rule.matches(r) {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		r.fate = lot{Fate: rule.Fate, scripted: true}
		if rule.Times--; rule.Times <= 0 {
			f.rules = append(f.rules[:i], f.rules[i+1:]...)
		}
		return true
	}
	return false
}

func (rule *Rule) matches(r *request) bool {
	return (rule.From == "" || rule.From == r.qp.provider.node.name) &&
		(rule.To == "" || rule.To == r.qp.remote.name) &&
		(rule.Op == 0 || rule.Op == r.wr.Op) && (rule.ID == 0 || rule.ID == r.wr.ID)
}

// cast gives r its fate.
func (f *Fabric) cast(r *request) {
	if len(f.rules) == 0 || !f.script(r) {
		f.draw(r)
	}
	fate := &r.fate
	if fate.Status == rdma.StatusOK {
		fate.Effect = EffectAll
		return
	}
	fate.EarlyAck = false // whoever says early that it has a WRITE does not lose it
	if fate.Status.Outcome() == rdma.NotDone ||
		fate.Effect == EffectHalf && (!r.writes() || r.wr.Local.Length < 2) {
		fate.Effect = EffectNone
	}
}

func (f *Fabric) draw(r *request) {
	o, d, fate := &f.faults, &f.dice, &r.fate
	fate.LoseRequest = d.chance(streamLoseRequest, o.LoseRequest)
	fate.LoseReply = d.chance(streamLoseReply, o.LoseReply)
	switch {
	case d.chance(streamRemoteOperation, o.RemoteOperation):
		fate.Status, fate.Effect = rdma.StatusRemoteOperation, Effect(d.below(streamRemoteOperation, 3))
	case d.chance(streamFatal, o.Fatal):
		fate.Status, fate.Effect = rdma.StatusFatal, Effect(d.below(streamFatal, 3))
	}
	if r.wr.Op.Atomic() {
		fate.Split = d.chance(streamSplit, o.SplitAtomics)
	} else {
		fate.torn = d.chance(streamTear, o.Tear)
		fate.EarlyAck = r.wr.Op == rdma.OpWrite && d.chance(streamEarlyAck, o.EarlyAck)
	}
}
