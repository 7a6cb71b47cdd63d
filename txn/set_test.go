package txn

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

const none = Mode(0)

func TestModes(t *testing.T) {
	for _, test := range []struct {
		held, asked Mode
		covers      bool
		join        Mode
	}{
		{none, Shared, false, Shared},
		{none, Additive, false, Additive},
		{none, Exclusive, false, Exclusive},
		{Shared, none, false, Shared},
		{Shared, Shared, true, Shared},
		{Shared, Additive, false, Exclusive},
		{Shared, Exclusive, false, Exclusive},
		{Additive, none, false, Additive},
		{Additive, Shared, false, Exclusive},
		{Additive, Additive, true, Additive},
		{Additive, Exclusive, false, Exclusive},
		{Exclusive, none, true, Exclusive},
		{Exclusive, Shared, true, Exclusive},
		{Exclusive, Additive, true, Exclusive},
		{Exclusive, Exclusive, true, Exclusive},
	} {
		if got := test.held.Covers(test.asked); got != test.covers {
			t.Errorf("%v covers %v: %v, want %v", test.held, test.asked, got, test.covers)
		}
		if got := test.held.Join(test.asked); got != test.join {
			t.Errorf("%v joined with %v is %v, want %v", test.held, test.asked, got, test.join)
		}
	}
	if Shared.String() != "shared" || Mode(9).String() != "mode-9" {
		t.Errorf("names: %v, %v", Shared, Mode(9))
	}
	for use, mode := range map[Use]Mode{Read: Shared, Write: Exclusive, AddTo: Additive} {
		if use.Mode() != mode {
			t.Errorf("use %d needs %v, want %v", use, use.Mode(), mode)
		}
	}
}

func TestAddDelta(t *testing.T) {
	const lo, hi = math.MinInt64, math.MaxInt64
	for _, test := range []struct {
		n, delta, sum int64
		overflow      bool
	}{
		{0, 0, 0, false},
		{5, -8, -3, false},
		{hi, 0, hi, false},
		{lo, 0, lo, false},
		{hi - 1, 1, hi, false},
		{hi, 1, 0, true},
		{1, hi, 0, true},
		{hi, hi, 0, true},
		{lo + 1, -1, lo, false},
		{lo, -1, 0, true},
		{-1, lo, 0, true},
		{lo, lo, 0, true},
		{0, lo, lo, false},
		{hi, lo, -1, false},
		{lo, hi, -1, false},
	} {
		sum, err := AddDelta(test.n, test.delta)
		if (err != nil) != test.overflow || sum != test.sum {
			t.Errorf("%d + %d = %d, %v; want %d, overflow %v", test.n, test.delta, sum, err, test.sum, test.overflow)
		}
		if err != nil && (!errors.Is(err, errOverflow) || base.KindOf(err) != base.FunctionError) {
			t.Errorf("%d + %d: %v is not an overflow of kind function-error", test.n, test.delta, err)
		}
	}
}

func TestAddDecimal(t *testing.T) {
	for _, test := range []struct {
		value   string
		present bool
		delta   int64
		sum     int64
		err     error
	}{
		{"", false, 7, 7, nil},
		{"ignored", false, 7, 7, nil},
		{"40", true, 2, 42, nil},
		{"-1", true, 1, 0, nil},
		{"+1", true, 1, 2, nil},
		{"007", true, 1, 8, nil},
		{"9223372036854775807", true, 0, math.MaxInt64, nil},
		{"9223372036854775807", true, 1, 0, errOverflow},
		{"-9223372036854775808", true, -1, 0, errOverflow},
		{"9223372036854775808", true, 0, 0, errNotANumber},
		{"", true, 1, 0, errNotANumber},
		{" 1", true, 1, 0, errNotANumber},
		{"1.0", true, 1, 0, errNotANumber},
		{"1_000", true, 1, 0, errNotANumber},
		{"0x10", true, 1, 0, errNotANumber},
		{"null", true, 1, 0, errNotANumber},
	} {
		sum, err := AddDecimal([]byte(test.value), test.present, test.delta)
		if sum != test.sum || !errors.Is(err, test.err) {
			t.Errorf("%q (present %v) + %d = %d, %v; want %d, %v", test.value, test.present, test.delta, sum, err, test.sum, test.err)
		}
	}
}

// TestEffects checks what a transaction sees of a key and what it would write.
func TestEffects(t *testing.T) {
	for _, test := range []struct {
		name    string
		access  Access
		current string // "-" for absent, "" for not asked
		result  string // "-" for absent
		err     error
	}{
		{"only read", Access{}, "10", "10", nil},
		{"put", Access{Effect: Put, Value: []byte("x")}, "x", "x", nil},
		{"put of nothing", Access{Effect: Put}, "", "", nil},
		{"delete", Access{Effect: Delete}, "-", "-", nil},
		{"increment", Access{Effect: Increment, Delta: -3}, "10", "7", nil},
		{"increment over the end", Access{Effect: Increment, Delta: math.MaxInt64}, "10", "-", errOverflow},
	} {
		a := test.access
		a.Entry = &Entry{Loaded: true, Present: true, Value: []byte("10")}
		a.Note()
		show := func(v []byte, present bool) string {
			if !present {
				return "-"
			}
			return string(v)
		}
		if got := show(a.Current()); got != test.current {
			t.Errorf("%s: the transaction sees %q, want %q", test.name, got, test.current)
		}
		value, present, err := a.Resolve()
		if got := show(value, present); got != test.result || !errors.Is(err, test.err) {
			t.Errorf("%s: writes %q, %v; want %q, %v", test.name, got, err, test.result, test.err)
		}
		if string(a.Entry.Value) != "10" {
			t.Errorf("%s changed the entry's value to %q", test.name, a.Entry.Value)
		}
	}
}

// TestSetAgainstModel inserts, removes and resets at random and compares the
// set with a slice of keys, on both sides of the size at which it gets an index.
func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set
		var model []base.Key
		draw := func(t *rapid.T) base.Key {
			return base.Key{Table: "t", Key: strconv.Itoa(rapid.IntRange(0, 60).Draw(t, "key"))}
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				k := draw(t)
				if slices.Contains(model, k) {
					return
				}
				a := s.Insert(k, Additive)
				if a.Key != k || a.Slot != k.Slot() || a.Mode != Additive || a.Entry != nil || a.Effect != None || a.Readers|a.Writers|a.Adders != 0 || a.Loaded {
					t.Fatalf("a new access is not empty: %+v", a)
				}
				a.Readers, a.Effect, a.Value, a.Delta, a.Loaded = 1, Put, []byte("x"), 1, true
				model = append(model, k)
			},
			"insert many": func(t *rapid.T) {
				for i := range 20 {
					k := base.Key{Table: "many", Key: fmt.Sprint(len(model), "-", i)}
					s.Insert(k, Shared)
					model = append(model, k)
				}
			},
			"remove": func(*rapid.T) {
				if n := len(model); n > 0 {
					s.Remove(s.Accesses[n-1])
					model = model[:n-1]
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
					s.Reset()
					model = model[:0]
				}
			},
			"": func(t *rapid.T) {
				if len(s.Accesses) != len(model) {
					t.Fatalf("%d accesses, want %d", len(s.Accesses), len(model))
				}
				for i, k := range model {
					if a := s.Accesses[i]; a.Key != k || s.Find(k) != a {
						t.Fatalf("access %d is %v, found as %v, want %v", i, a.Key, s.Find(k), k)
					}
				}
				k := draw(t)
				if known := slices.Contains(model, k); known != (s.Find(k) != nil) {
					t.Fatalf("%v is in the set: %v, found: %v", k, known, !known)
				}
				above := !slices.ContainsFunc(model, func(m base.Key) bool { return m.Compare(k) >= 0 })
				if s.InOrder(k) != above {
					t.Fatalf("%v is above all of %v: %v, InOrder says %v", k, model, above, s.InOrder(k))
				}
			},
		})
	})
}

// TestFootprintAgainstModel checks that a sorted footprint has every wanted key
// once, in order, in the join of its modes.
func TestFootprintAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f Footprint
		model := map[base.Key]Mode{}
		for range rapid.IntRange(0, 40).Draw(t, "wants") {
			k := base.Key{Table: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "table"), Key: strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "key"))}
			m := Mode(rapid.IntRange(1, 3).Draw(t, "mode"))
			f.Want(k, m)
			if old, ok := model[k]; ok && old != m {
				m = Exclusive
			}
			model[k] = m
			if rapid.Bool().Draw(t, "sort") {
				f.Sort()
			}
		}
		f.Sort()
		if len(f.Needs) != len(model) {
			t.Fatalf("%d needs, want %d", len(f.Needs), len(model))
		}
		var s Set
		f.Gates(&s)
		for i, n := range f.Needs {
			if n.Mode != model[n.Key] {
				t.Fatalf("%v is wanted %v, want %v", n.Key, n.Mode, model[n.Key])
			}
			if i > 0 && f.Needs[i-1].Key.Compare(n.Key) >= 0 {
				t.Fatalf("%v comes before %v", f.Needs[i-1].Key, n.Key)
			}
			p := s.Pass(n.Key.Table)
			if writes := p != nil && slices.Contains(p.Writes, n.Key.Key); writes != (n.Mode != Shared) {
				t.Fatalf("%v is wanted %v and passes the gate as a write: %v", n.Key, n.Mode, writes)
			}
		}
	})
}
