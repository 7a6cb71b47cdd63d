package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/ring"
)

// Handler gets what links bring. Calls come one at a time, from goroutines of the
// mesh; they may call CAS, Send and Flush, and must not block. The mesh flushes
// after them by itself.
type Handler interface {
	// Swung reports the outcome of the CAS that was queued with tag: Done (old is
	// the word that was found: the CAS has succeeded if it is what was expected),
	// NotDone or Unknown (old is 0).
	Swung(tag uint64, outcome rdma.Outcome, old uint64)
	// Message delivers a message of a member; payload is valid during the call. An
	// error is a fault of the peer, whose link is broken then; the message counts as
	// delivered all the same.
	Message(from lease.Worker, kind uint8, payload []byte) error
	// LinkDown says that the link to w broke; the outcomes of what was outstanding
	// on it come after it.
	LinkDown(w lease.Worker)
	// LinkUp says that there is a link to w, and that w destroyed its end of the one
	// before. All that was outstanding on that one has been reported.
	LinkUp(w lease.Worker)
}

// Exchanger carries offers between members.
type Exchanger interface {
	// Exchange brings the offer to the Accept of the mesh of member to, and returns
	// its answer or its error. It blocks until then or until ctx ends, and keeps
	// nothing of the offer.
	Exchange(ctx context.Context, to lease.Member, offer Offer) (Offer, error)
}

// Errors that callers branch on.
var (
	// ErrNotMember refuses what concerns a worker that is no member of the installed
	// view, or another incarnation. For an offer that may change soon: one side has
	// installed a view before the other.
	ErrNotMember = errors.New("mesh: not a member of the installed view")
	// ErrBacklog refuses a message because too many wait for the link already.
	ErrBacklog = errors.New("mesh: too many messages wait for the link")
	// ErrClosed refuses the use of a closed mesh.
	ErrClosed = errors.New("mesh: closed")
)

const (
	// maxSendDepth bounds the requests of a link that are posted and not complete.
	maxSendDepth = 128
	// creditDepth bounds the credits of an inbox that are posted and not complete,
	// and those that wait at the sender. There are four in a ring.
	creditDepth = 16
	// signalEvery is after how many messages one is signaled at the latest.
	signalEvery = 16
	minBackoff  = time.Millisecond
	maxBackoff  = 500 * time.Millisecond
	// patience is how many time-outs an exchange and a Connect may take together.
	patience = 5
	// closeLimit is how long Close waits for ends to be revoked, all together.
	closeLimit = 30 * time.Second
	// maxSlots bounds the words: 1 GiB.
	maxSlots = 1 << 27
)

// Options are the options of New.
type Options struct {
	// Me is this worker. Required.
	Me lease.Member
	// Provider is the way to the others, of the same kind at all members. The mesh
	// does not close it. Required.
	Provider rdma.Provider
	// Slots is the number of lease words, a power of two, the same at all members.
	// Required.
	Slots int
	// RingBytes is the ring for the messages of each member, a multiple of 64 and
	// the same at all members. 0 means 64 KiB, or what the provider allows.
	RingBytes int
	// Members is how many members a view may have, this worker included. 0 means 16.
	Members int
	// Timeout is how long a peer may be silent before its link is broken. 0 means
	// one second.
	Timeout time.Duration
	// BacklogBytes and BacklogMessages bound what waits for the link to one member,
	// or to this worker itself, beside what is in the ring. 0 means 64 MiB and 65536.
	BacklogBytes, BacklogMessages int
	// Spin is how long the poller looks for completions before it sleeps. 0 means
	// not at all.
	Spin time.Duration
	// Handler gets what links bring. Required.
	Handler Handler
	// Exchanger carries offers to other members. Required.
	Exchanger Exchanger
	// Logger is told of links that break. nil means slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the documented defaults. Provider must
// be set.
func (o *Options) EnsureDefaults() {
	if o.RingBytes == 0 {
		limits := o.Provider.Limits()
		o.RingBytes = min(64<<10, limits.MaxReceiveDepth*ring.UnitSize)
	}
	if o.Members == 0 {
		o.Members = 16
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.BacklogBytes == 0 {
		o.BacklogBytes = 64 << 20
	}
	if o.BacklogMessages == 0 {
		o.BacklogMessages = 65536
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Validate returns all that is wrong with the options, as rdma.ErrInvalid.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w option of mesh: "+format, append([]any{rdma.ErrInvalid}, args...)...))
		}
	}
	check(o.Me.Worker != lease.Free && o.Me.Worker <= lease.MaxWorker, "Me is worker %d, want 1..%d", o.Me.Worker, lease.MaxWorker)
	check(o.Handler != nil && o.Exchanger != nil, "Handler and Exchanger are required")
	check(o.Slots > 0 && o.Slots <= maxSlots && o.Slots&(o.Slots-1) == 0, "Slots is %d, want a power of two up to %d", o.Slots, maxSlots)
	check(o.Members > 0 && o.Members <= int(lease.MaxWorker), "Members is %d, want 1..%d", o.Members, lease.MaxWorker)
	check(o.Timeout > 0, "Timeout %v is not positive", o.Timeout)
	check(o.BacklogBytes >= 0 && o.BacklogMessages >= 0, "backlog of %d bytes and %d messages", o.BacklogBytes, o.BacklogMessages)
	check(o.Spin >= 0, "Spin %v is negative", o.Spin)
	limits := o.Provider.Limits()
	units := ring.Units(o.RingBytes)
	check(o.RingBytes%ring.UnitSize == 0 && units >= 4 && units <= limits.MaxReceiveDepth,
		"RingBytes is %d, want a multiple of %d, %d..%d with this provider", o.RingBytes, ring.UnitSize, 4*ring.UnitSize, limits.MaxReceiveDepth*ring.UnitSize)
	check(ring.MaxMessage(o.RingBytes) < limits.MaxMessage, "RingBytes is %d, but a quarter of it is longer than the %d bytes of a request", o.RingBytes, limits.MaxMessage)
	check(o.completions() <= limits.MaxCompletions, "%d members with rings of %d bytes need %d completions, the provider has %d", o.Members, o.RingBytes, o.completions(), limits.MaxCompletions)
	return errors.Join(errs...)
}

// sendDepth is that of a link's queue pair.
func (o *Options) sendDepth() int {
	limits := o.Provider.Limits()
	return min(maxSendDepth, limits.MaxSendDepth)
}

// completions is the depth of the queue that all queue pairs share: for each
// member the two ends here, for this worker one that is connected to itself.
func (o *Options) completions() int {
	each := o.sendDepth() + creditDepth + creditDepth + ring.Units(o.RingBytes)
	return (o.Members-1)*each + o.sendDepth() + 1
}
