package tenure

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
)

const document = ` {"from": "ann", "amount": 30, "rate":-1.5e2, "ok" :true,"no":false,"none":null,
	"items":[{"id":"a"},{"id":"b","tags":["x","y"]}, 7], "deep":{"er":{"value":"here"}},
	"esc\"aped":"quote", "\u0075ser":"by escape", "text":"tab\there \u00e9 \ud83d\ude00 \/", "lone":"\ud83dx","big":9223372036854775808} `

func TestGet(t *testing.T) {
	doc := ParseJSON([]byte(document))
	for _, tt := range []struct{ path, raw, text string }{
		{"from", `"ann"`, "ann"},
		{"amount", "30", "30"},
		{"none", "null", "null"},
		{"items[0].id", `"a"`, "a"},
		{"items[1].tags[1]", `"y"`, "y"},
		{"items[2]", "7", "7"},
		{"items[3]", "", ""},
		{"items[x]", "", ""},
		{"items[-1]", "", ""},
		{"items[0", "", ""},
		{"items.id", "", ""},
		{"deep.er.value", `"here"`, "here"},
		{"deep.er", `{"value":"here"}`, `{"value":"here"}`},
		{"deep.missing.value", "", ""},
		{"from.x", "", ""},
		{`esc"aped`, `"quote"`, "quote"},
		{"user", `"by escape"`, "by escape"},
		{"text", `"tab\there \u00e9 \ud83d\ude00 \/"`, "tab\there é 😀 /"},
		{"lone", `"\ud83dx"`, "\ufffdx"},
		{"missing", "", ""},
	} {
		v := doc.Get(tt.path)
		if string(v.Raw()) != tt.raw || v.String() != tt.text || v.Exists() != (tt.raw != "") {
			t.Errorf("%s: raw %s, text %q, want %s, %q", tt.path, v.Raw(), v.String(), tt.raw, tt.text)
		}
	}
}

func TestScalars(t *testing.T) {
	doc := ParseJSON([]byte(document))
	for _, tt := range []struct {
		path     string
		integer  int64
		isInt    bool
		float    float64
		isFloat  bool
		b, isB   bool
		isString bool
	}{
		{path: "amount", integer: 30, isInt: true, float: 30, isFloat: true},
		{path: "rate", float: -150, isFloat: true},
		{path: "big", float: 9223372036854775808, isFloat: true},
		{path: "ok", b: true, isB: true},
		{path: "no", isB: true},
		{path: "none"},
		{path: "from", isString: true},
		{path: "items"},
		{path: "missing"},
	} {
		v := doc.Get(tt.path)
		if n, ok := v.Int(); ok != tt.isInt || ok && n != tt.integer {
			t.Errorf("%s: Int %d, %v", tt.path, n, ok)
		}
		if f, ok := v.Float(); ok != tt.isFloat || ok && f != tt.float {
			t.Errorf("%s: Float %g, %v", tt.path, f, ok)
		}
		if b, ok := v.Bool(); ok != tt.isB || b != tt.b {
			t.Errorf("%s: Bool %v, %v", tt.path, b, ok)
		}
		if v.IsNumber() != tt.isFloat {
			t.Errorf("%s: IsNumber %v", tt.path, v.IsNumber())
		}
		if v.IsString() != tt.isString {
			t.Errorf("%s: IsString %v", tt.path, v.IsString())
		}
	}
}

func TestIntegers(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		if n, ok := parseInt([]byte(text)); !ok || n != want {
			t.Errorf("%s: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "-", "1.0", "1e3", "+1", "9223372036854775808", "-9223372036854775809", "99999999999999999999", "1 "} {
		if n, ok := parseInt([]byte(text)); ok {
			t.Errorf("%q is %d", text, n)
		}
	}
}

func TestRanges(t *testing.T) {
	doc := ParseJSON([]byte(document))
	var ids, names []string
	for item := range doc.Get("items").Each {
		ids = append(ids, item.Get("id").String())
	}
	if !slices.Equal(ids, []string{"a", "b", ""}) {
		t.Errorf("ids %q", ids)
	}
	for name := range doc.Fields {
		names = append(names, name)
		if len(names) == 9 {
			break
		}
	}
	if !slices.Equal(names, []string{"from", "amount", "rate", "ok", "no", "none", "items", "deep", `esc"aped`}) {
		t.Errorf("names %q", names)
	}
	for _, text := range []string{"[]", "[ ]", "{}", "1", "", "[", "[,]"} {
		for v := range ParseJSON([]byte(text)).Each {
			t.Errorf("%s has the element %s", text, v.Raw())
		}
	}
}

func TestJSONAllocatesNothing(t *testing.T) {
	text := []byte(document)
	if n := testing.AllocsPerRun(100, func() {
		doc := ParseJSON(text)
		if _, ok := doc.Get("amount").Int(); !ok {
			t.Fatal("no amount")
		}
		if !doc.Get("deep.er.value").IsString() {
			t.Fatal("no value")
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// TestDeepNesting expects a scan, not a recursion.
func TestDeepNesting(t *testing.T) {
	depth := 1 << 20
	text := strings.Repeat("[", depth) + strings.Repeat("]", depth)
	if got := len(ParseJSON([]byte(text)).Raw()); got != 2*depth {
		t.Errorf("%d bytes", got)
	}
	if ParseJSON([]byte(text[:depth])).Get("[0]").Exists() {
		t.Error("half a value exists")
	}
}

func TestObject(t *testing.T) {
	if got := string(NewObject().Bytes()); got != "{}" {
		t.Errorf("empty object: %s", got)
	}
	nested := NewObject().Bool("yes", true).Bytes()
	got := NewObject().Str("a\"\\", "line\nbreak\x01 é \xff \"").Int("i", math.MinInt64).Float("f", 1.5).
		Float("nan", math.NaN()).Raw("o", nested).Raw("n", nil).Bytes()
	want := `{"a\"\\":"line\nbreak\u0001 é ` + "\ufffd" + ` \"","i":-9223372036854775808,"f":1.5,"nan":null,"o":{"yes":true},"n":null}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid(got) {
		t.Error("not valid JSON")
	}
}

// TestObjectAfterBytes expects that texts stay as they were.
func TestObjectAfterBytes(t *testing.T) {
	o := NewObject().Int("a", 1)
	first := o.Bytes()
	second := o.Int("b", 2).Bytes()
	third := o.Str("c", strings.Repeat("x", 2*objectBytes)).Bytes()
	if string(first) != `{"a":1}` || string(second) != `{"a":1,"b":2}` || !json.Valid(third) {
		t.Errorf("got %s, %s, %s", first, second, third)
	}
}

// TestObjectGrows puts a name at every distance from the end of the first room.
func TestObjectGrows(t *testing.T) {
	for n := range objectBytes + 10 {
		value := strings.Repeat("x", n)
		got := string(NewObject().Str("value", value).Int("last_one", 12).Bytes())
		if want := `{"value":"` + value + `","last_one":12}`; got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestRegistry(t *testing.T) {
	t.Cleanup(func() { registry = nil })
	h := func(*Context) ([]byte, error) { return nil, nil }
	for _, name := range []string{"c", "a", "b"} {
		Handle(name, h)
	}
	if registry[0].name != "a" || registry[2].name != "c" || len(Registered()) != 3 {
		t.Errorf("registry %v", registry)
	}
	for _, bad := range []func(){func() { Handle("a", h) }, func() { Handle("", h) }, func() { Handle("x", nil) }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			bad()
		}()
	}
}

// FuzzJSON compares with encoding/json on valid texts and expects no panic on others.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{document, `{"a":[1,{"b":"\u00`, `"\`, `{"a"`, `{"a":}`, `[1,]`, "[\"\xff\"]", `{"":""}`, `-`} {
		f.Add([]byte(seed), "a[0].b")
	}
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		doc := ParseJSON(text)
		v := doc.Get(path)
		_, _ = v.Int()
		_, _ = v.Float()
		_ = v.String()
		if !json.Valid(text) {
			for item := range doc.Each {
				_ = item.String()
			}
			for name := range doc.Fields {
				_ = name
			}
			return
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			return // a number out of range
		}
		compare(t, doc, want)
	})
}

func compare(t *testing.T, got JSON, want any) {
	switch want := want.(type) {
	case string:
		if got.String() != want || !got.IsString() {
			t.Errorf("%s is %q, want %q", got.Raw(), got.String(), want)
		}
		var again string
		if err := json.Unmarshal(appendString(nil, want), &again); err != nil || again != want {
			t.Errorf("%q is written as %s", want, appendString(nil, want))
		}
	case float64:
		if f, ok := got.Float(); !ok || f != want {
			t.Errorf("%s is %g, %v", got.Raw(), f, ok)
		}
	case []any:
		n := 0
		for item := range got.Each {
			if n < len(want) {
				compare(t, item, want[n])
			}
			n++
		}
		if n != len(want) {
			t.Errorf("%s has %d elements, want %d", got.Raw(), n, len(want))
		}
	case map[string]any:
		last := map[string]JSON{} // encoding/json means the last of several fields with one name
		for name, value := range got.Fields {
			last[name] = value
		}
		if len(last) != len(want) {
			t.Errorf("%s has %d fields, want %d", got.Raw(), len(last), len(want))
		}
		for name, value := range last {
			compare(t, value, want[name])
		}
	}
}
