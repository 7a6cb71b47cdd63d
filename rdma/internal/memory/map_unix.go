//go:build unix

package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Map maps size bytes of zeroed private memory.
func Map(size int) (*Mapping, error) {
	if size <= 0 {
		return nil, fmt.Errorf("map %d bytes: the size must be positive", size)
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return &Mapping{b}, nil
}

// MapFile maps size bytes of the file fd, shared with all who map it. The
// mapping does not need fd to stay open.
func MapFile(fd, size int) (*Mapping, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of a file: %w", size, err)
	}
	return &Mapping{b}, nil
}

// Unmap gives the memory back. Nothing may use it afterwards.
func (m *Mapping) Unmap() error {
	b := m.bytes
	m.bytes = nil
	if b == nil {
		return nil
	}
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("unmap %d bytes: %w", len(b), err)
	}
	return nil
}
