package ring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	"github.com/tenure-faas/tenure/rdma/internal/region"
)

// tb is what testing.TB and rapid.T have in common.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Error(...any)
	Cleanup(func())
}

// memoryOf registers size bytes.
func memoryOf(t tb, table *region.Table, size int) *region.Region {
	t.Helper()
	m, err := memory.Map(size)
	if err != nil {
		t.Fatal(err)
	}
	r, err := table.Register("test", m, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// pair is a ring between two regions, and the device that executes its requests.
type pair struct {
	sender   *Sender
	receiver *Receiver
	table    *region.Table
	ring     []byte
}

func newPair(t tb, size int) *pair {
	t.Helper()
	p := &pair{table: &region.Table{}}
	// Something lies before each, so that offsets count.
	from, to := memoryOf(t, p.table, 64+size), memoryOf(t, p.table, 128+size)
	p.ring = to.Bytes()[128:]
	var err error
	if p.sender, err = NewSender(from, 64, size); err != nil {
		t.Fatal(err)
	}
	if err := p.sender.Target(to.Remote(), 128); err != nil {
		t.Fatal(err)
	}
	if p.receiver, err = NewReceiver(to, 128, size); err != nil {
		t.Fatal(err)
	}
	return p
}

// write executes a request as a device does.
func (p *pair) write(t tb, w *rdma.WorkRequest) {
	t.Helper()
	src, ok := p.table.Acquire(w.Local.LKey, w.Local.Addr, w.Local.Length)
	if !ok {
		t.Fatal("local memory out of bounds")
	}
	defer src.Release()
	dst, ok := p.table.Acquire(w.RKey, w.RemoteAddr, w.Local.Length)
	if !ok {
		t.Fatal("remote memory out of bounds")
	}
	defer dst.Release()
	copy(dst.Bytes, src.Bytes)
}

// payload is that of message n: its length and content depend on n.
func payload(n uint64, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(n) + byte(i)*3
	}
	return b
}

// pass sends a message through and says whether there was room.
func (p *pair) pass(t tb, kind uint8, parts ...[]byte) bool {
	t.Helper()
	w, ok := p.sender.Add(kind, parts...)
	if !ok {
		return false
	}
	p.write(t, &w)
	got, b, err := p.receiver.Next(w.Imm)
	if err != nil || got != kind || !bytes.Equal(b, bytes.Join(parts, nil)) {
		t.Fatalf("kind %d with %d bytes arrived as kind %d with %d bytes, %v", kind, len(bytes.Join(parts, nil)), got, len(b), err)
	}
	p.sender.Done(w.ID)
	if credit, ok := p.receiver.Credit(); ok {
		if credit.Op != rdma.OpWriteImm || credit.Local.Length != 0 {
			t.Fatalf("a credit is %v of %d bytes", credit.Op, credit.Local.Length)
		}
		if err := p.sender.Credit(credit.Imm); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

func TestMessagesOfEveryLengthArrive(t *testing.T) {
	const size = 16 * UnitSize
	p := newPair(t, size)
	for round := range 3 {
		for length := range MaxMessage(size) + 1 {
			b := payload(uint64(length), length)
			if !p.pass(t, uint8(round+1), b[:length/3], nil, b[length/3:]) {
				t.Fatalf("no room for %d bytes in round %d", length, round)
			}
		}
	}
	if _, ok := p.sender.Add(1, make([]byte, MaxMessage(size)+1)); ok {
		t.Error("a message longer than MaxMessage was taken")
	}
}

// TestWrap: a message that does not fit before the end begins at 0, whole.
func TestWrap(t *testing.T) {
	p := newPair(t, 16*UnitSize)
	for range 15 {
		p.pass(t, 1, nil)
	}
	w, ok := p.sender.Add(2, payload(9, 100))
	if !ok || w.ID != 18 || w.Imm != 2 || w.RemoteAddr != p.sender.remote.Addr+128 {
		t.Fatalf("a message of 2 units after 15 of 16: %+v, %v; want it at the beginning, to position 18", w, ok)
	}
	p.write(t, &w)
	if _, b, err := p.receiver.Next(w.Imm); err != nil || !bytes.Equal(b, payload(9, 100)) {
		t.Fatalf("it arrives as %x, %v", b, err)
	}
	if p.receiver.Consumed() != 18 {
		t.Errorf("consumed %d units, want 18 with the one that was skipped", p.receiver.Consumed())
	}
}

// TestFullRing: neither what is not consumed nor what is not done is overwritten.
func TestFullRing(t *testing.T) {
	const units = 8
	p := newPair(t, units*UnitSize)
	var last rdma.WorkRequest
	for i := range units {
		w, ok := p.sender.Add(1)
		if !ok {
			t.Fatalf("no room for message %d of %d", i, units)
		}
		p.write(t, &w)
		last = w
	}
	full := func(when string) {
		t.Helper()
		if _, ok := p.sender.Add(1); ok {
			t.Fatalf("a full ring took a message %s", when)
		}
	}
	full("before anything was consumed")
	if _, due := p.receiver.Credit(); due {
		t.Fatal("a credit for nothing")
	}
	for range 2 {
		if _, _, err := p.receiver.Next(1); err != nil {
			t.Fatal(err)
		}
	}
	credit, due := p.receiver.Credit()
	if !due {
		t.Fatal("no credit for a quarter of the ring")
	}
	if err := p.sender.Credit(credit.Imm); err != nil {
		t.Fatal(err)
	}
	full("whose WRITEs are not complete")
	p.sender.Done(last.ID)
	for range 2 {
		if _, ok := p.sender.Add(1); !ok {
			t.Fatal("no room after a credit")
		}
	}
	full("with the room of one credit used up")
}

func TestResume(t *testing.T) {
	p := newPair(t, 16*UnitSize)
	for n := range uint64(5) {
		w, _ := p.sender.Add(1, payload(n, int(n)*20))
		if n != 3 { // lost with the queue pair
			p.write(t, &w)
		}
		if n < 3 {
			if _, _, err := p.receiver.Next(w.Imm); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := p.receiver.Next(2); err == nil {
		t.Fatal("a lost message arrived")
	}
	again, err := p.sender.Resume(p.receiver.Consumed(), nil)
	if err != nil || len(again) != 2 {
		t.Fatalf("%d messages to repeat (%v), want 2", len(again), err)
	}
	p.receiver.Resume()
	for i := range again {
		p.write(t, &again[i])
		_, b, err := p.receiver.Next(again[i].Imm)
		if err != nil || !bytes.Equal(b, payload(uint64(i+3), (i+3)*20)) {
			t.Fatalf("message %d is %x, %v", i+3, b, err)
		}
	}
	// One that forgets, is within a message, or invents.
	for _, wrong := range []uint64{p.receiver.Consumed() - 7, p.receiver.Consumed() - 1, p.receiver.Consumed() + 1} {
		if _, err := p.sender.Resume(wrong, nil); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("a peer that says it consumed %d was believed: %v", wrong, err)
		}
		if err := p.sender.Credit(uint32(wrong)); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("a credit for %d was believed: %v", wrong, err)
		}
	}
}

func TestCut(t *testing.T) {
	p := newPair(t, 16*UnitSize)
	for range 14 {
		p.pass(t, 1)
	}
	first, _ := p.sender.Add(2, payload(1, 10))
	p.write(t, &first)
	p.sender.Add(3, payload(2, 150)) // skips a unit, and is never posted
	p.sender.Add(4)
	p.sender.Cut(first.ID)
	last, ok := p.sender.Add(5, payload(3, 20))
	if !ok || last.ID != first.ID+1 {
		t.Fatalf("after the cut a message ends at %d, %v, want %d", last.ID, ok, first.ID+1)
	}
	p.write(t, &last)
	for i, want := range []uint8{2, 5} {
		if kind, _, err := p.receiver.Next(1); err != nil || kind != want {
			t.Fatalf("message %d is of kind %d, %v, want %d", i, kind, err, want)
		}
	}
	p.sender.Cut(p.sender.Sent())
	if p.sender.Sent() != last.ID {
		t.Error("a cut at the end changed something")
	}
}

// TestBadMessages: every kind of wrong input is refused and consumes nothing.
func TestBadMessages(t *testing.T) {
	for name, spoil := range map[string]func(ring []byte, imm *uint32){
		"nothing there":   func(ring []byte, _ *uint32) { clear(ring) },
		"no units":        func(_ []byte, imm *uint32) { *imm = 0 },
		"too many units":  func(_ []byte, imm *uint32) { *imm = 5 },
		"huge":            func(_ []byte, imm *uint32) { *imm = 1<<32 - 1 },
		"other units":     func(_ []byte, imm *uint32) { *imm = 3 },
		"kind 0":          func(ring []byte, _ *uint32) { ring[kindOffset] = 0 },
		"other kind":      func(ring []byte, _ *uint32) { ring[kindOffset]++ },
		"length too long": func(ring []byte, _ *uint32) { ring[7] = 0xff },
		"length in units": func(ring []byte, _ *uint32) { ring[5]++ },
		"payload":         func(ring []byte, _ *uint32) { ring[90] ^= 4 },
		"checksum":        func(ring []byte, _ *uint32) { ring[0]++ },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 16*UnitSize)
			w, _ := p.sender.Add(7, payload(5, 100))
			p.write(t, &w)
			good, imm := bytes.Clone(p.ring), w.Imm
			spoil(p.ring, &imm)
			if _, _, err := p.receiver.Next(imm); !errors.Is(err, rdma.ErrInvalid) {
				t.Errorf("it was accepted: %v", err)
			}
			copy(p.ring, good)
			if _, _, err := p.receiver.Next(w.Imm); err != nil {
				t.Errorf("afterwards the good one is refused: %v", err)
			}
		})
	}
}

// TestEarlierLap: the bytes of an earlier message are not the one that is due.
func TestEarlierLap(t *testing.T) {
	p := newPair(t, 4*UnitSize)
	for range 4 {
		p.pass(t, 1, []byte("the same"))
	}
	if _, _, err := p.receiver.Next(1); err == nil {
		t.Error("a message of the lap before was delivered again")
	}
}

func TestOutOfRange(t *testing.T) {
	table := &region.Table{}
	r := memoryOf(t, table, 4096)
	for name, build := range map[string]func() error{
		"sender too small":   func() error { _, err := NewSender(r, 0, 3*UnitSize); return err },
		"sender odd":         func() error { _, err := NewSender(r, 0, 4*UnitSize+1); return err },
		"sender too large":   func() error { _, err := NewSender(r, 0, (maxUnits+1)*UnitSize); return err },
		"staging beyond":     func() error { _, err := NewSender(r, 4000, 4*UnitSize); return err },
		"staging before":     func() error { _, err := NewSender(r, -1, 4*UnitSize); return err },
		"receiver too small": func() error { _, err := NewReceiver(r, 0, 64); return err },
		"ring beyond":        func() error { _, err := NewReceiver(r, 3841, 4*UnitSize); return err },
		"remote too small": func() error {
			s, err := NewSender(r, 0, 4*UnitSize)
			if err != nil {
				t.Fatal(err)
			}
			return s.Target(rdma.RemoteRegion{Size: 4096}, 4096-4*UnitSize+1)
		},
	} {
		if err := build(); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// TestModel: whatever is sent, lost, repeated, cut and credited, in whatever
// order, what arrives is what was sent, once and in order, and a ring whose
// receiver keeps up never refuses for good.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := rapid.IntRange(4, 40).Draw(t, "units")
		size := units * UnitSize
		p := newPair(t, size)
		var (
			sent, got uint64             // messages
			flight    []rdma.WorkRequest // posted, not executed
			bells     []uint32           // executed, not polled
			credits   []uint32           // posted, not polled
			lengths   []int
		)
		add := func(length int) bool {
			w, ok := p.sender.Add(uint8(sent%255)+1, payload(sent, length))
			if ok {
				flight, lengths = append(flight, w), append(lengths, length)
				sent++
			}
			return ok
		}
		execute := func() {
			p.write(t, &flight[0])
			bells = append(bells, flight[0].Imm)
			p.sender.Done(flight[0].ID)
			flight = flight[1:]
		}
		receive := func() {
			kind, b, err := p.receiver.Next(bells[0])
			if err != nil || kind != uint8(got%255)+1 || !bytes.Equal(b, payload(got, lengths[got])) {
				t.Fatalf("message %d is of kind %d with %d bytes: %v", got, kind, len(b), err)
			}
			bells = bells[1:]
			got++
			if w, due := p.receiver.Credit(); due {
				credits = append(credits, w.Imm)
			}
		}
		credit := func() {
			if err := p.sender.Credit(credits[0]); err != nil {
				t.Fatal(err)
			}
			credits = credits[1:]
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) { add(rapid.IntRange(0, MaxMessage(size)).Draw(t, "length")) },
			"execute": func(*rapid.T) {
				if len(flight) > 0 {
					execute()
				}
			},
			"receive": func(*rapid.T) {
				if len(bells) > 0 {
					receive()
				}
			},
			"credit": func(*rapid.T) {
				if len(credits) > 0 {
					credit()
				}
			},
			"break": func(t *rapid.T) { // all that is on the way is lost, or executed without a doorbell
				for i := range flight {
					if rapid.Bool().Draw(t, "landed") {
						p.write(t, &flight[i])
					}
				}
				bells, credits = nil, nil
				p.receiver.Resume()
				var err error
				if flight, err = p.sender.Resume(p.receiver.Consumed(), nil); err != nil {
					t.Fatal(err)
				}
			},
			"cut": func(t *rapid.T) { // what is posted last is dropped instead
				if len(flight) == 0 {
					return
				}
				keep := rapid.IntRange(0, len(flight)-1).Draw(t, "keep")
				dropped := flight[keep:]
				first := dropped[0].ID - uint64(dropped[0].Imm)
				p.sender.Cut(first)
				sent -= uint64(len(dropped))
				flight, lengths = flight[:keep], lengths[:sent]
			},
			"": func(t *rapid.T) {
				if len(bells) > units {
					t.Fatalf("%d doorbells wait in a ring of %d units", len(bells), units)
				}
			},
		})
		for range 3 { // whatever the state, the longest message gets through
			for len(flight) > 0 {
				execute()
			}
			for len(bells) > 0 {
				receive()
			}
			for len(credits) > 0 {
				credit()
			}
			if !add(MaxMessage(size)) {
				t.Fatalf("no room in an empty ring: %d sent, %d known to be consumed, of %d units", p.sender.Sent(), p.sender.Consumed(), units)
			}
		}
	})
}

// FuzzReceiver: whatever a peer puts into the ring and rings, the receiver neither
// panics nor delivers what has no checksum.
func FuzzReceiver(f *testing.F) {
	seed := newPair(f, 16*UnitSize)
	w, _ := seed.sender.Add(3, payload(1, 77))
	seed.write(f, &w)
	f.Add(bytes.Clone(seed.ring), uint32(2), uint32(1))
	f.Add([]byte{}, uint32(1), uint32(0))
	f.Fuzz(func(t *testing.T, ring []byte, first, second uint32) {
		const size = 16 * UnitSize
		r := memoryOf(t, &region.Table{}, size)
		copy(r.Bytes(), ring)
		receiver, err := NewReceiver(r, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		for _, imm := range []uint32{first, second} {
			before := receiver.Consumed()
			kind, b, err := receiver.Next(imm)
			if err != nil {
				if receiver.Consumed() != before {
					t.Fatal("a message with an error was consumed")
				}
				continue
			}
			if kind == 0 || len(b) > MaxMessage(size) || receiver.Consumed() <= before || receiver.Consumed() > before+8 {
				t.Fatalf("kind %d with %d bytes, consumed from %d to %d", kind, len(b), before, receiver.Consumed())
			}
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	for _, length := range []int{50, 4000} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			p := newPair(b, 1<<16)
			content := payload(1, length)
			b.ReportAllocs()
			b.SetBytes(int64(length))
			for n := uint64(0); b.Loop(); n++ {
				binary.LittleEndian.PutUint64(content, n)
				w, ok := p.sender.Add(1, content)
				if !ok {
					b.Fatal("no room")
				}
				p.write(b, &w)
				p.sender.Done(w.ID)
				if _, _, err := p.receiver.Next(w.Imm); err != nil {
					b.Fatal(err)
				}
				if credit, due := p.receiver.Credit(); due {
					if err := p.sender.Credit(credit.Imm); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
