package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/sdk/go"
)

func TestFindField(t *testing.T) {
	for _, tt := range []struct {
		text, name string
		value      string // "-" absent, "?" unknown
	}{
		{`{"a":1,"b":"x","c":[{"a":2}]}`, "a", `1`},
		{`{"a":1,"b":"x","c":[{"a":2}]}`, "b", `"x"`},
		{`{"a":1,"b":"x","c":[{"a":2}]}`, "c", `[{"a":2}]`},
		{`{"a":1,"b":"x","c":[{"a":2}]}`, "d", `-`},
		{`{ "a" : {"b":"}"} , "c":"\"" }`, "c", `"\""`},
		{`{"a":1,"a":2}`, "a", `1`},
		{`{"":1}`, "", `1`},
		{`{}`, "a", `-`},
		{`[{"a":1}]`, "a", `-`},
		{``, "a", `-`},
		{`{"a":1,"\u0062":2,"c":3}`, "a", `1`},
		{`{"a":1,"\u0062":2,"c":3}`, "c", `?`},
		{`{"a.b":1}`, "a.b", `?`},
		{`{"a[":1}`, "a[", `?`},
		{`{"a":"` + strings.Repeat("x", maxFieldText) + `"}`, "a", `?`},
		{`{"a":1`, "b", `-`},
		{`{"a":`, "a", `-`},
		{`{"a`, "a", `-`},
	} {
		if got := located(tt.text, tt.name); got != tt.value {
			t.Errorf("%s in %.50s is %s, want %s", tt.name, tt.text, got, tt.value)
		}
	}
}

// located returns the value that findField finds.
func located(text, name string) string {
	switch place := findField([]byte(text), []byte(name)); place {
	case fieldAbsent:
		return "-"
	case fieldUnknown:
		return "?"
	default:
		return text[place>>32:][:uint32(place)]
	}
}

// likeSDK compares the answers for a text of valid JSON without space around it to what the SDK finds by itself.
func likeSDK(t rapid.TB, text string) {
	doc := tenure.ParseJSON([]byte(text))
	names := []string{"a", "nowhere"}
	for name := range doc.Fields {
		if name != "" && !strings.ContainsAny(name, ".[") {
			names = append(names, name)
		}
	}
	for _, name := range names {
		want := "-"
		if value := doc.Get(name); value.Exists() {
			want = string(value.Raw())
		}
		if got := located(text, name); got != want && got != "?" {
			t.Errorf("%q in %s is %s, want %s", name, text, got, want)
		}
	}
}

// TestFindFieldLikeSDK compares on random objects.
func TestFindFieldLikeSDK(t *testing.T) {
	var value *rapid.Generator[any]
	name := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "from", `"`, `\`, "é"}), rapid.String())
	leaf := rapid.OneOf(rapid.Int().AsAny(), rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Float64().AsAny(), rapid.Just[any](nil))
	value = rapid.OneOf(leaf, rapid.MapOfN(name, leaf, 0, 5).AsAny(), rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return value }), 0, 3).AsAny())
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(rapid.MapOfN(name, value, 0, 6).Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indented") {
			var b bytes.Buffer
			if err := json.Indent(&b, text, "", "\t"); err != nil {
				t.Fatal(err)
			}
			text = b.Bytes()
		}
		likeSDK(t, string(text))
	})
}

// FuzzFindField expects places inside of any text, and in valid ones those of the SDK.
func FuzzFindField(f *testing.F) {
	for _, text := range []string{`{"a":1,"b":[{"c":"}"}]}`, `{"a`, `{"a":}`, `{"\u00`, `{"a":{]`, `{,}`, "{\"\xff\":1}", `{"a":1,"a":2}`} {
		f.Add(text, "a")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		_ = located(text, name)
		if json.Valid([]byte(text)) {
			likeSDK(t, strings.TrimSpace(text))
		}
	})
}

// TestGuestFinds has a guest look for what the host knows and for what it does not.
func TestGuestFinds(t *testing.T) {
	const doc = `{"a":1,"b":{"c":[10,{"d":"x"}]},"\u0065":2,"f":3}`
	for path, want := range map[string]string{
		"a": "1", "b.c[1].d": `"x"`, "b.c": `[10,{"d":"x"}]`, "e": "2", "f": "3", "g": "", "": doc, "b.x": "", ".a": "",
	} {
		got, err := invoke(t, shared(t), "find", fmt.Sprintf(`{"path":%q,"doc":%s}`, path, doc))
		if natively := string(tenure.ParseJSON([]byte(doc)).Get(path).Raw()); err != nil || got != want || natively != want {
			t.Errorf("%q: %s, %v, natively %s, want %s", path, got, err, natively, want)
		}
	}
}

// TestGuestIntegers has the host read and write integers for a guest.
func TestGuestIntegers(t *testing.T) {
	host := &fakeHost{values: map[base.Key]string{{Table: "t", Key: "low"}: "-9223372036854775808", {Table: "t", Key: "word"}: "x", {Table: "t", Key: "plus"}: "+1", {Table: "t", Key: "empty"}: ""}}
	for _, tt := range []struct{ key, output, reason string }{
		{key: "new", output: `{"n":1}`},
		{key: "new", output: `{"n":2}`},
		{key: "low", output: `{"n":-9223372036854775807}`},
		{key: "word", reason: "t/word is not a decimal 64-bit integer"},
		{key: "plus", reason: "t/plus is not a decimal 64-bit integer"},
		{key: "empty", reason: "t/empty is not a decimal 64-bit integer"},
		{key: strings.Repeat("k", 2000), reason: `get_int: a key in table "t" has 2000 bytes, the limit is 1024`},
	} {
		output, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "ints", Input: fmt.Appendf(nil, `{"key":%q}`, tt.key), Host: host})
		reason := ""
		if e, ok := errors.AsType[*base.Error](err); ok {
			reason = e.Reason
		}
		if string(output) != tt.output || reason != tt.reason {
			t.Errorf("%.20s: %s, %v", tt.key, output, err)
		}
	}
	if got := host.values[base.Key{Table: "t", Key: "low"}]; got != "-9223372036854775807" {
		t.Errorf("low is %s", got)
	}
	host.over = true
	if _, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "ints", Input: []byte(`{"key":"new"}`), Host: host}); base.KindOf(err) != base.Aborted {
		t.Errorf("error %v", err)
	}
}

// TestGuestKeeps expects that a guest may keep strings and objects from call to call.
func TestGuestKeeps(t *testing.T) {
	b := load(t, Options{}, false)
	for i := range 500 {
		if _, err := invoke(t, b, "keep", fmt.Sprintf(`{"name":"name%d %s"}`, i, strings.Repeat("x", i%300))); err != nil {
			t.Fatal(err)
		}
	}
}
