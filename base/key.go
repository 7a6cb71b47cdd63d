package base

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of names and keys, in bytes. MaxValueBytes and the body limits are
// options of the parts that enforce them; these are part of the key format.
const (
	// MaxNameBytes bounds table, function, workflow, step and handler names.
	MaxNameBytes = 128
	// MaxKeyBytes is the default bound of a key's bytes within its table.
	MaxKeyBytes = 1 << 10
	// MaxValueBytes is the default bound of one value.
	MaxValueBytes = 1 << 20
)

// GateCount is the number of slots that stand for whole tables, see GateSlot:
// the first ones, because a transaction passes its gates before it takes keys.
const GateCount = 1 << 12

// Slot is the hash class of a key, in [GateCount, SlotCount), or of a table, in
// [0, GateCount).
type Slot uint32

// Key names one value: a table and the bytes of the key within it. Both are
// immutable strings; Key is comparable and may be used as a map key.
type Key struct {
	Table string
	Key   string
}

// String returns the key as it stands in definitions and URLs: table/key.
func (k Key) String() string { return k.Table + "/" + k.Key }

// Slot returns the slot of the key: FNV-1a, 64 bit, over table, a zero byte
// and key, whose bits are then mixed as in the finalizer of MurmurHash3 (short
// keys leave the high bits of FNV uneven), and the top 32 of them scaled to the
// range. The function is part of the wire and lease format: processes of one
// cluster must agree on it, so it may not change.
func (k Key) Slot() Slot {
	h := hashString(fnvOffset, k.Table)
	h *= fnvPrime // the zero byte between table and key
	return scale(hashString(h, k.Key), GateCount, SlotCount)
}

// GateSlot returns the slot of a table's gate, where scans and writes are kept
// apart over all workers.
func GateSlot(table string) Slot { return scale(hashString(fnvOffset, table), 0, GateCount) }

func hashString(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// scale mixes h and maps it evenly to [lo, hi).
func scale(h uint64, lo, hi Slot) Slot {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return lo + Slot(h>>32*uint64(hi-lo)>>32)
}

// Compare orders keys by the global lock order: slot, then table, then key.
// It returns a negative number, zero or a positive number like cmp.Compare.
func (k Key) Compare(o Key) int {
	if c := cmp.Compare(k.Slot(), o.Slot()); c != 0 {
		return c
	}
	if c := strings.Compare(k.Table, o.Table); c != 0 {
		return c
	}
	return strings.Compare(k.Key, o.Key)
}

// Validate refuses a key that cannot be stored or addressed: a bad table
// name, no bytes, more than MaxKeyBytes, a NUL or invalid UTF-8. The error is
// an *Error of kind Invalid or TooLarge.
func (k Key) Validate() error {
	if err := ValidateName("table", k.Table); err != nil {
		return err
	}
	switch {
	case k.Key == "":
		return Invalidf("key", "key in table %q is empty", k.Table)
	case len(k.Key) > MaxKeyBytes:
		return Errorf(TooLarge, "key in table %q has %d bytes, the limit is %d", k.Table, len(k.Key), MaxKeyBytes)
	case !utf8.ValidString(k.Key):
		return Invalidf("key", "key %q in table %q is not valid UTF-8", k.Key, k.Table)
	case strings.IndexByte(k.Key, 0) >= 0:
		return Invalidf("key", "key %q in table %q contains a NUL byte", k.Key, k.Table)
	}
	return nil
}

// ValidateName checks a table, function, workflow, step or handler name: 1 to
// MaxNameBytes of ASCII letters, digits, '_', '-' and '.', beginning with a
// letter, a digit or '_'. what names the thing in the error.
func ValidateName(what, name string) error {
	if name == "" || len(name) > MaxNameBytes {
		return Invalidf("name", "%s name has %d bytes, it must have 1 to %d", what, len(name), MaxNameBytes)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '-' && c != '.') {
			return Invalidf("name", "%s name %q has %q at byte %d; allowed are letters, digits, '_', and after the first byte '-' and '.'", what, name, string(rune(c)), i)
		}
	}
	return nil
}

// Version counts the committed writes of a key: 0 means never written, and
// every committed write (put, delete, add) adds one. A deleted key keeps its
// version, so that a version never names two values of one key.
type Version uint64

// View numbers a membership of workers. It grows by at least one at every
// change; the store refuses batches of views older than its seal.
type View uint32

// Number is the place of a batch in one worker's commit log: gapless from 1
// within one incarnation of the worker.
type Number uint64

const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

// FormatETag returns a version as an HTTP entity tag (RFC 9110 section 8.8.3).
func FormatETag(v Version) string { return fmt.Sprintf("%q", fmt.Sprint(uint64(v))) }
