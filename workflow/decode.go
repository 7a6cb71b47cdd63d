package workflow

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
)

// maxQuoted bounds how much of a user's text an error repeats, in bytes.
const maxQuoted = 80

// invalid returns the error of every fault in a definition: the place, then
// what is wrong there.
func invalid(place, format string, args ...any) error {
	return base.Invalidf("workflow", "%s: %s", place, fmt.Sprintf(format, args...))
}

// clip shortens a user's text for an error.
func clip(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// decode turns a document into a definition, with the defaults filled in. It
// checks fields and types; Definition.check has the limits.
func decode(root node) (*Definition, error) {
	if err := expect("definition", root, mappingNode); err != nil {
		return nil, err
	}
	d := &Definition{}
	err := eachField("", root, func(place, name string, value node) (err error) {
		switch name {
		case "kind":
			d.Kind, err = decodeString(place, value)
		case "functions":
			d.Steps, err = decodeSteps(place, value)
		case "output":
			d.Output, err = decodeString(place, value)
		case "timeout":
			d.Timeout, err = decodeTimeout(place, value)
		default:
			err = invalid(clip(place), "unknown field; a definition has kind, functions, output and timeout")
		}
		return err
	})
	d.Kind = cmp.Or(d.Kind, KindTransaction)
	return d, err
}

func decodeSteps(place string, n node) ([]StepDefinition, error) {
	if err := expect(place, n, mappingNode); err != nil {
		return nil, err
	}
	var steps []StepDefinition
	err := eachField(place, n, func(place, name string, value node) error {
		if len(steps) == MaxSteps {
			return invalid("functions", "more than %d steps", MaxSteps)
		}
		step, err := decodeStep(clip(place), name, value)
		steps = append(steps, step)
		return err
	})
	return steps, err
}

func decodeStep(place, name string, n node) (StepDefinition, error) {
	s := StepDefinition{Name: name}
	if err := expect(place, n, mappingNode); err != nil {
		return s, err
	}
	err := eachField(place, n, func(place, name string, value node) (err error) {
		switch name {
		case "function":
			s.Function, err = decodeString(place, value)
		case "handler":
			s.Handler, err = decodeString(place, value)
		case "reads":
			s.Reads, err = decodeStrings(place, value)
		case "writes":
			s.Writes, err = decodeStrings(place, value)
		case "after":
			s.After, err = decodeStrings(place, value)
		case "isolate":
			err = expect(place, value, boolNode)
			s.Isolate = value.text == "true"
		default:
			err = invalid(clip(place), "unknown field; a step has function, handler, reads, writes, after and isolate")
		}
		return err
	})
	s.Handler = cmp.Or(s.Handler, s.Name)
	return s, err
}

// eachField calls f for each field of a mapping in order, with the field's
// place, and refuses the second field of a name.
func eachField(place string, n node, f func(place, name string, value node) error) error {
	seen := make(map[string]bool, len(n.fields))
	for _, field := range n.fields {
		at := field.name
		if place != "" {
			at = place + "." + field.name
		}
		if seen[field.name] {
			return invalid(clip(at), "given twice")
		}
		seen[field.name] = true
		if err := f(at, field.name, field.value); err != nil {
			return err
		}
	}
	return nil
}

func expect(place string, n node, kind nodeKind) error {
	if n.kind == kind {
		return nil
	}
	hint := ""
	if kind == stringNode && (n.kind == numberNode || n.kind == boolNode) {
		hint = "; put it in quotes"
	}
	return invalid(place, "must be %v, not %v%s", kind, n.kind, hint)
}

// decodeString reads a string that is not empty: an empty one would mean the
// default without saying so.
func decodeString(place string, n node) (string, error) {
	if err := expect(place, n, stringNode); err != nil {
		return "", err
	}
	if n.text == "" {
		return "", invalid(place, "is empty; leave it out or give a value")
	}
	return n.text, nil
}

func decodeStrings(place string, n node) ([]string, error) {
	if err := expect(place, n, listNode); err != nil {
		return nil, err
	}
	var list []string
	for i, item := range n.items {
		s, err := decodeString(fmt.Sprintf("%s[%d]", place, i), item)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func decodeTimeout(place string, n node) (time.Duration, error) {
	if n.kind != stringNode {
		return 0, invalid(place, `must be a string with a unit, such as "750ms" or "5s", not %v`, n.kind)
	}
	timeout, err := time.ParseDuration(n.text)
	if err != nil {
		return 0, invalid(place, `%q is not a duration, such as "750ms" or "5s"`, clip(n.text))
	}
	if timeout == 0 {
		return 0, invalid(place, "must be more than zero and at most %v", MaxTimeout)
	}
	return timeout, nil
}

// check applies the limits and the rules of names. Parse and Compile both call
// it: a Definition need not come from Parse.
func (d *Definition) check() error {
	if !slices.Contains([]string{"", KindTransaction, KindSaga, KindCausal}, d.Kind) {
		return invalid("kind", "%q is unknown; use %s", clip(d.Kind), KindTransaction)
	}
	if d.Timeout < 0 || d.Timeout > MaxTimeout {
		return invalid("timeout", "%v is out of range; it must be more than zero and at most %v", d.Timeout, MaxTimeout)
	}
	if len(d.Steps) == 0 || len(d.Steps) > MaxSteps {
		return invalid("functions", "there are %d steps; there must be 1 to %d", len(d.Steps), MaxSteps)
	}
	if d.Output != "" {
		if err := checkName("output", "step", d.Output); err != nil {
			return err
		}
	}
	seen := make(map[string]bool, len(d.Steps))
	for i := range d.Steps {
		if err := d.Steps[i].check(); err != nil {
			return err
		}
		if seen[d.Steps[i].Name] {
			return invalid("functions."+d.Steps[i].Name, "given twice")
		}
		seen[d.Steps[i].Name] = true
	}
	return nil
}

func (s *StepDefinition) check() error {
	if err := checkName("functions", "step", s.Name); err != nil {
		return err
	}
	place := "functions." + s.Name
	if s.Function == "" {
		return invalid(place+".function", "is missing; name the deployed function that has the handler")
	}
	if err := checkName(place+".function", "function", s.Function); err != nil {
		return err
	}
	if err := checkName(place+".handler", "handler", cmp.Or(s.Handler, s.Name)); err != nil {
		return err
	}
	if n := len(s.Reads) + len(s.Writes); n > MaxStepKeyExprs {
		return invalid(place, "reads and writes have %d key expressions, the limit is %d", n, MaxStepKeyExprs)
	}
	if len(s.After) > MaxSteps {
		return invalid(place+".after", "names %d steps, a workflow has at most %d", len(s.After), MaxSteps)
	}
	for i, name := range s.After {
		at := fmt.Sprintf("%s.after[%d]", place, i)
		if err := checkName(at, "step", name); err != nil {
			return err
		}
		if slices.Contains(s.After[:i], name) {
			return invalid(at, "%s is named twice", name)
		}
	}
	for list, exprs := range s.keyExprs() {
		for i, source := range exprs {
			if len(source) > MaxKeyExprBytes {
				return invalid(fmt.Sprintf("%s.%s[%d]", place, list, i), "has %d bytes, the limit is %d", len(source), MaxKeyExprBytes)
			}
		}
	}
	return nil
}

// keyExprs yields the step's two lists of key expressions under their names.
func (s *StepDefinition) keyExprs() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		_ = yield("reads", s.Reads) && yield("writes", s.Writes)
	}
}

// checkName refuses a bad name; what says which kind of name it is.
func checkName(place, what, name string) error {
	if err := base.ValidateName(what, name); err != nil {
		return invalid(place, "%s", detail(err))
	}
	return nil
}
