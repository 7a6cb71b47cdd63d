//go:build linux && cgo && rdma

package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/verbs"
	"github.com/tenure-faas/tenure/rdma/wire"
)

// These tests need two nodes with an rxe device each. The same test binary runs
// on both at the same time, with NODE=1 and NODE=2 in its environment:
//
//	go test -c -tags rdma -o wire.test ./rdma/wire
//	NODE=1 ./wire.test -test.run Rxe     on 10.77.0.1 (WIRE_NODE1)
//	NODE=2 ./wire.test -test.run Rxe     on 10.77.0.2 (WIRE_NODE2)
//
// WIRE_INTERFACE names the interface of the device if it is not eth0.
const (
	controlPort = "7472"
	testLimit   = 45 * time.Second // per case; they take 1 to 5 s under emulation
	regionSize  = 1 << 20
	pathMTU     = 4096 // of rxe on the interfaces of the test machines
)

// setting returns an environment variable or its default.
func setting(name, standard string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return standard
}

// node is one of the two, as the test on it sees it.
type node struct {
	t      *testing.T
	ctx    context.Context
	number int
	peer   netip.Addr
	enc    *json.Encoder
	dec    *json.Decoder

	provider rdma.Provider
	region   rdma.Region
	cq       rdma.CompletionQueue
	pair     rdma.QueuePair
	remote   rdma.RemoteRegion // of the peer
	peerPair uint32            // its queue pair
}

// newNode joins the two nodes, opens the device and connects a queue pair.
func newNode(t *testing.T, timeout time.Duration) *node {
	number, err := strconv.Atoi(os.Getenv("NODE"))
	if err != nil || number < 1 || number > 2 {
		t.Skip("needs two nodes with rxe: run this on both with NODE=1 and NODE=2")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	t.Cleanup(cancel)
	n := &node{t: t, ctx: ctx, number: number}
	addresses := []string{setting("WIRE_NODE1", "10.77.0.1"), setting("WIRE_NODE2", "10.77.0.2")}
	n.peer = netip.MustParseAddr(addresses[2-number])
	n.join(net.JoinHostPort(addresses[1], controlPort))

	provider, err := verbs.Open(verbs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n.provider = provider
	n.closeAtEnd(provider.Close)
	if n.region, err = provider.Register(regionSize); err != nil {
		t.Fatal(err)
	}
	n.closeAtEnd(n.region.Close)
	if n.cq, err = provider.NewCompletionQueue(rdma.CompletionQueueOptions{}); err != nil {
		t.Fatal(err)
	}
	n.closeAtEnd(n.cq.Close)
	n.connect(timeout)
	return n
}

func (n *node) closeAtEnd(f func() error) {
	n.t.Cleanup(func() {
		if err := f(); err != nil {
			n.t.Error(err)
		}
	})
}

// join makes the control connection: node 2 listens, node 1 dials until it does.
func (n *node) join(address string) {
	var conn net.Conn
	if n.number == 2 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			n.t.Fatal(err)
		}
		deadline, _ := n.ctx.Deadline()
		l.(*net.TCPListener).SetDeadline(deadline)
		conn, err = l.Accept()
		l.Close()
		if err != nil {
			n.t.Fatalf("node 1 does not come: %v", err)
		}
	} else {
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for conn == nil {
			var err error
			if conn, err = (&net.Dialer{}).DialContext(n.ctx, "tcp", address); err == nil {
				break
			}
			select {
			case <-again.C:
			case <-n.ctx.Done():
				n.t.Fatalf("node 2 is not there: %v", err)
			}
		}
	}
	deadline, _ := n.ctx.Deadline()
	conn.SetDeadline(deadline)
	n.t.Cleanup(func() { conn.Close() })
	n.enc, n.dec = json.NewEncoder(conn), json.NewDecoder(conn)
}

// exchange sends a value and returns the peer's. Both nodes leave it only after
// both have entered it.
func exchange[T any](n *node, mine T) (theirs T) {
	n.t.Helper()
	if err := n.enc.Encode(mine); err != nil {
		n.t.Fatalf("to the peer: %v", err)
	}
	if err := n.dec.Decode(&theirs); err != nil {
		n.t.Fatalf("the peer gave up: %v", err)
	}
	return theirs
}

func (n *node) barrier() {
	n.t.Helper()
	exchange(n, "here")
}

// connect makes a queue pair to the peer; node 2 accepts.
func (n *node) connect(timeout time.Duration) {
	pair, err := n.provider.NewQueuePair(rdma.QueuePairOptions{Peer: n.peer.String(), SendCQ: n.cq, Timeout: timeout})
	if err != nil {
		n.t.Fatal(err)
	}
	n.pair = pair
	n.closeAtEnd(pair.Close)
	type end struct {
		Address []byte
		Pair    uint32
		Region  rdma.RemoteRegion
	}
	peer := exchange(n, end{pair.Address(), pair.Number(), n.region.Remote()})
	n.remote, n.peerPair = peer.Region, peer.Pair
	if n.number == 2 {
		if err := pair.Accept(peer.Address); err != nil {
			n.t.Fatal(err)
		}
	}
	n.barrier()
	if n.number == 1 {
		if err := pair.Connect(n.ctx, peer.Address); err != nil {
			n.t.Fatal(err)
		}
	}
	n.barrier()
}

// count attaches a counter to the interface of the device.
func (n *node) count(drop wire.Drop) *wire.Counter {
	c, err := wire.Attach(setting("WIRE_INTERFACE", "eth0"), wire.Options{Drop: drop})
	if err != nil {
		n.t.Fatal(err)
	}
	n.closeAtEnd(c.Close)
	return c
}

// arrived returns what came for our queue pair. If the hook shows what left for
// the peer's, it must be what we posted.
func (n *node) arrived(c *wire.Counter) (in *wire.Flow) {
	n.t.Helper()
	s, err := c.Read()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Logf("node %d:\n%v", n.number, &s)
	for i := range s.Flows {
		switch f := &s.Flows[i]; {
		case f.Direction == wire.Ingress && f.Source == n.peer && f.QP == n.pair.Number():
			in = f
		case f.Direction == wire.Egress && f.Destination == n.peer && f.QP == n.peerPair:
			if got, want := f.Verbs(), wireVerbs(n.pair.Counters()); got != want {
				n.t.Errorf("what left is  %v\nwe posted     %v", got, want)
			}
		}
	}
	if in == nil {
		n.t.Fatalf("no packets from %v to queue pair %#x", n.peer, n.pair.Number())
	}
	return in
}

// do posts requests, in batches that the queue holds, and waits until all have
// completed; other completions are doorbells.
func (n *node) do(requests []rdma.WorkRequest) (failed *rdma.Completion) {
	n.t.Helper()
	const batch = 16
	completions := make([]rdma.Completion, batch)
	for len(requests) > 0 {
		posted, err := n.pair.Post(requests[:min(batch, len(requests))])
		if err != nil && !errors.Is(err, rdma.ErrQueueFull) {
			n.t.Fatal(err)
		}
		requests = requests[posted:]
		for posted > 0 {
			got, err := n.cq.Wait(n.ctx, completions)
			if err != nil {
				n.t.Fatal(err)
			}
			for i := range completions[:got] {
				switch c := completions[i]; {
				case c.Op == rdma.OpReceive:
				case c.Err() != nil:
					return &c
				default:
					posted--
				}
			}
		}
	}
	return nil
}

// collect polls the doorbells that are left, until there were n.
func (n *node) collect(doorbells uint64) {
	n.t.Helper()
	completions := make([]rdma.Completion, 16)
	for n.pair.Counters()[rdma.OpReceive].Posted < doorbells {
		if _, err := n.cq.Wait(n.ctx, completions); err != nil {
			n.t.Fatalf("%d of %d doorbells: %v", n.pair.Counters()[rdma.OpReceive].Posted, doorbells, err)
		}
	}
}

// script is every verb in sizes below and above the path MTU, in another number
// for each verb and node. FAA adds 1 to the first word of the peer's region.
func (n *node) script() (requests []rdma.WorkRequest) {
	sizes := []int{8, 64, pathMTU, pathMTU + 1, 5 * pathMTU, 50_000, 0}
	const data, found = 4096, 64 // offsets: data from here on, old words of atomics
	add := func(count int, make func(i, size int) rdma.WorkRequest) {
		for i := range count {
			requests = append(requests, make(i, sizes[i%len(sizes)]))
		}
	}
	id := func() uint64 { return uint64(len(requests)) }
	add(20+n.number, func(_, size int) rdma.WorkRequest {
		return rdma.Read(id(), n.region.Local(data, size), n.remote, data)
	})
	add(30+n.number, func(_, size int) rdma.WorkRequest {
		return rdma.Write(id(), n.region.Local(data, size), n.remote, data)
	})
	add(14+n.number, func(i, size int) rdma.WorkRequest {
		return rdma.WriteImm(id(), n.region.Local(data, size), n.remote, data, uint32(i))
	})
	add(9+n.number, func(i, _ int) rdma.WorkRequest {
		return rdma.CAS(id(), n.region.Local(found, 8), n.remote, 8, uint64(i), uint64(i+1))
	})
	add(5+n.number, func(int, int) rdma.WorkRequest {
		return rdma.FAA(id(), n.region.Local(found, 8), n.remote, 0, 1)
	})
	// Mix them, the same in every run, by a stride that is prime to their number.
	// What a CAS finds then is anybody's guess; only that it was sent matters.
	mixed := make([]rdma.WorkRequest, len(requests))
	const stride = 37
	if len(requests)%stride == 0 {
		n.t.Fatalf("%d requests cannot be mixed by a stride of %d", len(requests), stride)
	}
	for i := range requests {
		mixed[i] = requests[i*stride%len(requests)]
	}
	return mixed
}

// wireVerbs takes from the counters of a queue pair what the wire can show.
func wireVerbs(c rdma.Counters) (v wire.Verbs) {
	for op := range v {
		v[op] = c[op].Posted
	}
	return v
}

// TestRxeCounts: both nodes run a script against each other, one after the other
// and then at once. What the program counted is what the provider of the peer
// counted, verb by verb, also if packets are lost and asked for again.
func TestRxeCounts(t *testing.T) {
	for _, c := range []struct {
		name string
		drop wire.Drop
	}{
		{"nothing lost", wire.Drop{}},
		// One in a prime number, larger than what a batch has of the opcode: a rule
		// that always hits the same packet of what is sent again would never end.
		{"answers of atomics lost", wire.Drop{Opcode: wire.AtomicAck, Every: 11}},
		{"parts of READs lost", wire.Drop{Opcode: wire.ReadMiddle, Every: 17}},
		{"acknowledgements lost", wire.Drop{Opcode: wire.Acknowledge, Every: 7}},
		{"parts of WRITEs lost", wire.Drop{Opcode: wire.WriteMiddle, Every: 31}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, time.Second)
			counter := n.count(c.drop)
			n.barrier()
			for _, turn := range []int{1, 2, 3} {
				if turn == n.number || turn == 3 {
					if failed := n.do(n.script()); failed != nil {
						t.Fatalf("request %d: %v", failed.ID, failed.Err())
					}
				}
				n.barrier()
			}
			mine := n.pair.Counters()
			peers := exchange(n, mine)
			n.collect(peers[rdma.OpWriteImm].Posted)
			flow := n.arrived(counter)
			if got, want := flow.Verbs(), wireVerbs(peers); got != want {
				t.Errorf("the wire has   %v\nthe peer posted %v", got, want)
			}
			if got, want := n.region.Load(0), peers[rdma.OpFAA].Posted; got != want {
				t.Errorf("%d FAA took effect, the peer posted %d", got, want)
			}
			n.checkResponses(flow, mine, c.drop)
		})
	}
}

// checkResponses compares the answers that came with what we asked for. An
// answer is sent again exactly if its request is.
func (n *node) checkResponses(flow *wire.Flow, mine rdma.Counters, drop wire.Drop) {
	repeats := exchange(n, flow.Repeats()) // of our requests, as the peer saw them
	atomics := flow.Packets(wire.AtomicAck).All
	ends := flow.Packets(wire.ReadOnly).All + flow.Packets(wire.ReadLast).All
	n.t.Logf("node %d: %d of our requests were repeated, %d packets dropped on demand", n.number, repeats, flow.Dropped)
	want := mine[rdma.OpCAS].Posted + mine[rdma.OpFAA].Posted
	if repeats == 0 && (atomics != want || ends != mine[rdma.OpRead].Posted) {
		n.t.Errorf("%d answers to %d atomics, %d to %d READs, and nothing was repeated", atomics, want, ends, mine[rdma.OpRead].Posted)
	}
	if atomics < want || ends < mine[rdma.OpRead].Posted || flow.Acknowledgements() == 0 {
		n.t.Errorf("%d answers to %d atomics, %d to %d READs, %d acknowledgements", atomics, want, ends, mine[rdma.OpRead].Posted, flow.Acknowledgements())
	}
	// A lost acknowledgement may be made good by the next one.
	if drop.Every > 0 && (flow.Dropped == 0 || repeats == 0 && drop.Opcode != wire.Acknowledge) {
		n.t.Errorf("%d packets dropped on demand and %d requests repeated: nothing was tried", flow.Dropped, repeats)
	}
}

// TestRxeUnknownOutcome: the answer of an atomic is lost for longer than it is
// asked for again. The requester sees an unknown outcome. After the peer has
// revoked its end, a READ on a new connection shows that it was executed, once,
// however often it was repeated.
func TestRxeUnknownOutcome(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(n *node) rdma.WorkRequest
	}{
		{"CAS", func(n *node) rdma.WorkRequest { return rdma.CAS(1, n.region.Local(64, 8), n.remote, 0, 1, 42) }},
		{"FAA", func(n *node) rdma.WorkRequest { return rdma.FAA(1, n.region.Local(64, 8), n.remote, 0, 41) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, 200*time.Millisecond)
			n.region.Store(0, 1)
			drop := wire.Drop{}
			if n.number == 1 {
				drop = wire.Drop{Opcode: wire.AtomicAck, Every: 1}
			}
			counter := n.count(drop)
			n.barrier()
			if n.number == 1 {
				n.expectUnknown(c.make(n))
				if f := n.arrived(counter); f.Dropped == 0 || f.Dropped != f.Packets(wire.AtomicAck).All {
					t.Errorf("%d answers came, %d were dropped", f.Packets(wire.AtomicAck).All, f.Dropped)
				}
			}
			n.barrier()
			if n.number == 2 {
				if err := n.pair.Revoke(n.ctx); err != nil {
					t.Fatal(err)
				}
				f := n.arrived(counter)
				if v := f.Verbs(); v[rdma.OpCAS]+v[rdma.OpFAA] != 1 || f.Repeats() == 0 {
					t.Errorf("%v and %d repeats arrived, want one atomic and repeats", v, f.Repeats())
				}
			}
			n.connect(200 * time.Millisecond)
			if n.number == 1 {
				if failed := n.do([]rdma.WorkRequest{rdma.Read(2, n.region.Local(64, 8), n.remote, 0)}); failed != nil {
					t.Fatal(failed.Err())
				}
				if got := n.region.Load(64); got != 42 {
					t.Errorf("the word is %d, want 42: executed once", got)
				}
			}
			n.barrier()
		})
	}
}

// expectUnknown posts a request that must end as unknown.
func (n *node) expectUnknown(w rdma.WorkRequest) {
	failed := n.do([]rdma.WorkRequest{w})
	switch {
	case failed == nil:
		n.t.Fatal("the request succeeded without an answer")
	case failed.Status.Outcome() != rdma.Unknown || failed.Status != rdma.StatusUnreachable:
		n.t.Fatalf("got %v, want %v", failed.Err(), rdma.StatusUnreachable)
	}
	n.t.Logf("node %d: %v", n.number, failed.Err())
}
