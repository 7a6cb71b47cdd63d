package workflow

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
)

const transferYAML = `
kind: transaction                # the default
functions:
  withdraw:
    function: bank
    writes: ["accounts/{from}"]
  deposit:
    function: bank
    handler: credit
    writes:
      - accounts/{to}
    reads: ["limits/{to}"]
    after: [withdraw]
    isolate: true
output: deposit
timeout: 5s
`

const transferJSON = `{
  "functions": {
    "withdraw": {"function": "bank", "isolate": false, "writes": ["accounts/{from}"]},
    "deposit": {"isolate": true, "after": ["withdraw"], "reads": ["limits/{to}"], "writes": ["accounts/{to}"],
      "handler": "credit", "function": "bank"}
  },
  "timeout": "5000ms", "output": "deposit"
}`

var transfer = &Definition{
	Kind: KindTransaction,
	Steps: []StepDefinition{
		{Name: "withdraw", Function: "bank", Handler: "withdraw", Writes: []string{"accounts/{from}"}},
		{
			Name: "deposit", Function: "bank", Handler: "credit", Reads: []string{"limits/{to}"},
			Writes: []string{"accounts/{to}"}, After: []string{"withdraw"}, Isolate: true,
		},
	},
	Output:  "deposit",
	Timeout: 5 * time.Second,
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name   string
		text   string
		format Format
	}{
		{"yaml", transferYAML, YAML},
		{"yaml with carriage returns", strings.ReplaceAll(transferYAML, "\n", "\r\n"), YAML},
		{"yaml with a document marker", "---" + transferYAML + "...\n", YAML},
		{"json", transferJSON, JSON},
		{"json read as yaml", transferJSON, YAML},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse([]byte(tc.text), tc.format)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, transfer) {
				t.Errorf("got  %+v\nwant %+v", got, transfer)
			}
		})
	}
}

func TestParseKeepsTheOrderOfSteps(t *testing.T) {
	const names = "zebra mango 0apple _pear banana"
	var yaml, js strings.Builder
	for _, name := range strings.Fields(names) {
		fmt.Fprintf(&yaml, "  %s: {function: bank}\n", name)
		fmt.Fprintf(&js, `,"%s":{"function":"bank"}`, name)
	}
	for format, text := range map[Format]string{YAML: "functions:\n" + yaml.String(), JSON: `{"functions":{` + js.String()[1:] + `}}`} {
		d, err := Parse([]byte(text), format)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range d.Steps {
			got = append(got, s.Name)
		}
		if strings.Join(got, " ") != names {
			t.Errorf("format %d: got %v, want %s", format, got, names)
		}
	}
}

func TestMarshalJSON(t *testing.T) {
	const want = `{"kind":"transaction","functions":{` +
		`"withdraw":{"function":"bank","handler":"withdraw","writes":["accounts/{from}"]},` +
		`"deposit":{"function":"bank","handler":"credit","reads":["limits/{to}"],"writes":["accounts/{to}"],"after":["withdraw"],"isolate":true}},` +
		`"output":"deposit","timeout":"5s"}`
	for name, v := range map[string]any{"pointer": transfer, "value": *transfer} {
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
	}
	back, err := Parse([]byte(want), JSON)
	if err != nil || !reflect.DeepEqual(back, transfer) {
		t.Errorf("read back: got %+v, %v\nwant %+v", back, err, transfer)
	}
}

// TestParseErrors has one row for each thing that is refused.
func TestParseErrors(t *testing.T) {
	step := func(fields string) string { return "functions: {w: {function: bank, " + fields + "}}" }
	for _, tc := range []struct {
		name   string
		format Format
		text   string
		want   string
	}{
		{"empty json", JSON, ``, `line 1, column 1: unexpected end of JSON input`},
		{"empty yaml", YAML, ``, `definition: there must be exactly one YAML document`},
		{"only a comment", YAML, `# nothing`, `definition: there must be exactly one YAML document`},
		{"not a mapping", JSON, `[]`, `definition: must be a mapping, not a list`},
		{"json syntax", JSON, "{\n  \"kind\": transaction}", `line 2, column 13: invalid character 'a' in literal true (expecting 'u')`},
		{"json trailing data", JSON, `{} {}`, `line 1, column 4: invalid character '{' after top-level value`},
		{"yaml syntax", YAML, "kind: a: b", `line 1, column 7: mapping value is not allowed in this context`},
		{"yaml two documents", YAML, "kind: saga\n---\nkind: saga", `definition: there must be exactly one YAML document`},
		{"not utf-8", YAML, "kind: \xff", `definition: is not valid UTF-8`},
		{"alias", YAML, "kind: &k saga\noutput: *k", `line 1, column 7: anchors, aliases and merge keys are not supported; write the value out`},
		{"merge key", YAML, "<<: {kind: saga}", `line 1, column 1: anchors, aliases and merge keys are not supported; write the value out`},
		{"tag", YAML, "kind: !!str saga", `line 1, column 7: tags and directives are not supported; leave "!!str" out`},
		{"directive", YAML, "%YAML 1.2\n---\nkind: saga", `line 1, column 1: tags and directives are not supported; leave "%" out`},
		{"explicit key", YAML, "? kind\n: saga", `line 1, column 1: '? ' keys are not supported; write name: value`},
		{"key that is no string", YAML, "functions: {1: {function: bank}}", `line 1, column 13: the name "1" is not a string; put it in quotes`},
		{"deep json", JSON, strings.Repeat("[", 9) + strings.Repeat("]", 9), `definition: nested deeper than 8 levels; a definition needs four`},
		{"deep yaml", YAML, strings.Repeat("[", 9) + strings.Repeat("]", 9), `line 1, column 9: nested deeper than 8 levels; a definition needs four`},
		{"deep yaml blocks", YAML, strings.Repeat("- ", 9) + "x", `line 1, column 17: nested deeper than 8 levels; a definition needs four`},

		{"deep yaml blocks, before they are parsed", YAML, strings.Repeat("- ", 200) + "x", `line 1, column 257: nested deeper than 8 levels; a definition needs four`},
		{"more yaml fields than any definition", YAML, strings.Repeat("a:\n", 1025), `line 1025, column 2: more fields or list entries than a definition can have`},
		{"more yaml entries than any definition", YAML, strings.Repeat("-\n", 9217), `line 9217, column 1: more fields or list entries than a definition can have`},

		{"unknown field", JSON, `{"function": {}}`, `function: unknown field; a definition has kind, functions, output and timeout`},
		{"field twice", JSON, `{"kind": "saga", "kind": "saga"}`, `kind: given twice`},
		{"field twice yaml", YAML, "kind: saga\nkind: saga", `kind: given twice`},
		{"kind unknown", YAML, "kind: sage\n" + step(""), `kind: "sage" is unknown; use transaction`},
		{"kind empty", YAML, "kind: ''\n" + step(""), `kind: is empty; leave it out or give a value`},
		{"kind without a value", YAML, "kind:\n" + step(""), `kind: must be a string, not nothing`},
		{"output", YAML, "output: a b\n" + step(""), `output: step name "a b" has " " at byte 1; allowed are letters, digits, '_', and after the first byte '-' and '.'`},
		{"timeout without unit", YAML, "timeout: 5\n" + step(""), `timeout: must be a string with a unit, such as "750ms" or "5s", not a number`},
		{"timeout not a duration", YAML, "timeout: soon\n" + step(""), `timeout: "soon" is not a duration, such as "750ms" or "5s"`},
		{"timeout zero", YAML, "timeout: 0s\n" + step(""), `timeout: must be more than zero and at most 10m0s`},
		{"timeout negative", YAML, "timeout: -1s\n" + step(""), `timeout: -1s is out of range; it must be more than zero and at most 10m0s`},
		{"timeout long", YAML, "timeout: 10m1ns\n" + step(""), `timeout: 10m0.000000001s is out of range; it must be more than zero and at most 10m0s`},

		{"no functions", JSON, `{}`, `functions: there are 0 steps; there must be 1 to 64`},
		{"functions is a list", YAML, "functions: [w]", `functions: must be a mapping, not a list`},
		{"step twice", YAML, "functions:\n  w: {function: bank}\n  v: {function: bank}\n  w: {function: bank}", `functions.w: given twice`},
		{"step without a value", YAML, "functions:\n  w:", `functions.w: must be a mapping, not nothing`},
		{"step name", JSON, `{"functions": {"a/b": {"function": "bank"}}}`, `functions: step name "a/b" has "/" at byte 1; allowed are letters, digits, '_', and after the first byte '-' and '.'`},
		{"step name long", JSON, `{"functions": {"` + strings.Repeat("x", 129) + `": {"function": "bank"}}}`, `functions: step name has 129 bytes, it must have 1 to 128`},
		{"function missing", YAML, "functions: {w: {}}", `functions.w.function: is missing; name the deployed function that has the handler`},
		{"function not a string", YAML, "functions: {w: {function: 7}}", `functions.w.function: must be a string, not a number; put it in quotes`},
		{"function name", YAML, "functions: {w: {function: -x}}", `functions.w.function: function name "-x" has "-" at byte 0; allowed are letters, digits, '_', and after the first byte '-' and '.'`},
		{"handler", YAML, step("handler: [w]"), `functions.w.handler: must be a string, not a list`},
		{"unknown step field", YAML, step("write: []"), `functions.w.write: unknown field; a step has function, handler, reads, writes, after and isolate`},
		{"step field twice", YAML, step("reads: [], reads: []"), `functions.w.reads: given twice`},
		{"isolate", YAML, step("isolate: yes"), `functions.w.isolate: must be a boolean, not a string`},
		{"writes not a list", YAML, step("writes: a/b"), `functions.w.writes: must be a list, not a string`},
		{"a write not a string", YAML, step("writes: [a/b, {c: d}]"), `functions.w.writes[1]: must be a string, not a mapping`},
		{"a read too long", YAML, step("reads: [a/" + strings.Repeat("x", 1023) + "]"), `functions.w.reads[0]: has 1025 bytes, the limit is 1024`},
		{"too many expressions", YAML, step("reads: [" + strings.Repeat("a/b,", 32) + "], writes: [" + strings.Repeat("a/b,", 33) + "]"), `functions.w: reads and writes have 65 key expressions, the limit is 64`},
		{"after twice", YAML, step("after: [a, b, a]"), `functions.w.after[2]: a is named twice`},
		{"after many", YAML, step("after: [" + strings.Repeat("s,", 65) + "]"), `functions.w.after: names 65 steps, a workflow has at most 64`},
		{"after name", YAML, step("after: ['']"), `functions.w.after[0]: is empty; leave it out or give a value`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text), tc.format)
			wantError(t, err, base.Invalid, "workflow", tc.want)
		})
	}
}

func TestParseLimitsAreReachable(t *testing.T) {
	steps := func(n int) string {
		var b strings.Builder
		b.WriteString("functions:\n")
		for i := range n {
			fmt.Fprintf(&b, "  s%d: {function: bank}\n", i)
		}
		return b.String()
	}
	if d, err := Parse([]byte(steps(MaxSteps)), YAML); err != nil || len(d.Steps) != MaxSteps {
		t.Errorf("%d steps: %v", MaxSteps, err)
	}
	_, err := Parse([]byte(steps(MaxSteps+1)), YAML)
	wantError(t, err, base.Invalid, "workflow", "functions: more than 64 steps")

	full := steps(1) + strings.Repeat("#", MaxDefinitionBytes-len(steps(1)))
	if _, err := Parse([]byte(full), YAML); err != nil {
		t.Errorf("%d bytes: %v", len(full), err)
	}
	_, err = Parse([]byte(full+"#"), YAML)
	wantError(t, err, base.Invalid, "workflow", "definition: has 262145 bytes, the limit is 262144")
}

// TestParseHostileYAML feeds documents at the limit of size that are made to
// cost more than their length. A parser that recursed along them would end the
// process, so that the test is that it comes back with an error.
func TestParseHostileYAML(t *testing.T) {
	for _, unit := range []string{"[", "{", "- ", "? ", "a: ", "-\n", "&a ", "*a ", "!a ", "\"", "a:\n", "[a, b],", ": ", "---\n", "|\n", "{a: ", "[{"} {
		text := strings.Repeat(unit, MaxDefinitionBytes/len(unit))
		if d, err := Parse([]byte(text), YAML); err == nil {
			t.Errorf("%q repeated: accepted as %+v", unit, d)
		}
	}
	var steps strings.Builder // nested blocks, one column further each
	for i := range 700 {
		steps.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	if _, err := Parse([]byte(steps.String()), YAML); err == nil {
		t.Error("nested blocks: accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(transferYAML), true)
	f.Add([]byte(transferJSON), false)
	f.Add([]byte("functions: {w: {function: bank, reads: ['a/{b[*].c}', \"d/{{}}\"]}}"), true)
	f.Add([]byte("functions:\n  w:\n    function: |-\n      bank\n    writes:\n    - >-\n      a/{b}\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, yaml bool) {
		format := JSON
		if yaml {
			format = YAML
		}
		d, err := Parse(data, format)
		if err != nil {
			if base.KindOf(err) != base.Invalid || len(err.Error()) > 2048 {
				t.Fatalf("error of %d bytes: %.300v", len(err.Error()), err)
			}
			return
		}
		// What was accepted has a canonical form of the same meaning.
		canonical, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(canonical, JSON)
		if err != nil {
			t.Fatalf("canonical form refused: %v\n%s", err, canonical)
		}
		if !reflect.DeepEqual(d, back) {
			t.Fatalf("canonical form differs\n%+v\n%+v", d, back)
		}
	})
}
