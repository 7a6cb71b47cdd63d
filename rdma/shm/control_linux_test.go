package shm

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// newRing returns both ends of a ring of its own.
func newRing(t testing.TB, depth int) (*outbox, *inbox) {
	t.Helper()
	m, err := memory.Map(controlSize(depth))
	must(t, err)
	t.Cleanup(func() { must(t, m.Unmap()) })
	return &outbox{control: m, depth: uint64(depth)}, &inbox{control: m, depth: uint64(depth)}
}

func TestControlSize(t *testing.T) {
	for depth, want := range map[int]int{1: 4096, 472: 4096, 473: 8192, maxDepth: 36864} {
		if got := controlSize(depth); got != want {
			t.Errorf("control memory for %d doorbells has %d bytes, want %d", depth, got, want)
		}
	}
}

func TestRing(t *testing.T) {
	const depth = 3
	out, in := newRing(t, depth)
	next, polled := uint32(0), uint64(0)
	for round := range 4 {
		for i := range depth {
			if room, err := out.room(); !room || err != nil {
				t.Fatalf("round %d: room for doorbell %d: %v, %v", round, i, room, err)
			}
			out.put(doorbell{imm: uint32(round*depth + i), length: ^uint32(0) - uint32(i)})
		}
		if room, err := out.room(); room || err != nil {
			t.Fatalf("round %d: room for one too many: %v, %v", round, room, err)
		}
		for i := range depth {
			d, ok, err := in.take()
			if want := (doorbell{next, ^uint32(0) - uint32(i)}); !ok || err != nil || d != want {
				t.Fatalf("took %+v, %v, %v, want %+v", d, ok, err, want)
			}
			next++
		}
		if d, ok, err := in.take(); ok || err != nil {
			t.Fatalf("took %+v, %v from an empty ring", d, err)
		}
		if room, _ := out.room(); room {
			t.Fatal("taken doorbells made room before they were polled")
		}
		polled += depth
		in.release(polled)
	}
}

func TestArm(t *testing.T) {
	out, in := newRing(t, 4)
	if out.put(doorbell{}) {
		t.Error("the bell is to be rung although nobody sleeps")
	}
	if in.arm() {
		t.Error("the owner sleeps although there is a doorbell")
	}
	if _, ok, _ := in.take(); !ok || !in.arm() {
		t.Error("the owner does not sleep although there is none")
	}
	if !out.put(doorbell{}) {
		t.Error("the bell is not rung for a sleeper")
	}
	if out.put(doorbell{}) {
		t.Error("the bell is rung twice")
	}
}

// TestRingIndices: what the other process may have written.
func TestRingIndices(t *testing.T) {
	const depth = 4
	for name, tail := range map[string]uint64{"too many": 2 + depth + 1, "backwards": 1, "before the polled": 0, "far": 1 << 63, "wrapped": ^uint64(0)} {
		out, in := newRing(t, depth)
		for range 3 {
			out.put(doorbell{})
		}
		for range 3 {
			if _, ok, err := in.take(); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		in.release(1)
		in.control.Store(tailAt, tail)
		if _, ok, err := in.take(); ok || !errors.Is(err, errRing) {
			t.Errorf("tail %s: took %v, error %v, want %v", name, ok, err, errRing)
		}
	}
	for name, head := range map[string]uint64{"after the tail": 3, "far behind": ^uint64(0) - depth, "far": 1 << 63} {
		out, _ := newRing(t, depth)
		out.put(doorbell{})
		out.put(doorbell{})
		out.control.Store(headAt, head)
		if room, err := out.room(); room || !errors.Is(err, errRing) {
			t.Errorf("head %s: room %v, error %v, want %v", name, room, err, errRing)
		}
	}
}

// FuzzRing lets a peer write what it likes into the control memory between the
// steps of both ends, and checks what must hold all the same: no access outside
// of the memory (which would stop the process) and never more than depth
// doorbells that are taken and not polled.
func FuzzRing(f *testing.F) {
	f.Add(uint16(4), []byte("\x00\x01\x02\x00\x01\x03\x01\x01"))
	f.Add(uint16(1), []byte("\x04\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x05\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, depth uint16, steps []byte) {
		if depth == 0 || depth > maxDepth || len(steps) > 4096 {
			return
		}
		out, in := newRing(t, int(depth))
		word := func() (w uint64) {
			var b [8]byte
			steps = steps[copy(b[:], steps):]
			return binary.LittleEndian.Uint64(b[:])
		}
		outBroken, inBroken := false, false
		for len(steps) > 0 {
			step := steps[0]
			steps = steps[1:]
			switch step % 7 {
			case 0:
				if room, err := out.room(); err != nil {
					outBroken = true
				} else if room && !outBroken {
					out.put(doorbell{uint32(step), 1})
				}
			case 1:
				if !inBroken {
					_, _, err := in.take()
					inBroken = err != nil
				}
			case 2:
				in.release(in.polled + (in.next-in.polled)/2)
			case 3:
				in.arm()
			case 4:
				in.control.Store(tailAt, word())
			case 5:
				in.control.Store(headAt, word())
			case 6:
				in.control.Store(entriesAt+8*int(word()%uint64(depth)), word())
			}
			if unpolled := in.next - in.polled; unpolled > uint64(depth) {
				t.Fatalf("%d doorbells are taken and not polled, %d are allowed", unpolled, depth)
			}
		}
	})
}
