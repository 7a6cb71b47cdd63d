package tenure

import (
	"math"
	"strconv"
	"unicode/utf8"
)

// Object builds a JSON object field by field, without reflection:
//
//	tenure.NewObject().Str("user", user).Int("balance", n).Bytes()
//
// It does not notice when a name is used twice.
type Object struct {
	buf []byte // the object without its closing brace
}

// objectBytes is what an object has room for before it has to be copied.
const objectBytes = 128

// NewObject returns an empty object. It is small enough to be inlined, so that
// an object which does not leave its function is on the stack.
func NewObject() *Object { return &Object{buf: newBuffer()} }

// Str adds a string. Bytes that are not UTF-8 become U+FFFD.
func (o *Object) Str(name, value string) *Object {
	o.name(name)
	o.buf = appendString(o.buf, value)
	return o
}

// Int adds an integer.
func (o *Object) Int(name string, value int64) *Object {
	o.name(name)
	o.buf = appendInt(o.buf, value)
	return o
}

// Float adds a number; NaN and the infinities, which JSON lacks, become null.
func (o *Object) Float(name string, value float64) *Object {
	o.name(name)
	if math.IsNaN(value) || math.IsInf(value, 0) {
		o.buf = append(o.buf, "null"...)
	} else {
		o.buf = strconv.AppendFloat(o.buf, value, 'g', -1, 64)
	}
	return o
}

// Bool adds a truth value.
func (o *Object) Bool(name string, value bool) *Object {
	o.name(name)
	o.buf = strconv.AppendBool(o.buf, value)
	return o
}

// Raw adds a value that is JSON already, such as another Object's Bytes; an
// empty one becomes null. It is not checked.
func (o *Object) Raw(name string, value []byte) *Object {
	o.name(name)
	if len(value) == 0 {
		value = []byte("null")
	}
	o.buf = append(o.buf, value...)
	return o
}

// Bytes returns the object's text.
func (o *Object) Bytes() []byte {
	text := keepBuffer(append(o.buf, '}'))
	o.buf = text[: len(text)-1 : len(text)-1] // a change from now on makes a copy
	return text
}

func (o *Object) name(name string) {
	n := len(o.buf)
	if cap(o.buf)-n < len(name)+4 || !isPlain(name) {
		if n > 1 {
			o.buf = append(o.buf, ',')
		}
		o.buf = append(appendString(o.buf, name), ':')
		return
	}
	// The usual name, with few checks of bounds.
	b := o.buf[:n+len(name)+4]
	if n > 1 {
		b[n] = ','
		n++
	}
	b[n] = '"'
	n += 1 + copy(b[n+1:], name)
	b[n], b[n+1] = '"', ':'
	o.buf = b[:n+2]
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(dst, '"'), s...), '"')
	}
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0 // s[start:i] needs no change
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
