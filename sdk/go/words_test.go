package tenure

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestIntegersLikeStrconv compares with strconv, at the borders of the pieces
// that integers are read and written in and at random.
func TestIntegersLikeStrconv(t *testing.T) {
	check := func(t rapid.TB, n int64) {
		text := strconv.FormatInt(n, 10)
		if got := string(appendInt([]byte("x"), n)); got != "x"+text {
			t.Errorf("%d is written as %s", n, got)
		}
		if got, ok := parseInt([]byte(text)); !ok || got != n {
			t.Errorf("%s is read as %d, %v", text, got, ok)
		}
	}
	for power := int64(1); power > 0 && power <= 1e18; power *= 10 {
		for _, n := range []int64{power - 1, power, power + 1, 1 - power, -power, -1 - power} {
			check(t, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.Int64().Draw(t, "n")) })
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.Int64Range(-1e9, 1e9).Draw(t, "n")) })
}

// TestIntegersRefused puts every byte at every place of a number.
func TestIntegersRefused(t *testing.T) {
	for length := 1; length <= 19; length++ {
		for place := range length {
			text := []byte(strings.Repeat("1", length))
			for c := range 256 {
				text[place] = byte(c)
				want, err := strconv.ParseInt(string(text), 10, 64)
				got, ok := parseInt(text)
				if text[0] == '+' {
					want, err = 0, strconv.ErrSyntax // not an integer of ours
				}
				if ok != (err == nil) || ok && got != want {
					t.Fatalf("%q is read as %d, %v", text, got, ok)
				}
			}
		}
	}
}

// TestIsPlain puts every byte at every place of a text.
func TestIsPlain(t *testing.T) {
	for length := 1; length <= 17; length++ {
		for place := range length {
			text := []byte(strings.Repeat("a", length))
			for c := range 256 {
				text[place] = byte(c)
				want := c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\'
				if isPlain(string(text)) != want {
					t.Fatalf("%q is plain: %v", text, !want)
				}
			}
		}
	}
	if !isPlain("") {
		t.Error("nothing is not plain")
	}
}
