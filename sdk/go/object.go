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

// NewObject returns an empty object.
func NewObject() *Object {
	return &Object{buf: append(make([]byte, 0, 120), '{')}
}

// Str adds a string. Bytes that are not UTF-8 become U+FFFD.
func (o *Object) Str(name, value string) *Object {
	o.name(name)
	o.buf = appendString(o.buf, value)
	return o
}

// Int adds an integer.
func (o *Object) Int(name string, value int64) *Object {
	o.name(name)
	o.buf = strconv.AppendInt(o.buf, value, 10)
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

// Bytes returns the object's text, which is valid until the object is changed.
func (o *Object) Bytes() []byte { return append(o.buf, '}') }

func (o *Object) name(name string) {
	if len(o.buf) > 1 {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(appendString(o.buf, name), ':')
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
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
