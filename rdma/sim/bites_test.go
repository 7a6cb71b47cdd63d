package sim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// These are the bites: each story is told by a user who guards against an
// adversity and by one who does not. The guarded one must be right under every
// seed, or the provider breaks the contract (or the guard is no guard). The
// other must be wrong under some seed, or the simulator has lost its teeth.

// manySeeds is enough for each fault to show many times.
const manySeeds = 200

// bites runs a story guarded and unguarded.
func bites(t *testing.T, story func(t *testing.T, seed uint64, guarded bool) (wrong bool)) {
	t.Helper()
	if n, first := seeds(t, manySeeds, func(t *testing.T, seed uint64) bool { return story(t, seed, true) }); n > 0 {
		t.Errorf("the guarded user was wrong under %d of %d seeds, first under seed %d", n, manySeeds, first)
	}
	n, first := seeds(t, manySeeds, func(t *testing.T, seed uint64) bool { return story(t, seed, false) })
	if n == 0 {
		t.Fatalf("the user without a guard was never wrong under %d seeds: the fault does not happen any more", manySeeds)
	}
	t.Logf("the user without a guard was wrong under %d of %d seeds, first under seed %d", n, manySeeds, first)
}

// A record of 64 bytes is written over and over while another node READs it. It
// has a checksum in its first 4 bytes; the rest is the same byte throughout.
func TestTornValueNeedsChecksum(t *testing.T) {
	const size, rounds = 64, 8
	fill := func(record []byte, version byte) {
		copy(record[4:], bytes.Repeat([]byte{version}, size-4))
		binary.LittleEndian.PutUint32(record, crc32.ChecksumIEEE(record[4:]))
	}
	whole := func(record []byte) bool {
		return binary.LittleEndian.Uint32(record) == crc32.ChecksumIEEE(record[4:])
	}
	bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{Delay: sim.Range{Min: us, Max: 10 * us}, Tear: 0.5}})
		writer, home, reader := open(t, f, "writer"), open(t, f, "home"), open(t, f, "reader")
		w, _ := join(writer, home, rdma.QueuePairOptions{})
		r, _ := join(reader, home, rdma.QueuePairOptions{})
		fill(home.memory.Bytes()[:size], 0)
		accepted := 0
		for version := range byte(rounds) {
			fill(writer.memory.Bytes()[:size], version+1)
			writer.post(w, rdma.Write(1, writer.memory.Local(0, size), home.memory.Remote(), 0))
			// The READ goes on its way while the WRITE does.
			if s := reader.do(r, rdma.Read(2, reader.memory.Local(0, size), home.memory.Remote(), 0)); s != rdma.StatusOK {
				t.Fatal(s)
			}
			got := bytes.Clone(reader.memory.Bytes()[:size])
			if !guarded || whole(got) {
				accepted++
				wrong = wrong || bytes.Count(got[4:], got[4:5]) != size-4
			}
			writer.next()
		}
		if accepted == 0 {
			t.Error("the reader got nothing in all rounds")
		}
		return wrong
	})
}

// A word is changed by CAS, from all zeros to all ones and back, while another
// node looks at it. A READ may find half of each; a CAS that cannot succeed finds
// one or the other.
func TestWordNeedsCASToBeRead(t *testing.T) {
	const never = 0x5555_5555_5555_5555
	bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{
			Delay: sim.Range{Min: us, Max: 10 * us}, Tear: 0.5, PartGap: sim.Range{Min: us, Max: 10 * us}, SplitAtomics: 0.3,
		}})
		writer, home, reader := open(t, f, "writer"), open(t, f, "home"), open(t, f, "reader")
		w, _ := join(writer, home, rdma.QueuePairOptions{})
		r, _ := join(reader, home, rdma.QueuePairOptions{})
		word := uint64(0)
		for range 8 {
			writer.post(w, rdma.CAS(1, writer.memory.Local(0, 8), home.memory.Remote(), 0, word, ^word))
			look := rdma.Read(2, reader.memory.Local(0, 8), home.memory.Remote(), 0)
			if guarded {
				look = rdma.CAS(2, reader.memory.Local(0, 8), home.memory.Remote(), 0, never, never)
			}
			reader.do(r, look)
			found := reader.memory.Load(0)
			wrong = wrong || found != 0 && found != 1<<64-1
			writer.next()
			word = ^word
		}
		return wrong
	})
}

// A writer stores a value and then counts it, in this order. A reader that READs
// the count and then the value must find the value that was counted.
func TestReorderedReadsNeedFence(t *testing.T) {
	const value, count = 0, 8
	type guard struct {
		name string
		read func(n *node, qp rdma.QueuePair, first, second rdma.WorkRequest)
	}
	guards := []guard{
		{"a fence between the READs", func(n *node, qp rdma.QueuePair, first, second rdma.WorkRequest) {
			second.Flags |= rdma.Fence
			n.post(qp, first, second)
			n.next()
			n.next()
		}},
		{"waiting for the first READ", func(n *node, qp rdma.QueuePair, first, second rdma.WorkRequest) {
			n.do(qp, first)
			n.do(qp, second)
		}},
	}
	none := func(n *node, qp rdma.QueuePair, first, second rdma.WorkRequest) {
		n.post(qp, first, second)
		n.next()
		n.next()
	}
	for _, guard := range guards {
		t.Run(guard.name, func(t *testing.T) {
			bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
				f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{Delay: sim.Range{Min: us, Max: 10 * us}, Reorder: 0.5}})
				writer, home, reader := open(t, f, "writer"), open(t, f, "home"), open(t, f, "reader")
				w, _ := join(writer, home, rdma.QueuePairOptions{})
				r, _ := join(reader, home, rdma.QueuePairOptions{})
				for i := range uint64(8) {
					writer.memory.Store(0, i+1)
					writer.post(w, rdma.Write(1, writer.memory.Local(0, 8), home.memory.Remote(), value),
						rdma.Write(2, writer.memory.Local(0, 8), home.memory.Remote(), count))
					read := none
					if guarded {
						read = guard.read
					}
					read(reader, r, rdma.Read(1, reader.memory.Local(0, 8), home.memory.Remote(), count),
						rdma.Read(2, reader.memory.Local(8, 8), home.memory.Remote(), value))
					wrong = wrong || reader.memory.Load(8) < reader.memory.Load(0)
					writer.next()
					writer.next()
				}
				return wrong
			})
		})
	}
}

// counter is a user who adds one to a word of another node by CAS, alone, so
// that what the word says at the end is how often it has done so.
type counter struct {
	user, home *node
	// near and far are the ends of the connection.
	near, far rdma.QueuePair
	// decide says, after a CAS from n to n+1 has ended with an unknown outcome and
	// the connection is new, whether it was done.
	decide func(c *counter, n uint64) bool
}

// reconnect has the home revoke the old end before there is a new one.
func (c *counter) reconnect(revoke bool) {
	c.user.t.Helper()
	if revoke {
		c.user.must(c.far.Revoke(context.Background()))
	}
	if c.near != nil {
		c.user.must(c.near.Close())
	}
	c.near, c.far = join(c.user, c.home, rdma.QueuePairOptions{Timeout: time.Millisecond})
}

func (c *counter) read() (n uint64, ok bool) {
	u := c.user
	status := u.do(c.near, rdma.Read(2, u.memory.Local(8, 8), c.home.memory.Remote(), 0))
	return u.memory.Load(8), status == rdma.StatusOK
}

// count adds one the given number of times.
func (c *counter) count(times int, revoke bool) {
	u := c.user
	var n uint64 // what the word is believed to be
	for done := 0; done < times; {
		status := u.do(c.near, rdma.CAS(1, u.memory.Local(0, 8), c.home.memory.Remote(), 0, n, n+1))
		switch found := u.memory.Load(0); {
		case status != rdma.StatusOK:
			c.reconnect(revoke)
			if c.decide(c, n) {
				done, n = done+1, n+1
			}
		case found == n:
			done, n = done+1, n+1
		default: // somebody else was faster, it seems
			n = found
		}
	}
}

// decideByReading READs the word until it gets an answer.
func decideByReading(revoke bool) func(c *counter, n uint64) bool {
	return func(c *counter, n uint64) bool {
		for {
			if now, ok := c.read(); ok {
				return now == n+1
			}
			c.reconnect(revoke)
		}
	}
}

// The reply of a CAS is lost. Whoever takes the error for "not done", or for
// "done", miscounts; whoever has the old end revoked and then READs does not.
// Reading alone does not do: the CAS may still be on its way.
func TestLostCASReplyIsDecidedByReading(t *testing.T) {
	const times = 5
	unguarded := []struct {
		name   string
		decide func(c *counter, n uint64) bool
	}{
		{"an error means not done", func(*counter, uint64) bool { return false }},
		{"an error means done", func(*counter, uint64) bool { return true }},
		{"reading without revocation", decideByReading(false)},
	}
	for _, other := range unguarded {
		t.Run(other.name, func(t *testing.T) {
			bites(t, func(t *testing.T, seed uint64, guarded bool) bool {
				f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{
					Delay: sim.Range{Min: us, Max: 10 * us}, LoseReply: 0.1, LoseRequest: 0.1,
					Late: 0.8, LateDelay: sim.Range{Min: us, Max: 30 * us},
				}})
				c := &counter{user: open(t, f, "user"), home: open(t, f, "home"), decide: other.decide}
				if guarded {
					c.decide = decideByReading(true)
				}
				c.reconnect(false)
				c.count(times, guarded)
				return c.home.memory.Load(0) != times
			})
		})
	}
}

// A worker WRITEs into a slot of its home and hears nothing. The home gives the
// slot to another use. Unless it has revoked the worker's end before, the WRITE
// may still land there.
func TestLateWriteNeedsRevocation(t *testing.T) {
	bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{LoseRequest: 0.2, Late: 0.5, LateDelay: sim.Range{Min: us, Max: time.Millisecond}}})
		worker, home := open(t, f, "worker"), open(t, f, "home")
		const old, fresh = 1, 2
		near, far := join(worker, home, rdma.QueuePairOptions{Timeout: time.Millisecond})
		for i := range 8 {
			worker.memory.Store(0, old)
			status := worker.do(near, rdma.Write(1, worker.memory.Local(0, 8), home.memory.Remote(), uint64(8*i)))
			if status == rdma.StatusOK {
				continue
			}
			if guarded {
				home.must(far.Revoke(context.Background()))
			}
			home.memory.Store(8*i, fresh)
			drain(f) // time passes
			wrong = wrong || home.memory.Load(8*i) != fresh
			worker.must(near.Close())
			near, far = join(worker, home, rdma.QueuePairOptions{Timeout: time.Millisecond})
		}
		return wrong
	})
}

// The same without luck: one WRITE is held on its way until after the
// revocation, which is the moment that the lease protocol is built on.
func TestHeldWriteComesToNothingAfterRevocation(t *testing.T) {
	for _, revoke := range []bool{true, false} {
		f := newFabric(t, sim.Options{})
		worker, home := open(t, f, "worker"), open(t, f, "home")
		near, far := join(worker, home, rdma.QueuePairOptions{Timeout: time.Millisecond})
		f.Script(sim.Rule{From: "worker", To: "home", Op: rdma.OpWrite, Fate: sim.Fate{Hold: "stale write"}})
		worker.memory.Store(0, 1)
		if s := worker.do(near, rdma.Write(1, worker.memory.Local(0, 8), home.memory.Remote(), 0)); s != rdma.StatusUnreachable {
			t.Fatalf("the held WRITE ended as %v", s)
		}
		want, released := uint64(1), 1
		if revoke {
			home.must(far.Revoke(context.Background()))
			want, released = 2, 0
		}
		home.memory.Store(0, 2)
		if got := f.Release("stale write"); got != released {
			t.Errorf("revoked %v: %d requests released, want %d", revoke, got, released)
		}
		drain(f)
		if got := home.memory.Load(0); got != want {
			t.Errorf("revoked %v: the slot is %d, want %d", revoke, got, want)
		}
		if f.Unspent() != 0 {
			t.Error("the rule has met no request")
		}
		if _, err := near.Post([]rdma.WorkRequest{{}}); !errors.Is(err, rdma.ErrBroken) {
			t.Errorf("posting on the broken end: %v", err)
		}
	}
}

// A WRITE has completed. The owner's processor sees it for certain only when a
// doorbell that was sent after it has come.
func TestDoneWriteIsSeenAfterDoorbell(t *testing.T) {
	bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{Delay: sim.Range{Min: us, Max: 10 * us}, EarlyAck: 0.3}})
		writer, home := open(t, f, "writer"), open(t, f, "home")
		w, _ := join(writer, home, rdma.QueuePairOptions{})
		for i := range uint64(8) {
			writer.memory.Store(0, i+1)
			writer.do(w, rdma.Write(1, writer.memory.Local(0, 8), home.memory.Remote(), 0))
			if guarded {
				writer.post(w, rdma.WriteImm(2, rdma.Local{}, rdma.RemoteRegion{}, 0, 0))
				if c := home.next(); c.Op != rdma.OpReceive {
					t.Fatalf("%+v is no doorbell", c)
				}
				writer.next()
			}
			wrong = wrong || home.memory.Load(0) != i+1
		}
		return wrong
	})
}

// Two count in one word: a peer by FAA, and its owner. The owner must do as the
// peer does, through a queue pair connected to itself: what it does by processor
// is lost between the load and the store of a device.
func TestOwnerCountsThroughItsDevice(t *testing.T) {
	bites(t, func(t *testing.T, seed uint64, guarded bool) (wrong bool) {
		f := newFabric(t, sim.Options{Seed: seed, Faults: sim.Faults{Delay: sim.Range{Min: us, Max: 10 * us}, SplitAtomics: 0.5}})
		peer, home := open(t, f, "peer"), open(t, f, "home")
		p, _ := join(peer, home, rdma.QueuePairOptions{})
		self, _ := join(home, home, rdma.QueuePairOptions{})
		const each = 8
		for range each {
			peer.post(p, rdma.FAA(1, peer.memory.Local(8, 8), home.memory.Remote(), 0, 1))
			f.RunUntil(f.Now() + 6*us) // it is somewhere on its way
			if guarded {
				home.do(self, rdma.FAA(1, home.memory.Local(8, 8), home.memory.Remote(), 0, 1))
			} else {
				home.memory.Store(0, home.memory.Load(0)+1)
			}
			peer.next()
		}
		return home.memory.Load(0) != 2*each
	})
}
