package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

func TestHandshakeRefuses(t *testing.T) {
	n := newNode(t, Options{}, 64)
	accepting := func() *queuePair {
		q := n.pair(t, rdma.QueuePairOptions{})
		if err := q.Accept(strange.append(nil)); err != nil {
			t.Fatal(err)
		}
		return q
	}
	for _, c := range []struct {
		name   string
		change func(*hello, *queuePair)
		want   verdict
	}{
		{"another version", func(h *hello, _ *queuePair) { h.version = wireVersion + 1 }, verdictVersion},
		{"an unknown number", func(h *hello, _ *queuePair) { h.to += 1 << 20 }, verdictUnknown},
		{"a wrong token", func(h *hello, _ *queuePair) { h.token[tokenSize-1] ^= 1 }, verdictUnknown},
		{"another peer than accepted", func(h *hello, _ *queuePair) { h.from++ }, verdictNotAccepted},
		{"a queue pair that has not accepted", func(h *hello, _ *queuePair) {
			q := n.pair(t, rdma.QueuePairOptions{})
			h.to, h.token = q.self.number, q.self.token
		}, verdictNotAccepted},
		{"a revoked queue pair", func(_ *hello, q *queuePair) {
			if err := q.Revoke(t.Context()); err != nil {
				t.Error(err)
			}
		}, verdictNotAccepted},
		{"a closed queue pair", func(_ *hello, q *queuePair) {
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}, verdictUnknown},
		{"a second hello before the first is answered", func(h *hello, q *queuePair) {
			if admitted, _ := n.p.admit(h); admitted != q {
				t.Error("the first hello was not admitted")
			}
		}, verdictNotAccepted},
		{"a second connection", func(h *hello, q *queuePair) {
			if _, g := greet(t, q, *h); g.verdict != verdictWelcome {
				t.Errorf("the first connection: %v", g.verdict)
			}
		}, verdictNotAccepted},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := accepting()
			h := helloTo(q)
			c.change(&h, q)
			s, g := greet(t, q, h)
			if g.verdict != c.want || g.token != (token{}) {
				t.Errorf("the verdict is %q with token %x, want %q and none", g.verdict, g.token, c.want)
			}
			s.ended()
		})
	}
}

func TestHandshakeHangsUpOnStrangers(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{})
	if err := q.Accept(strange.append(nil)); err != nil {
		t.Fatal(err)
	}
	deep := helloTo(q)
	deep.terms.depth = maxDepth + 1
	none := helloTo(q)
	none.terms.depth = 0
	for name, b := range map[string][]byte{
		"another protocol":               []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n    "),
		"more outstanding than allowed":  deep.append(nil),
		"nothing outstanding":            none.append(nil),
		"a greeting instead of a hello":  (&greeting{version: wireVersion, terms: q.terms()}).append(nil),
		"half a hello and then no more,": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := dialStranger(t, n.p)
			if b == nil {
				s.send(deep.append(nil)[:20])
				if err := s.conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			} else {
				s.send(b[:helloSize])
			}
			s.ended()
		})
	}
	if _, g := greet(t, q, helloTo(q)); g.verdict != verdictWelcome {
		t.Errorf("after them, the peer gets %q", g.verdict)
	}
}

// TestSilentStrangersAreBounded lets strangers take all places for handshakes
// and say nothing: the one who says hello gets through when their time is up.
func TestSilentStrangersAreBounded(t *testing.T) {
	n := newNode(t, Options{Handshakes: 2, HandshakeTimeout: 500 * time.Millisecond}, 64)
	var silent []*stranger
	for range 5 {
		silent = append(silent, dialStranger(t, n.p))
	}
	q := n.pair(t, rdma.QueuePairOptions{})
	newStranger(t, q)
	for _, s := range silent {
		s.ended()
	}
}

func TestProviderClosesWithHandshakes(t *testing.T) {
	p, err := Open(Options{Handshakes: 2, HandshakeTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var silent []*stranger
	for range 4 {
		silent = append(silent, dialStranger(t, p))
	}
	until(t, "two handshakes under way", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.greeting) == 2
	})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for _, s := range silent {
		s.ended()
	}
}

// impostor listens where a queue pair is said to be, and does with what connects
// what a test wants.
func impostor(t *testing.T, serve func(net.Conn)) address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return address{number: 9, token: token{9}, host: l.Addr().String()}
}

func TestConnectFails(t *testing.T) {
	n := newNode(t, Options{HandshakeTimeout: 200 * time.Millisecond}, 64)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	// hang keeps the connection open until the other side gives up.
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	answering := func(q *queuePair, g greeting) func(net.Conn) {
		return func(conn net.Conn) {
			if _, err := io.ReadFull(conn, make([]byte, helloSize)); err == nil {
				_, _ = conn.Write(g.append(nil))
				hang(conn)
			}
		}
	}
	good := func(q *queuePair) greeting {
		return greeting{version: wireVersion, token: q.self.token, terms: terms{1, time.Second}}
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		to   func(*testing.T, *queuePair) []byte
		want string
		is   error
	}{
		{"an address of another provider", nil, func(*testing.T, *queuePair) []byte { return []byte("shm:1234567890123456789012345") }, "not one of provider tcp", rdma.ErrInvalid},
		{"nobody listens", nil, func(t *testing.T, _ *queuePair) []byte {
			a := impostor(t, hang)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			a.host = l.Addr().String()
			l.Close()
			return a.append(nil)
		}, "refused", nil},
		{"a canceled context", canceled, func(t *testing.T, _ *queuePair) []byte { a := impostor(t, hang); return a.append(nil) }, "", context.Canceled},
		{"no answer", nil, func(t *testing.T, _ *queuePair) []byte { a := impostor(t, hang); return a.append(nil) }, "waiting for the peer's welcome", context.DeadlineExceeded},
		{"the peer hangs up", nil, func(t *testing.T, _ *queuePair) []byte {
			a := impostor(t, func(net.Conn) {})
			return a.append(nil)
		}, "", nil},
		{"another protocol", nil, func(t *testing.T, _ *queuePair) []byte {
			a := impostor(t, func(conn net.Conn) {
				_, _ = conn.Write([]byte(strings.Repeat("220 mail ready\r\n", 4)))
				hang(conn)
			})
			return a.append(nil)
		}, "does not answer as a queue pair", nil},
		{"a peer that does not know this queue pair", nil, func(t *testing.T, q *queuePair) []byte {
			g := good(q)
			g.token[0] ^= 1
			a := impostor(t, answering(q, g))
			return a.append(nil)
		}, "does not know this queue pair", nil},
		{"a peer of another version", nil, func(t *testing.T, q *queuePair) []byte {
			a := impostor(t, answering(q, greeting{version: 2, verdict: verdictVersion}))
			return a.append(nil)
		}, "another version", nil},
		{"not accepted", nil, func(t *testing.T, _ *queuePair) []byte {
			return n.pair(t, rdma.QueuePairOptions{}).Address()
		}, "has not accepted", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := n.pair(t, rdma.QueuePairOptions{Peer: "the peer"})
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			err := q.Connect(ctx, c.to(t, q))
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("Connect: %v, want %q, %v", err, c.want, c.is)
			}
			if q.Err() == nil {
				t.Error("the queue pair is not broken")
			}
			if _, err := q.Post([]rdma.WorkRequest{rdma.Read(0, rdma.Local{}, rdma.RemoteRegion{}, 0)}); !errors.Is(err, rdma.ErrBroken) {
				t.Errorf("Post: %v, want ErrBroken", err)
			}
		})
	}
}

// TestRevokeEndsConnect revokes while Connect waits for an answer.
func TestRevokeEndsConnect(t *testing.T) {
	n := newNode(t, Options{HandshakeTimeout: time.Hour}, 64)
	q := n.pair(t, rdma.QueuePairOptions{})
	a := impostor(t, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, helloSize)); err != nil {
			t.Error(err)
		}
		if err := q.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	if err := q.Connect(t.Context(), a.append(nil)); !errors.Is(err, rdma.ErrBroken) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("Connect of a revoked queue pair: %v, want ErrBroken", err)
	}
}

func TestConnectedOnlyOnce(t *testing.T) {
	_, _, x, y := couple(t, rdma.QueuePairOptions{}, 64)
	for name, err := range map[string]error{
		"Accept by the active end":   x.Accept(y.Address()),
		"Connect by the active end":  x.Connect(t.Context(), y.Address()),
		"Connect by the passive end": y.Connect(t.Context(), x.Address()),
		"a malformed address":        y.Accept([]byte("x")),
	} {
		if !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if x.Err() != nil || y.Err() != nil {
		t.Errorf("they broke: %v, %v", x.Err(), y.Err())
	}
}
