package lease

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// full draws a record with the fields that its kind carries.
func full(t *rapid.T) Record {
	u32, u64 := rapid.Uint32(), rapid.Uint64()
	view := rapid.Custom(func(t *rapid.T) base.View { return base.View(rapid.Uint32Range(0, uint32(MaxView)).Draw(t, "view")) })
	worker := rapid.Custom(func(t *rapid.T) Worker { return Worker(rapid.IntRange(1, int(MaxWorker)).Draw(t, "worker")) })
	r := Record{Kind: Kind(rapid.IntRange(int(Req), int(InvalAck)).Draw(t, "kind")), From: worker.Draw(t, "from"),
		View: view.Draw(t, "view"), Slot: base.Slot(rapid.Uint32Range(0, base.SlotCount-1).Draw(t, "slot"))}
	switch r.Kind {
	case Req:
		r.Pred, r.Ticket = Ticket(u32.Draw(t, "pred")), Ticket(u32.Draw(t, "ticket"))
	case Grant:
		r.Ticket, r.Dep = Ticket(u32.Draw(t, "ticket")), u64.Draw(t, "dep")
		for range rapid.SampledFrom([]int{0, 1, 3, 200}).Draw(t, "readers") {
			r.Readers = append(r.Readers, ReaderEntry{worker.Draw(t, "reader"), view.Draw(t, "view")})
		}
	case ReadReq:
		r.Ticket = Ticket(u32.Draw(t, "ticket"))
	case Copy:
		r.Dep = u64.Draw(t, "dep")
	}
	if r.Kind == ReadReq || r.Kind == Copy || r.Kind == Nack {
		r.Nonce = u32.Draw(t, "nonce")
	}
	if r.Kind == Copy || r.Kind == Inval || r.Kind == InvalAck {
		r.Stamp = Stamp{Ticket(u32.Draw(t, "ticket")), rapid.Int64Range(0, 1<<62).Draw(t, "round")}
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := full(t)
		message := r.Append(nil)
		values := ""
		if r.Kind == Grant || r.Kind == Copy {
			values = "values"
		}
		got, rest, err := Decode(r.Kind, r.From, append(message, values...))
		if err != nil || !reflect.DeepEqual(got, r) || string(rest) != values {
			t.Fatalf("got %+v and %q (%v), want %+v", got, rest, err, r)
		}
		if _, _, err := Decode(r.Kind, r.From, message[:len(message)-1]); err == nil {
			t.Fatal("a message that is cut short was decoded")
		}
		if _, _, err := Decode(r.Kind, r.From, append(message, "more"...)); err == nil && values == "" {
			t.Fatal("a message that is too long was decoded")
		}
	})
}

func FuzzDecode(f *testing.F) {
	for k := Req; k <= InvalAck; k++ {
		r := Record{Kind: k, View: 2, Slot: 3, Ticket: 4, Readers: []ReaderEntry{{1, 2}, {4094, 7}}}
		f.Add(uint8(k), r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, kind uint8, message []byte) {
		r, values, err := Decode(Kind(kind), 1, message)
		if err != nil {
			return
		}
		again, rest, err := Decode(r.Kind, 1, append(r.Append(nil), values...))
		if err != nil || !reflect.DeepEqual(again, r) || string(rest) != string(values) {
			t.Fatalf("%+v became %+v (%v)", r, again, err)
		}
		// Whatever a peer sends, a core in another view drops it or says that it
		// cannot be.
		if _, err := New(Options{Me: 1}).Receive(&r); err == nil && r.View > 0 {
			t.Fatalf("%+v was taken by a core in no view", r)
		}
	})
}
