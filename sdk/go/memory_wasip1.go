//go:build wasip1 && wasm

package tenure

import "strings"

// This file is what a guest does to be fast; compiled.go is the same for other
// programs. An allocation costs a guest nearly a microsecond, more than an empty
// call, so short strings and objects come out of chunks. A call of the host costs
// a tenth of that, so the host looks for fields and reads and writes integers.

const (
	// chunkBytes is the size of a chunk for strings or objects.
	chunkBytes = 8 << 10
	// maxShared is the largest string that comes out of a chunk: one that is kept
	// keeps the chunk.
	maxShared = chunkBytes / 32
)

// chunks are where strings and objects come from. What is handed out is never
// used again, so it may be kept; the collector frees a chunk when nothing of it
// is referenced any more.
//
// A handler may have goroutines, and one can give way to another in any
// allocation: a new chunk is complete before it takes its place, and nothing is
// allocated between looking at a chunk and taking from it.
type chunks struct {
	text    *strings.Builder // only appended to, so that substrings stay; nil at first
	objects []byte           // a chunk of texts of objects
	used    int              // how much of objects is handed out
	newest  int              // where in objects the newest object's text is
}

// newString returns a copy.
func newString(b []byte) string {
	if len(b) > maxShared {
		return string(b)
	}
	text := guest.chunks.text
	if text == nil || text.Cap()-text.Len() < len(b) {
		text = new(strings.Builder)
		text.Grow(chunkBytes)
		guest.chunks.text = text
	}
	text.Write(b)
	s := text.String()
	return s[len(s)-len(b):]
}

// newBuffer returns an object's text so far, with room for more.
func newBuffer() []byte {
	c := &guest.chunks
	if len(c.objects)-c.used < objectBytes {
		c.renew()
	}
	b := c.objects[c.used : c.used+objectBytes : c.used+objectBytes]
	c.newest = c.used
	c.used += objectBytes
	b[0] = '{'
	return b[:1]
}

// renew is a function of its own to keep newBuffer, which is inlined, small.
//
//go:noinline
func (c *chunks) renew() { c.objects, c.used = make([]byte, chunkBytes), 0 }

// keepBuffer makes a finished text of an object unchangeable. The room that the
// newest object did not need is given back: memory is cheap only by the byte.
func keepBuffer(text []byte) []byte {
	c := &guest.chunks
	if c.newest < len(c.objects) && &c.objects[c.newest] == &text[0] {
		c.used = c.newest + len(text)
		c.newest = chunkBytes // none any more
	}
	return text[:len(text):len(text)]
}

// hostFindsField asks the platform for a field. It does not know when the name is
// a longer path, or when a name in the text is written with an escape.
func hostFindsField(raw []byte, name string) (value JSON, known bool) {
	if len(raw) == 0 || name == "" {
		return JSON{}, false
	}
	answer := hostField(&raw[0], int32(len(raw)), name)
	if answer < 0 {
		return JSON{}, answer == answerAbsent
	}
	start, end := int(answer>>32), int(answer>>32)+int(uint32(answer))
	return JSON{raw[start:end:end]}, true
}

// getInt is GetInt. A guest reads integers slowly, so the platform does it.
func getInt(host Host, table, key string) (n int64, err error) {
	g, ok := host.(*guestHost)
	if !ok {
		return readInt(host, table, key)
	}
	if answer := hostGetInt(table, key, &n); answer != 0 {
		return 0, g.refusal(int64(answer))
	}
	return n, nil
}

// putInt is PutInt.
func putInt(host Host, table, key string, value int64) error {
	g, ok := host.(*guestHost)
	if !ok {
		return writeInt(host, table, key, value)
	}
	return g.done(hostPutInt(table, key, value))
}
