package membership

import (
	"math"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
)

// RememberedNonces is how many instances of a name are remembered after they
// have gone; the package comment says why this is enough.
const RememberedNonces = 16

// Options are the times of the membership. All processes of a cluster measure
// the same TTL.
type Options struct {
	// TTL is the life of a membership without renewal; 0 means 3 s.
	TTL time.Duration
	// Margin is added before a member is declared out: it covers the time between
	// a worker's look at its own expiry and the end of what it does then. 0 means
	// 200 ms.
	Margin time.Duration
	// Drift bounds by how much two clocks may differ in speed, as a fraction; 0
	// means 0.01.
	Drift float64
	// BatchWindow is how long a change waits for others that then make one view
	// with it; 0 means 50 ms.
	BatchWindow time.Duration
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.TTL == 0 {
		o.TTL = 3 * time.Second
	}
	if o.Margin == 0 {
		o.Margin = 200 * time.Millisecond
	}
	if o.Drift == 0 {
		o.Drift = 0.01
	}
	if o.BatchWindow == 0 {
		o.BatchWindow = 50 * time.Millisecond
	}
}

// Timeout is the age of the last renewal beyond which a member is out.
func (o *Options) Timeout() time.Duration {
	return o.TTL + time.Duration(math.Ceil(float64(o.TTL)*o.Drift)) + o.Margin
}

// Standing is where an instance stands.
type Standing uint8

const (
	// Waiting means that it depends on a decision that is not made, not durable or
	// not published: ask again when one of these has happened.
	Waiting Standing = iota
	// In is a member.
	In
	// Out is no member, and never will be again.
	Out
)

// phase is where the decision under way is.
type phase uint8

const (
	idle phase = iota
	deciding
	sealing
)

// worker is all that is known of a name.
type worker struct {
	name string
	// number is 0 until the first Join that we see.
	number lease.Worker
	// highest is the highest incarnation that was ever admitted of the name or
	// under the number.
	highest uint32
	current *member
	// joining is the instance that the next decision admits, if any.
	joining *Instance
	// past are the nonces of the last instances that have gone, oldest first.
	past []Nonce
	// left is the view without the last instance that has gone.
	left base.View
	// barred is until when it is not admitted again, and strikes how often it had to
	// yield in a row.
	barred  time.Duration
	strikes int
}

// member is the instance of a worker that is a member now.
type member struct {
	Instance
	incarnation uint32
	// since is the view that admitted it.
	since   base.View
	renewed time.Duration
	// leaving members have said so, or are overdue: the next decision is without
	// them.
	leaving bool
	// cut are the members to which it has no link, with the time at which that was
	// heard first.
	cut map[lease.Member]time.Duration
	// admitted is when it became a member; yields, that it was asked to leave.
	admitted time.Duration
	yields   bool
}

// Core is the state of the membership. It is not safe for concurrent use. Times
// are those of one clock that never goes back, such as time since the start of
// the process.
type Core struct {
	options Options
	timeout time.Duration
	// stall is a gap between two events after which we take it that our process
	// was paused.
	stall time.Duration
	// hearing is the silence after which a renewal does not extend a membership: less
	// than that of a member that has given up a long poll (two sixths of a TTL and a
	// pause), more than that of one that has lost two answers in a row of calls without
	// waiting (see Session).
	hearing time.Duration

	// now is the time of the last event.
	now     time.Duration
	names   map[string]*worker
	numbers map[lease.Worker]*worker
	phase   phase
	// view is the last one decided, published the last one published since New.
	view, published base.View
	// floor is below every incarnation that was admitted since it was set.
	floor base.View
	// due is when the changes that wait are decided; 0: nothing waits.
	due time.Duration
	// oldest is a time before which no member was renewed last.
	oldest time.Duration
}

// New makes a core of what survived a restart: the zero Record for a new
// cluster. sealed is the view for which the store is sealed. If the record has a
// view, it may not have been sealed or published: the core begins as if it had
// just become durable, and the shell goes on from there with Current. An error
// means that the record contradicts itself.
//
// A store that is sealed for a later view than the record's has known members that
// the record has not. Then nobody is a member, views begin above the seal, and so
// do incarnations, of which no number has ever had more than there were views.
func New(options Options, r Record, sealed base.View, now time.Duration) (*Core, error) {
	options.EnsureDefaults()
	c := &Core{options: options, timeout: options.Timeout(), stall: options.TTL / 4, hearing: options.TTL / 3, now: now, oldest: now,
		names: map[string]*worker{}, numbers: map[lease.Worker]*worker{}}
	if err := c.restore(r); err != nil {
		return nil, err
	}
	switch {
	case sealed > c.view:
		c.view, c.floor = sealed, sealed
		for _, w := range c.names {
			if w.current != nil {
				w.depart(c.view)
			}
		}
	case c.view > 0:
		c.phase = sealing
	}
	return c, nil
}

// observe takes the time of an event and looks for members that are overdue.
func (c *Core) observe(now time.Duration) {
	if now <= c.now {
		return
	}
	paused := now-c.now > c.stall
	c.now = now
	if paused {
		for _, w := range c.names {
			if w.current != nil {
				w.current.renewed = now
			}
		}
		c.oldest = now
	}
	if !c.overdue(c.oldest) {
		return
	}
	c.oldest = now
	for _, w := range c.names {
		switch m := w.current; {
		case m == nil || m.leaving:
		case m.since > c.published: // it cannot know yet that it has to renew
		case c.overdue(m.renewed):
			m.leaving = true
			c.arm()
		default:
			c.oldest = min(c.oldest, m.renewed)
		}
	}
}

func (c *Core) overdue(renewed time.Duration) bool {
	if plant.Is(plant.EarlyDeclare) {
		return c.now-renewed > c.options.TTL/2
	}
	return c.now-renewed > c.timeout
}

// arm begins to wait for more changes, unless some are waiting already.
func (c *Core) arm() {
	if c.due == 0 {
		c.due = c.now + c.options.BatchWindow
	}
}

// Join asks for membership. It returns In with the member once it is in a
// published view; the answer counts as a renewal. Until then it returns Waiting,
// and is called again with the same instance. Errors are
//
//	Invalid       the instance is not well formed
//	Precondition  this instance was a member and is none any more: it cannot return
//	Unavailable   another instance of the name is a member; RetryAfter says when it
//	              expires unless it renews
//	Overloaded    there is no number left
func (c *Core) Join(i Instance, now time.Duration) (lease.Member, Standing, error) {
	c.observe(now)
	if err := i.validate(); err != nil {
		return lease.Member{}, Waiting, err
	}
	w := c.names[i.Name]
	if w != nil {
		if m := w.current; m != nil && m.Nonce == i.Nonce {
			return c.joinAgain(w, i)
		}
		if err := c.refuse(w, i); err != nil {
			return lease.Member{}, Waiting, err
		}
	}
	w, err := c.known(i.Name)
	if err != nil {
		return lease.Member{}, Waiting, err
	}
	w.joining = &i
	c.arm()
	return lease.Member{}, Waiting, nil
}

// joinAgain answers a Join of the current instance.
func (c *Core) joinAgain(w *worker, i Instance) (lease.Member, Standing, error) {
	m := w.current
	switch {
	case m.Instance != i:
		return lease.Member{}, Waiting, base.Invalidf("worker", "%q joins with the nonce of its instance at %s and other properties: draw a new nonce at each start", i.Name, m.Address)
	case m.leaving:
		return lease.Member{}, Waiting, gone(i)
	}
	m.renewed = c.now
	if m.since > c.published {
		return lease.Member{}, Waiting, nil
	}
	return lease.Member{Worker: w.number, Incarnation: m.incarnation}, In, nil
}

// refuse says why an instance that is not the current one cannot be admitted by
// the next decision.
func (c *Core) refuse(w *worker, i Instance) error {
	for _, nonce := range w.past {
		if nonce == i.Nonce {
			return gone(i)
		}
	}
	if w.joining != nil && w.joining.Nonce != i.Nonce {
		return &base.Error{Kind: base.Unavailable, RetryAfter: c.timeout,
			Detail: "another process joins as " + w.name + ", from " + w.joining.Address + ": give each worker a name of its own"}
	}
	if m := w.current; m != nil && !m.leaving {
		return &base.Error{Kind: base.Unavailable, RetryAfter: m.renewed + c.timeout - c.now + 1,
			Detail: "worker " + w.name + " is a member, from " + m.Address +
				": if that process is dead, its membership ends by itself; if not, give each worker a name of its own"}
	}
	if c.now < w.barred {
		return &base.Error{Kind: base.Unavailable, RetryAfter: w.barred - c.now + 1,
			Detail: "worker " + w.name + " had to leave because it could not reach another one, or was not reached: it may join again later"}
	}
	if w.highest == math.MaxUint32 {
		return base.Errorf(base.Overloaded, "worker %s has used up its incarnations: give it another name", w.name)
	}
	return nil
}

func gone(i Instance) error {
	return base.Errorf(base.Precondition, "this instance of worker %s was a member and is out: drop what it holds and join as a new instance", i.Name)
}

// Renew notes that a member is alive. If extended, the answer In extends its life.
//
// Unreachable are members to which it has no link. If another one has to leave for
// that, or this one, loser says which: see suspect.go.
//
// A silence that is not 0 says that its sender has given up the renewal before,
// whose answer it will never use, and how long before this one it sent the last
// that was answered. After a long silence nothing is extended: such a member
// may hear this answer no more than the last ones, and would be one for as long as
// it goes on to renew, and then for a time-out.
func (c *Core) Renew(m lease.Member, silence time.Duration, unreachable []lease.Member, now time.Duration) (s Standing, extended bool, loser *Member) {
	c.observe(now)
	if s = c.Standing(m); s != In {
		return s, false, nil
	}
	w := c.numbers[m.Worker]
	if x := c.suspect(w, unreachable); x != nil {
		public := x.public()
		loser = &public
	}
	if extended = silence <= c.hearing && !w.current.yields; extended {
		w.current.renewed = c.now
	}
	return s, extended, loser
}

// Standing says where an incarnation stands, without renewing it. A member that
// is leaving or overdue is Waiting, and Out when the view without it is durable.
func (c *Core) Standing(m lease.Member) Standing {
	w := c.numbers[m.Worker]
	switch {
	case w != nil && w.current != nil && w.current.incarnation == m.Incarnation:
		if w.current.leaving {
			return Waiting
		}
		return In
	case c.phase == deciding:
		return Waiting
	default:
		return Out
	}
}

// Leave announces that a member goes. It must have stopped to use what it holds:
// nobody waits for its expiry. The answer is Out once a view without it is
// published. The error is NotFound if there never was such a member.
func (c *Core) Leave(m lease.Member, now time.Duration) (Standing, error) {
	c.observe(now)
	w := c.numbers[m.Worker]
	if w == nil || m.Incarnation == 0 || m.Incarnation > w.highest {
		return Out, base.Errorf(base.NotFound, "no worker was ever admitted as number %d, incarnation %d", m.Worker, m.Incarnation)
	}
	if w.current != nil && w.current.incarnation == m.Incarnation {
		w.current.leaving = true
		c.arm()
		return Waiting, nil
	}
	if w.left > c.published {
		return Waiting, nil
	}
	return Out, nil
}

// Next returns when Tick has to be called next at the latest, if nothing else
// happens; false: not before the next call of another method.
func (c *Core) Next() (time.Duration, bool) {
	if c.phase == idle && c.due > 0 {
		return c.due, true
	}
	for _, w := range c.names {
		if w.current != nil {
			// Often enough not to look paused.
			return min(c.oldest+c.timeout+1, c.now+c.stall/2), true
		}
	}
	return 0, false
}
