package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenure-faas/tenure/base"
	"github.com/tidwall/gjson"
)

// KeyUse is one key that one step of an invocation declares.
type KeyUse struct {
	// Key is valid (base.Key.Validate) and shares no memory with the input.
	Key base.Key
	// Write says that it stands in the step's writes.
	Write bool
	// Step is the index of the step.
	Step int
}

// Work on one input is bounded by its length, whatever the definition says:
// lookups may walk freeWork bytes and the input workPasses times.
const (
	freeWork   = 1 << 20
	workPasses = 64
)

// DeclaredKeys appends to dst the keys that the workflow declares for an
// input, and returns the extended slice. They come in the definition's order:
// step by step, reads before writes, lists in their own order. A key that is
// declared twice comes twice.
//
// input must be valid JSON, which the caller has checked; where a field name
// occurs twice in an object the first counts. It is looked at only if there
// are placeholders, and then it must be an object. An error is a *base.Error
// that names step and expression: of kind TooLarge if a key has more than
// base.MaxKeyBytes, otherwise of kind Invalid with subject "input", for a
// value that is missing or unsuitable, for more than MaxKeys keys, and for an
// input that would take too much work. After an error the result is dst.
//
// It runs for every invocation. It allocates the strings of the keys, a copy
// of the input, and what dst lacks.
func (w *Workflow) DeclaredKeys(dst []KeyUse, input []byte) ([]KeyUse, error) {
	v := evaluation{
		keys:   dst,
		most:   len(dst) + MaxKeys,
		budget: freeWork + workPasses*len(input),
	}
	if len(w.roots) > 0 {
		if len(w.roots) > len(v.few) {
			v.many = make([]gjson.Result, len(w.roots))
		}
		// gjson works on strings; one copy here is cheaper than one for each
		// value that it would find in bytes.
		if err := v.readRoots(w.roots, gjson.Parse(string(input))); err != nil {
			return dst, err
		}
	}
	for i := range w.Steps {
		step := &w.Steps[i]
		for n := range step.Reads {
			if why := v.expand(&step.Reads[n], KeyUse{Step: i}); why != nil {
				return dst, why.in(step, "reads", n, &step.Reads[n])
			}
		}
		for n := range step.Writes {
			if why := v.expand(&step.Writes[n], KeyUse{Step: i, Write: true}); why != nil {
				return dst, why.in(step, "writes", n, &step.Writes[n])
			}
		}
	}
	return v.keys, nil
}

// evaluation is one run of DeclaredKeys.
type evaluation struct {
	keys   []KeyUse
	most   int // the length that keys may have
	budget int // how many more bytes may be walked

	// The input's fields by their index in Workflow.roots: in few, which costs
	// no allocation, unless there are more.
	few  [8]gjson.Result
	many []gjson.Result
}

// root returns the input's field at an index in Workflow.roots.
func (v *evaluation) root(i int) *gjson.Result {
	if v.many != nil {
		return &v.many[i]
	}
	return &v.few[i]
}

// refusal is why an expression has no keys for an input.
type refusal struct {
	kind   base.Kind
	reason string
}

func refuse(format string, args ...any) *refusal {
	return &refusal{base.Invalid, fmt.Sprintf(format, args...)}
}

// in says where the refusal arose.
func (r *refusal) in(step *Step, list string, n int, e *KeyExpr) *base.Error {
	return &base.Error{
		Kind:    r.kind,
		Subject: "input",
		Detail:  fmt.Sprintf("functions.%s.%s[%d] %q: %s", step.Name, list, n, clip(e.source), r.reason),
	}
}

// readRoots finds the fields that expressions begin with, all in one pass.
func (v *evaluation) readRoots(names []string, input gjson.Result) error {
	if !input.IsObject() {
		return base.Invalidf("input", "the input must be a JSON object: the workflow takes %q from it", clip(names[0]))
	}
	missing := len(names)
	input.ForEach(func(key, value gjson.Result) bool {
		if i, found := slices.BinarySearch(names, key.Str); found && !v.root(i).Exists() {
			*v.root(i) = value
			missing--
		}
		return missing > 0
	})
	return nil
}

// expand appends the keys of one expression.
func (v *evaluation) expand(e *KeyExpr, use KeyUse) *refusal {
	var texts [maxParts]string
	return v.expandLevel(e, 0, gjson.Result{}, &texts, use)
}

// expandLevel fills in the parts that stand in level loops, whose current
// element is given, and then walks the next loop, or appends a key if there
// is none. texts has what the parts so far came to.
func (v *evaluation) expandLevel(e *KeyExpr, level int, element gjson.Result, texts *[maxParts]string, use KeyUse) *refusal {
	for i := range e.parts {
		p := &e.parts[i]
		if p.literal || p.level != level {
			continue
		}
		value, why := v.follow(p.path, level, element)
		if why == nil {
			texts[i], why = scalar(value)
		}
		if why != nil {
			why.reason = clip(p.text) + ": " + why.reason
			return why
		}
	}
	if level == len(e.loops) {
		return v.append(e, texts, use)
	}
	list, why := v.follow(e.loops[level], level, element)
	if why == nil && !list.IsArray() {
		why = refuse("[*] needs an array, not %s", describe(list))
	}
	if why == nil {
		why = v.spend(list)
	}
	if why != nil {
		return why
	}
	list.ForEach(func(_, element gjson.Result) bool {
		why = v.expandLevel(e, level+1, element, texts, use)
		return why == nil
	})
	return why
}

// append appends the key that an expression came to.
func (v *evaluation) append(e *KeyExpr, texts *[maxParts]string, use KeyUse) *refusal {
	if len(v.keys) == v.most {
		return refuse("the invocation declares more than %d keys", MaxKeys)
	}
	var buffer [128]byte
	key := buffer[:0]
	for i := range e.parts {
		text := texts[i]
		if e.parts[i].literal {
			text = e.parts[i].text
		}
		if len(key)+len(text) > base.MaxKeyBytes {
			return &refusal{base.TooLarge, fmt.Sprintf("the key has more than %d bytes", base.MaxKeyBytes)}
		}
		key = append(key, text...)
	}
	// A string of its own: keys live as long as their leases, the input does not.
	use.Key = base.Key{Table: e.table, Key: string(key)}
	if err := use.Key.Validate(); err != nil {
		return refuse("%s", detail(err))
	}
	v.keys = append(v.keys, use)
	return nil
}

// follow goes along a path that starts at the input (level 0) or at element.
func (v *evaluation) follow(p path, level int, element gjson.Result) (gjson.Result, *refusal) {
	at := element
	if level == 0 {
		if at = *v.root(p[0].index); !at.Exists() {
			return at, refuse("the input has no field %q", clip(p[0].name))
		}
		p = p[1:]
	}
	for i := range p {
		var why *refusal
		if at, why = v.find(at, &p[i]); why != nil {
			return at, why
		}
	}
	return at, nil
}

// find returns the field or element of a value that a selector names. It
// compares names itself: in gjson's paths a name could act as a pattern.
func (v *evaluation) find(in gjson.Result, s *selector) (found gjson.Result, why *refusal) {
	if s.name == "" && !in.IsArray() {
		return found, refuse("[%d] needs an array, not %s", s.index, describe(in))
	}
	if s.name != "" && !in.IsObject() {
		return found, refuse("the field %q needs an object, not %s", clip(s.name), describe(in))
	}
	if why = v.spend(in); why != nil {
		return found, why
	}
	index := 0
	in.ForEach(func(key, value gjson.Result) bool {
		if s.name == "" && index == s.index || s.name != "" && key.Str == s.name {
			found = value
		}
		index++
		return !found.Exists()
	})
	if found.Exists() {
		return found, nil
	}
	if s.name == "" {
		return found, refuse("there is no [%d], the array has %d elements", s.index, index)
	}
	return found, refuse("there is no field %q", clip(s.name))
}

// spend accounts for walking a value.
func (v *evaluation) spend(on gjson.Result) *refusal {
	if v.budget -= len(on.Raw); v.budget < 0 {
		return refuse("the input is too large for so many placeholders; declare fewer keys or move their values up")
	}
	return nil
}

// scalar returns the text that a value contributes to a key.
func scalar(value gjson.Result) (string, *refusal) {
	switch value.Type {
	case gjson.String:
		return value.Str, nil
	case gjson.Number, gjson.True, gjson.False:
		return value.Raw, nil
	case gjson.Null, gjson.JSON:
	}
	return "", refuse("the value must be a string, a number or a boolean, not %s", describe(value))
}

// describe names the type of a value for an error.
func describe(value gjson.Result) string {
	switch {
	case value.IsArray():
		return "an array"
	case value.IsObject():
		return "an object"
	default:
		return strings.ToLower(value.Type.String())
	}
}
