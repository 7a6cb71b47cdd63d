package sim

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

const (
	// maxNodes bounds the nodes of a fabric, dead or alive.
	maxNodes = 4096
	// minCompact is the shortest agenda that is worth compacting.
	minCompact = 1024
)

// node is a name. It outlives its providers, so that links and queue pair
// numbers do not begin anew after a crash.
type node struct {
	name  string
	index int
	// provider is the open one, or nil.
	provider *Provider
	paused   bool
	// queuePairs counts those of all incarnations: an old address names no new end.
	queuePairs uint32
}

// link is one direction between two nodes, by index.
type link struct{ from, to int }

// Fabric is the network and the devices of all nodes of a simulation. All
// methods are safe for concurrent use, but only the calls of one goroutine
// replay.
//
// Lock order: mu, then the latches of the shared parts (ledger, completions),
// which are leaves. Poll takes no mu.
type Fabric struct {
	options Options

	mu     sync.Mutex
	faults Faults // with defaults
	dice   dice
	now    time.Duration
	agenda agenda
	// compactAt is the length at which the agenda is rid of stale events.
	compactAt int
	// sequence numbers events; executed counts them.
	sequence, executed uint64
	closed             bool

	nodes  []*node
	byName map[string]*node // for look-up, never ranged over
	cut    map[link]bool    // likewise
	// providers are all that still have something to free, also crashed ones.
	providers []*Provider
	// requests and regions are counters: the names of the next ones.
	requests, regions uint64

	// flight counts the requests that are not retired.
	flight int
	// pool has retired requests for new posts.
	pool []*request
	// parked wait for a link, a node or a peer; held for Release.
	parked, held []parkedEvent
	rules        []Rule
	trace        trace

	// wake is closed, and made anew, when sleepers should look again.
	wake     chan struct{}
	sleepers int
	// alarm is, with a Clock, the time of the event that a sleeping Drive waits for.
	alarm time.Duration
}

// New makes a fabric without nodes. It panics if the options are out of their
// ranges, which is a fault of the program. Close it: its memory is not Go's.
func New(options Options) *Fabric {
	if err := options.validate(); err != nil {
		panic(fmt.Sprintf("sim: options: %v", err))
	}
	if options.MaxInFlight == 0 {
		options.MaxInFlight = maxFlight
	}
	f := &Fabric{
		options: options, faults: options.Faults, byName: map[string]*node{}, cut: map[link]bool{},
		wake: make(chan struct{}), trace: newTrace(options.TraceLength), compactAt: minCompact,
	}
	f.faults.ensureDefaults()
	f.dice.seed(options.Seed)
	return f
}

// SetFaults replaces the faults for requests that are posted from now on, and
// for what is decided later about others. It panics as New does.
func (f *Fabric) SetFaults(faults Faults) {
	if err := faults.validate(); err != nil {
		panic(fmt.Sprintf("sim: faults: %v", err))
	}
	faults.ensureDefaults()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// node returns the node of this name, which is made if need be.
func (f *Fabric) node(name string) (*node, error) {
	if n := f.byName[name]; n != nil {
		return n, nil
	}
	if name == "" || len(name) > maxName {
		return nil, fmt.Errorf("%w node name %q: 1 to %d bytes", rdma.ErrInvalid, name, maxName)
	}
	if len(f.nodes) == maxNodes {
		return nil, fmt.Errorf("%w: the fabric has %d nodes, which is the limit", rdma.ErrInUse, maxNodes)
	}
	n := &node{name: name, index: len(f.nodes)}
	f.nodes = append(f.nodes, n)
	f.byName[name] = n
	return n, nil
}

// Open opens the device of the node of this name, 1 to 64 bytes. It fails with
// ErrInUse while an older one is open; one that crashed does not count.
func (f *Fabric) Open(name string) (*Provider, error) {
	f.lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, rdma.ErrClosed
	}
	n, err := f.node(name)
	if err != nil {
		return nil, err
	}
	if n.provider != nil {
		return nil, fmt.Errorf("%w: the device of %s is open", rdma.ErrInUse, name)
	}
	p := &Provider{fabric: f, node: n, regions: map[uint32]*region{}}
	p.handle = handle.Open(p, "sim provider")
	n.provider = p
	f.providers = append(f.providers, p)
	f.noteNode(noteOpen, n)
	return p, nil
}

// Close ends the simulation and frees everything of all nodes, in whatever state
// it is: every call on their handles then fails with ErrClosed, and their memory
// must not be touched. Idempotent.
func (f *Fabric) Close() error {
	f.lock()
	defer f.mu.Unlock()
	f.closed = true
	var all []error
	for _, p := range slices.Clone(f.providers) {
		p.kill()
		all = append(all, p.free())
	}
	f.agenda, f.parked, f.held, f.pool = nil, nil, nil, nil
	f.notify()
	return errors.Join(all...)
}

// Now is the virtual time since the simulation began, or the Clock's.
func (f *Fabric) Now() time.Duration {
	f.lock()
	defer f.mu.Unlock()
	return f.now
}

// Next is the virtual time of the next event; false if there is none.
func (f *Fabric) Next() (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.upcoming(); e != nil {
		return e.at, true
	}
	return 0, false
}

// Step executes the next event and moves the time there; false if there is none.
func (f *Fabric) Step() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.step(true) {
		return false
	}
	f.notify()
	return true
}

// RunUntil executes all events up to and including time t, moves the time there,
// and returns how many they were. A t in the past does nothing.
func (f *Fabric) RunUntil(t time.Duration) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := f.upcoming(); e != nil && e.at <= t; e = f.upcoming() {
		f.step(true)
		n++
	}
	f.now = max(f.now, t)
	f.notify()
	return n
}

// upcoming is the next event, which stays in the agenda, or nil. It clears what
// is stale off the head, and moves timers to where they are due by now.
func (f *Fabric) upcoming() *event {
	for len(f.agenda) > 0 {
		e := &f.agenda[0]
		if e.stale() {
			f.agenda.pop()
			continue
		}
		if e.kind == kindTimer {
			q := e.q
			if due := q.due(); q.sends.Len() == 0 || q.provider.node.paused {
				f.agenda.pop()
				q.timerArmed = false
				continue
			} else if due > e.at {
				f.agenda.pop()
				f.schedule(event{at: due, q: q, gen: q.timerGen, kind: kindTimer})
				continue
			}
		}
		return e
	}
	return nil
}

// step executes the next event. If there is no hurry, it leaves those which only
// wait.
func (f *Fabric) step(hurry bool) bool {
	e := f.upcoming()
	if e == nil || !hurry && e.waits() {
		return false
	}
	now := f.agenda.pop()
	f.now = max(f.now, now.at)
	f.executed++
	if now.kind == kindTimer {
		now.q.timerArmed = false
		f.noteEnd(noteTimeout, now.q)
		f.breakDown(now.q, rdma.StatusUnreachable, now.q.front)
		f.retire(now.q)
		return true
	}
	r, q := now.r, now.r.qp
	switch now.kind {
	case kindArrive:
		f.arrive(r)
	case kindStart:
		f.start(r)
	case kindPart:
		f.part(r)
	case kindStore:
		f.store(r)
	case kindBell:
		f.bell(r)
	case kindReply:
		f.replied(r)
	}
	f.retire(q)
	return true
}

func (f *Fabric) schedule(e event) {
	f.sequence++
	e.seq = f.sequence
	// Every request has at most one effect and one reply to come, every queue pair
	// one timer; the rest is stale.
	if len(f.agenda) >= f.compactAt {
		f.agenda.compact()
		f.compactAt = max(minCompact, 2*len(f.agenda))
	}
	f.agenda.push(e)
}

// notify wakes the sleepers of Wait and Drive.
func (f *Fabric) notify() {
	if f.sleepers > 0 && !f.sleepsOn() {
		f.sleepers = 0
		close(f.wake)
		f.wake = make(chan struct{})
	}
}

// Events is how many events have been executed.
func (f *Fabric) Events() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.executed
}

// Hash covers everything that has happened, in order, with times, places, bytes
// and results: two runs are the same if their hashes are.
func (f *Fabric) Hash() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trace.hash
}

// Trace returns the last Options.TraceLength events, oldest first, a line each.
func (f *Fabric) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trace.lines(f.nodes)
}
