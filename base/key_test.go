package base

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestSlotsAreStable holds the slot function to what it was when the format was
// made: processes of different versions must agree on it. A failure here is a
// change of format, not a figure to bring up to date.
func TestSlotsAreStable(t *testing.T) {
	for _, test := range []struct {
		table, key string
		slot       Slot
	}{
		{"accounts", "alice", 954357},
		{"accounts", "bob", 224670},
		{"a", "bc", 445893},
		{"ab", "c", 736145},
		{"orders", "2026/07/09", 544063},
		{"t", "", 906902},
		{"", "", 593940},
		{"naïve", "ключ", 508401},
		{"t", "a\x00b", 911501},
		{"_", "\xff", 1004294},
	} {
		if got := (Key{test.table, test.key}).Slot(); got != test.slot {
			t.Errorf("slot of %q, %q is %d, want %d", test.table, test.key, got, test.slot)
		}
	}
}

// TestSlotIsMixedFNV compares the slot with the standard library's FNV-1a.
func TestSlotIsMixedFNV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Key{rapid.String().Draw(t, "table"), rapid.String().Draw(t, "key")}
		h := fnv.New64a()
		h.Write([]byte(k.Table + "\x00" + k.Key))
		sum := h.Sum64()
		sum = (sum ^ sum>>33) * 0xff51afd7ed558ccd
		sum ^= sum >> 33
		if want := GateCount + Slot(sum>>32*(SlotCount-GateCount)>>32); k.Slot() != want {
			t.Fatalf("slot of %q is %d, want %d", k, k.Slot(), want)
		}
	})
}

// TestSlotsAreSpread checks that numbered keys, the commonest kind, do not
// crowd: neither by the low bits of the slot, nor by the high ones, nor by the
// whole of it.
func TestSlotsAreSpread(t *testing.T) {
	const keys, shards = 1 << 16, 256
	var count, high [shards]int
	slots := map[Slot]bool{}
	for i := range keys {
		slot := Key{"accounts", strconv.Itoa(i)}.Slot()
		count[slot%shards]++
		high[(slot-GateCount)/((SlotCount-GateCount)/shards+1)]++
		slots[slot] = true
	}
	// 256 a shard expected, standard deviation 16: six of them either way.
	for i, n := range slices.Concat(count[:], high[:]) {
		if n < 160 || n > 352 {
			t.Errorf("shard %d has %d of %d keys, about %d expected", i, n, keys, keys/shards)
		}
	}
	// By chance 2^20 (1 - exp(-2^16/2^20)) = 63544 slots would be in use.
	if len(slots) < 63000 {
		t.Errorf("%d keys use %d slots, about 63500 expected", keys, len(slots))
	}
}

func TestKeyOrder(t *testing.T) {
	// By slot first, whatever the names are; the slots stand in the table above.
	order := []Key{{"accounts", "bob"}, {"a", "bc"}, {"orders", "2026/07/09"}, {"ab", "c"}, {"accounts", "alice"}, {"_", "\xff"}}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); got != cmp.Compare(i, j) {
				t.Errorf("%v compares with %v as %d, want %d", a, b, got, cmp.Compare(i, j))
			}
		}
	}
	if k := (Key{"orders", "a/b"}); k.String() != "orders/a/b" {
		t.Errorf("the key stands in URLs as %q", k)
	}
}

// TestKeyOrderWithinASlot looks for keys of one slot, which are ordered by
// table and then by key.
func TestKeyOrderWithinASlot(t *testing.T) {
	bySlot := map[Slot][]Key{}
	for _, table := range []string{"p", "q"} {
		for i := range 20000 {
			k := Key{table, "k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune(0x100+i/26))}
			bySlot[k.Slot()] = append(bySlot[k.Slot()], k)
		}
	}
	tables, keys := 0, 0
	for _, group := range bySlot {
		for i, a := range group {
			for _, b := range group[:i] {
				want := cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key))
				if got := a.Compare(b); got != want || b.Compare(a) != -want {
					t.Errorf("%v and %v of one slot compare as %d, want %d", a, b, got, want)
				}
				if a.Table != b.Table {
					tables++
				} else {
					keys++
				}
			}
		}
	}
	if tables < 10 || keys < 10 {
		t.Errorf("%d pairs of two tables and %d of one table share a slot: the test sees too little", tables, keys)
	}
}

func TestValidateName(t *testing.T) {
	for _, name := range []string{"a", "Z", "0", "_", "a-b.c_D9", "__proto__", strings.Repeat("n", MaxNameBytes)} {
		if err := ValidateName("table", name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	for name, part := range map[string]string{
		"":                                  "0 bytes",
		strings.Repeat("n", MaxNameBytes+1): "129 bytes",
		".":                                 "at byte 0",
		"-a":                                "at byte 0",
		"a b":                               `" " at byte 1`,
		"a/b":                               `"/" at byte 1`,
		"a\x00":                             `"\x00" at byte 1`,
		"naïve":                             "at byte 2",
		"a\n":                               `"\n" at byte 1`,
	} {
		err := ValidateName("table", name)
		if KindOf(err) != Invalid || err == nil {
			t.Errorf("%q: %v, want a refusal of kind invalid", name, err)
			continue
		}
		if word := err.(*Error).Word(); word != "invalid-name" || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "table name") {
			t.Errorf("%q: %v does not say %q of a table name", name, err, part)
		}
	}
}

func TestValidateKey(t *testing.T) {
	for _, test := range []struct {
		key  Key
		word string // "" for valid
	}{
		{Key{"t", "k"}, ""},
		{Key{"t", "any thing/at all: ключ\n"}, ""},
		{Key{"t", strings.Repeat("k", MaxKeyBytes)}, ""},
		{Key{"t", ""}, "invalid-key"},
		{Key{"t", "a\x00b"}, "invalid-key"},
		{Key{"t", "\xff"}, "invalid-key"},
		{Key{"t", strings.Repeat("k", MaxKeyBytes+1)}, "too-large"},
		{Key{"", "k"}, "invalid-name"},
		{Key{"a/b", "k"}, "invalid-name"},
		{Key{"t\x00", "k"}, "invalid-name"},
	} {
		word := ""
		if err := test.key.Validate(); err != nil {
			word = err.(*Error).Word()
		}
		if word != test.word {
			t.Errorf("%.40q: %q, want %q", test.key, word, test.word)
		}
	}
}

func TestFormatETag(t *testing.T) {
	for v, want := range map[Version]string{0: `"0"`, 42: `"42"`, 1<<64 - 1: `"18446744073709551615"`} {
		if got := FormatETag(v); got != want {
			t.Errorf("version %d has the tag %s, want %s", v, got, want)
		}
	}
}

// FuzzKeyValidate checks that what is accepted can be stored and addressed: it
// comes back from its URL form, and no other key has the same stored form.
func FuzzKeyValidate(f *testing.F) {
	f.Add("accounts", "alice")
	f.Add("t", "a/b/c")
	f.Add("", "")
	f.Add("a\x00b", "c")
	f.Add("-", "\xff\xfe")
	f.Fuzz(func(t *testing.T, table, key string) {
		k := Key{table, key}
		slot := k.Slot()
		if slot < GateCount || slot >= SlotCount || GateSlot(k.Table) >= GateCount || k.Compare(k) != 0 {
			t.Fatalf("%q has slot %d and compares with itself as %d", k, slot, k.Compare(k))
		}
		err := k.Validate()
		if err != nil {
			if kind := KindOf(err); kind != Invalid && kind != TooLarge {
				t.Fatalf("%q is refused with kind %v: %v", k, kind, err)
			}
			if !utf8.ValidString(err.Error()) {
				t.Fatalf("the refusal of %q is not valid UTF-8: %q", k, err)
			}
			return
		}
		back, rest, _ := strings.Cut(k.String(), "/")
		if back != table || rest != key {
			t.Fatalf("%q comes back from %q as %q, %q", k, k.String(), back, rest)
		}
		if slices.Contains([]byte(table+key), 0) || len(key) > MaxKeyBytes || !utf8.ValidString(key) {
			t.Fatalf("%q is accepted", k)
		}
	})
}
