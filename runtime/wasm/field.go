package wasm

import (
	"bytes"

	"github.com/tetratelabs/wazero/api"
)

// Answers of field that are not places.
const (
	fieldAbsent  = -1
	fieldUnknown = -2 // the guest has to look itself
)

// maxFieldText is the longest text that field looks at, in bytes: it takes a few tens of microseconds.
const maxFieldText = 64 << 10

// hostField finds a field of a JSON object in the guest's memory: several times as fast as the guest could.
func hostField(_ *instance, memory api.Memory, stack []uint64) {
	text := view(memory, stack[0], stack[1], "field")
	name := view(memory, stack[2], stack[3], "field")
	stack[0] = uint64(findField(text, name))
}

// findField returns where the value of the first field with a name begins, in the upper half, and its length in the
// lower. text is one JSON value without space around it; of anything else findField gives an answer as good as any, inside
// the text. It compares names as they are written, so it knows nothing once it meets an escape in one, and leaves paths
// of several names to the guest.
func findField(text, name []byte) int64 {
	if len(text) > maxFieldText || len(name) > maxFieldText || bytes.IndexByte(name, '.') >= 0 || bytes.IndexByte(name, '[') >= 0 {
		return fieldUnknown
	}
	if len(text) == 0 || text[0] != '{' {
		return fieldAbsent
	}
	for i := 1; ; {
		start := skipSpace(text, i)
		end := endOfString(text, start)
		if end < 0 {
			return fieldAbsent
		}
		written := text[start+1 : end-1]
		if bytes.IndexByte(written, '\\') >= 0 {
			return fieldUnknown
		}
		i = skipSpace(text, end)
		if i == len(text) || text[i] != ':' {
			return fieldAbsent
		}
		start = skipSpace(text, i+1)
		if end = endOfValue(text, start); end < 0 {
			return fieldAbsent
		}
		if bytes.Equal(written, name) {
			return int64(start)<<32 | int64(end-start)
		}
		i = skipSpace(text, end)
		if i == len(text) || text[i] != ',' {
			return fieldAbsent
		}
		i++
	}
}

// skipSpace returns where the space that begins at i ends.
func skipSpace(text []byte, i int) int {
	for i < len(text) && text[i] <= ' ' {
		i++
	}
	return i
}

// endOfString returns the end of the string that begins at i, -1 if there is none.
func endOfString(text []byte, i int) int {
	if i >= len(text) || text[i] != '"' {
		return -1
	}
	for i++; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// endOfValue returns the end of the value that begins at i, -1 if there is none.
func endOfValue(text []byte, i int) int {
	depth := 0
	for start := i; i < len(text); {
		switch c := text[i]; c {
		case '"':
			if i = endOfString(text, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return endOfScalar(start, i)
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return endOfScalar(start, i)
			}
		}
		i++
	}
	return -1
}

// endOfScalar returns end, -1 if there is nothing before it.
func endOfScalar(start, end int) int {
	if start == end {
		return -1
	}
	return end
}
