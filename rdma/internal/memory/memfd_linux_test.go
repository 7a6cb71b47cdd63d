package memory

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// file makes a file that is closed at the end of the test.
func file(t *testing.T, size int) int {
	t.Helper()
	fd, err := NewFile("test", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// mapped maps a file until the end of the test.
func mapped(t *testing.T, m *Mapping, err error) *Mapping {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Unmap() })
	return m
}

func TestNewFileIsSharedAndSealed(t *testing.T) {
	const size = allocationStep + 12345
	fd := file(t, size)
	m, err := MapFile(fd, size)
	a := mapped(t, m, err)
	m, err = MapFile(fd, size)
	b := mapped(t, m, err)
	a.Store(size-size%8-8, 7)
	if got := b.Load(size - size%8 - 8); got != 7 {
		t.Errorf("one mapping stores 7, the other loads %d", got)
	}
	for _, length := range []int64{0, size - 1, size + 1} {
		if err := unix.Ftruncate(fd, length); !errors.Is(err, unix.EPERM) {
			t.Errorf("the length of the file could be set to %d: %v", length, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err == nil {
		t.Error("a peer could seal the file against others")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Blocks*512 < size {
		t.Errorf("of %d bytes %d exist, %v", size, stat.Blocks*512, err)
	}
}

func TestNewFileForReaders(t *testing.T) {
	const size = 4096
	fd, ours, err := NewFileForReaders("test", size)
	mapped(t, ours, err)
	defer unix.Close(fd) //nolint:errcheck // the end of a test
	if _, err := MapFile(fd, size); err == nil {
		t.Error("a peer could map the file for writing")
	}
	m, err := MapFileReadOnly(fd, size)
	theirs := mapped(t, m, err)
	ours.Store(8, 9)
	if got := theirs.Load(8); got != 9 {
		t.Errorf("the owner stores 9, a reader loads %d", got)
	}
}

func TestNewFileRefuses(t *testing.T) {
	for _, size := range []int{0, -1} {
		if _, err := NewFile("test", size); err == nil {
			t.Errorf("a file of %d bytes was made", size)
		}
		if _, _, err := NewFileForReaders("test", size); err == nil {
			t.Errorf("a file of %d bytes was made", size)
		}
	}
}

func TestCheckFile(t *testing.T) {
	const size = 8192
	unsealed, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed) //nolint:errcheck // the end of a test
	if err := unix.Ftruncate(unsealed, size); err != nil {
		t.Fatal(err)
	}
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(pipe[0]), unix.Close(pipe[1]) }()
	for name, c := range map[string]struct {
		fd, size int
		good     bool
	}{
		"all of it":  {file(t, size), size, true},
		"a part":     {file(t, size), 1, true},
		"too much":   {file(t, size), size + 1, false},
		"nothing":    {file(t, size), 0, false},
		"unsealed":   {unsealed, size, false},
		"a pipe":     {pipe[0], size, false},
		"not a file": {-1, size, false},
	} {
		if err := CheckFile(c.fd, c.size); (err == nil) != c.good {
			t.Errorf("%s: %v, want good: %v", name, err, c.good)
		}
	}
}
