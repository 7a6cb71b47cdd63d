package base

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestInvocationIDsAreStable holds the format to what it was: ids are in URLs
// and in stores.
func TestInvocationIDsAreStable(t *testing.T) {
	for _, test := range []struct {
		millis int64
		hi     uint16
		lo     uint64
		text   string
	}{
		{0, 0, 0, "00000000000000000000000000"},
		{1783555200123, 0xabcd, 0x0123456789abcdef, "06fk8b4kfelsq0938ljojaudts"},
		{1<<48 - 1, 1<<16 - 1, 1<<64 - 1, "vvvvvvvvvvvvvvvvvvvvvvvvvs"},
	} {
		id := NewInvocationID(time.UnixMilli(test.millis), test.hi, test.lo)
		if id.String() != test.text {
			t.Errorf("the id of %d, %#x, %#x is %s, want %s", test.millis, test.hi, test.lo, id, test.text)
		}
		if back, err := ParseInvocationID(test.text); err != nil || back != id {
			t.Errorf("%s parses as %v, %v", test.text, back, err)
		}
		if id.Time().UnixMilli() != test.millis {
			t.Errorf("%s was made at %d, want %d", id, id.Time().UnixMilli(), test.millis)
		}
	}
}

// TestInvocationIDsSortByTime checks that the order of times is the order of
// ids, of their bytes and of their strings, whatever the random bits are.
func TestInvocationIDsSortByTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() (int64, InvocationID) {
			ms := rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")
			return ms, NewInvocationID(time.UnixMilli(ms), rapid.Uint16().Draw(t, "hi"), rapid.Uint64().Draw(t, "lo"))
		}
		ms1, a := draw()
		ms2, b := draw()
		if ms1 < ms2 && bytes.Compare(a[:], b[:]) >= 0 {
			t.Fatalf("%v of %d does not come before %v of %d", a, ms1, b, ms2)
		}
		if bytes.Compare(a[:], b[:]) != strings.Compare(a.String(), b.String()) {
			t.Fatalf("the ids %x and %x and their strings are in different orders", a, b)
		}
		if back, err := ParseInvocationID(a.String()); err != nil || back != a {
			t.Fatalf("%v parses as %v, %v", a, back, err)
		}
	})
}

// TestParseInvocationIDRefuses lists what String never writes. An id must have
// one spelling: it is compared, logged and looked up as a string.
func TestParseInvocationIDRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":              "",
		"too short":            "06fk8b4kfelsq0938ljojaudt",
		"too long":             "06fk8b4kfelsq0938ljojaudts0",
		"upper case":           "06FK8B4KFELSQ0938LJOJAUDTS",
		"a foreign letter":     "06fk8b4kfelsq0938ljojaudtw",
		"padding":              "06fk8b4kfelsq0938ljojaudt=",
		"bits behind the end":  "06fk8b4kfelsq0938ljojaudtt",
		"a newline at the end": "06fk8b4kfelsq0938ljojaudt\n",
		"newlines within":      "\r\n06fk8b4kfelsq0938ljojaud",
	} {
		id, err := ParseInvocationID(text)
		if err == nil {
			t.Errorf("%s: %q parses as %v", name, text, id)
			continue
		}
		if e, ok := err.(*Error); !ok || e.Word() != "invalid-invocation" || id != (InvocationID{}) {
			t.Errorf("%s: id %v and %v, want the zero id and invalid-invocation", name, id, err)
		}
	}
}

// FuzzParseInvocationID checks that what parses is spelled as String spells it.
func FuzzParseInvocationID(f *testing.F) {
	f.Add("00000000000000000000000000")
	f.Add("06fk8b4kfelsq0938ljojaudts")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseInvocationID(text)
		switch {
		case err != nil && (KindOf(err) != Invalid || id != InvocationID{}):
			t.Fatalf("%q: id %v with %v", text, id, err)
		case err == nil && id.String() != text:
			t.Fatalf("%q parses as the id that is written %q", text, id)
		}
	})
}
