package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
	"github.com/tenure-faas/tenure/rdma/shm"
	"github.com/tenure-faas/tenure/rdma/sim"
	"github.com/tenure-faas/tenure/rdma/tcp"
)

func TestMain(m *testing.M) {
	rdmatest.Main(m, func(string) (rdma.Provider, error) { return nil, errors.New("no agents here") })
}

// opener opens the provider of a node.
type opener func(name string) (rdma.Provider, error)

func openTCP(string) (rdma.Provider, error) { return tcp.Open(tcp.Options{}) }

func openShm(string) (rdma.Provider, error) { return shm.Open(shm.Options{}) }

// onAll runs a test on each provider.
func onAll(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("tcp", func(t *testing.T) { test(t, openTCP) })
	t.Run("shm", func(t *testing.T) {
		p, err := openShm("")
		if errors.Is(err, rdma.ErrNotSupported) {
			t.Skip(err)
		}
		if err == nil {
			err = p.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		test(t, openShm)
	})
	micro := time.Microsecond
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("sim %d", seed), func(t *testing.T) {
			f := sim.New(sim.Options{Seed: seed, Patience: 5 * time.Millisecond, Faults: sim.Faults{
				Delay: sim.Range{Min: micro, Max: 20 * micro}, ReplyDelay: sim.Range{Min: micro, Max: 20 * micro},
				Reorder: 0.5, Tear: 0.5, SplitAtomics: 0.3, EarlyAck: 0.3, Late: 0.5,
			}})
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, func(name string) (rdma.Provider, error) { return f.Open(name) })
		})
	}
}

// answer is what Swung reported.
type answer struct {
	outcome rdma.Outcome
	old     uint64
}

// letter is a message that arrived.
type letter struct {
	kind    uint8
	payload []byte
}

// node is a worker that has a mesh; it is its Handler.
type node struct {
	t        testing.TB
	me       lease.Member
	mesh     *Mesh
	provider rdma.Provider
	net      *network

	mu      sync.Mutex
	changed chan struct{}
	swung   map[uint64]answer
	tag     uint64
	inbox   map[lease.Worker][]letter
	events  []string
	// refuse makes Message fail once for each count.
	refuse int
	// taken, if any, is called with each message.
	taken func()
}

func (n *node) noteLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) Swung(tag uint64, outcome rdma.Outcome, old uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, twice := n.swung[tag]; twice {
		n.t.Errorf("worker %d: CAS %d was reported twice", n.me.Worker, tag)
	}
	n.swung[tag] = answer{outcome, old}
	if outcome == rdma.Unknown {
		n.events = append(n.events, "lost")
	}
	n.noteLocked()
}

func (n *node) Message(from lease.Worker, kind uint8, payload []byte) error {
	n.mu.Lock()
	taken := n.taken
	n.mu.Unlock()
	if taken != nil {
		taken()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inbox[from] = append(n.inbox[from], letter{kind, append([]byte(nil), payload...)})
	n.noteLocked()
	if n.refuse > 0 {
		n.refuse--
		return errors.New("a message that the handler refuses")
	}
	return nil
}

func (n *node) event(kind string, w lease.Worker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, fmt.Sprintf("%s %d", kind, w))
	n.noteLocked()
}

func (n *node) LinkDown(w lease.Worker) {
	if !n.mesh.Down(w) {
		n.t.Errorf("worker %d: LinkDown of %d, but Down says that it is up", n.me.Worker, w)
	}
	n.event("down", w)
}

func (n *node) LinkUp(w lease.Worker) { n.event("up", w) }

// slot is one that only this worker changes.
func (n *node) slot() base.Slot { return 8 + base.Slot(n.me.Worker) }

// until waits until a condition on what the handler has seen holds.
func (n *node) until(what string, is func() bool) {
	n.t.Helper()
	late := time.After(30 * time.Second)
	for {
		n.mu.Lock()
		ok, changed := is(), n.changed
		n.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			n.t.Fatalf("worker %d waited in vain: %s", n.me.Worker, what)
		}
	}
}

// cas does a CAS and waits for its outcome.
func (n *node) cas(to lease.Worker, slot base.Slot, expect, swap uint64) answer {
	n.t.Helper()
	tag := n.ask(to, slot, expect, swap)
	n.mesh.Flush()
	return n.outcome(tag)
}

// ask queues a CAS.
func (n *node) ask(to lease.Worker, slot base.Slot, expect, swap uint64) uint64 {
	n.mu.Lock()
	n.tag++
	tag := n.tag
	n.mu.Unlock()
	n.mesh.CAS(to, slot, expect, swap, tag)
	return tag
}

func (n *node) outcome(tag uint64) (a answer) {
	n.t.Helper()
	n.until(fmt.Sprintf("outcome of CAS %d", tag), func() (ok bool) { a, ok = n.swung[tag]; return ok })
	return a
}

// send sends a message of which checkInbox knows the content.
func (n *node) send(to lease.Worker, number uint64, length int) error {
	b := make([]byte, 8+length)
	binary.LittleEndian.PutUint64(b, number)
	for i := range length {
		b[8+i] = byte(number) + byte(i)
	}
	return n.mesh.Send(to, uint8(number%200)+1, b[:4], b[4:])
}

// checkInbox says how many messages of a worker came, and fails if they are not
// 0, 1, 2 and so on, whole. The caller holds mu.
func (n *node) checkInbox(from lease.Worker) int {
	for i, l := range n.inbox[from] {
		if len(l.payload) < 8 || binary.LittleEndian.Uint64(l.payload) != uint64(i) || l.kind != uint8(i%200)+1 {
			n.t.Fatalf("worker %d: message %d of worker %d is kind %d, %.16x", n.me.Worker, i, from, l.kind, l.payload)
		}
		for j, b := range l.payload[8:] {
			if b != byte(i)+byte(j) {
				n.t.Fatalf("worker %d: message %d of worker %d is torn at %d", n.me.Worker, i, from, j)
			}
		}
	}
	return len(n.inbox[from])
}

// up waits until the links to these workers are up.
func (n *node) up(workers ...lease.Worker) {
	n.t.Helper()
	n.until(fmt.Sprintf("links to %v", workers), func() bool {
		for _, w := range workers {
			if n.mesh.Down(w) {
				return false
			}
		}
		return true
	})
}

// network is the nodes of a test, by member.
type network struct {
	mu    sync.Mutex
	nodes map[lease.Member]*Mesh
	// offered tells whoever looks that an offer is made.
	offered chan struct{}
}

// Exchange implements Exchanger by a call.
func (w *network) Exchange(ctx context.Context, to lease.Member, offer Offer) (Offer, error) {
	select {
	case w.offered <- struct{}{}:
	default:
	}
	w.mu.Lock()
	m := w.nodes[to]
	w.mu.Unlock()
	if m == nil {
		return Offer{}, errors.New("nobody there")
	}
	return m.Accept(ctx, offer)
}

func newNetwork() *network {
	return &network{nodes: map[lease.Member]*Mesh{}, offered: make(chan struct{})}
}

func member(w int) lease.Member { return lease.Member{Worker: lease.Worker(w), Incarnation: 1} }

// start opens a node; change may alter its options.
func (w *network) start(t testing.TB, open opener, me lease.Member, change func(*Options)) *node {
	t.Helper()
	p, err := open(fmt.Sprintf("node %d.%d", me.Worker, me.Incarnation))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, me: me, provider: p, net: w, changed: make(chan struct{}), swung: map[uint64]answer{}, inbox: map[lease.Worker][]letter{}}
	o := Options{Me: me, Provider: p, Slots: 16, RingBytes: 4096, Members: 4, Timeout: 2 * time.Second,
		Handler: n, Exchanger: w, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&o)
	}
	if n.mesh, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[me] = n.mesh
	w.mu.Unlock()
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.net.mu.Lock()
	delete(n.net.nodes, n.me)
	n.net.mu.Unlock()
	if err := errors.Join(n.mesh.Close(), n.provider.Close()); err != nil {
		n.t.Error(err)
	}
}

func members(t testing.TB, v base.View, all ...lease.Member) *lease.Members {
	t.Helper()
	m, err := lease.NewMembers(v, all)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// install installs a view at the nodes.
func install(t testing.TB, m *lease.Members, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.mesh.Install(t.Context(), m); err != nil {
			t.Fatalf("worker %d installs view %d: %v", n.me.Worker, m.View, err)
		}
	}
}

// cluster starts workers 1..size, in one view with all links up.
func cluster(t testing.TB, open opener, size int, change func(*Options)) []*node {
	t.Helper()
	w := newNetwork()
	var nodes []*node
	var all []lease.Member
	var workers []lease.Worker
	for i := 1; i <= size; i++ {
		nodes = append(nodes, w.start(t, open, member(i), change))
		all, workers = append(all, member(i)), append(workers, lease.Worker(i))
	}
	install(t, members(t, 1, all...), nodes...)
	for _, n := range nodes {
		n.up(workers...)
	}
	return nodes
}

// within is a context for what must not take long.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
