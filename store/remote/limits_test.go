package remote_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/remote"
)

// TestFullPipeline appends while the disk does not answer, until there is no
// room; then the disk does.
func TestFullPipeline(t *testing.T) {
	for name, o := range map[string]remote.Options{
		"batches": {MaxBatches: 3},
		"bytes":   {MaxBytes: 3400}, // three of them, with keys and lengths
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, remote.ServerOptions{})
			h.engine.stuck.Store(true)
			o.AppendWait = 10 * time.Millisecond
			e := h.member(1, 1, o)
			for range 3 {
				appendNumbered(t, e, 1, 1, 1000)
			}
			b := e.NewBatch()
			defer b.Release()
			b.Set(lastKey(1), []byte("4"))
			b.Set(keyOf(1, 4), make([]byte, 1000))
			_, err := e.Append(1, b)
			unavailable(t, err, false)
			if e.Appended() != 3 {
				t.Errorf("%d batches appended", e.Appended())
			}
			h.crash(0) // and with it the stuck disk
			h.start()
			waitDurable(t, e, 3)
			if n, err := e.Append(1, b); err != nil || n != 4 {
				t.Errorf("the same batch later: %d, %v", n, err)
			}
			waitDurable(t, e, 4)
			checkWorker(t, h, 1, 4)
		})
	}
}

// TestAppendWaitsForRoom: an append that finds the pipeline full goes on when
// there is room, and a batch larger than the pipeline passes alone.
func TestAppendWaitsForRoom(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	e := h.member(1, 1, remote.Options{MaxBytes: 2000, AppendWait: patience})
	for i := range 200 {
		appendNumbered(t, e, 1, 1, 100*(i%40))
	}
	waitDurable(t, e, 200)
	checkWorker(t, h, 1, 200)
}

func TestBatchLimits(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	e := h.member(1, 1, remote.Options{})
	large := e.NewBatch()
	defer large.Release()
	large.Set([]byte("k"), make([]byte, remote.MaxBatchBytes))
	_, err := e.Append(1, large)
	if base.KindOf(err) != base.TooLarge || base.KindOf(e.Apply(large)) != base.TooLarge {
		t.Errorf("a batch over the limit: %v", err)
	}
	full := e.NewBatch()
	defer full.Release()
	full.Set(lastKey(1), []byte("1"))
	const size = 16 << 20 // more than rpc's default message
	full.Set([]byte("large"), make([]byte, size))
	n, err := e.Append(1, full)
	if err != nil {
		t.Fatal(err)
	}
	waitDurable(t, e, n)
	if v, found, err := e.Get(nil, []byte("large")); err != nil || !found || len(v) != size {
		t.Errorf("a large value came back with %d bytes, %t, %v", len(v), found, err)
	}
	stranger := h.dial(remote.Options{})
	defer closeEngine(t, stranger)
	_, err = stranger.Append(1, e.NewBatch())
	if base.KindOf(err) != base.Invalid {
		t.Errorf("a commit without a member: %v", err)
	}
}

// TestDialRefusesWrongMembers needs no server.
func TestDialRefusesWrongMembers(t *testing.T) {
	for _, m := range []remote.Member{{Worker: 1}, {Incarnation: 1}, {Worker: remote.MaxWorker + 1, Incarnation: 1}} {
		if e, err := remote.Dial("127.0.0.1:1", remote.Options{Member: m}); base.KindOf(err) != base.Invalid {
			t.Errorf("%v: %v, %v", m, e, err)
		}
	}
}

// TestForbiddenKeys: workers do not write metadata through commits, and nobody
// writes what the store keeps for itself.
func TestForbiddenKeys(t *testing.T) {
	for name, test := range map[string]struct {
		write         func(b store.Batch)
		commit, apply bool
	}{
		"membership":          {func(b store.Batch) { b.Set(store.MetaKey("membership"), nil) }, false, true},
		"seal":                {func(b store.Batch) { b.Set(store.MetaKey("seal"), []byte("1234")) }, false, false},
		"applied":             {func(b store.Batch) { b.Delete(remote.AppliedKey(2)) }, false, false},
		"range over metadata": {func(b store.Batch) { b.DeleteRange([]byte("L"), []byte("Z")) }, false, false},
		"range up to it":      {func(b store.Batch) { b.DeleteRange([]byte("L"), []byte("M")) }, true, true},
		"range from seal on":  {func(b store.Batch) { b.DeleteRange(store.MetaKey("seal"), []byte("N")) }, false, false},
		"range behind seal":   {func(b store.Batch) { b.DeleteRange(store.MetaKey("seal2"), []byte("N")) }, false, true},
		"long key":            {func(b store.Batch) { b.Delete(make([]byte, remote.MaxKeyBytes+1)) }, false, false},
		"longest key":         {func(b store.Batch) { b.Delete(make([]byte, remote.MaxKeyBytes)) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, remote.ServerOptions{})
			r := newRefusals()
			o := r.options()
			o.Member = remote.Member{Worker: 1, Incarnation: 1}
			e := h.dial(o)
			b := e.NewBatch()
			test.write(b)
			if err := e.Apply(b); (err == nil) != test.apply || err != nil && base.KindOf(err) != base.Invalid {
				t.Errorf("apply: %v", err)
			}
			n, err := e.Append(1, b)
			if err != nil {
				t.Fatal(err)
			}
			if test.commit {
				waitDurable(t, e, n)
				closeEngine(t, e)
				return
			}
			if why := r.next(t); base.KindOf(why.Err) != base.Invalid {
				t.Errorf("refused with %+v", why)
			}
			if err := e.Close(); base.KindOf(err) != base.Unavailable {
				t.Errorf("close: %v", err)
			}
			if h.engine.accepted() != 0 {
				t.Error("the batch was applied")
			}
		})
	}
}

// stream opens a stream of commits by hand.
func stream(t *testing.T, h *host) grpc.BidiStreamingClient[rpcpb.StoreCommitRequest, rpcpb.StoreCommitReply] {
	t.Helper()
	conn, err := rpc.Dial(h.proxy.address, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() {
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := rpcpb.NewStoreClient(conn).Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hello(worker, incarnation uint32) *rpcpb.StoreCommitRequest {
	return &rpcpb.StoreCommitRequest{Request: &rpcpb.StoreCommitRequest_Hello{Hello: &rpcpb.StoreMember{Worker: worker, Incarnation: incarnation}}}
}

func frame(first uint64, view uint32, operations ...string) *rpcpb.StoreCommitRequest {
	f := &rpcpb.StoreFrame{First: first}
	for _, o := range operations {
		f.Batches = append(f.Batches, &rpcpb.StoreBatch{View: view, Operations: []byte(o)})
	}
	return &rpcpb.StoreCommitRequest{Request: &rpcpb.StoreCommitRequest_Frame{Frame: f}}
}

// setK sets key k to v.
const setK = "\x01\x01k\x01v"

// TestServerAgainstWrongClients sends what no client of ours would. The last
// answer says what was wrong, and nothing is applied beyond what was right.
func TestServerAgainstWrongClients(t *testing.T) {
	for name, test := range map[string]struct {
		requests []*rpcpb.StoreCommitRequest
		applied  base.Number
		word     string
	}{
		"nothing":             {[]*rpcpb.StoreCommitRequest{{}}, 0, "member"},
		"no hello":            {[]*rpcpb.StoreCommitRequest{frame(1, 1, setK)}, 0, "member"},
		"worker 0":            {[]*rpcpb.StoreCommitRequest{hello(0, 1)}, 0, "member"},
		"large worker":        {[]*rpcpb.StoreCommitRequest{hello(1<<16+1, 1)}, 0, "member"},
		"incarnation 0":       {[]*rpcpb.StoreCommitRequest{hello(1, 0)}, 0, "member"},
		"two hellos":          {[]*rpcpb.StoreCommitRequest{hello(1, 1), hello(1, 1)}, 0, "batch"},
		"gap at the start":    {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(2, 1, setK)}, 0, "batch"},
		"gap":                 {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(1, 1, setK, setK), frame(4, 1, setK)}, 2, "batch"},
		"number that wraps":   {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(1<<64-1, 1, setK, setK, setK)}, 0, "batch"},
		"unknown operation":   {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(1, 1, setK, "\x09\x01k")}, 1, "batch"},
		"half an operation":   {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(1, 1, setK+setK[:4])}, 0, "batch"},
		"range the wrong way": {[]*rpcpb.StoreCommitRequest{hello(1, 1), frame(1, 1, "\x03\x01b\x01a")}, 0, "batch"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, remote.ServerOptions{})
			s := stream(t, h)
			for _, request := range test.requests {
				if err := s.Send(request); err != nil {
					break // the answer has the reason
				}
			}
			var fault *rpcpb.Failure
			for {
				reply, err := s.Recv()
				if err != nil {
					break
				}
				if fault != nil {
					t.Errorf("%v after the fault", reply)
				}
				fault = reply.GetFault()
			}
			if fault.GetKind() != base.Invalid.String() || fault.GetSubject() != test.word {
				t.Errorf("the last answer was %v, want invalid-%s", fault, test.word)
			}
			if _, n, err := remote.ReadApplied(h.engine, 1); err != nil || n != test.applied {
				t.Errorf("the log ends with batch %d, %v; want %d", n, err, test.applied)
			}
		})
	}
}

// TestRepeatsAreAnswered sends batches twice and under old labels: a batch that
// was accepted is a repeat, whatever its label and the seal are now.
func TestRepeatsAreAnswered(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	s := stream(t, h)
	exchange := func(request *rpcpb.StoreCommitRequest) *rpcpb.StoreCommitReply {
		t.Helper()
		if err := s.Send(request); err != nil {
			t.Fatal(err)
		}
		reply, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if w := exchange(hello(1, 1)).GetWelcome(); w == nil || w.GetApplied() != 0 {
		t.Fatalf("welcome %v", w)
	}
	for range 3 {
		if a := exchange(frame(1, 1, setK)).GetAcknowledged(); a.GetDurable() != 1 {
			t.Errorf("acknowledged %v", a)
		}
		if err := h.engine.Seal(2); err != nil {
			t.Fatal(err)
		}
	}
	if r := exchange(frame(2, 1, setK, setK)).GetRefused(); r.GetNumber() != 2 || r.GetSeal() != 2 {
		t.Errorf("refused %v", r)
	}
	// Batch 3 is of the new view and yet not its turn: no answer, no fault.
	if err := s.Send(frame(3, 2, setK)); err != nil {
		t.Fatal(err)
	}
	a := exchange(frame(1, 2, setK, setK, setK)).GetAcknowledged()
	for a.GetDurable() == 1 { // the repeat may be answered before the rest is applied
		reply, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		a = reply.GetAcknowledged()
	}
	if a.GetDurable() != 3 {
		t.Errorf("acknowledged %v", a)
	}
	if h.engine.accepted() != 3 {
		t.Errorf("%d batches were applied, want 3", h.engine.accepted())
	}
}

// TestCallsOfStrangers: places of impossible members are refused, and a place
// that no worker has reached is waited for a bounded time.
func TestCallsOfStrangers(t *testing.T) {
	h := startHost(t, remote.ServerOptions{Wait: time.Millisecond})
	conn, err := rpc.Dial(h.proxy.address, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, test := range []struct {
		worker, incarnation uint32
		number              uint64
		want                base.Kind
	}{{1 << 20, 1, 0, base.Invalid}, {7, 0, 0, base.Invalid}, {7, 1, 1, base.Unavailable}} {
		after := &rpcpb.StorePlace{Member: &rpcpb.StoreMember{Worker: test.worker, Incarnation: test.incarnation}, Number: test.number}
		_, err := rpcpb.NewStoreClient(conn).Get(ctx, &rpcpb.StoreGetRequest{After: after, Key: []byte("k")})
		if base.KindOf(err) != test.want {
			t.Errorf("%v: %v, want %v", after, err, test.want)
		}
	}
}

// TestCallsWithoutServer end after CallTimeout.
func TestCallsWithoutServer(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	e := h.dial(remote.Options{CallTimeout: 50 * time.Millisecond})
	defer closeEngine(t, e)
	until(t, "the seal is set", func() bool { return e.Seal(3) == nil })
	h.stop()
	_, _, err := e.Get(nil, []byte("k"))
	err = errors.Join(err, e.Apply(e.NewBatch()))
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want two errors", err)
	}
	if e.Sealed() != 3 {
		t.Errorf("the seal is %d to the best of our knowledge, want 3", e.Sealed())
	}
}

// TestReplacedStreamAppliesNothing: what an older incarnation had under way when
// a newer one opened does not reach the log.
func TestReplacedStreamAppliesNothing(t *testing.T) {
	h := startHost(t, remote.ServerOptions{})
	open := func(incarnation uint32) grpc.BidiStreamingClient[rpcpb.StoreCommitRequest, rpcpb.StoreCommitReply] {
		s := stream(t, h)
		if err := s.Send(hello(1, incarnation)); err != nil {
			t.Fatal(err)
		}
		if reply, err := s.Recv(); err != nil || reply.GetWelcome() == nil {
			t.Fatalf("%v, %v", reply, err)
		}
		return s
	}
	old := open(1)
	open(2)
	if reply, err := old.Recv(); err != nil || reply.GetFault().GetKind() != base.Unavailable.String() {
		t.Errorf("the older one was told %v, %v", reply, err)
	}
	if err := errors.Join(old.Send(frame(1, 1, setK)), old.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if reply, err := old.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, %v", reply, err)
	}
	if i, n, err := remote.ReadApplied(h.engine, 1); err != nil || i != 2 || n != 0 || h.engine.accepted() != 0 {
		t.Errorf("the record says %d, %d, %v after %d batches", i, n, err, h.engine.accepted())
	}
}
