package lease

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// TestTable compares a table with a map. Slots are drawn from those whose searches
// begin at few places of the first index, so that they meet.
func TestTable(t *testing.T) {
	const parts = 64
	small := newTable(parts)
	crowded := map[int][]base.Slot{}
	for id := base.Slot(3); id < base.SlotCount; id += parts {
		first, _ := small.hash(id)
		crowded[first] = append(crowded[first], id)
	}
	near := append(append(append([]base.Slot{}, crowded[firstIndex-2][:20]...), crowded[firstIndex-1][:20]...), crowded[0][:20]...)
	rapid.Check(t, func(t *rapid.T) {
		ids := near
		if rapid.Bool().Draw(t, "spread") {
			ids = ids[:0:0]
			for id := base.Slot(3); len(ids) < 400; id += parts {
				ids = append(ids, id)
			}
		}
		x, model := newTable(parts), map[base.Slot]*slot{}
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "slot")
			was := model[id]
			if got := x.at(id); got != was {
				t.Fatalf("slot %d is %p, want %p", id, got, was)
			}
			switch {
			case rapid.IntRange(0, 2).Draw(t, "what") > 0:
				s := x.enter(id)
				if s.id != id || was != nil && s != was {
					t.Fatalf("slot %d entered: slot %d at %p, was at %p", id, s.id, s, was)
				}
				model[id] = s
			case was != nil:
				x.forget(was)
				delete(model, id)
			}
			if x.known() != len(model) {
				t.Fatalf("%d slots are known, want %d", x.known(), len(model))
			}
		}
		for s := range x.all {
			if model[s.id] != s {
				t.Fatalf("slot %d at %p is not known", s.id, s)
			}
			delete(model, s.id)
		}
		if len(model) > 0 {
			t.Fatalf("%d slots were not listed", len(model))
		}
	})
}
