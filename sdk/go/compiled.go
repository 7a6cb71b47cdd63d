//go:build !(wasip1 && wasm)

package tenure

// This file is what a guest does in its own way, see memory_wasip1.go, for
// programs that are none.

// newBuffer returns an object's text so far, with room for more.
func newBuffer() []byte { return append(make([]byte, 0, objectBytes), '{') }

// keepBuffer makes a finished text of an object unchangeable.
func keepBuffer(text []byte) []byte { return text }

// newString returns a copy.
func newString(b []byte) string { return string(b) }

// hostFindsField is never so: only a guest has a platform that is faster.
func hostFindsField([]byte, string) (value JSON, known bool) { return JSON{}, false }

func getInt(host Host, table, key string) (int64, error) { return readInt(host, table, key) }

func putInt(host Host, table, key string, value int64) error {
	return writeInt(host, table, key, value)
}
