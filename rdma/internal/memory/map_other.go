//go:build !unix

package memory

import "fmt"

// Map makes size bytes of zeroed memory, of the heap where there is no other.
func Map(size int) (*Mapping, error) {
	if size <= 0 {
		return nil, fmt.Errorf("map %d bytes: the size must be positive", size)
	}
	return &Mapping{make([]byte, size)}, nil
}

// Unmap gives the memory back. Nothing may use it afterwards.
func (m *Mapping) Unmap() error {
	m.bytes = nil
	return nil
}
