package tenure

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON is one value inside a JSON text. It is a view: it copies nothing and
// finds what is asked by scanning, which for the small inputs of handlers beats
// building a tree by two orders of magnitude. For a WebAssembly guest the
// platform scans, which is faster again.
//
// The text is assumed to be valid JSON, as inputs are; of another text JSON
// gives some answer and never panics. The zero value stands for "not there".
type JSON struct {
	raw []byte // one value without space around it; nil: not there
}

// ParseJSON returns the value that text is; space around it is ignored. The text
// is not copied.
func ParseJSON(text []byte) JSON {
	start, end := 0, len(text)
	if end > 0 && text[0] > ' ' && text[end-1] > ' ' {
		return JSON{text}
	}
	for start < end && text[start] <= ' ' {
		start++
	}
	for start < end && text[end-1] <= ' ' {
		end--
	}
	if start == end {
		return JSON{}
	}
	return JSON{text[start:end:end]}
}

// Get returns the value at a path: names of fields separated by dots, and
// indices in brackets, as in "items[0].price". The empty path is the value
// itself. Of two fields with one name the first is meant.
func (j JSON) Get(path string) JSON {
	if value, known := hostFindsField(j.raw, path); known {
		return value
	}
	for path != "" && j.raw != nil {
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return JSON{}
			}
			n, err := strconv.ParseUint(path[1:end], 10, 31)
			if err != nil {
				return JSON{}
			}
			j = j.element(int(n))
			path = path[end+1:]
		} else {
			end := len(path)
			for i := range len(path) {
				if path[i] == '.' || path[i] == '[' {
					end = i
					break
				}
			}
			j = j.field(path[:end])
			path = path[end:]
		}
		if path != "" && path[0] == '.' {
			path = path[1:]
		}
	}
	return j
}

// Exists reports whether the value is there; null is.
func (j JSON) Exists() bool { return j.raw != nil }

// IsString reports whether the value is a string.
func (j JSON) IsString() bool { return len(j.raw) >= 2 && j.raw[0] == '"' }

// IsNumber reports whether the value is a number.
func (j JSON) IsNumber() bool {
	return len(j.raw) > 0 && (j.raw[0] == '-' || j.raw[0] >= '0' && j.raw[0] <= '9')
}

// Raw returns the value's text, nil if it is not there. It may not be modified.
func (j JSON) Raw() []byte { return j.raw }

// String returns the content of a string and the text of any other value; "" if
// it is not there. What is not UTF-8, and half of a surrogate pair, becomes
// U+FFFD.
func (j JSON) String() string {
	if !j.IsString() {
		return newString(j.raw)
	}
	body := j.raw[1 : len(j.raw)-1]
	if s := newString(body); isPlain(s) {
		return s
	}
	return string(unescape(body))
}

// Int returns a number that is written as an integer and fits into 64 bits.
func (j JSON) Int() (n int64, ok bool) { return parseInt(j.raw) }

// Float returns a number.
func (j JSON) Float() (f float64, ok bool) {
	if !j.IsNumber() {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(j.raw), 64)
	return f, err == nil
}

// Bool returns true or false; ok is false for any other value.
func (j JSON) Bool() (b, ok bool) {
	b = string(j.raw) == "true"
	return b, b || string(j.raw) == "false"
}

// Each gives the elements of an array, in order, until yield returns false; any
// other value has none. It can be ranged over:
//
//	for item := range ctx.JSON().Get("items").Each {
func (j JSON) Each(yield func(JSON) bool) {
	if len(j.raw) == 0 || j.raw[0] != '[' {
		return
	}
	for i := 1; ; {
		value, next := nextValue(j.raw, i)
		if value == nil || !yield(JSON{value}) || next == 0 {
			return
		}
		i = next
	}
}

// Fields gives the names and values of an object, in order, until yield returns
// false; any other value has none.
func (j JSON) Fields(yield func(name string, value JSON) bool) {
	if len(j.raw) == 0 || j.raw[0] != '{' {
		return
	}
	for i := 1; ; {
		name, colon := nextName(j.raw, i)
		if name == nil {
			return
		}
		value, next := nextValue(j.raw, colon)
		if value == nil || !yield(JSON{raw: name}.String(), JSON{value}) || next == 0 {
			return
		}
		i = next
	}
}

// field and element repeat the loops of Fields and Each, because the calls of
// closures are what costs most in a guest.
func (j JSON) field(name string) JSON {
	if value, known := hostFindsField(j.raw, name); known {
		return value
	}
	if len(j.raw) == 0 || j.raw[0] != '{' {
		return JSON{}
	}
	for i := 1; ; {
		raw, colon := nextName(j.raw, i)
		if raw == nil {
			return JSON{}
		}
		value, next := nextValue(j.raw, colon)
		if value == nil {
			return JSON{}
		}
		body := raw[1 : len(raw)-1]
		// Names are compared as written first: escapes in them are rare.
		if string(body) == name || indexByte(body, '\\') >= 0 && string(unescape(body)) == name {
			return JSON{value}
		}
		if next == 0 {
			return JSON{}
		}
		i = next
	}
}

func (j JSON) element(n int) JSON {
	if len(j.raw) == 0 || j.raw[0] != '[' {
		return JSON{}
	}
	for i := 1; ; n-- {
		value, next := nextValue(j.raw, i)
		if n == 0 {
			return JSON{value}
		}
		if next == 0 {
			return JSON{}
		}
		i = next
	}
}

// nextName returns the name of the field that begins at b[i], with its quotes,
// and where its value begins; nil if there is none.
func nextName(b []byte, i int) (name []byte, value int) {
	for i < len(b) && b[i] <= ' ' {
		i++
	}
	end := skipString(b, i)
	if end == 0 {
		return nil, 0
	}
	name = b[i:end:end]
	for end < len(b) && b[end] <= ' ' {
		end++
	}
	if end == len(b) || b[end] != ':' {
		return nil, 0
	}
	return name, end + 1
}

// nextValue returns the value that begins at b[i], nil if there is none, and
// where the next field or element begins, 0 if it was the last.
func nextValue(b []byte, i int) (value []byte, next int) {
	for i < len(b) && b[i] <= ' ' {
		i++
	}
	end := skipValue(b, i)
	if end == 0 {
		return nil, 0
	}
	value = b[i:end:end]
	for end < len(b) && b[end] <= ' ' {
		end++
	}
	if end < len(b) && b[end] == ',' {
		next = end + 1
	}
	return value, next
}

// skipString returns the end of the string that begins at b[i], 0 if there is
// none.
func skipString(b []byte, i int) (end int) {
	if i >= len(b) || b[i] != '"' {
		return 0
	}
	i++
	escaped := false
	for k, c := range b[i:] { // a range: a guest pays for each check of a bound
		if c != '"' && c != '\\' && !escaped {
			continue
		}
		if c == '"' && !escaped {
			return i + k + 1
		}
		escaped = c == '\\' && !escaped
	}
	return 0
}

// skipValue returns the end of the value that begins at b[i], 0 if there is
// none. It is a loop and not a recursion, so that a deeply nested text cannot
// exhaust the stack.
func skipValue(b []byte, i int) (end int) {
	if i < len(b) && b[i] == '"' {
		return skipString(b, i)
	}
	depth := 0
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			if i = skipString(b, i); i == 0 {
				return 0
			}
		case c == '{' || c == '[':
			depth++
			i++
		case c == '}' || c == ']':
			depth--
			i++
		case c == ',' || c == ':' || c <= ' ':
			if depth == 0 {
				return 0
			}
			i++
			continue
		default:
			i++
			for _, c := range b[i:] {
				if c <= ',' && (c <= ' ' || c == ',') || c == ':' || c == '}' || c == ']' {
					break
				}
				i++
			}
		}
		if depth == 0 {
			return i
		}
		if depth < 0 {
			return 0
		}
	}
	return 0
}

func indexByte(b []byte, c byte) int {
	for i := range b {
		if b[i] == c {
			return i
		}
	}
	return -1
}

// unescape returns the content of a JSON string, given without its quotes.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		c := b[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(b[i:])
			out = utf8.AppendRune(out, r)
			i += size
			continue
		}
		if c != '\\' || i+1 == len(b) {
			out = append(out, c)
			i++
			continue
		}
		c = b[i+1]
		i += 2
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(b[i:])
			if !ok {
				out = utf8.AppendRune(out, utf8.RuneError)
				continue
			}
			i += 4
			if utf16.IsSurrogate(r) {
				second := rune(utf8.RuneError)
				if i+1 < len(b) && b[i] == '\\' && b[i+1] == 'u' {
					second, _ = hex4(b[i+2:])
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default: // '"', '\\', '/'
			out = append(out, c)
		}
	}
	return out
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil
}
