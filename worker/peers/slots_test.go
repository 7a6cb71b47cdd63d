package peers

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// varints are the numbers as an encoded set has them.
func varints(numbers ...uint64) (encoded []byte) {
	for _, n := range numbers {
		encoded = binary.AppendUvarint(encoded, n)
	}
	return encoded
}

func run(first, end, step base.Slot) (slots []base.Slot) {
	for s := first; s < end; s += step {
		slots = append(slots, s)
	}
	return slots
}

func TestSlots(t *testing.T) {
	for _, test := range []struct {
		name    string
		slots   []base.Slot
		encoded []byte // nil: what it is does not matter
		size    int
	}{
		{"none", nil, nil, 0},
		{"the first", []base.Slot{0}, varints(0, 1), 2},
		{"the last", []base.Slot{base.SlotCount - 1}, varints(base.SlotCount-1, 1), 4},
		{"a run", run(100, 356, 1), varints(100, 256), 3},
		{"runs over words", run(60, 130, 1), varints(60, 70), 2},
		{"in no order", []base.Slot{9, 3, 200, 4, 3}, varints(3, 2, 4, 1, 190, 1), 7},
		{"all", run(0, base.SlotCount, 1), varints(0, base.SlotCount), 4},
		{"every other", run(0, base.SlotCount, 2), nil, base.SlotCount},
		{"every other but the first", run(1, base.SlotCount, 2), nil, base.SlotCount},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.slots)
			encoded, err := encodeSlots(test.slots)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(before, test.slots) {
				t.Error("the caller's slots were changed")
			}
			if test.encoded != nil && !slices.Equal(encoded, test.encoded) || len(encoded) != test.size {
				t.Errorf("%d bytes %.20x, want %d bytes %.20x", len(encoded), encoded, test.size, test.encoded)
			}
			got, err := decodeSlots(encoded)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(before)
			if want := slices.Compact(before); !slices.Equal(got, want) {
				t.Errorf("%d slots %.5v, want %d %.5v", len(got), got, len(want), want)
			}
		})
	}
	if _, err := encodeSlots([]base.Slot{base.SlotCount}); err == nil {
		t.Error("a slot that does not exist is encoded")
	}
}

func TestAnySlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]uint32{10, 300, base.SlotCount - 1}).Draw(t, "limit")
		slots := rapid.SliceOf(rapid.Custom(func(t *rapid.T) base.Slot { return base.Slot(rapid.Uint32Range(0, limit).Draw(t, "slot")) })).Draw(t, "slots")
		encoded, err := encodeSlots(slots)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeSlots(encoded)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(slots)
		if !slices.Equal(got, slices.Compact(slots)) {
			t.Errorf("%v came back as %v", slots, got)
		}
	})
}

func TestBadSlots(t *testing.T) {
	for name, encoded := range map[string][]byte{
		"a gap and no run":       varints(3),
		"an empty run":           varints(3, 0),
		"runs that meet":         varints(3, 4, 0, 1),
		"beyond the last":        varints(base.SlotCount-1, 2),
		"a gap beyond the last":  varints(base.SlotCount, 1),
		"a gap that overflows":   varints(1, 1, 1<<64-2, 1),
		"a run that overflows":   varints(1, 1<<64-1),
		"half a varint":          {0, 0x80},
		"a varint of 65 bits":    append([]byte{0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02),
		"longer than any set is": make([]byte, MaxSlotsBytes+1),
	} {
		if slots, err := decodeSlots(encoded); base.KindOf(err) != base.Invalid || slots != nil {
			t.Errorf("%s: %d slots, %v", name, len(slots), err)
		}
	}
}

// FuzzDecodeSlots: whatever arrives is refused, or a set in order that has one
// encoding of its own, which is no longer.
func FuzzDecodeSlots(f *testing.F) {
	f.Add(varints(0, 1))
	f.Add(varints(100, 256, 3, 9))
	f.Add(varints(0, base.SlotCount))
	f.Add(varints(base.SlotCount-1, 2))
	f.Add([]byte{0x80, 0, 1})
	f.Fuzz(func(t *testing.T, encoded []byte) {
		slots, err := decodeSlots(encoded)
		if err != nil {
			if base.KindOf(err) != base.Invalid || slots != nil {
				t.Errorf("%d slots and %v", len(slots), err)
			}
			return
		}
		for i, s := range slots {
			if s >= base.SlotCount || i > 0 && slots[i-1] >= s {
				t.Fatalf("slot %d at place %d", s, i)
			}
		}
		again, err := encodeSlots(slots)
		if err != nil || len(again) > len(encoded) || len(again) > MaxSlotsBytes {
			t.Fatalf("encoded again: %d bytes after %d, %v", len(again), len(encoded), err)
		}
		if same, err := decodeSlots(again); err != nil || !slices.Equal(same, slots) {
			t.Fatalf("decoded again: %d slots after %d, %v", len(same), len(slots), err)
		}
	})
}
