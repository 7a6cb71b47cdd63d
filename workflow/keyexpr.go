package workflow

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
)

// Limits within one key expression. They bound the fixed arrays and the
// recursion of DeclaredKeys.
const (
	maxPlaceholders = 8
	maxParts        = 2*maxPlaceholders + 1 // with literal text before, between and behind
	maxLoops        = 4
	maxIndex        = 1 << 20
)

// KeyExpr is a compiled key expression: a template table/key of literal text
// and {path} placeholders, which an input turns into keys.
//
//	accounts/{from}               the field from
//	seats/{trip.flight}-{seat}    fields within fields; several placeholders
//	stock/{items[0].id}           an element by its index
//	stock/{items[*].id}           every element: one key for each
//	stock/{items[*].shop}:{items[*].id}   one key for each, shop and id of the same element
//	config/{{a}}                  {{ and }} are braces: the key {a}
//
// The table is literal. A path is names of fields, separated by dots, with
// [n] or [*] behind them; a name may hold anything but dots, brackets, braces,
// control characters and spaces at its ends. The value must be a string, a
// number or a boolean. A string is taken as it is, a number as its JSON text:
// 1 and 1.0 are different keys.
//
// Placeholders with [*] walk together, so their lists must be the same one, or
// one nested in an element of the other: {orders[*].id}/{orders[*].items[*].sku}.
// Two different lists would mean all pairs; that is refused.
type KeyExpr struct {
	source string
	table  string
	parts  []part
	// loops are the lists to walk, outermost first. The first is a path in the
	// input, each other one a path in an element of the list before it.
	loops []path
}

// part is literal text, or a placeholder.
type part struct {
	text    string // what it says; with braces around it if a placeholder
	literal bool
	level   int  // the number of loops around it: 0 means a path in the input
	path    path // in the input or in the element of loop level-1
}

// path leads from a JSON value to another within it; an empty one stays.
type path []selector

// selector is one step of a path: a field of an object, or an element of an
// array if name is empty.
type selector struct {
	name string
	// index is that of the element. For the first field of a path in the input
	// it is the field's place in Workflow.roots instead.
	index int
}

// String returns the expression as it was written.
func (e KeyExpr) String() string { return e.source }

// compileKeyExpr compiles an expression; the error says what is wrong and
// leaves it to the caller to say where.
func compileKeyExpr(source string) (KeyExpr, error) {
	source = strings.Clone(source) // the parts point into it
	e := KeyExpr{source: source}
	if len(source) > MaxKeyExprBytes {
		return e, fmt.Errorf("has %d bytes, the limit is %d", len(source), MaxKeyExprBytes)
	}
	if !utf8.ValidString(source) {
		return e, fmt.Errorf("%q is not valid UTF-8", clip(source))
	}
	table, key, found := strings.Cut(source, "/")
	if !found {
		return e, fmt.Errorf("%q has no '/': write table/key", clip(source))
	}
	if strings.ContainsAny(table, "{}") {
		return e, fmt.Errorf("%q has a placeholder in the table: the table must be literal", clip(source))
	}
	if err := base.ValidateName("table", table); err != nil {
		return e, err
	}
	e.table = table
	if err := e.scan(key); err != nil {
		return e, fmt.Errorf("%q: %w", clip(source), err)
	}
	return e, nil
}

// scan splits the key into literal text and placeholders.
func (e *KeyExpr) scan(key string) error {
	if key == "" {
		return fmt.Errorf("the key is empty")
	}
	var literal strings.Builder
	placeholders := 0
	for key != "" {
		switch {
		case strings.HasPrefix(key, "{{"), strings.HasPrefix(key, "}}"):
			literal.WriteByte(key[0])
			key = key[2:]
		case key[0] == '}':
			return fmt.Errorf("'}' without '{'; write }} for a brace")
		case key[0] == '{':
			end := strings.IndexByte(key, '}')
			if end < 0 {
				return fmt.Errorf("'{' without '}'; write {{ for a brace")
			}
			if placeholders++; placeholders > maxPlaceholders {
				return fmt.Errorf("more than %d placeholders", maxPlaceholders)
			}
			e.addLiteral(&literal)
			if err := e.addPlaceholder(key[:end+1]); err != nil {
				return fmt.Errorf("%s: %w", clip(key[:end+1]), err)
			}
			key = key[end+1:]
		case key[0] == 0:
			return fmt.Errorf("contains a NUL byte")
		default:
			literal.WriteByte(key[0])
			key = key[1:]
		}
	}
	e.addLiteral(&literal)
	return nil
}

func (e *KeyExpr) addLiteral(text *strings.Builder) {
	if text.Len() > 0 {
		e.parts = append(e.parts, part{text: text.String(), literal: true})
		text.Reset()
	}
}

// addPlaceholder compiles one {path}. Every [*] in it cuts it: what stands
// before is the path of a loop, what stands behind is relative to its element.
func (e *KeyExpr) addPlaceholder(text string) error {
	source := text[1 : len(text)-1]
	p := part{text: text}
	for first := true; first || source != ""; first = false {
		name, rest, err := cutName(source, first)
		if err != nil {
			return err
		}
		p.path = append(p.path, selector{name: name})
		for strings.HasPrefix(rest, "[") {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return fmt.Errorf("'[' without ']'")
			}
			inside := rest[1:end]
			rest = rest[end+1:]
			if inside == "*" {
				if err := e.loop(p.level, p.path); err != nil {
					return err
				}
				p.level++
				p.path = nil
				continue
			}
			index, err := parseIndex(inside)
			if err != nil {
				return err
			}
			p.path = append(p.path, selector{index: index})
		}
		if rest != "" && rest[0] != '.' {
			return fmt.Errorf("%q follows ']'; only '.' or '[' may", rest[:1])
		}
		source = rest
	}
	e.parts = append(e.parts, p)
	return nil
}

// cutName cuts the name of a field off the front of a path. All but the first
// have a dot before them.
func cutName(source string, first bool) (name, rest string, err error) {
	if !first {
		source = source[1:]
	}
	name = source
	if end := strings.IndexAny(source, ".[]"); end >= 0 {
		name, rest = source[:end], source[end:]
	}
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case name == "":
		return "", "", fmt.Errorf("the name of a field is missing")
	case strings.HasPrefix(rest, "]"):
		return "", "", fmt.Errorf("']' without '['")
	case strings.Contains(name, "{"):
		return "", "", fmt.Errorf("'{' within a placeholder")
	case strings.TrimSpace(name) != name, strings.ContainsFunc(name, control):
		return "", "", fmt.Errorf("the field %q has spaces at its ends or control characters", clip(name))
	}
	return name, rest, nil
}

func parseIndex(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxIndex || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("[%s] is neither [*] nor an index from 0 to %d", clip(s), maxIndex)
	}
	return n, nil
}

// loop adds a loop at a level, or makes sure that the one which is there walks
// the same list.
func (e *KeyExpr) loop(level int, list path) error {
	switch {
	case level == maxLoops:
		return fmt.Errorf("more than %d [*]", maxLoops)
	case level == len(e.loops):
		e.loops = append(e.loops, list)
	case !slices.Equal(e.loops[level], list):
		return fmt.Errorf("[*] walks another list than the placeholder before it; write two expressions")
	}
	return nil
}

// rootPaths yields the paths that start at the input.
func (e *KeyExpr) rootPaths(yield func(path) bool) {
	if len(e.loops) > 0 && !yield(e.loops[0]) {
		return
	}
	for _, p := range e.parts {
		if !p.literal && p.level == 0 && !yield(p.path) {
			return
		}
	}
}
