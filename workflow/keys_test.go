package workflow

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
)

// oneStep returns a workflow of one step that writes the expressions.
func oneStep(t testing.TB, exprs ...string) *Workflow {
	t.Helper()
	d := &Definition{Steps: []StepDefinition{{Name: "a", Function: "bank", Writes: exprs}}}
	w, err := Compile("test", d, bank)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func keyNames(uses []KeyUse) string {
	var names []string
	for _, u := range uses {
		names = append(names, u.Key.String())
	}
	return strings.Join(names, " ")
}

func TestKeyExpr(t *testing.T) {
	const input = ` { "from":"alice", "amount": 12.50, "big":12345678901234567890, "vip":true, "old":false,
		"trip": {"flight": "LH1", "seat": {"row": 7}}, "a b":"space", "esc\"aped": "caf\u00e9\/", "": 1,
		"items": [{"id": "x", "qty": 1}, {"id": "y", "qty": 2}], "tags": ["red", "blue"], "none": [], "grid": [[1, 2], [3]],
		"orders": [{"id": "o1", "items": [{"sku": "p"}, {"sku": "q"}]}, {"id": "o2", "items": []}, {"id": "o3", "items": [{"sku": "r"}]}],
		"0": "zero", "a.b": 1, "*": "star", "#": "hash", "@this": "at", "from": "mallory", "twice": {"a": 1, "a": 2} } `
	for _, tc := range []struct{ expr, want string }{
		{`accounts/{from}`, `accounts/alice`},
		{`t/{twice.a}-{from}`, `t/1-alice`}, // of two fields the first
		{`t/{amount}`, `t/12.50`},
		{`t/{big}`, `t/12345678901234567890`},
		{`t/{vip}-{old}`, `t/true-false`},
		{`t/{trip.flight}/{trip.seat.row}`, `t/LH1/7`},
		{`t/{a b}`, `t/space`},
		{`t/{esc"aped}`, `t/café/`},
		{`t/{0}`, `t/zero`}, // fields, not patterns of gjson
		{`t/{*}{#}{@this}`, `t/starhashat`},
		{`t/{items[1].id}`, `t/y`},
		{`t/{items[*].id}`, `t/x t/y`},
		{`t/{items[*].id}x{items[*].qty}:{from}`, `t/xx1:alice t/yx2:alice`},
		{`t/{tags[*]}`, `t/red t/blue`},
		{`t/{none[*].id}`, ``},
		{`t/{grid[*][0]}`, `t/1 t/3`},
		{`t/{grid[*][*]}`, `t/1 t/2 t/3`},
		{`t/{orders[*].id}/{orders[*].items[*].sku}`, `t/o1/p t/o1/q t/o3/r`},
		{`t/literal`, `t/literal`},
		{`t/{{from}}`, `t/{from}`},
		{`t/{{{from}}}`, `t/{alice}`},
		{`t/a/b c/{from}`, `t/a/b c/alice`},
	} {
		uses, err := oneStep(t, tc.expr).DeclaredKeys(nil, []byte(input))
		if err != nil {
			t.Errorf("%s: %v", tc.expr, err)
		} else if got := keyNames(uses); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.expr, got, tc.want)
		}
	}
}

func TestDeclaredKeysOrder(t *testing.T) {
	w := mustCompile(t, lines(
		"functions:",
		"  a: {function: bank, writes: ['t/{y}', 't/{x}'], reads: ['t/{x}']}",
		"  b: {function: bank}",
		"  c: {function: bank, reads: ['u/lit', 't/{y}']}"))
	before := KeyUse{Key: base.Key{Table: "own", Key: "k"}, Step: 9}
	got, err := w.DeclaredKeys([]KeyUse{before}, []byte(`{"x":1,"y":2}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []KeyUse{
		before,
		{base.Key{Table: "t", Key: "1"}, false, 0},
		{base.Key{Table: "t", Key: "2"}, true, 0},
		{base.Key{Table: "t", Key: "1"}, true, 0},
		{base.Key{Table: "u", Key: "lit"}, false, 2},
		{base.Key{Table: "t", Key: "2"}, false, 2},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestDeclaredKeysErrors(t *testing.T) {
	const at = `functions.a.writes[0] `
	array := `{"a":[` + strings.Repeat("1,", MaxKeys) + `1]}`
	for _, tc := range []struct {
		name, expr, input string
		kind              base.Kind
		want              string
	}{
		{"empty input", `t/{a}`, ``, base.Invalid, `the input must be a JSON object: the workflow takes "a" from it`},
		{"input is no object", `t/{a}`, `["a"]`, base.Invalid, `the input must be a JSON object: the workflow takes "a" from it`},
		{"missing", `t/{a}`, `{"b":1}`, base.Invalid, at + `"t/{a}": {a}: the input has no field "a"`},
		{"null", `t/{a}`, `{"a":null}`, base.Invalid, at + `"t/{a}": {a}: the value must be a string, a number or a boolean, not null`},
		{"object", `t/{a}`, `{"a":{}}`, base.Invalid, at + `"t/{a}": {a}: the value must be a string, a number or a boolean, not an object`},
		{"array", `t/{a}`, `{"a":[1]}`, base.Invalid, at + `"t/{a}": {a}: the value must be a string, a number or a boolean, not an array`},
		{"field within a string", `t/{a.b}`, `{"a":"b"}`, base.Invalid, at + `"t/{a.b}": {a.b}: the field "b" needs an object, not string`},
		{"field within an array", `t/{a.0}`, `{"a":["b"]}`, base.Invalid, at + `"t/{a.0}": {a.0}: the field "0" needs an object, not an array`},
		{"missing within", `t/{a.b}`, `{"a":{"c":1}}`, base.Invalid, at + `"t/{a.b}": {a.b}: there is no field "b"`},
		{"index in an object", `t/{a[0]}`, `{"a":{"0":1}}`, base.Invalid, at + `"t/{a[0]}": {a[0]}: [0] needs an array, not an object`},
		{"index too large", `t/{a[2]}`, `{"a":[1,2]}`, base.Invalid, at + `"t/{a[2]}": {a[2]}: there is no [2], the array has 2 elements`},
		{"each of an object", `t/{a[*]}`, `{"a":{}}`, base.Invalid, at + `"t/{a[*]}": [*] needs an array, not an object`},
		{"missing in an element", `t/{a[*].b}`, `{"a":[{"b":1},{}]}`, base.Invalid, at + `"t/{a[*].b}": {a[*].b}: there is no field "b"`},
		{"empty key", `t/{a}`, `{"a":""}`, base.Invalid, at + `"t/{a}": key in table "t" is empty`},
		{"NUL in key", `t/{a}`, `{"a":"\u0000"}`, base.Invalid, at + `"t/{a}": key "\x00" in table "t" contains a NUL byte`},
		{"not UTF-8", `t/{a}`, "{\"a\":\"\xff\"}", base.Invalid, at + `"t/{a}": key "\xff" in table "t" is not valid UTF-8`},
		{"long key", `t/{a}{a}`, `{"a":"` + strings.Repeat("x", 513) + `"}`, base.TooLarge, at + `"t/{a}{a}": the key has more than 1024 bytes`},
		{"too many keys", `t/{a[*]}`, array, base.Invalid, at + `"t/{a[*]}": the invocation declares more than 4096 keys`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := make([]KeyUse, 1, 8)
			got, err := oneStep(t, tc.expr).DeclaredKeys(dst, []byte(tc.input))
			wantError(t, err, tc.kind, "input", tc.want)
			if len(got) != 1 {
				t.Errorf("after the error there are %d keys, want those of dst", len(got))
			}
		})
	}
}

func TestDeclaredKeysLimitsAreReachable(t *testing.T) {
	long := strings.Repeat("x", base.MaxKeyBytes)
	if uses, err := oneStep(t, "t/{a}").DeclaredKeys(nil, []byte(`{"a":"`+long+`"}`)); err != nil || uses[0].Key.Key != long {
		t.Errorf("a key of %d bytes: %v", len(long), err)
	}
	array := `{"a":[` + strings.Repeat("1,", MaxKeys-1) + `1]}`
	own := make([]KeyUse, 3) // what is in dst does not count
	if uses, err := oneStep(t, "t/{a[*]}").DeclaredKeys(own, []byte(array)); err != nil || len(uses) != len(own)+MaxKeys {
		t.Errorf("%d keys: got %d, %v", MaxKeys, len(uses)-len(own), err)
	}
}

// TestDeclaredKeysLiteral: an input is looked at only where it is needed.
func TestDeclaredKeysLiteral(t *testing.T) {
	for _, input := range []string{"", "null", "[1]", "{}"} {
		if uses, err := oneStep(t, "t/k").DeclaredKeys(nil, []byte(input)); err != nil || keyNames(uses) != "t/k" {
			t.Errorf("input %q: %v, %v", input, uses, err)
		}
	}
	if uses, err := Single("bank", "a").DeclaredKeys(nil, nil); err != nil || len(uses) != 0 {
		t.Errorf("a single handler declares %v, %v", uses, err)
	}
}

func TestDeclaredKeysManyRoots(t *testing.T) {
	var exprs, want []string
	input := map[string]int{}
	for i := range MaxStepKeyExprs {
		exprs = append(exprs, fmt.Sprintf("t/{f%d}", i))
		want = append(want, fmt.Sprintf("t/%d", i))
		input[fmt.Sprintf("f%d", i)] = i
	}
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	uses, err := oneStep(t, exprs...).DeclaredKeys(nil, text)
	if err != nil || keyNames(uses) != strings.Join(want, " ") {
		t.Errorf("got %s, %v\nwant %s", keyNames(uses), err, want)
	}
}

// TestDeclaredKeysBoundsItsWork: a large value that many placeholders look
// into is refused instead of walked again and again.
func TestDeclaredKeysBoundsItsWork(t *testing.T) {
	exprs := make([]string, MaxStepKeyExprs)
	for i := range exprs {
		exprs[i] = "t/{a.x}{a.x}"
	}
	w := oneStep(t, exprs...)
	input := func(padding int) []byte {
		return []byte(`{"a":{"pad":"` + strings.Repeat("p", padding) + `","x":"1"}}`)
	}
	if _, err := w.DeclaredKeys(nil, input(1000)); err != nil {
		t.Errorf("a small input: %v", err)
	}
	_, err := w.DeclaredKeys(nil, input(1<<20))
	wantError(t, err, base.Invalid, "input", `functions.a.writes[32] "t/{a.x}{a.x}": {a.x}: the input is too large for so many placeholders; declare fewer keys or move their values up`)
}

func FuzzDeclaredKeys(f *testing.F) {
	f.Add("t/{a}", []byte(`{"a":"x"}`))
	f.Add("t/{a.b[1]}-{c[*].d}", []byte(`{"a":{"b":[1,2]},"c":[{"d":true},{"d":"\ud83d\ude00"}]}`))
	f.Add("t/{a[*].b[*]}", []byte(`{"a":[{"b":[1,"",3e9]},{"b":[]}]}`))
	f.Fuzz(func(t *testing.T, expr string, input []byte) {
		d := &Definition{Steps: []StepDefinition{{Name: "a", Function: "bank", Reads: []string{expr}}}}
		w, err := Compile("test", d, bank)
		if err != nil {
			return
		}
		uses, err := w.DeclaredKeys(nil, input)
		if !json.Valid(input) || !utf8.Valid(input) {
			return // a caller's fault: anything but a panic will do
		}
		want, ok := reference(w.Steps[0].Reads[0], input)
		if ok != (err == nil) {
			t.Fatalf("%q of %q: got %v, %v; the reference says %v, %v", expr, input, uses, err, want, ok)
		}
		for i, u := range uses {
			if u.Key.Key != want[i] || u.Key.Validate() != nil {
				t.Fatalf("%q of %q: key %d is %q, want %q", expr, input, i, u.Key.Key, want[i])
			}
		}
		if err == nil && len(uses) != len(want) {
			t.Fatalf("%q of %q: %d keys, want %d", expr, input, len(uses), len(want))
		}
		if err != nil && len(err.Error()) > 4096 {
			t.Fatalf("error of %d bytes", len(err.Error()))
		}
	})
}

// reference evaluates a compiled expression the plain way, on values that
// encoding/json decoded.
func reference(e KeyExpr, input []byte) (keys []string, ok bool) {
	var root any = object(nil)
	if hasRoots(&e) {
		root = decodeFirst(input)
		if _, ok := root.(object); !ok {
			return nil, false
		}
	}
	ok = referenceLevel(e, []any{root}, &keys)
	return keys, ok && len(keys) <= MaxKeys
}

func hasRoots(e *KeyExpr) bool {
	for range e.rootPaths {
		return true
	}
	return false
}

// referenceLevel appends the keys; elements has the input and the current
// element of each loop so far.
func referenceLevel(e KeyExpr, elements []any, keys *[]string) bool {
	level := len(elements) - 1
	var key strings.Builder
	for _, p := range e.parts {
		if p.literal {
			key.WriteString(p.text)
			continue
		}
		if p.level > level {
			continue
		}
		switch v := walk(elements[p.level], p.path).(type) {
		case string:
			key.WriteString(v)
		case json.Number, bool:
			fmt.Fprint(&key, v)
		default:
			return false
		}
	}
	if level == len(e.loops) {
		*keys = append(*keys, key.String())
		return base.Key{Table: e.table, Key: key.String()}.Validate() == nil
	}
	list, ok := walk(elements[level], e.loops[level]).([]any)
	for _, element := range list {
		ok = ok && referenceLevel(e, append(elements[:level+1:level+1], element), keys)
	}
	return ok
}

func walk(v any, p path) any {
	for _, s := range p {
		switch in := v.(type) {
		case object:
			if v = nil; s.name != "" {
				v = in[s.name]
			}
		case []any:
			if v = nil; s.name == "" && s.index < len(in) {
				v = in[s.index]
			}
		default:
			return nil
		}
	}
	return v
}

// object is a JSON object in which the first of two equal names counts.
type object map[string]any

// decodeFirst decodes JSON into objects, []any, json.Number and scalars.
func decodeFirst(data []byte) any {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	return decodeNext(dec)
}

func decodeNext(dec *json.Decoder) any {
	token, err := dec.Token()
	if err != nil {
		return nil
	}
	switch token {
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			name, _ := dec.Token()
			value := decodeNext(dec)
			if _, seen := o[name.(string)]; !seen {
				o[name.(string)] = value
			}
		}
		_, _ = dec.Token()
		return o
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			list = append(list, decodeNext(dec))
		}
		_, _ = dec.Token()
		return list
	default:
		return token
	}
}

func BenchmarkDeclaredKeys(b *testing.B) {
	for _, bc := range []struct{ name, input string }{
		{"transfer", `{"from":"account-000017","to":"account-000003","amount":12}`},
		{"4KiB", `{"note":"` + strings.Repeat("n", 4<<10) + `","from":"account-000017","to":"account-000003","amount":12}`},
	} {
		b.Run(bc.name, func(b *testing.B) {
			w := mustCompile(b, lines(
				"functions:",
				"  withdraw: {function: bank, writes: ['accounts/{from}']}",
				"  deposit: {function: bank, writes: ['accounts/{to}'], after: [withdraw]}"))
			input := []byte(bc.input)
			dst := make([]KeyUse, 0, 8)
			b.ReportAllocs()
			for b.Loop() {
				uses, err := w.DeclaredKeys(dst, input)
				if err != nil || len(uses) != 2 {
					b.Fatal(uses, err)
				}
			}
		})
	}
	b.Run("100 elements", func(b *testing.B) {
		w := oneStep(b, "stock/{items[*].shop}:{items[*].id}")
		input := []byte(`{"items":[` + strings.Repeat(`{"id":"p-4711","shop":"berlin","quantity":3},`, 99) + `{"id":"p","shop":"b"}]}`)
		dst := make([]KeyUse, 0, 128)
		b.ReportAllocs()
		for b.Loop() {
			if uses, err := w.DeclaredKeys(dst, input); err != nil || len(uses) != 100 {
				b.Fatal(uses, err)
			}
		}
	})
}
