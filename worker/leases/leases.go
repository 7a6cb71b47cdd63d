package leases

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/worker/mesh"
)

// Values are the values of a part's slots. All calls are made under its latch.
type Values interface {
	// AppendValues appends the values of a slot that are known, at most limit
	// bytes of them, for another worker.
	AppendValues(dst []byte, s base.Slot, limit int) []byte
	// InstallValues takes over what another worker's AppendValues wrote.
	InstallValues(s base.Slot, body []byte) error
	// Forget drops the values of a slot: others may write it now.
	Forget(s base.Slot)
}

// Log is what the leases need of the store.
type Log interface {
	// Appended is the newest batch of this worker. Durable is the newest that is
	// durable, or that is lost only together with all that others make of it: a lease
	// leaves when what was written under it is.
	Appended() base.Number
	Durable() base.Number
	WaitDurable(ctx context.Context, n base.Number) error
}

// Peers are the other members, as far as verbs do not reach them.
type Peers interface {
	mesh.Exchanger
	// Report tells a home what this member holds of it in view v. ErrNotYet means
	// that the home has not installed v.
	Report(ctx context.Context, to, from lease.Member, v base.View, slots []base.Slot) error
	// Ready tells a member that home from has rebuilt its words in view v.
	Ready(ctx context.Context, to, from lease.Member, v base.View) error
}

// ErrNotYet is the answer of a member that has not installed the view; the caller
// tries again.
var ErrNotYet = errors.New("leases: the view is not installed here yet")

// Options configures Leases.
type Options struct {
	// Me is this worker in this incarnation.
	Me lease.Member
	// Parts is how many parts the slots have, a divisor of Slots; 0 means 64.
	Parts int
	// Slots is how many slots there are; 0 means base.SlotCount.
	Slots int
	// Values has the values of each part. Required.
	Values func(part int) Values
	// Log is the worker's log. Required.
	Log Log
	// Relabel is called when a view is installed, before anything is done in it:
	// what was appended and is not durable, and all that follows, belongs to the
	// new view. Required.
	Relabel func(v base.View)
	// Peers reaches the other members. Required.
	Peers Peers
	// Mesh configures the links; Me, Slots, Handler, Exchanger and Logger are set here.
	Mesh mesh.Options
	// Turns is lease.Options.Turns.
	Turns int
	// Logger gets messages; nil means slog.Default.
	Logger *slog.Logger
}

func (o *Options) ensureDefaults() {
	if o.Parts == 0 {
		o.Parts = 64
	}
	if o.Slots == 0 {
		o.Slots = base.SlotCount
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Leases are the leases of one worker. It is safe for concurrent use.
type Leases struct {
	options Options
	mesh    *mesh.Mesh
	parts   []Part

	// links guards down: the members to which there is no link. It is held while
	// the parts are told, so that they are told in order.
	links sync.Mutex
	down  map[lease.Worker]bool
	// outages are of those that are down; guarded by links.
	outages map[lease.Worker]outage

	// view is held for reading by those who append under a copy, and for writing
	// while a view is installed. members is guarded by it.
	view    sync.RWMutex
	members *lease.Members
	number  atomic.Uint32 // of the installed view, for those who need no more
	// installed is closed and replaced at each Install; guarded by view.
	installed chan struct{}

	home homeState

	// awaited is the newest batch that a slot waits for, and sync has a token when
	// it has grown.
	awaited atomic.Uint64
	sync    chan struct{}
	// failed has what ends Run, one error.
	failed chan error
	// ended is closed when Run has returned.
	ended chan struct{}

	waits waits
}

// New makes the leases of a worker that is in no view yet: nothing is granted
// before the first Install. Run must be called for anything to move.
func New(o Options) (*Leases, error) {
	o.ensureDefaults()
	l := &Leases{options: o, parts: make([]Part, o.Parts), down: map[lease.Worker]bool{}, outages: map[lease.Worker]outage{}, installed: make(chan struct{}), sync: make(chan struct{}, 1), failed: make(chan error, 1), ended: make(chan struct{})}
	l.home.home = lease.NewHome(o.Me.Worker)
	for i := range l.parts {
		l.parts[i].l = l
		l.parts[i].values = o.Values(i)
		l.parts[i].core = lease.New(lease.Options{Me: o.Me.Worker, Turns: o.Turns, Slots: base.Slot(o.Slots), Part: base.Slot(i), Parts: base.Slot(o.Parts)})
	}
	m := o.Mesh
	m.Me, m.Slots, m.Handler, m.Exchanger, m.Logger = o.Me, o.Slots, (*handler)(l), o.Peers, o.Logger
	var err error
	l.mesh, err = mesh.New(m)
	return l, err
}

// Accept is the passive side of a link: the call that a member's Peers.Exchange
// makes.
func (l *Leases) Accept(ctx context.Context, offer mesh.Offer) (mesh.Offer, error) {
	return l.mesh.Accept(ctx, offer)
}

// Close destroys the links. Run has ended before; nobody has a turn.
func (l *Leases) Close() error { return l.mesh.Close() }

// View is the number of the installed view.
func (l *Leases) View() base.View { return base.View(l.number.Load()) }

// Part is the part that has a slot.
func (l *Leases) Part(s base.Slot) *Part { return &l.parts[int(s)%len(l.parts)] }

// Append calls do, which appends a batch, while no view is installed, unless one
// of the turns is lost: then it returns false. It is for transactions that have
// read under a copy; do must not block.
func (l *Leases) Append(turns []*Turn, do func()) bool {
	l.view.RLock()
	defer l.view.RUnlock()
	for _, t := range turns {
		if t.Lost() {
			return false
		}
	}
	do()
	return true
}

// Installed returns a channel that is closed when a view is installed next, or now
// if one later than v is installed.
func (l *Leases) Installed(v base.View) <-chan struct{} {
	l.view.RLock()
	defer l.view.RUnlock()
	if l.View() > v {
		done := make(chan struct{})
		close(done)
		return done
	}
	return l.installed
}

// Ended returns a channel that is closed when Run has returned: nothing moves any
// more.
func (l *Leases) Ended() <-chan struct{} { return l.ended }

// Explain says what is known here of a slot.
func (l *Leases) Explain(s base.Slot) lease.Knowledge {
	p := l.Part(s)
	p.Lock()
	defer p.Unlock()
	return p.core.Explain(s)
}

// Homes is how many slots have their home here.
func (l *Leases) Homes() int {
	l.view.RLock()
	defer l.view.RUnlock()
	if l.members == nil {
		return 0
	}
	n := 0
	for shard := range lease.ShardCount {
		if s := base.Slot(shard * (base.SlotCount / lease.ShardCount)); l.members.Home(s) == l.options.Me.Worker {
			n += base.SlotCount / lease.ShardCount
		}
	}
	return n
}

// Stats are the sums of those of the parts, and how many slots there is something
// to know about.
func (l *Leases) Stats() (sum Stats, known int) {
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		sum.add(p.stats)
		known += p.core.Known()
		p.Unlock()
	}
	return sum, known
}

// Counters are those of the links, by member.
func (l *Leases) Counters() []mesh.Counters { return l.mesh.Counters() }

// handler is what the mesh calls.
type handler Leases

// Swung implements mesh.Handler.
func (h *handler) Swung(tag uint64, outcome rdma.Outcome, old uint64) {
	t := openTag(tag)
	p := (*Leases)(h).Part(t.slot)
	p.Lock()
	defer p.Unlock()
	v := p.core.View()
	if !t.of(v) {
		return
	}
	known, word := outcome == rdma.Done, lease.Word(old)
	switch t.kind {
	case tagRead:
		p.core.WordRead(t.slot, v, lease.Ticket(t.place), known, word)
	case tagTail:
		p.core.TailRead(t.slot, v, t.place, known, word)
	case tagCAS, tagRelease:
		switch {
		case outcome == rdma.NotDone:
			p.core.Unposted(t.slot, v, lease.Ticket(t.place))
		case t.kind == tagCAS:
			p.core.Swung(t.slot, v, lease.Ticket(t.place), known, word)
		default:
			p.core.Released(t.slot, v, lease.Ticket(t.place), known, word)
		}
	}
	p.carryOut()
}

// Message implements mesh.Handler.
func (h *handler) Message(from lease.Worker, kind uint8, payload []byte) error {
	l := (*Leases)(h)
	r, values, err := lease.Decode(lease.Kind(kind), from, payload)
	if err != nil {
		return err
	}
	if int(r.Slot) >= l.options.Slots {
		return fmt.Errorf("leases: %v from w%d about slot %d, there are %d", r.Kind, from, r.Slot, l.options.Slots)
	}
	p := l.Part(r.Slot)
	p.Lock()
	defer p.Unlock()
	if r.Kind == lease.Inval {
		p.stats.Invalidated++
	}
	install, err := p.core.Receive(&r)
	if err != nil {
		return err
	}
	if install {
		if r.Kind == lease.Grant {
			p.stats.Pulls++
		} else {
			p.stats.Copies++
		}
		if err := p.values.InstallValues(r.Slot, values); err != nil {
			// The lease is here all the same, and the store has the values.
			l.options.Logger.Error("values of another worker are not readable", "worker", from, "slot", r.Slot, "err", err)
		}
	}
	p.carryOut()
	return nil
}

// LinkDown implements mesh.Handler.
func (h *handler) LinkDown(w lease.Worker) { (*Leases)(h).link(w, true) }

// LinkUp implements mesh.Handler.
func (h *handler) LinkUp(w lease.Worker) { (*Leases)(h).link(w, false) }

func (l *Leases) link(w lease.Worker, down bool) {
	l.links.Lock()
	defer l.links.Unlock()
	l.tellParts(w, down)
}

// outage is a link to a member that is down: since when, and whether it has been up
// before.
type outage struct {
	lease.Member
	since time.Time
	was   bool
}

// Unreachable are the members, in no order, to which the link has broken, or was not
// made for a time since they are members. It does not block: while a view is being
// installed, or links are told of, there are none.
func (l *Leases) Unreachable(patience time.Duration) (far []lease.Member) {
	if !l.links.TryLock() {
		return nil
	}
	defer l.links.Unlock()
	for w, o := range l.outages {
		if w != l.options.Me.Worker && (o.was || time.Since(o.since) >= patience) {
			far = append(far, o.Member)
		}
	}
	return far
}

// tellParts is called under links.
func (l *Leases) tellParts(w lease.Worker, down bool) {
	switch {
	case !down:
		delete(l.outages, w)
	case !l.down[w] && l.members != nil:
		// Whoever changes members holds links, too.
		if inc, member := l.members.Incarnation(w); member {
			l.outages[w] = outage{lease.Member{Worker: w, Incarnation: inc}, time.Now(), true}
		}
	}
	l.down[w] = down
	for i := range l.parts {
		p := &l.parts[i]
		p.Lock()
		if down {
			p.core.LinkDown(w)
		} else {
			p.core.LinkUp(w)
		}
		p.carryOut()
		p.Unlock()
	}
}
