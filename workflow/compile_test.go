package workflow

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
)

// compileSteps compiles steps given as "name:predecessor,predecessor", all of function
// bank and handler a.
func compileSteps(steps ...string) (*Workflow, error) {
	d := &Definition{}
	for _, s := range steps {
		name, after, _ := strings.Cut(s, ":")
		d.Steps = append(d.Steps, StepDefinition{Name: name, Function: "bank", Handler: "a", After: strings.FieldsFunc(after, func(r rune) bool { return r == ',' })})
	}
	return Compile("test", d, bank)
}

func TestCompile(t *testing.T) {
	w := mustCompile(t, lines(
		"functions:",
		"  deposit: {function: bank, reads: ['limits/{to}'], writes: ['accounts/{to}'], after: [w]}",
		"  w: {function: bank, handler: withdraw, isolate: true}",
		"output: w",
		"timeout: 5s"))
	if w.Name != "test" || w.Output != 1 || w.Timeout != 5*time.Second || !w.Linear || fmt.Sprint(w.Order) != "[1 0]" {
		t.Errorf("got %+v", w)
	}
	for i, want := range []string{
		"{deposit bank deposit false [1] [limits/{to}] [accounts/{to}]}",
		"{w bank withdraw true [] [] []}",
	} {
		if got := fmt.Sprint(w.Steps[i]); got != want {
			t.Errorf("step %d: got %s, want %s", i, got, want)
		}
	}
	if i, ok := w.Index("w"); i != 1 || !ok {
		t.Errorf("Index(w) = %d, %v", i, ok)
	}
	if i, ok := w.Index("withdraw"); ok {
		t.Errorf("Index(withdraw) = %d, %v", i, ok)
	}
}

func TestCompileErrors(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"saga", "kind: saga\nfunctions: {a: {function: bank}}", `kind: saga comes later; only transaction is supported`},
		{"causal", "kind: causal\nfunctions: {a: {function: bank}}", `kind: causal comes later; only transaction is supported`},
		{"unknown function", "functions: {a: {function: bonk}}", `functions.a.function: no function "bonk" is deployed; deploy it first`},
		{"unknown handler", "functions: {rob: {function: bank}}", `functions.rob.handler: function "bank" has no handler "rob"; it has deposit, withdraw, a, b, c, d, e`},
		{"unknown step", "functions: {a: {function: bank}, b: {function: bank, after: [a, c]}}", `functions.b.after[1]: there is no step "c"`},
		{"unknown output", "output: b\nfunctions: {a: {function: bank}}", `output: there is no step "b"`},
		{"bad expression", "functions: {a: {function: bank, reads: [t/x], writes: [t/y, 't/{']}}", `functions.a.writes[1]: "t/{": '{' without '}'; write {{ for a brace`},
		{"bad table", "functions: {a: {function: bank, reads: ['/x']}}", `functions.a.reads[0]: table name has 0 bytes, it must have 1 to 128`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := Parse([]byte(tc.text), YAML)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Compile("test", d, bank)
			wantError(t, err, base.Invalid, "workflow", tc.want)
		})
	}
}

// TestCompileChecksWhatParseChecks: a Definition may be built by hand.
func TestCompileChecksWhatParseChecks(t *testing.T) {
	a := StepDefinition{Name: "a", Function: "bank"}
	for _, tc := range []struct {
		name string
		d    Definition
		want string
	}{
		{"a/b", Definition{Steps: []StepDefinition{a}}, `name: workflow name "a/b" has "/" at byte 1; allowed are letters, digits, '_', and after the first byte '-' and '.'`},
		{"w", Definition{}, `functions: there are 0 steps; there must be 1 to 64`},
		{"w", Definition{Steps: make([]StepDefinition, 65)}, `functions: there are 65 steps; there must be 1 to 64`},
		{"w", Definition{Steps: []StepDefinition{a, a}}, `functions.a: given twice`},
		{"w", Definition{Steps: []StepDefinition{a}, Timeout: time.Hour}, `timeout: 1h0m0s is out of range; it must be more than zero and at most 10m0s`},
	} {
		_, err := Compile(tc.name, &tc.d, bank)
		wantError(t, err, base.Invalid, "workflow", tc.want)
	}
	if w, err := Compile("w", &Definition{Steps: []StepDefinition{a}}, bank); err != nil || w.Steps[0].Handler != "a" {
		t.Errorf("the defaults are not applied: %+v, %v", w, err)
	}
}

func TestCycles(t *testing.T) {
	for _, tc := range []struct {
		steps []string
		want  string // place and path; empty: no cycle
	}{
		{[]string{"a", "b:a", "c:a,b"}, ""},
		{[]string{"a:b", "b:c", "c"}, ""},
		{[]string{"a:a"}, "functions.a.after: a after a"},
		{[]string{"a:b", "b:a"}, "functions.a.after: a after b after a"},
		{[]string{"a:b", "b:c", "c:a"}, "functions.a.after: a after b after c after a"},
		{[]string{"a", "b:a,d", "c:b", "d:c,a"}, "functions.b.after: b after d after c after b"},
		{[]string{"tail:x", "x:y", "y:x"}, "functions.x.after: x after y after x"},
	} {
		_, err := compileSteps(tc.steps...)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%v: %v", tc.steps, err)
			}
			continue
		}
		place, path, _ := strings.Cut(tc.want, ": ")
		wantError(t, err, base.Invalid, "workflow", place+": steps wait for each other in a cycle: "+path)
	}
}

func TestOrder(t *testing.T) {
	for _, tc := range []struct {
		steps  []string
		order  string
		linear bool
	}{
		{[]string{"a"}, "a", true},
		{[]string{"a", "b:a", "c:b"}, "a b c", true},
		{[]string{"c:b", "b:a", "a"}, "a b c", true},
		{[]string{"a", "c:a,b", "b:a"}, "a b c", true},
		{[]string{"a", "b"}, "a b", false},
		{[]string{"a", "b", "c:b"}, "a b c", false},
		{[]string{"b:a", "a", "c:a", "d:b,c"}, "a b c d", false},
		{[]string{"c:d", "a", "d"}, "a d c", false},
	} {
		w, err := compileSteps(tc.steps...)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, i := range w.Order {
			names = append(names, w.Steps[i].Name)
		}
		if got := strings.Join(names, " "); got != tc.order || w.Linear != tc.linear {
			t.Errorf("%v: got %s, linear %v; want %s, %v", tc.steps, got, w.Linear, tc.order, tc.linear)
		}
	}
}

func TestOrdered(t *testing.T) {
	w, err := compileSteps("d:b,c", "c:a", "b:a", "a", "e")
	if err != nil {
		t.Fatal(err)
	}
	const want = "a<b a<c a<d b<d c<d"
	var got []string
	for _, a := range "abcde" {
		for _, b := range "abcde" {
			i, _ := w.Index(string(a))
			j, _ := w.Index(string(b))
			if w.Ordered(i, j) {
				got = append(got, fmt.Sprintf("%c<%c", a, b))
			}
		}
	}
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestSingle(t *testing.T) {
	w := Single("bank", "withdraw")
	if w.Name != "bank/withdraw" || len(w.Steps) != 1 || w.Steps[0].Function != "bank" || w.Steps[0].Handler != "withdraw" || !w.Linear {
		t.Errorf("got %+v", w)
	}
	s := w.Schedule(nil, nil)
	if s.Ready() != 1 || s.Done(0) != 0 || !s.Finished() {
		t.Errorf("the one step does not run to the end: %+v", s)
	}
	if got := w.AppendOutput([]byte("x"), [][]byte{[]byte("not JSON")}); string(got) != "xnot JSON" {
		t.Errorf("output %s", got)
	}
}

func TestAppendOutput(t *testing.T) {
	w, err := compileSteps("z", "y", "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		outputs [3]string
		want    string
	}{
		{[3]string{`1`, `{"a":[]}`, `"s"`}, `{"z":1,"y":{"a":[]},"x":"s"}`},
		{[3]string{``, `hello "you"`, `{`}, `{"z":null,"y":"hello \"you\"","x":"{"}`},
		{[3]string{"\xff", "\"\xff\"", ` 2 `}, `{"z":"` + "\ufffd" + `","y":"\"` + "\ufffd" + `\"","x": 2 }`},
		{[3]string{strings.Repeat("[", 1<<20), `0`, `0`}, `{"z":"` + strings.Repeat("[", 1<<20) + `","y":0,"x":0}`},
	} {
		got := w.AppendOutput(nil, [][]byte{[]byte(tc.outputs[0]), []byte(tc.outputs[1]), []byte(tc.outputs[2])})
		if string(got) != tc.want || !json.Valid(got) {
			t.Errorf("%.100q: got  %.100s\nwant %.100s", tc.outputs, got, tc.want)
		}
	}
	w.Output = 1
	if got := w.AppendOutput(nil, [][]byte{[]byte("a"), []byte("b"), []byte("c")}); string(got) != "b" {
		t.Errorf("output of one step: got %s", got)
	}
}
