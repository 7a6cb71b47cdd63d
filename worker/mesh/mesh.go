package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/ring"
)

// view is the installed members and their links. It is never changed, so that CAS
// and Send find a link without a lock.
type view struct {
	members *lease.Members // nil before the first Install
	peers   map[lease.Worker]*peer
	// all are the peers in order, this worker included.
	all []*peer
}

// Mesh is the links of one worker. All methods are safe for concurrent use. The
// package comment has the goroutines and the order of the locks.
type Mesh struct {
	options Options
	words   rdma.Region
	queue   rdma.CompletionQueue
	// begin makes the context of a goroutine, which ends with stop.
	begin func() (context.Context, context.CancelFunc)
	stop  context.CancelFunc
	wg    sync.WaitGroup // poller, courier, keepers and burials

	view   atomic.Pointer[view]
	closed atomic.Bool

	// installing serialises Install and Close, and guards leaving: the peers whose
	// ends an Install could not take down.
	installing sync.Mutex
	leaving    []*peer
	graves     graves

	calls sync.Mutex // held while the Handler runs

	// self is what the courier is to deliver.
	self struct {
		mu       sync.Mutex // a leaf, also inside a link's mu
		messages fifo
		refused  []refusal
	}
	// delivering and refusing are the buffers that the courier empties.
	delivering fifo
	refusing   []refusal
	wake       chan struct{} // has a token when there is something for the courier

	ends ends

	tallies struct {
		mu sync.Mutex // a leaf
		of map[lease.Worker]*tally
	}
}

// refusal is a CAS that was not posted; link is nil if there is none.
type refusal struct {
	link *link
	tag  uint64
}

// New makes a mesh without members and starts its goroutines. Close it.
func New(options Options) (*Mesh, error) {
	if options.Provider == nil {
		return nil, fmt.Errorf("%w option of mesh: Provider is required", rdma.ErrInvalid)
	}
	options.EnsureDefaults()
	if err := options.Validate(); err != nil {
		return nil, err
	}
	m := &Mesh{options: options, wake: make(chan struct{}, 1)}
	m.ends.open = map[uint32]*end{}
	m.tallies.of = map[lease.Worker]*tally{}
	m.view.Store(&view{})
	var err error
	if m.words, err = options.Provider.Register(8 * options.Slots); err != nil {
		return nil, fmt.Errorf("mesh: memory for %d words: %w", options.Slots, err)
	}
	if m.queue, err = options.Provider.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: options.completions(), Spin: options.Spin}); err != nil {
		return nil, errors.Join(fmt.Errorf("mesh: %w", err), m.words.Close())
	}
	root, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.begin = func() (context.Context, context.CancelFunc) { return context.WithCancel(root) }
	m.wg.Go(func() { m.poll(root) })
	m.wg.Go(func() { m.deliver(root) })
	return m, nil
}

// slotAt is the place of a slot's word. A slot beyond the words is a fault of the
// program.
func (m *Mesh) slotAt(slot base.Slot) int {
	if uint64(slot) >= uint64(m.options.Slots) {
		panic(fmt.Sprintf("mesh: slot %d of %d", slot, m.options.Slots))
	}
	return 8 * int(slot)
}

// CAS queues a CAS on the word of a slot at a member, which may be this worker:
// Swung will report its outcome with tag, once. It does not block; Flush posts it.
// If the link is down it is NotDone. How many may be outstanding is the caller's
// to bound. A word is read by a CAS that expects what it cannot hold.
func (m *Mesh) CAS(to lease.Worker, slot base.Slot, expect, swap, tag uint64) {
	m.slotAt(slot)
	if p := m.view.Load().peers[to]; p != nil {
		p.out.cas(slot, expect, swap, tag)
		return
	}
	m.refuse(nil, tag)
}

// refuse has the courier report a CAS as NotDone.
func (m *Mesh) refuse(l *link, tag uint64) {
	m.self.mu.Lock()
	m.self.refused = append(m.self.refused, refusal{l, tag})
	m.self.mu.Unlock()
	wake(m.wake)
}

// Send queues a message, whose payload is the parts one after the other, which
// are copied. It does not block; Flush posts it. It arrives once, after all
// earlier ones to this member, however often the link breaks, unless this worker
// installs a view before it was posted. Kind is not 0. The errors, after which
// nothing was queued: ErrNotMember, ErrBacklog, rdma.ErrInvalid for more than
// MaxMessage bytes, ErrClosed.
func (m *Mesh) Send(to lease.Worker, kind uint8, parts ...[]byte) error {
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	p := m.view.Load().peers[to]
	switch {
	case kind == 0 || length > m.MaxMessage():
		return fmt.Errorf("%w message to worker %d: kind %d with %d bytes, want 1.. with 0..%d", rdma.ErrInvalid, to, kind, length, m.MaxMessage())
	case m.closed.Load():
		return ErrClosed
	case p == nil:
		return fmt.Errorf("%w: worker %d", ErrNotMember, to)
	}
	var err error
	if p.self() {
		err = m.sendSelf(kind, parts)
	} else {
		err = p.out.send(kind, parts)
	}
	if err == nil {
		p.tally.sent.Add(1)
	}
	return err
}

// sendSelf queues a message of this worker to itself.
func (m *Mesh) sendSelf(kind uint8, parts [][]byte) error {
	o, s := &m.options, &m.self
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages.n >= o.BacklogMessages || s.messages.size() >= o.BacklogBytes {
		return fmt.Errorf("%w to this worker: %d messages, %d bytes", ErrBacklog, s.messages.n, s.messages.size())
	}
	s.messages.push(kind, parts)
	wake(m.wake)
	return nil
}

// MaxMessage is the longest payload of a message, in bytes.
func (m *Mesh) MaxMessage() int { return ring.MaxMessage(m.options.RingBytes) }

// Flush posts what is queued. It does not wait for any peer, but posting makes
// system calls, so call it without latches.
func (m *Mesh) Flush() {
	for _, p := range m.view.Load().all {
		if p.out.dirty.Load() {
			p.out.flush()
		}
	}
}

// Word returns the word of a slot in the memory of this worker.
func (m *Mesh) Word(slot base.Slot) uint64 { return m.words.Load(m.slotAt(slot)) }

// StoreWord changes the word of a slot by this CPU. Only while no member can have
// a CAS on it under way: when the words are rebuilt.
func (m *Mesh) StoreWord(slot base.Slot, word uint64) { m.words.Store(m.slotAt(slot), word) }

// Down says whether the link to w is down, or w is no member.
func (m *Mesh) Down(w lease.Worker) bool {
	p := m.view.Load().peers[w]
	return p == nil || p.out.down.Load()
}

// Counters are the counts for one worker.
type Counters struct {
	// Worker is its number; its incarnations are counted together.
	Worker lease.Worker
	// Verbs that were posted to it: CAS, a WRITE_IMM for each time that a message
	// was posted and for each credit, a READ for each proof. OpReceive counts its
	// doorbells.
	Verbs rdma.Counters
	// Sent and Received are messages, each counted once; Reconnects how often the
	// link was made anew.
	Sent, Received, Reconnects uint64
}

// Counters returns the counts of all workers that ever were members, by number.
// It allocates and is for operators and tests.
func (m *Mesh) Counters() []Counters {
	m.tallies.mu.Lock()
	defer m.tallies.mu.Unlock()
	var all []Counters
	for _, w := range slices.Sorted(maps.Keys(m.tallies.of)) {
		t := m.tallies.of[w]
		all = append(all, Counters{w, t.verbs.Counters(), t.sent.Load(), t.received.Load(), t.reconnects.Load()})
	}
	return all
}

func (m *Mesh) tallyOf(w lease.Worker) *tally {
	m.tallies.mu.Lock()
	defer m.tallies.mu.Unlock()
	if m.tallies.of[w] == nil {
		m.tallies.of[w] = &tally{}
	}
	return m.tallies.of[w]
}

// Close destroys all links, ends all goroutines and frees all memory. No call of
// the Handler comes after it, also for CAS whose outcomes it has not seen. It
// waits for Exchange, Connect and Handler calls to return, and may take as long as
// closing a queue pair does.
func (m *Mesh) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.installing.Lock()
	defer m.installing.Unlock()
	old := m.view.Swap(&view{})
	all := append(slices.Clone(old.all), m.leaving...)
	for _, p := range all {
		p.out.leave()
		p.cancel()
	}
	// A kernel that is stuck over a queue pair is left alone in the end.
	parting, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	var errs []error
	for _, p := range all {
		<-p.stopped
		errs = append(errs, p.in.leave(parting))
	}
	m.stop()
	m.wg.Wait()
	for _, e := range m.ends.list() {
		errs = append(errs, m.closeEnd(e))
	}
	errs = append(errs, m.queue.Close())
	for _, p := range all {
		errs = append(errs, p.region.Close())
	}
	for _, p := range m.graves.all {
		errs = append(errs, p.region.Close())
	}
	return errors.Join(append(errs, m.words.Close())...)
}
