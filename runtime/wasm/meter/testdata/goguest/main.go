// Command goguest is the Go guest of the tests. Every workload takes a size and returns a checksum.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"sort"
	"strconv"
	"strings"
)

func main() {}

//go:wasmexport fib
func fib(n int32) int64 {
	if n < 2 {
		return int64(n)
	}
	return fib(n-1) + fib(n-2)
}

//go:wasmexport sha
func sha(n int32) int64 {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	sum := sha256.Sum256(data)
	return int64(binary.LittleEndian.Uint64(sum[:]))
}

//go:wasmexport sorted
func sorted(n int32) int64 {
	values := make([]int, n)
	x := uint32(12345)
	for i := range values {
		x = x*1664525 + 1013904223
		values[i] = int(x >> 1)
	}
	sort.Ints(values)
	h := int64(0)
	for _, v := range values {
		h = h*31 + int64(v)
	}
	return h
}

type order struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Items []float64         `json:"items"`
	Tags  map[string]string `json:"tags"`
}

//go:wasmexport decode
func decode(n int32) int64 {
	var b strings.Builder
	b.WriteByte('[')
	for i := range int(n) {
		if i > 0 {
			b.WriteByte(',')
		}
		s := strconv.Itoa(i)
		b.WriteString(`{"id":` + s + `,"name":"order \"` + s + `\"","items":[1.5,2e3,` + s + `],"tags":{"a":"x","b":"` + s + `"}}`)
	}
	b.WriteByte(']')
	var orders []order
	if err := json.Unmarshal([]byte(b.String()), &orders); err != nil {
		return -1
	}
	h := int64(0)
	for _, o := range orders {
		h = h*31 + int64(o.ID+len(o.Name)+len(o.Tags["b"])) + int64(o.Items[2])
	}
	return h
}

//go:wasmexport deep
func deep(n int32) int64 {
	if n == 0 {
		return 1
	}
	return deep(n-1)*3 + int64(n)
}

var sink int64

//go:wasmexport spin
func spin(n int32) int64 {
	for {
		sink += int64(n)
	}
}
