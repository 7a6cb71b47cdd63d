package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NewFile makes a file of size zeroed bytes in memory, without a name, for other
// processes to map too (see MapFile). All its pages exist, so that no use of it
// runs out of memory later, and its size is sealed, so that no mapping of it can
// lose its ground. The caller closes fd; the mappings stay.
func NewFile(name string, size int) (fd int, err error) {
	if fd, err = newFile(name, size); err != nil {
		return -1, err
	}
	if err := seal(fd, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// NewFileForReaders is NewFile, but only the mapping that it returns can write;
// all others are refused unless they come from MapFileReadOnly.
func NewFileForReaders(name string, size int) (fd int, m *Mapping, err error) {
	if fd, err = newFile(name, size); err != nil {
		return -1, nil, err
	}
	if m, err = MapFile(fd, size); err != nil {
		return -1, nil, errors.Join(err, unix.Close(fd))
	}
	if err := seal(fd, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL); err != nil {
		return -1, nil, errors.Join(err, m.Unmap(), unix.Close(fd))
	}
	return fd, m, nil
}

// newFile makes a file that can still be sealed.
func newFile(name string, size int) (fd int, err error) {
	if size <= 0 {
		return -1, fmt.Errorf("memory file of %d bytes: the size must be positive", size)
	}
	// MFD_NOEXEC_SEAL allows sealing, and is not known before Linux 6.3.
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memory file: memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		err = allocate(fd, int64(size))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("memory file of %d bytes: %w", size, err), unix.Close(fd))
	}
	return fd, nil
}

// allocationStep is how much allocate asks for at once: a signal undoes one step,
// so a step must be shorter than the profiler's tick.
const allocationStep = 4 << 20

// allocate makes the pages of a file of size bytes exist.
func allocate(fd int, size int64) error {
	for offset := int64(0); offset < size; {
		n := min(size-offset, allocationStep)
		err := unix.Fallocate(fd, 0, offset, n)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fallocate: %w", err)
		}
		offset += n
	}
	return nil
}

func seal(fd, seals int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("memory file: seal: %w", err)
	}
	return nil
}

// CheckFile says why a mapping of size bytes of fd, which came from another
// process, might fault when it is touched: fd is not a memory file, is shorter,
// or may still be cut.
func CheckFile(fd, size int) error {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("memory file: it is none that can be sealed: %w", err)
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return errors.New("memory file: its owner did not seal its size")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("memory file: stat: %w", err)
	}
	if size <= 0 || stat.Size < int64(size) {
		return fmt.Errorf("memory file: it has %d bytes, not %d", stat.Size, size)
	}
	return nil
}

// MapFileReadOnly is MapFile for a mapping that must not be written to: a store
// to it stops the process.
func MapFileReadOnly(fd, size int) (*Mapping, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of a file for reading: %w", size, err)
	}
	return &Mapping{b}, nil
}
