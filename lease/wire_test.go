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
	r := Record{Kind: Kind(rapid.IntRange(int(Req), int(InvalAck)).Draw(t, "kind")), From: Worker(rapid.IntRange(1, int(MaxWorker)).Draw(t, "from")),
		View: base.View(rapid.Uint32Range(0, uint32(MaxView)).Draw(t, "view")), Slot: base.Slot(rapid.Uint32Range(0, base.SlotCount-1).Draw(t, "slot"))}
	if r.Kind == Req {
		r.Pred = Ticket(u32.Draw(t, "pred"))
	}
	if r.Kind == Req || r.Kind == Grant || r.Kind == ReadReq {
		r.Ticket = Ticket(u32.Draw(t, "ticket"))
	}
	if r.Kind == ReadReq || r.Kind == Copy || r.Kind == Nack {
		r.Nonce = u32.Draw(t, "nonce")
	}
	if r.Kind == Copy || r.Kind == Inval || r.Kind == InvalAck {
		r.Stamp = Stamp{Ticket(u32.Draw(t, "ticket")), rapid.Int64Range(0, 1<<62).Draw(t, "round")}
	}
	if r.Kind <= Copy {
		r.Body = Body{Offset: u64.Draw(t, "offset"), Length: u32.Draw(t, "length")}
	}
	if r.Kind == Grant || r.Kind == Copy {
		r.Body.Checksum, r.Dep = u32.Draw(t, "checksum"), u64.Draw(t, "dep")
	}
	return r
}

func TestPayloadRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := full(t)
		payload := r.AppendPayload(nil)
		if len(payload) > MaxPayload {
			t.Fatalf("%v takes %d bytes", r.Kind, len(payload))
		}
		got, err := DecodePayload(r.Kind, append(payload, 0, 0, 0))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v (%v), want %+v", got, err, r)
		}
		if _, err := DecodePayload(r.Kind, payload[:len(payload)-1]); err == nil {
			t.Fatal("a short payload was decoded")
		}
	})
}

func TestReadersRoundTrip(t *testing.T) {
	many := make([]ReaderEntry, 200)
	for i := range many {
		many[i] = ReaderEntry{Worker(i*20 + 1), MaxView - base.View(i)}
	}
	for _, readers := range [][]ReaderEntry{nil, {{1, 0}}, many} {
		got, rest, err := DecodeReaders(append(AppendReaders(nil, readers), "rest"...))
		if err != nil || !reflect.DeepEqual(got, readers) || string(rest) != "rest" {
			t.Errorf("%d readers: got %v, %q, %v", len(readers), got, rest, err)
		}
	}
}

func FuzzDecodePayload(f *testing.F) {
	for k := Req; k <= InvalAck; k++ {
		r := Record{Kind: k, From: 1, View: 2, Slot: 3, Ticket: 4}
		f.Add(uint8(k), r.AppendPayload(nil))
	}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		r, err := DecodePayload(Kind(kind), payload)
		if err != nil {
			return
		}
		again, err := DecodePayload(r.Kind, r.AppendPayload(nil))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v became %+v (%v)", r, again, err)
		}
		// Whatever a peer sends, a core in another view drops it or says that it
		// cannot be.
		if _, err := New(Options{Me: 1}).Receive(&r); err == nil && r.View > 0 {
			t.Fatalf("%+v was taken by a core in no view", r)
		}
	})
}

func FuzzDecodeReaders(f *testing.F) {
	f.Add(AppendReaders(nil, []ReaderEntry{{1, 2}, {4094, 7}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		readers, _, err := DecodeReaders(b)
		if err != nil {
			return
		}
		again, rest, err := DecodeReaders(AppendReaders(nil, readers))
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(again, readers) {
			t.Fatalf("%v became %v (%v)", readers, again, err)
		}
	})
}
