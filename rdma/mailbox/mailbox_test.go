package mailbox

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
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

// pair is a mailbox between two regions; the sender's has the staging, then the
// consumed word, the receiver's the ring, then its own word.
type pair struct {
	sender   *Sender
	receiver *Receiver
	table    *region.Table
}

func newPair(t tb, slots int) *pair {
	t.Helper()
	p := &pair{table: &region.Table{}}
	from, to := memoryOf(t, p.table, RingSize(slots)+8), memoryOf(t, p.table, RingSize(slots)+8)
	var err error
	if p.sender, err = NewSender(from, 0, RingSize(slots), to.Remote(), 0, slots); err != nil {
		t.Fatal(err)
	}
	if p.receiver, err = NewReceiver(to, 0, RingSize(slots), from.Remote(), uint64(RingSize(slots)), slots); err != nil {
		t.Fatal(err)
	}
	return p
}

// part executes the bytes [from, to) of a WRITE, as a device may.
func (p *pair) part(t tb, w *rdma.WorkRequest, from, to int) {
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
	copy(dst.Bytes[from:to], src.Bytes[from:to])
}

func (p *pair) whole(t tb, w *rdma.WorkRequest) { p.part(t, w, 0, int(w.Local.Length)) }

func record(n uint64) *Record {
	r := &Record{Kind: uint8(n%255) + 1}
	binary.LittleEndian.PutUint64(r.Payload[:], n)
	return r
}

func TestRecordsArriveInOrder(t *testing.T) {
	const slots = 8
	p := newPair(t, slots)
	var got Record
	for n := range uint64(10 * slots) {
		w, ok := p.sender.Add(record(n))
		if !ok {
			t.Fatalf("record %d: no room", n)
		}
		if p.receiver.Next(&got) {
			t.Fatalf("record %d was there before its WRITE", n)
		}
		p.whole(t, &w)
		if !p.receiver.Next(&got) || got != *record(n) {
			t.Fatalf("record %d: got %v", n, got)
		}
		if credit, ok := p.receiver.Credit(); ok {
			p.whole(t, &credit)
		}
	}
}

// TestFullRing: nothing that is not consumed is overwritten, and a credit opens
// the ring again.
func TestFullRing(t *testing.T) {
	const slots = 4
	p := newPair(t, slots)
	for n := range uint64(slots) {
		w, ok := p.sender.Add(record(n))
		if !ok {
			t.Fatalf("no room for record %d", n)
		}
		p.whole(t, &w)
	}
	if _, ok := p.sender.Add(record(slots)); ok || p.sender.Free() != 0 {
		t.Fatal("a full ring took a record")
	}
	var got Record
	for range slots / 2 {
		if _, ok := p.receiver.Credit(); ok {
			t.Fatal("a credit for less than half a ring")
		}
		if !p.receiver.Next(&got) {
			t.Fatal("a record is missing")
		}
	}
	credit, ok := p.receiver.Credit()
	if !ok {
		t.Fatal("no credit for half a ring")
	}
	p.whole(t, &credit)
	if free := p.sender.Free(); free != slots/2 {
		t.Fatalf("%d free slots, want %d", free, slots/2)
	}
}

// TestTornCredit: a mixture of two counts opens nothing.
func TestTornCredit(t *testing.T) {
	const slots = 1024
	p := newPair(t, slots)
	for range slots {
		p.sender.Add(record(1))
	}
	old, now := sealCredit(0xff), sealCredit(0x100)
	for bytes := range 9 {
		mask := uint64(1)<<(8*bytes) - 1 // the low bytes are new; all of them at 8
		p.sender.consumed = 0xff
		p.sender.local.Store(p.sender.consumedAt, old&^mask|now&mask)
		if free := p.sender.Free(); free != 0xff && free != 0x100 {
			t.Errorf("with %d bytes new: %d free slots, want 255 or 256", bytes, free)
		}
	}
}

// TestResume: after a broken queue pair, what was not consumed is repeated; what
// had arrived is not delivered twice.
func TestResume(t *testing.T) {
	p := newPair(t, 8)
	var got Record
	for n := range uint64(5) {
		w, _ := p.sender.Add(record(n))
		if n != 3 { // lost with the queue pair
			p.whole(t, &w)
		}
	}
	for n := range uint64(3) {
		if !p.receiver.Next(&got) || got != *record(n) {
			t.Fatalf("record %d: got %v", n, got)
		}
	}
	if p.receiver.Next(&got) {
		t.Fatal("a lost record arrived")
	}
	again, err := p.sender.Resume(p.receiver.Consumed(), nil)
	if err != nil || len(again) != 2 {
		t.Fatalf("%d WRITEs to repeat (%v), want 2", len(again), err)
	}
	for i := range again {
		p.whole(t, &again[i])
	}
	for n := uint64(3); n < 5; n++ {
		if !p.receiver.Next(&got) || got != *record(n) {
			t.Fatalf("record %d: got %v", n, got)
		}
	}
	for _, wrong := range []uint64{2, 6} { // forgets, or invents
		if _, err := p.sender.Resume(wrong, nil); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("a peer that consumed %d of 5 after 3 was believed: %v", wrong, err)
		}
	}
}

// TestTornRecords: parts of records in any order are not records until all are
// there, also over the remains of earlier laps.
func TestTornRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(2, 5).Draw(t, "slots")
		p := newPair(t, slots)
		var got Record
		for n := range uint64(4 * slots) {
			w, _ := p.sender.Add(record(n))
			cuts := []int{0, rapid.IntRange(0, 64).Draw(t, "cut"), rapid.IntRange(0, 64).Draw(t, "cut"), 64}
			if cuts[1] > cuts[2] {
				cuts[1], cuts[2] = cuts[2], cuts[1]
			}
			order := rapid.Permutation([]int{0, 1, 2}).Draw(t, "order")
			var there [64]bool
			for _, part := range order {
				if p.receiver.Next(&got) && !same(there, cuts, p, n) {
					t.Fatalf("record %d was delivered torn: %v", n, got)
				}
				p.part(t, &w, cuts[part], cuts[part+1])
				for i := cuts[part]; i < cuts[part+1]; i++ {
					there[i] = true
				}
			}
			if p.receiver.Consumed() == n && (!p.receiver.Next(&got) || got != *record(n)) {
				t.Fatalf("record %d is not there: %v", n, got)
			}
			if credit, ok := p.receiver.Credit(); ok {
				p.whole(t, &credit)
			}
		}
	})
}

// same says whether the missing bytes happen to be equal to those of the lap
// before, in which case the record is whole although parts have not arrived.
func same(there [64]bool, cuts []int, p *pair, n uint64) bool {
	var want [RecordSize]byte
	record(n).encode(want[:], n)
	at := p.receiver.ring + int(n%p.receiver.slots)*RecordSize
	have := p.receiver.local.Bytes()[at : at+RecordSize]
	for i := range want {
		if !there[i] && have[i] != want[i] {
			return false
		}
	}
	return true
}

func TestOptionsOutOfRange(t *testing.T) {
	table := &region.Table{}
	r := memoryOf(t, table, 4096)
	far := rdma.RemoteRegion{Size: 4096}
	for name, make := range map[string]func() error{
		"one slot":            func() error { _, err := NewSender(r, 0, 1024, far, 0, 1); return err },
		"staging beyond":      func() error { _, err := NewSender(r, 4000, 0, far, 0, 4); return err },
		"word beyond":         func() error { _, err := NewSender(r, 0, 4096, far, 0, 4); return err },
		"odd word":            func() error { _, err := NewSender(r, 0, 1025, far, 0, 4); return err },
		"ring beyond":         func() error { _, err := NewSender(r, 0, 1024, far, 4000, 4); return err },
		"ring wraps":          func() error { _, err := NewSender(r, 0, 1024, far, 1<<64-1, 4); return err },
		"receiver one slot":   func() error { _, err := NewReceiver(r, 0, 1024, far, 0, 1); return err },
		"receiver beyond":     func() error { _, err := NewReceiver(r, 4000, 0, far, 0, 4); return err },
		"receiver word":       func() error { _, err := NewReceiver(r, 0, 4, far, 0, 4); return err },
		"credit word beyond":  func() error { _, err := NewReceiver(r, 0, 1024, far, 4096, 4); return err },
		"staging overflows":   func() error { _, err := NewSender(r, math.MaxInt, 0, far, 0, 4); return err },
		"staging is negative": func() error { _, err := NewSender(r, math.MinInt, 0, far, 0, 4); return err },
		"word overflows":      func() error { _, err := NewSender(r, 0, math.MaxInt&^7, far, 0, 4); return err },
		"receiver overflows":  func() error { _, err := NewReceiver(r, math.MaxInt-63, 0, far, 0, 4); return err },
		"its word overflows":  func() error { _, err := NewReceiver(r, 0, math.MaxInt&^7, far, 0, 4); return err },
		"credit word is odd ": func() error { _, err := NewReceiver(r, 0, 1024, far, 1, 4); return err },
	} {
		if err := make(); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRing gives the receiver memory that a peer may have written: whatever it
// is, Next ends, and delivers only what carries the right checksum.
func FuzzRing(f *testing.F) {
	var good [RecordSize]byte
	record(0).encode(good[:], 0)
	f.Add(good[:], uint64(0))
	f.Add(make([]byte, RecordSize), uint64(1<<40))
	f.Fuzz(func(t *testing.T, ring []byte, consumed uint64) {
		const slots = 4
		p := newPair(t, slots)
		copy(p.receiver.local.Bytes(), ring)
		p.receiver.consumed = consumed
		var got Record
		delivered := 0
		for p.receiver.Next(&got) {
			n := p.receiver.consumed - 1
			var want [RecordSize]byte
			got.encode(want[:], n)
			at := int(n%slots) * RecordSize
			if string(want[:]) != string(p.receiver.local.Bytes()[at:at+RecordSize]) || got.Kind == 0 {
				t.Fatalf("delivered %v, which is not in the ring", got)
			}
			if delivered++; delivered > slots {
				t.Fatal("a ring delivered more than it holds")
			}
		}
	})
}

// FuzzCredit gives the sender a word that a peer may have written.
func FuzzCredit(f *testing.F) {
	f.Add(uint64(3), uint64(0))
	f.Add(^uint64(0), uint64(2))
	f.Fuzz(func(t *testing.T, word, resume uint64) {
		const slots = 4
		p := newPair(t, slots)
		for n := range uint64(3) {
			p.sender.Add(record(n))
		}
		p.sender.local.Store(p.sender.consumedAt, word)
		if free := p.sender.Free(); free < 1 || free > slots {
			t.Fatalf("%d free slots of %d", free, slots)
		}
		if again, err := p.sender.Resume(resume, nil); err == nil && len(again) > slots {
			t.Fatalf("%d records to repeat in a ring of %d", len(again), slots)
		}
	})
}

// BenchmarkRecord is one record through the ring without a device.
func BenchmarkRecord(b *testing.B) {
	p := newPair(b, 8)
	r, got := record(rand.Uint64()), Record{}
	ring, staging := p.receiver.local.Bytes(), p.sender.local.Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.sender.Add(r); !ok {
			b.Fatal("no room")
		}
		copy(ring, staging)
		if !p.receiver.Next(&got) {
			b.Fatal("no record")
		}
		if _, ok := p.receiver.Credit(); ok {
			p.sender.local.Store(p.sender.consumedAt, sealCredit(p.receiver.Consumed()))
		}
	}
}
