package sim_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// pairOf is two connected nodes.
func pairOf(t *testing.T, options sim.Options, qp rdma.QueuePairOptions) (f *sim.Fabric, a, b *node, x, y rdma.QueuePair) {
	f = newFabric(t, options)
	a, b = open(t, f, "a"), open(t, f, "b")
	x, y = join(a, b, qp)
	return f, a, b, x, y
}

// The story of a lost reply, as the trace tells it.
func TestTraceTellsTheStory(t *testing.T) {
	f, a, b, x, y := pairOf(t, sim.Options{TraceLength: 12}, rdma.QueuePairOptions{Timeout: 10 * us})
	f.Script(sim.Rule{From: "a", To: "b", Op: rdma.OpCAS, Skip: 1, Fate: sim.Fate{LoseReply: true}})
	for i := range uint64(2) {
		a.post(x, rdma.CAS(i, a.memory.Local(0, 8), b.memory.Remote(), 0, i, i+1))
	}
	drain(f)
	b.must(y.Revoke(context.Background()))
	want := []string{
		"          0s b/1 accept",
		"          0s a/1 > b connect",
		"          0s a/1 > b #1 CAS post 8 bytes at 0x200000000",
		"          0s a/1 > b #2 CAS post 8 bytes at 0x200000000",
		"         1µs a/1 > b #1 CAS executes found 0x0",
		"         1µs a/1 > b #2 CAS executes found 0x1",
		"         1µs a/1 > b #2 CAS reply lost",
		"         2µs a/1 > b #1 CAS reply",
		"        12µs a/1 > b time-out",
		"        12µs a/1 > b broken",
		"        12µs b/1 > a revoke",
		"        12µs b/1 > a broken",
	}
	if got := strings.Join(f.Trace(), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the trace is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if got := statuses(a.poll()); got != "0:done 1:unknown " {
		t.Errorf("completions %s", got)
	}
}

// Rules pass by what they do not match, and each meets its number of requests.
func TestRulesMatch(t *testing.T) {
	lose := sim.Fate{Status: rdma.StatusFatal}
	for _, tt := range []struct {
		name string
		rule sim.Rule
		want string // outcome by request, the first that is lost ends the queue pair
	}{
		{"any", sim.Rule{Fate: lose}, "1:unknown 2:unknown 3:unknown "},
		{"opcode", sim.Rule{Op: rdma.OpRead, Fate: lose}, "1:done 2:unknown 3:unknown "},
		{"id", sim.Rule{ID: 3, Fate: lose}, "1:done 2:done 3:unknown "},
		{"skip", sim.Rule{Skip: 1, Fate: lose}, "1:done 2:unknown 3:unknown "},
		{"from another", sim.Rule{From: "b", Fate: lose}, "1:done 2:done 3:done "},
		{"to another", sim.Rule{To: "a", Fate: lose}, "1:done 2:done 3:done "},
		{"skips more than there are", sim.Rule{From: "a", To: "b", Skip: 3, Fate: lose}, "1:done 2:done 3:done "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
			f.Script(tt.rule)
			a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0),
				rdma.Read(2, a.memory.Local(0, 8), b.memory.Remote(), 0),
				rdma.Write(3, a.memory.Local(0, 8), b.memory.Remote(), 0))
			drain(f)
			if got := statuses(a.poll()); got != tt.want {
				t.Errorf("outcomes %s, want %s", got, tt.want)
			}
			if spent := f.Unspent() == 0; spent != strings.Contains(tt.want, "unknown") {
				t.Errorf("the rule is spent: %v", spent)
			}
		})
	}
}

// Fates that are not failures: cut, acked early, split, late.
func TestScriptedFates(t *testing.T) {
	ten := 10 * us
	word := func(n *node) uint64 { return n.memory.Load(0) }
	for _, tt := range []struct {
		name string
		fate sim.Fate
		w    func(a, b *node) rdma.WorkRequest
		// at are times and what the word is then.
		at map[time.Duration]uint64
	}{
		{"cut", sim.Fate{Cut: 4, Gap: ten}, func(a, b *node) rdma.WorkRequest {
			return rdma.Write(1, a.memory.Local(0, 16), b.memory.Remote(), 0)
		}, map[time.Duration]uint64{5 * us: 0xffffffff << 32, 15 * us: 1<<64 - 1}},
		{"early ack", sim.Fate{EarlyAck: true, Gap: ten}, func(a, b *node) rdma.WorkRequest {
			return rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0)
		}, map[time.Duration]uint64{5 * us: 0, 15 * us: 1<<64 - 1}},
		{"split FAA", sim.Fate{Split: true, Gap: ten}, func(a, b *node) rdma.WorkRequest {
			return rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 5)
		}, map[time.Duration]uint64{5 * us: 0, 15 * us: 5}},
		{"delay", sim.Fate{Delay: ten}, func(a, b *node) rdma.WorkRequest {
			return rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 5)
		}, map[time.Duration]uint64{5 * us: 0, 15 * us: 5}},
		{"lost", sim.Fate{LoseRequest: true}, func(a, b *node) rdma.WorkRequest {
			return rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 5)
		}, map[time.Duration]uint64{5 * us: 0, 15 * us: 0, time.Second: 0}},
		{"late", sim.Fate{LoseRequest: true, Late: true}, func(a, b *node) rdma.WorkRequest {
			return rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 5)
		}, map[time.Duration]uint64{5 * us: 0, 15 * us: 0, time.Second: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
			for at := 0; at < 16; at += 8 {
				a.memory.Store(at, 1<<64-1)
			}
			f.Script(sim.Rule{Fate: tt.fate})
			a.post(x, tt.w(a, b))
			for _, at := range []time.Duration{5 * us, 15 * us, time.Second} {
				want, ok := tt.at[at]
				if f.RunUntil(at); ok && word(b) != want {
					t.Errorf("at %v the word is %#x, want %#x", at, word(b), want)
				}
			}
			if acked := len(a.poll()) == 1; !acked {
				t.Error("the request has not completed")
			}
		})
	}
}

// A CAS waits for a split CAS of the same word; a READ of it does not.
func TestSplitAtomicIsAtomicAmongAtomics(t *testing.T) {
	f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	c := open(t, f, "c")
	z, _ := join(c, b, rdma.QueuePairOptions{})
	f.Script(sim.Rule{From: "a", Fate: sim.Fate{Split: true, Gap: 50 * us}})
	a.post(x, rdma.CAS(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 0, 1))
	f.RunUntil(10 * us)
	c.post(z, rdma.Read(1, c.memory.Local(8, 8), b.memory.Remote(), 0), rdma.CAS(2, c.memory.Local(0, 8), b.memory.Remote(), 0, 0, 2))
	drain(f)
	if found, read, word := c.memory.Load(0), c.memory.Load(8), b.memory.Load(0); found != 1 || read != 0 || word != 1 {
		t.Errorf("the second CAS found %d, the READ %d, the word is %d: want 1, 0 and 1", found, read, word)
	}
}

// When a WRITE comes to nothing, so does all behind it, whether it was posted
// before or after that; behind a READ, only what is fenced.
func TestNothingFollowsWhatCameToNothing(t *testing.T) {
	for _, tt := range []struct {
		op    rdma.Opcode
		flags rdma.Flags
		want  byte
	}{
		{rdma.OpWrite, 0, 0},
		{rdma.OpWrite, rdma.Fence, 0},
		{rdma.OpRead, 0, 1},
		{rdma.OpRead, rdma.Fence, 0},
	} {
		t.Run(fmt.Sprintf("%v, then flags %d", tt.op, tt.flags), func(t *testing.T) {
			f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
			// The answer takes long, so that more can be posted meanwhile.
			f.Script(sim.Rule{Fate: sim.Fate{Status: rdma.StatusRemoteAccess, ReplyDelay: 100 * us}})
			remote := b.memory.Remote()
			a.post(x, rdma.WorkRequest{Op: tt.op, Local: a.memory.Local(100, 8), RemoteAddr: remote.At(100), RKey: remote.RKey})
			for at := range 2 {
				a.memory.Bytes()[at] = 1
				w := rdma.Write(uint64(at), a.memory.Local(at, 1), remote, uint64(at))
				w.Flags |= tt.flags
				a.post(x, w)
				f.RunUntil(f.Now() + 20*us)
			}
			drain(f)
			if got := b.memory.Bytes(); got[0] != tt.want || got[1] != tt.want {
				t.Errorf("the WRITEs left %d and %d, want %d", got[0], got[1], tt.want)
			}
		})
	}
}

// A WRITE whose completion was given before its bytes were in place is in place
// when Revoke returns.
func TestRevokePutsInPlaceWhatIsDone(t *testing.T) {
	f, a, b, x, y := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	f.Script(sim.Rule{Fate: sim.Fate{EarlyAck: true, Gap: time.Second}})
	a.memory.Store(0, 5)
	if s := a.do(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0)); s != rdma.StatusOK || b.memory.Load(0) != 0 {
		t.Fatalf("the WRITE ended as %v, the word is %d", s, b.memory.Load(0))
	}
	b.must(y.Revoke(context.Background()))
	if w := b.memory.Load(0); w != 5 {
		t.Errorf("the word is %d", w)
	}
	b.memory.Store(0, 6)
	drain(f)
	if w := b.memory.Load(0); w != 6 {
		t.Errorf("the word is %d long after the revocation", w)
	}
}

// A WRITE that was acked early into a region which is closed before its bytes
// come is done, and no harm to what follows.
func TestEarlyAckIntoAClosedRegion(t *testing.T) {
	f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	other, err := b.p.Register(64)
	b.must(err)
	f.Script(sim.Rule{Op: rdma.OpWrite, Fate: sim.Fate{EarlyAck: true, Gap: 50 * us}})
	if s := a.do(x, rdma.Write(1, a.memory.Local(0, 8), other.Remote(), 0)); s != rdma.StatusOK {
		t.Fatal(s)
	}
	b.must(other.Close())
	if s := a.do(x, rdma.Read(2, a.memory.Local(0, 8), b.memory.Remote(), 0)); s != rdma.StatusOK {
		t.Errorf("a READ of another region ended as %v", s)
	}
}

// A split atomic that has loaded stores, even if the end that it came to breaks
// meanwhile: others wait for the word.
func TestSplitAtomicEndsOnABrokenEnd(t *testing.T) {
	f, a, b, x, y := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	c := open(t, f, "c")
	z, _ := join(c, b, rdma.QueuePairOptions{})
	f.Script(sim.Rule{From: "a", Fate: sim.Fate{Split: true, Gap: 50 * us}})
	a.post(x, rdma.FAA(1, a.memory.Local(0, 8), b.memory.Remote(), 0, 1))
	f.RunUntil(5 * us)
	b.post(y, rdma.Read(1, b.memory.Local(0, 8), rdma.RemoteRegion{RKey: 1}, 0)) // no such key: y breaks
	f.RunUntil(10 * us)
	c.post(z, rdma.FAA(1, c.memory.Local(0, 8), b.memory.Remote(), 0, 1))
	drain(f)
	if got := c.poll(); y.Err() == nil || statuses(got) != "1:done " || b.memory.Load(0) != 2 {
		t.Errorf("the end says %v, completions %s, the word is %d", y.Err(), statuses(got), b.memory.Load(0))
	}
}

// Nobody tells the peers of a dead node; they learn by Timeout after their next
// post. What the dead had posted may land, as Late says.
func TestCrash(t *testing.T) {
	for _, late := range []float64{0, 1} {
		f, a, b, x, y := pairOf(t, sim.Options{Faults: sim.Faults{Late: late}}, rdma.QueuePairOptions{Timeout: time.Millisecond})
		a.memory.Store(0, 9)
		a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
		f.Crash("a")
		a.memory.Store(0, 1) // memory of nobody
		drain(f)
		if got, want := b.memory.Load(0), uint64(9*late); got != want {
			t.Errorf("late %v: the WRITE of the dead left %d, want %d", late, got, want)
		}
		if err := y.Err(); err != nil {
			t.Errorf("the peer knows without having posted: %v", err)
		}
		before := f.Now()
		if s := b.do(y, rdma.Read(1, b.memory.Local(0, 8), a.memory.Remote(), 0)); s != rdma.StatusUnreachable || f.Now()-before > time.Millisecond {
			t.Errorf("the peer learns %v after %v", s, f.Now()-before)
		}
		if _, err := x.Post(nil); err != nil {
			t.Errorf("nothing posted on a dead node: %v", err)
		}
		for what, err := range map[string]error{
			"post":     func() error { _, err := x.Post(make([]rdma.WorkRequest, 1)); return err }(),
			"revoke":   x.Revoke(context.Background()),
			"wait":     func() error { _, err := a.cq.Wait(context.Background(), make([]rdma.Completion, 1)); return err }(),
			"register": func() error { _, err := a.p.Register(8); return err }(),
		} {
			if !errors.Is(err, rdma.ErrClosed) {
				t.Errorf("%s on a dead node: %v", what, err)
			}
		}
		again := open(t, f, "a") // while the old handles still are
		if again.memory.Load(0) != 0 {
			t.Error("memory has survived its node")
		}
		x2, _ := join(b, again, rdma.QueuePairOptions{})
		if s := b.do(x2, rdma.Read(2, b.memory.Local(0, 8), a.memory.Remote(), 0)); s != rdma.StatusRemoteAccess {
			t.Errorf("a key of the dead node, after its restart: %v", s)
		}
		for _, closer := range []interface{ Close() error }{x, a.cq, a.memory, a.p} {
			if err := closer.Close(); err != nil {
				t.Errorf("closing %T of the dead node: %v", closer, err)
			}
		}
	}
}

// A link that is cut one way keeps requests of the one and replies to the other;
// what was under way arrives when it is healed, unless it is too late.
func TestPartition(t *testing.T) {
	for _, tt := range []struct {
		name     string
		from, to string
		heal     bool
		want     rdma.Status
		word     uint64
	}{
		{"request", "a", "b", false, rdma.StatusUnreachable, 0},
		{"request, healed", "a", "b", true, rdma.StatusOK, 1},
		{"reply", "b", "a", false, rdma.StatusUnreachable, 1},
		{"reply, healed", "b", "a", true, rdma.StatusOK, 1},
		{"nothing to oneself", "a", "a", false, rdma.StatusOK, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
			f.PartitionOneWay(tt.from, tt.to)
			a.memory.Store(0, 1)
			a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
			f.RunUntil(500 * us)
			if tt.heal {
				f.Heal("b", "a")
			}
			if c := a.next(); c.Status != tt.want {
				t.Errorf("the WRITE ended as %v", c.Status)
			}
			f.HealAll()
			drain(f)
			if w := b.memory.Load(0); w != tt.word {
				t.Errorf("the word is %d, want %d", w, tt.word)
			}
		})
	}
}

// A paused device serves nobody and its time does not pass; then it goes on.
func TestPause(t *testing.T) {
	t.Run("responder", func(t *testing.T) {
		f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
		f.Pause("b")
		a.memory.Store(0, 1)
		a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
		f.RunUntil(500 * us)
		if w := b.memory.Load(0); w != 0 {
			t.Errorf("a paused device has executed a WRITE of %d", w)
		}
		f.Resume("b")
		if c := a.next(); c.Status != rdma.StatusOK {
			t.Errorf("the WRITE ended as %v", c.Status)
		}
	})
	t.Run("requester", func(t *testing.T) {
		f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
		a.memory.Store(0, 1)
		a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
		f.Pause("a")
		f.RunUntil(time.Second)
		if got := a.poll(); b.memory.Load(0) != 1 || len(got) != 0 {
			t.Errorf("while it is paused: the word is %d, completions %v", b.memory.Load(0), got)
		}
		f.Resume("a")
		if c := a.next(); c.Status != rdma.StatusUnreachable {
			t.Errorf("after a pause longer than Timeout the WRITE ended as %v", c.Status)
		}
	})
	t.Run("posted meanwhile", func(t *testing.T) {
		f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
		f.Pause("a")
		a.memory.Store(0, 1)
		a.post(x, rdma.Write(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
		f.HealAll()
		f.RunUntil(100 * us)
		if w := b.memory.Load(0); w != 0 {
			t.Errorf("a paused device has sent a WRITE of %d", w)
		}
		f.Resume("a")
		if c := a.next(); c.Status != rdma.StatusOK || b.memory.Load(0) != 1 {
			t.Errorf("the WRITE ended as %v, the word is %d", c.Status, b.memory.Load(0))
		}
	})
}

// Revoke may fail, and then either has worked or not.
func TestRevokeMayFail(t *testing.T) {
	broken, _ := seeds(t, 40, func(t *testing.T, seed uint64) bool {
		_, _, b, _, y := pairOf(t, sim.Options{Seed: seed, Faults: sim.Faults{FailRevoke: 1}}, rdma.QueuePairOptions{})
		if err := y.Revoke(context.Background()); err == nil {
			t.Error("Revoke says nothing of its failure")
		}
		_, err := y.Post([]rdma.WorkRequest{rdma.WriteImm(1, rdma.Local{}, b.memory.Remote(), 0, 0)})
		return errors.Is(err, rdma.ErrBroken)
	})
	if broken == 0 || broken == 40 {
		t.Errorf("under %d of 40 seeds the queue pair was broken, want some", broken)
	}
}

// Requests that wait for a link, or on hold, are not remembered after their end.
func TestWaitingIsBounded(t *testing.T) {
	f, a, b, _, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{})
	f.Script(sim.Rule{Op: rdma.OpRead, Times: 1 << 30, Fate: sim.Fate{Hold: "for ever"}})
	for range 5000 {
		x, y := join(a, b, rdma.QueuePairOptions{})
		f.Partition("a", "b")
		a.post(x, rdma.Read(1, a.memory.Local(0, 8), b.memory.Remote(), 0), rdma.Write(2, a.memory.Local(0, 8), b.memory.Remote(), 0))
		f.RunUntil(f.Now() + 2*us)
		f.Heal("a", "b")
		f.RunUntil(f.Now() + 2*us)
		a.must(x.Close())
		b.must(y.Close())
		a.poll()
	}
	if events, waiting := sim.Sizes(f); events > 4096 || waiting > 1024 {
		t.Errorf("%d events and %d requests are remembered after 5000 connections", events, waiting)
	}
	if n := f.Release("for ever"); n != 0 {
		t.Errorf("%d requests were still on hold behind a Close", n)
	}
}
