package workflow

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
)

func TestCompileKeyExprErrors(t *testing.T) {
	for _, tc := range []struct{ source, want string }{
		{``, `"" has no '/': write table/key`},
		{`accounts`, `"accounts" has no '/': write table/key`},
		{`{t}/x`, `"{t}/x" has a placeholder in the table: the table must be literal`},
		{`a b/x`, `table name "a b" has " " at byte 1; allowed are letters, digits, '_', and after the first byte '-' and '.'`},
		{`/x`, `table name has 0 bytes, it must have 1 to 128`},
		{`t/`, `"t/": the key is empty`},
		{`t/{`, `"t/{": '{' without '}'; write {{ for a brace`},
		{`t/a}`, `"t/a}": '}' without '{'; write }} for a brace`},
		{`t/{a}}`, `"t/{a}}": '}' without '{'; write }} for a brace`},
		{"t/a\x00", `"t/a\x00": contains a NUL byte`},
		{"t/\xff", `"t/\xff" is not valid UTF-8`},
		{`t/` + strings.Repeat("x", 1023), `has 1025 bytes, the limit is 1024`},
		{`t/{}`, `"t/{}": {}: the name of a field is missing`},
		{`t/{.a}`, `"t/{.a}": {.a}: the name of a field is missing`},
		{`t/{a..b}`, `"t/{a..b}": {a..b}: the name of a field is missing`},
		{`t/{a.}`, `"t/{a.}": {a.}: the name of a field is missing`},
		{`t/{[0]}`, `"t/{[0]}": {[0]}: the name of a field is missing`},
		{`t/{a]}`, `"t/{a]}": {a]}: ']' without '['`},
		{`t/{a[0}`, `"t/{a[0}": {a[0}: '[' without ']'`},
		{`t/{a[0]b}`, `"t/{a[0]b}": {a[0]b}: "b" follows ']'; only '.' or '[' may`},
		{`t/{a[]}`, `"t/{a[]}": {a[]}: [] is neither [*] nor an index from 0 to 1048576`},
		{`t/{a[-1]}`, `"t/{a[-1]}": {a[-1]}: [-1] is neither [*] nor an index from 0 to 1048576`},
		{`t/{a[01]}`, `"t/{a[01]}": {a[01]}: [01] is neither [*] nor an index from 0 to 1048576`},
		{`t/{a[1048577]}`, `"t/{a[1048577]}": {a[1048577]}: [1048577] is neither [*] nor an index from 0 to 1048576`},
		{`t/{ a }`, `"t/{ a }": { a }: the field " a " has spaces at its ends or control characters`},
		{"t/{a\tb}", `"t/{a\tb}": {a` + "\t" + `b}: the field "a\tb" has spaces at its ends or control characters`},
		{`t/{a{b}`, `"t/{a{b}": {a{b}: '{' within a placeholder`},
		{`t/{a[*].x}{b[*].x}`, `"t/{a[*].x}{b[*].x}": {b[*].x}: [*] walks another list than the placeholder before it; write two expressions`},
		{`t/{a[*][*][*][*][*]}`, `"t/{a[*][*][*][*][*]}": {a[*][*][*][*][*]}: more than 4 [*]`},
		{`t/` + strings.Repeat("{a}", 9), `"t/` + strings.Repeat("{a}", 9) + `": more than 8 placeholders`},
	} {
		e, err := compileKeyExpr(tc.source)
		if err == nil {
			t.Errorf("%q: accepted as %+v", tc.source, e)
		} else if got := detail(err); got != tc.want {
			t.Errorf("%q:\ngot  %s\nwant %s", tc.source, got, tc.want)
		}
	}
}

func FuzzKeyExpr(f *testing.F) {
	for _, seed := range []string{
		"accounts/{from}", "t/{{a}}", "t/{{{a}}}", "t/a-{b.c[2]}-{d[*].e}-{d[*].f[*].g}", "t/{a[*]}", "t/{a[*][0].b}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		e, err := compileKeyExpr(source)
		if err != nil {
			if !utf8.ValidString(detail(err)) || len(detail(err)) > 2048 {
				t.Fatalf("%q: error %q", source, detail(err))
			}
			return
		}
		if e.String() != source {
			t.Fatalf("%q became %q", source, e)
		}
		if err := base.ValidateName("table", e.table); err != nil {
			t.Fatalf("%q: %v", source, err)
		}
		// Literal text and placeholders, escaped again, are the source.
		var b strings.Builder
		b.WriteString(e.table + "/")
		for _, p := range e.parts {
			if p.level > len(e.loops) || len(e.parts) > maxParts || len(e.loops) > maxLoops {
				t.Fatalf("%q: %+v is out of bounds", source, e)
			}
			text := p.text
			if p.literal {
				text = strings.NewReplacer("{", "{{", "}", "}}").Replace(text)
			}
			b.WriteString(text)
		}
		if b.String() != source {
			t.Fatalf("%q has the parts of %q", source, b.String())
		}
		for p := range e.rootPaths {
			if len(p) == 0 || p[0].name == "" {
				t.Fatalf("%q: the path %+v does not begin with a field", source, p)
			}
		}
	})
}
