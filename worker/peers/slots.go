package peers

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/tenure-faas/tenure/base"
)

// MaxSlotsBytes bounds an encoded set of slots. No set needs more: a varint has no
// more bytes than its value, the values have the sum base.SlotCount at most, and
// only the first may be 0.
const MaxSlotsBytes = base.SlotCount + 1

// encodeSlots writes a set of slots in runs, for rpcpb.HoldingsReport. The slots
// may come in any order, and more than once; a home has runs of neighbours, so a
// member that holds much of it needs little. It keeps nothing of slots.
func encodeSlots(slots []base.Slot) ([]byte, error) {
	if len(slots) == 0 {
		return nil, nil
	}
	set := make([]uint64, base.SlotCount/64)
	for _, s := range slots {
		if s >= base.SlotCount {
			return nil, base.Errorf(base.Internal, "slot %d is reported, there are %d", s, base.SlotCount)
		}
		set[s/64] |= 1 << (s % 64)
	}
	var encoded []byte
	for end := 0; ; {
		first := next(set, end, 0)
		if first == base.SlotCount {
			return encoded, nil
		}
		encoded = binary.AppendUvarint(encoded, uint64(first-end))
		end = next(set, first, ^uint64(0))
		encoded = binary.AppendUvarint(encoded, uint64(end-first))
	}
}

// next returns the first place from on whose bit is set after all bits were
// flipped by mask, or base.SlotCount.
func next(set []uint64, from int, mask uint64) int {
	for i := from / 64; i < len(set); i++ {
		word := set[i] ^ mask
		if i == from/64 {
			word &= ^uint64(0) << (from % 64)
		}
		if word != 0 {
			return i*64 + bits.TrailingZeros64(word)
		}
	}
	return base.SlotCount
}

// decodeSlots reads what encodeSlots wrote, from anybody: the slots ascend, each
// is below base.SlotCount and there once. The error is base.Invalid.
func decodeSlots(encoded []byte) ([]base.Slot, error) {
	if len(encoded) > MaxSlotsBytes {
		return nil, base.Invalidf("report", "%d bytes of slots, no set needs more than %d", len(encoded), MaxSlotsBytes)
	}
	total, err := eachRun(encoded, func(_, _ base.Slot) {})
	if err != nil || total == 0 {
		return nil, err
	}
	slots := make([]base.Slot, 0, total)
	_, err = eachRun(encoded, func(first, end base.Slot) {
		for s := first; s < end; s++ {
			slots = append(slots, s)
		}
	})
	return slots, err
}

// eachRun calls yield for each run of an encoded set, and counts the slots.
func eachRun(encoded []byte, yield func(first, end base.Slot)) (total int, err error) {
	bad := func(format string, args ...any) error {
		return base.Invalidf("report", "its slots cannot be read: %s", fmt.Sprintf(format, args...))
	}
	end := uint64(0)
	for at := 0; at < len(encoded); {
		gap, n := binary.Uvarint(encoded[at:])
		if n <= 0 {
			return 0, bad("no number at byte %d", at)
		}
		length, m := binary.Uvarint(encoded[at+n:])
		if m <= 0 {
			return 0, bad("no number at byte %d", at+n)
		}
		switch {
		case gap == 0 && at > 0:
			return 0, bad("two runs meet at slot %d", end)
		case length == 0:
			return 0, bad("the run at byte %d is empty", at)
		case gap > base.SlotCount-end || length > base.SlotCount-end-gap:
			return 0, bad("%d and %d after slot %d go beyond %d", gap, length, end, base.SlotCount)
		}
		yield(base.Slot(end+gap), base.Slot(end+gap+length))
		end += gap + length
		total += int(length)
		at += n + m
	}
	return total, nil
}
