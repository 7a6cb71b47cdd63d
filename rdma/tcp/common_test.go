package tcp

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// node is a provider with a completion queue and a region.
type node struct {
	p  *Provider
	cq rdma.CompletionQueue
	r  rdma.Region
}

func newNode(t testing.TB, options Options, size int) *node {
	t.Helper()
	p, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{p: p}
	if n.cq, err = p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 4096}); err != nil {
		t.Fatal(err)
	}
	if n.r, err = p.Register(size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []io.Closer{n.cq, n.r, n.p} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return n
}

// pair makes a queue pair on the node's queue.
func (n *node) pair(t testing.TB, o rdma.QueuePairOptions) *queuePair {
	t.Helper()
	o.SendCQ = n.cq
	q, err := n.p.NewQueuePair(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q.(*queuePair)
}

// wait takes n completions.
func (n *node) wait(t testing.TB, count int) []rdma.Completion {
	t.Helper()
	got := make([]rdma.Completion, count)
	for i := 0; i < count; {
		k, err := n.cq.Wait(t.Context(), got[i:])
		if err != nil {
			t.Fatalf("%d of %d completions came: %v", i, count, err)
		}
		i += k
	}
	return got
}

// statuses takes the completions of as many requests, whose IDs must count from
// first, and checks how they ended.
func (n *node) statuses(t testing.TB, first uint64, want ...rdma.Status) {
	t.Helper()
	for i, c := range n.wait(t, len(want)) {
		if c.ID != first+uint64(i) || c.Status != want[i] {
			t.Errorf("completion %d is of request %d: %v, want request %d: %v", i, c.ID, c.Status, first+uint64(i), want[i])
		}
	}
}

func connect(t testing.TB, active, passive *queuePair) {
	t.Helper()
	if err := passive.Accept(active.Address()); err != nil {
		t.Fatal(err)
	}
	if err := active.Connect(t.Context(), passive.Address()); err != nil {
		t.Fatal(err)
	}
}

// couple makes two nodes with a queue pair each, connected.
func couple(t testing.TB, o rdma.QueuePairOptions, size int) (a, b *node, x, y *queuePair) {
	t.Helper()
	a, b = newNode(t, Options{}, size), newNode(t, Options{}, size)
	x, y = a.pair(t, o), b.pair(t, o)
	connect(t, x, y)
	return a, b, x, y
}

func post(t testing.TB, q *queuePair, requests ...rdma.WorkRequest) {
	t.Helper()
	if n, err := q.Post(requests); n != len(requests) || err != nil {
		t.Fatalf("%d of %d requests posted: %v", n, len(requests), err)
	}
}

// until waits for something that another goroutine is about to bring about.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(100 * time.Microsecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// stranger is a peer that is not of this package: it speaks the protocol by
// hand, as well as a test wants.
type stranger struct {
	t    testing.TB
	conn net.Conn
}

// strange is the address that a queue pair accepts for a stranger.
var strange = address{number: 77, token: token{1, 2, 3}, host: "127.0.0.1:1"}

// stranger connects a stranger to a queue pair, which accepts it.
func newStranger(t testing.TB, q *queuePair) *stranger {
	t.Helper()
	if err := q.Accept(strange.append(nil)); err != nil {
		t.Fatal(err)
	}
	s, g := greet(t, q, helloTo(q))
	if g.verdict != verdictWelcome || g.token != strange.token {
		t.Fatalf("the stranger is greeted by %+v", g)
	}
	return s
}

func helloTo(q *queuePair) hello {
	return hello{version: wireVersion, to: q.self.number, from: strange.number, token: q.self.token, terms: terms{depth: 128, timeout: time.Minute}}
}

// greet says hello and returns the answer.
func greet(t testing.TB, q *queuePair, h hello) (*stranger, greeting) {
	t.Helper()
	s := dialStranger(t, q.p)
	s.send(h.append(nil))
	g, err := parseGreeting(s.receive(helloSize))
	if err != nil {
		t.Fatal(err)
	}
	return s, g
}

func dialStranger(t testing.TB, p *Provider) *stranger {
	t.Helper()
	conn, err := net.Dial("tcp", p.advertise)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &stranger{t, conn}
}

func (s *stranger) send(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stranger) receive(n int) []byte {
	s.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(s.conn, b); err != nil {
		s.t.Fatalf("the stranger waits for %d bytes: %v", n, err)
	}
	return b
}

// ended checks that the connection ends without another byte.
func (s *stranger) ended() {
	s.t.Helper()
	b := make([]byte, 64)
	n, err := s.conn.Read(b)
	if timeout, ok := err.(net.Error); n > 0 || err == nil || ok && timeout.Timeout() {
		s.t.Errorf("the stranger gets %x, %v, want the end of the connection", b[:n], err)
	}
}

// frame encodes a request as the wire has it.
func frame(w rdma.WorkRequest, payload ...byte) []byte {
	return append(appendRequest(nil, &w), payload...)
}

func ack(n uint32) []byte { return appendResponse(nil, response{kind: kindAck, n: n}) }

func data(payload ...byte) []byte {
	return append(appendResponse(nil, response{kind: kindData, n: uint32(len(payload))}), payload...)
}

func failure(status rdma.Status) []byte {
	return appendResponse(nil, response{kind: kindError, status: status})
}

func words(values ...uint64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
