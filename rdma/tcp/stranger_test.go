package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// TestMalformedFramesBreakTheirConnection sends what no peer sends, while two
// READs and a WRITE are outstanding. Only that queue pair breaks.
func TestMalformedFramesBreakTheirConnection(t *testing.T) {
	n := newNode(t, Options{}, 4096)
	remote := n.r.Remote()
	read := frame(rdma.Read(0, rdma.Local{Length: 8}, remote, 0))
	reserved := append([]byte{read[0], 0, 1}, read[3:]...)
	other := n.pair(t, rdma.QueuePairOptions{})
	bystander := newStranger(t, other)
	for name, b := range map[string][]byte{
		"kind 0":                       make([]byte, 64),
		"kind RECEIVE":                 append([]byte{byte(rdma.OpReceive)}, read[1:]...),
		"kind 0xff":                    bytes.Repeat([]byte{0xff}, 64),
		"a byte that must be zero":     reserved,
		"READ with imm":                append(read[:20:20], 1, 0, 0, 0),
		"response with bytes not zero": {kindAck, 0, 0, 1, 1, 0, 0, 0},
		"ACK of nothing":               ack(0),
		"ACK of a READ":                ack(1),
		"DATA of another length":       data(make([]byte, 7)...),
		"DATA longer than it can be":   appendResponse(nil, response{kind: kindData, n: maxMessage + 1}),
		"DATA for a WRITE":             bytes.Join([][]byte{data(make([]byte, 8)...), data(make([]byte, 8)...), data()}, nil),
		"ACK of more than outstanding": bytes.Join([][]byte{data(make([]byte, 8)...), data(make([]byte, 8)...), ack(2)}, nil),
		"ERROR of our own":             failure(rdma.StatusUnreachable),
		"ERROR that is success":        failure(rdma.StatusOK),
	} {
		t.Run(name, func(t *testing.T) {
			q := n.pair(t, rdma.QueuePairOptions{})
			s := newStranger(t, q)
			post(t, q, rdma.Read(1, n.r.Local(0, 8), remote, 0), rdma.Read(2, n.r.Local(0, 8), remote, 0), rdma.Write(3, n.r.Local(0, 0), remote, 0))
			s.receive(3 * requestHeader)
			s.send(b)
			s.ended()
			status := rdma.StatusUnreachable
			for i, c := range n.wait(t, 3) {
				if c.ID != uint64(i+1) || c.Status != status && c.Status != rdma.StatusOK {
					t.Errorf("completion %d is of request %d: %v", i, c.ID, c.Status)
				}
				if c.Status == status {
					status = rdma.StatusFlushed
				}
			}
			if err := q.Err(); err == nil || !strings.Contains(err.Error(), "protocol") {
				t.Errorf("the queue pair broke for this reason: %v", err)
			}
		})
	}
	bystander.send(read)
	if got := bystander.receive(responseHeader + 8); got[0] != kindData {
		t.Errorf("another queue pair answers %x", got)
	}
}

// TestRefusedRequestAnswersThenEnds sends many requests behind one that is
// refused, more than fits into the socket's buffers with ease: the answer must
// arrive all the same, and nothing behind it be executed.
func TestRefusedRequestAnswersThenEnds(t *testing.T) {
	for name, c := range map[string]struct {
		bad  rdma.WorkRequest
		want rdma.Status
	}{
		"wrong key":      {rdma.WorkRequest{Op: rdma.OpRead, Local: rdma.Local{Length: 8}}, rdma.StatusRemoteAccess},
		"misaligned FAA": {rdma.WorkRequest{Op: rdma.OpFAA, Local: rdma.Local{Length: 8}, RemoteAddr: 4}, rdma.StatusRemoteInvalid},
		"too long WRITE": {rdma.WorkRequest{Op: rdma.OpWrite, Local: rdma.Local{Length: maxMessage + 1}}, rdma.StatusRemoteInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Options{}, 4096)
			q := n.pair(t, rdma.QueuePairOptions{})
			s := newStranger(t, q)
			good := frame(rdma.Write(0, rdma.Local{Length: 1}, n.r.Remote(), 0), 1)
			s.send(append(good, frame(c.bad)...))
			behind := frame(rdma.Write(0, rdma.Local{Length: copyMax}, n.r.Remote(), 0), bytes.Repeat([]byte{2}, copyMax)...)
			for range 64 {
				s.send(behind)
			}
			if got, want := s.receive(2*responseHeader), append(ack(1), failure(c.want)...); !bytes.Equal(got, want) {
				t.Errorf("answers %x, want %x", got, want)
			}
			if err := s.conn.Close(); err != nil {
				t.Fatal(err)
			}
			if err := q.Revoke(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b := n.r.Bytes(); b[0] != 1 || b[1] != 0 {
				t.Errorf("the memory begins with %x, want only what came before", b[:2])
			}
			if err := q.Err(); !errors.Is(err, c.want) {
				t.Errorf("the queue pair broke as %v, want %v", err, c.want)
			}
		})
	}
}

// TestTooManyOutstandingRequests floods a queue pair with READs and reads no
// answer. What must be kept for the flood is bounded, so the connection ends.
func TestTooManyOutstandingRequests(t *testing.T) {
	n := newNode(t, Options{}, copyMax)
	q := n.pair(t, rdma.QueuePairOptions{})
	s := newStranger(t, q)
	read := bytes.Repeat(frame(rdma.Read(0, rdma.Local{Length: copyMax}, n.r.Remote(), 0)), 64)
	until(t, "the flood is stopped", func() bool {
		_, err := s.conn.Write(read)
		return err != nil || q.Err() != nil
	})
	until(t, "the queue pair breaks", func() bool { return q.Err() != nil })
	if err := q.Err(); !strings.Contains(err.Error(), "more than the 128") {
		t.Errorf("it broke as %v", err)
	}
}

// TestRevokeStopsALongWrite revokes in the middle of a payload that is read
// straight into the region.
func TestRevokeStopsALongWrite(t *testing.T) {
	const size = 1 << 20
	n := newNode(t, Options{}, size)
	for name, end := range map[string]func(*queuePair) error{
		"Revoke": func(q *queuePair) error { return q.Revoke(t.Context()) },
		"Close":  (*queuePair).Close,
	} {
		t.Run(name, func(t *testing.T) {
			clear(n.r.Bytes())
			q := n.pair(t, rdma.QueuePairOptions{})
			s := newStranger(t, q)
			half := bytes.Repeat([]byte{1}, size/2)
			s.send(frame(rdma.Write(0, rdma.Local{Length: size}, n.r.Remote(), 0), half...))
			until(t, "half of the payload arrives", func() bool { return n.r.Load(size/2-8) != 0 })
			if err := end(q); err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(n.r.Bytes())
			for range 4 {
				if _, err := s.conn.Write(half); err != nil {
					break
				}
			}
			s.conn.Close()
			if !bytes.Equal(n.r.Bytes(), before) || before[size/2] != 0 {
				t.Error("the memory changed after it was revoked")
			}
		})
	}
}

// TestPeerThatDoesNotRead posts more than the sockets hold to a peer that reads
// nothing: Post takes what the queue holds, at once, and the rest times out.
func TestPeerThatDoesNotRead(t *testing.T) {
	const size, depth = 8 << 20, 8
	n := newNode(t, Options{}, size)
	q := n.pair(t, rdma.QueuePairOptions{SendDepth: depth, Timeout: 100 * time.Millisecond})
	newStranger(t, q)
	var requests []rdma.WorkRequest
	for i := range depth + 1 {
		requests = append(requests, rdma.Write(uint64(i), n.r.Local(0, size), rdma.RemoteRegion{}, 0))
	}
	if taken, err := q.Post(requests); taken != depth || !errors.Is(err, rdma.ErrQueueFull) {
		t.Fatalf("%d requests taken, %v; want %d and ErrQueueFull", taken, err, depth)
	}
	want := []rdma.Status{rdma.StatusUnreachable}
	for len(want) < depth {
		want = append(want, rdma.StatusFlushed)
	}
	n.statuses(t, 0, want...)
	if taken, err := q.Post(requests[:1]); taken != 0 || !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("then %d requests taken, %v; want ErrBroken", taken, err)
	}
}

// TestPeerThatDoesNotAnswer reads all and answers nothing.
func TestPeerThatDoesNotAnswer(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: 50 * time.Millisecond})
	s := newStranger(t, q)
	post(t, q, rdma.FAA(5, n.r.Local(0, 8), rdma.RemoteRegion{}, 0, 1), rdma.FAA(6, n.r.Local(0, 8), rdma.RemoteRegion{}, 0, 1))
	s.receive(2 * (requestHeader + 8))
	n.statuses(t, 5, rdma.StatusUnreachable, rdma.StatusFlushed)
	if err := q.Err(); !strings.Contains(err.Error(), "no answer for 50ms") {
		t.Errorf("it broke as %v", err)
	}
	s.ended()
}

// TestPeerThatNeverConnects: what was posted after Accept times out.
func TestPeerThatNeverConnects(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: 50 * time.Millisecond})
	if err := q.Accept(strange.append(nil)); err != nil {
		t.Fatal(err)
	}
	post(t, q, rdma.Read(1, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
	n.statuses(t, 1, rdma.StatusUnreachable)
}

// TestPeerThatDies ends the connection while requests are outstanding, long
// before the timeout.
func TestPeerThatDies(t *testing.T) {
	for name, die := range map[string]func(*stranger) error{
		"FIN": func(s *stranger) error { return s.conn.Close() },
		"RST": func(s *stranger) error {
			return errors.Join(s.conn.(interface{ SetLinger(int) error }).SetLinger(0), s.conn.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Options{}, 64)
			q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
			s := newStranger(t, q)
			requests := make([]rdma.WorkRequest, 4)
			for i := range requests {
				requests[i] = rdma.Read(uint64(i), n.r.Local(0, 8), rdma.RemoteRegion{}, 0)
			}
			post(t, q, requests...)
			s.receive(4 * requestHeader)
			s.send(data(words(3)...))
			n.statuses(t, 0, rdma.StatusOK)
			if err := die(s); err != nil {
				t.Fatal(err)
			}
			n.statuses(t, 1, rdma.StatusUnreachable, rdma.StatusFlushed, rdma.StatusFlushed)
		})
	}
}

// TestPeerThatAnswersAndDies ends the connection in the same moment in which it
// answers the first of two requests.
func TestPeerThatAnswersAndDies(t *testing.T) {
	n := newNode(t, Options{}, 64)
	for range 200 {
		q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
		s := newStranger(t, q)
		read := rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0)
		post(t, q, read, rdma.Read(1, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
		s.receive(2 * requestHeader)
		s.send(data(words(3)...))
		if err := s.conn.Close(); err != nil {
			t.Fatal(err)
		}
		n.statuses(t, 0, rdma.StatusOK, rdma.StatusUnreachable)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriteFails: the reader learns of a connection that cannot be written to
// even if the poller does not tell it.
func TestWriteFails(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
	newStranger(t, q)
	until(t, "the link", func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.lead != nil })
	if err := q.lead.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	post(t, q, rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
	n.statuses(t, 0, rdma.StatusUnreachable)
}

// TestFlushWaitsForTheReader: as long as the reader may touch local memory, no
// request ends because of a break.
func TestFlushWaitsForTheReader(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
	s := newStranger(t, q)
	post(t, q, rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
	s.receive(requestHeader)
	q.mu.Lock() // keeps the reader from leaving
	if q.lead == nil {
		t.Error("there is no reader")
	}
	q.breakLocked(rdma.StatusFlushed, errRevoked)
	if q.sends.Len() != 1 {
		t.Error("the READ has ended while there is a reader")
	}
	q.unlock()
	n.statuses(t, 0, rdma.StatusFlushed)
}

// TestRevokeEndsLingering revokes before the reader has begun to linger after a
// refused request: it must not begin.
func TestRevokeEndsLingering(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
	s := newStranger(t, q)
	s.send(frame(rdma.Read(0, rdma.Local{}, rdma.RemoteRegion{}, 0)))
	s.receive(responseHeader)
	until(t, "the reader has answered and sleeps", func() bool {
		if q.mu.Lock(); !q.out.busy {
			return true // and keeps the latch, which the reader needs to refuse
		}
		q.mu.Unlock()
		return false
	})
	before := q.progress.Load()
	s.send(frame(rdma.Read(0, rdma.Local{Length: 8}, rdma.RemoteRegion{}, 0)))
	until(t, "the reader has the request", func() bool { return q.progress.Load() > before })
	q.breakLocked(rdma.StatusFlushed, errRevoked)
	q.unlock()
	if err := q.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLastWord: a peer that answers with an error and is gone in the same moment
// is understood, also by who only writes to it.
func TestLastWord(t *testing.T) {
	for range 50 {
		n := newNode(t, Options{}, 64)
		q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
		s := newStranger(t, q)
		post(t, q, rdma.Read(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
		s.receive(requestHeader)
		s.send(failure(rdma.StatusRemoteAccess))
		if err := s.conn.Close(); err != nil {
			t.Fatal(err)
		}
		n.statuses(t, 0, rdma.StatusRemoteAccess)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFenceHoldsBackBehindLongReads sees on the wire what a Fence does: nothing
// behind a short READ, which the peer does in order, and a wait behind a long
// one. Inline payloads that wait are kept.
func TestFenceHoldsBackBehindLongReads(t *testing.T) {
	const long = copyMax + 1
	n := newNode(t, Options{}, 2*long)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
	s := newStranger(t, q)
	var remote rdma.RemoteRegion
	fenced := rdma.Write(0, n.r.Local(long, 8), remote, 0)
	fenced.Flags |= rdma.Fence | rdma.Inline
	with := func(w rdma.WorkRequest, id uint64) rdma.WorkRequest { w.ID = id; return w }
	copy(n.r.Bytes()[long:], "inline 1")

	post(t, q, rdma.Read(0, n.r.Local(0, 8), remote, 0), with(fenced, 1))
	s.receive(requestHeader + requestHeader + 8)
	s.send(append(data(words(1)...), ack(1)...))
	n.statuses(t, 0, rdma.StatusOK, rdma.StatusOK)

	post(t, q, rdma.Read(2, n.r.Local(0, long), remote, 0), rdma.Read(3, n.r.Local(0, long), remote, 0), with(fenced, 4), rdma.Read(5, n.r.Local(0, long), remote, 0), with(fenced, 6))
	copy(n.r.Bytes()[long:], "scribble")
	s.receive(2 * requestHeader)
	held := func() (int, uint64) { q.mu.Lock(); defer q.mu.Unlock(); return len(q.held), q.encoded }
	if h, e := held(); h != 3 || e != 4 {
		t.Errorf("%d requests are held back, %d encoded, want 3 and 4", h, e)
	}
	s.send(data(make([]byte, long)...))
	n.statuses(t, 2, rdma.StatusOK)
	if h, _ := held(); h != 3 {
		t.Errorf("after the first of two long READs %d requests are held back, want 3", h)
	}
	s.send(data(make([]byte, long)...))
	n.statuses(t, 3, rdma.StatusOK)
	got := s.receive(requestHeader + 8 + requestHeader)
	if string(got[requestHeader:requestHeader+8]) != "inline 1" || got[requestHeader+8] != byte(rdma.OpRead) {
		t.Errorf("then comes %x, want a WRITE of %x and a READ", got, "inline 1")
	}
	if h, _ := held(); h != 1 {
		t.Errorf("%d requests are held back, want 1", h)
	}
	s.send(append(ack(1), data(make([]byte, long)...)...))
	n.statuses(t, 4, rdma.StatusOK, rdma.StatusOK)
	s.receive(requestHeader + 8)
	s.send(ack(1))
	n.statuses(t, 6, rdma.StatusOK)
}

// TestLocalMemoryGone: requests whose local memory is not there fail as
// StatusLocal in their turn, those before them are done, nothing after them is
// sent.
func TestLocalMemoryGone(t *testing.T) {
	const size = 16 << 20
	for name, c := range map[string]struct {
		// requests on a region that is closed after they were posted.
		closed func(rdma.Region) []rdma.WorkRequest
		// answers are what the stranger says to the first.
		answers []byte
	}{
		"WRITE with a wrong key": {func(r rdma.Region) []rdma.WorkRequest {
			bad := rdma.Write(1, r.Local(0, 8), rdma.RemoteRegion{}, 0)
			bad.Local.LKey++
			return []rdma.WorkRequest{bad}
		}, ack(1)},
		"CAS into a closed region": {func(r rdma.Region) []rdma.WorkRequest {
			return []rdma.WorkRequest{rdma.CAS(1, r.Local(0, 8), rdma.RemoteRegion{}, 0, 0, 0)}
		}, append(ack(1), data(words(1)...)...)},
		"READ into a closed region": {func(r rdma.Region) []rdma.WorkRequest {
			return []rdma.WorkRequest{rdma.Read(1, r.Local(0, 16), rdma.RemoteRegion{}, 0)}
		}, append(ack(1), data(words(1, 2)...)...)},
		"long READ into a closed region": {func(r rdma.Region) []rdma.WorkRequest {
			return []rdma.WorkRequest{rdma.Read(1, r.Local(0, size), rdma.RemoteRegion{}, 0)}
		}, append(append(ack(1), appendResponse(nil, response{kind: kindData, n: size})...), make([]byte, 2*inputSize)...)},
		"WRITE from a region that is closed while it waits for the socket": {func(r rdma.Region) []rdma.WorkRequest {
			return []rdma.WorkRequest{rdma.Write(1, r.Local(0, size), rdma.RemoteRegion{}, 0)}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Options{}, 64)
			q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
			s := newStranger(t, q)
			r, err := n.p.Register(size)
			if err != nil {
				t.Fatal(err)
			}
			post(t, q, append([]rdma.WorkRequest{rdma.Write(0, n.r.Local(0, 8), rdma.RemoteRegion{}, 0)}, c.closed(r)...)...)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			post(t, q, rdma.Read(2, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
			if c.answers == nil {
				// It takes what was in the socket and so makes room for more.
				s.send(ack(1))
				until(t, "the connection ends", func() bool {
					_, err := s.conn.Read(make([]byte, 1<<20))
					return err != nil
				})
			} else {
				s.send(c.answers)
			}
			n.statuses(t, 0, rdma.StatusOK, rdma.StatusLocal, rdma.StatusFlushed)
		})
	}
}

// TestWrongLocalMemoryAlone fails at once if nothing is outstanding.
func TestWrongLocalMemoryAlone(t *testing.T) {
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
	newStranger(t, q)
	post(t, q, rdma.Write(0, n.r.Local(60, 8), rdma.RemoteRegion{}, 0), rdma.Read(1, n.r.Local(0, 8), rdma.RemoteRegion{}, 0))
	n.statuses(t, 0, rdma.StatusLocal, rdma.StatusFlushed)
}

// TestRegionClosedUnderLongRead closes a region of which a peer has read a part.
func TestRegionClosedUnderLongRead(t *testing.T) {
	const size = 16 << 20
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{})
	s := newStranger(t, q)
	r, err := n.p.Register(size)
	if err != nil {
		t.Fatal(err)
	}
	s.send(frame(rdma.Read(0, rdma.Local{Length: size}, r.Remote(), 0)))
	if got := s.receive(responseHeader); got[0] != kindData || binary.LittleEndian.Uint32(got[4:]) != size {
		t.Fatalf("the answer begins with %x", got)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the connection ends", func() bool {
		_, err := s.conn.Read(make([]byte, 1<<20))
		return err != nil
	})
	if err := q.Err(); err == nil || !strings.Contains(err.Error(), "closed while the peer was reading") {
		t.Errorf("it broke as %v", err)
	}
}

// TestRegionClosedUnderLongWrite closes a region into which a peer has written a
// part of a WRITE. The owner has seen that part, so the peer must not be told that
// nothing was done.
func TestRegionClosedUnderLongWrite(t *testing.T) {
	const size = 1 << 20
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{})
	s := newStranger(t, q)
	r, err := n.p.Register(size)
	if err != nil {
		t.Fatal(err)
	}
	s.send(frame(rdma.Write(0, rdma.Local{Length: size}, r.Remote(), 0), bytes.Repeat([]byte{1}, size/2)...))
	until(t, "half of it has arrived", func() bool { return r.Load(size/2-8) != 0 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s.send(bytes.Repeat([]byte{1}, 4096))
	if got, want := s.receive(responseHeader), failure(rdma.StatusRemoteOperation); !bytes.Equal(got, want) {
		t.Errorf("the answer is %x (%v), want %x", got, rdma.Status(got[1]), want)
	}
}

// TestPostingIsNoAnswer posts one small WRITE after the other to a peer that
// reads nothing. That the socket takes them is no sign of life.
func TestPostingIsNoAnswer(t *testing.T) {
	const depth = 1000
	n := newNode(t, Options{}, 64)
	q := n.pair(t, rdma.QueuePairOptions{SendDepth: depth, Timeout: 100 * time.Millisecond})
	newStranger(t, q)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	posted := 0
	for ; q.Err() == nil; <-pace.C {
		_, err := q.Post([]rdma.WorkRequest{rdma.Write(uint64(posted), n.r.Local(0, 8), rdma.RemoteRegion{}, 0)})
		switch {
		case err == nil:
			posted++
		case !errors.Is(err, rdma.ErrBroken):
			t.Fatalf("%d requests are outstanding, and the queue pair is not broken: %v", posted, err)
		}
	}
	want := []rdma.Status{rdma.StatusUnreachable}
	for len(want) < posted {
		want = append(want, rdma.StatusFlushed)
	}
	n.statuses(t, 0, want...)
}

// TestFramesBeforeALostPayload closes the region of a payload before it is
// written, together with frames that come before it and must leave all the same:
// requests, or answers to the peer.
func TestFramesBeforeALostPayload(t *testing.T) {
	const size = 2 * copyMax
	n := newNode(t, Options{}, 64)
	n.r.Store(0, 42)
	first := rdma.Write(0, n.r.Local(0, 8), n.r.Remote(), 8)
	lost := func(t *testing.T) rdma.Region {
		r, err := n.p.Register(size)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("requests", func(t *testing.T) {
		r := lost(t)
		q := n.pair(t, rdma.QueuePairOptions{Timeout: time.Hour})
		if err := q.Accept(strange.append(nil)); err != nil {
			t.Fatal(err)
		}
		// They wait for the peer, in one batch.
		post(t, q, first, rdma.Write(1, r.Local(0, size), n.r.Remote(), 0), rdma.Read(2, n.r.Local(0, 8), n.r.Remote(), 0))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s, _ := greet(t, q, helloTo(q))
		if got, want := s.receive(requestHeader+8), frame(first, words(42)...); !bytes.Equal(got, want) {
			t.Errorf("the peer gets %x, want %x", got, want)
		}
		s.send(ack(1))
		s.ended()
		n.statuses(t, 0, rdma.StatusOK, rdma.StatusLocal, rdma.StatusFlushed)
	})
	t.Run("answers", func(t *testing.T) {
		r := lost(t)
		out := &outbox{now: batch{bytes: append(ack(3), appendResponse(nil, response{kind: kindData, n: size})...)}}
		out.now.bodies = []body{{at: len(out.now.bytes), key: r.Remote().RKey, addr: r.Remote().Addr, length: size}}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, outcome, gone := out.write(int(to.Fd()), &n.p.regions)
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(from)
		if err := errors.Join(err, from.Close()); err != nil {
			t.Fatal(err)
		}
		if outcome != writtenNone || gone != &out.now.bodies[0] || !bytes.Equal(got, ack(3)) {
			t.Errorf("outcome %v, %x was written, want none and %x", outcome, got, ack(3))
		}
	})
}
