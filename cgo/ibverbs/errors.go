package ibverbs

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrMissing means that libibverbs is not on this machine, or that this program
// was built without it.
var ErrMissing = errors.New("libibverbs is missing")

// Error is a failed call of libibverbs.
type Error struct {
	// Call is the function, as in its manual page.
	Call string
	// Errno is its error.
	Errno syscall.Errno
	// Advice says what to do about it; empty if nobody knows.
	Advice string
}

// Error says what failed, why, and what to do about it.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v (errno %d)", e.Call, e.Errno, int(e.Errno))
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	return text
}

// Unwrap returns the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// Unlimited is a memlock limit that is none.
const Unlimited = ^uint64(0)

// advise says what to do about a failed call; memlock is the limit of locked
// memory of this process, in bytes.
func advise(call string, errno syscall.Errno, memlock uint64) string {
	switch call {
	case "ibv_get_device_list":
		if errno == syscall.ENOSYS {
			return "this kernel has no RDMA; load it with: modprobe ib_uverbs"
		}
	case "ibv_open_device":
		switch errno {
		case syscall.EACCES, syscall.EPERM:
			return "no permission for /dev/infiniband/uverbs*; give it with: chmod a+rw /dev/infiniband/uverbs*, or a udev rule"
		case syscall.ENOENT, syscall.ENXIO, syscall.ENODEV:
			return "there is no /dev/infiniband/uverbs* for it; load the module with: modprobe ib_uverbs, and pass the device into the container"
		}
	case "ibv_reg_mr":
		return adviseMemory(errno, memlock)
	case "ibv_create_qp", "ibv_create_cq", "ibv_alloc_pd":
		switch errno {
		case syscall.ENOMEM:
			return adviseMemory(errno, memlock)
		case syscall.EINVAL:
			return "the device has less than was asked for; ask for shorter queues"
		}
	case "ibv_modify_qp to RTR":
		switch errno {
		case syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
			return "the peer's address does not answer on this link; look at: ip route get, ip neigh, and whether both GIDs are RoCE v2 of one network"
		case syscall.EINVAL:
			return "the device refuses the path; look at the GIDs and MTUs of both ends with: ibv_devinfo -v"
		}
	}
	switch errno {
	case syscall.EIO, syscall.ENODEV:
		return "the device failed or was removed; look at: dmesg"
	case syscall.EMFILE, syscall.ENFILE:
		return "too many open files; raise the limit with: ulimit -n"
	}
	return ""
}

func adviseMemory(errno syscall.Errno, memlock uint64) string {
	switch {
	case (errno == syscall.ENOMEM || errno == syscall.EAGAIN) && memlock != Unlimited:
		return fmt.Sprintf("the memory must be locked, and the limit is %d KiB; raise it with: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit", memlock>>10)
	case errno == syscall.ENOMEM:
		return "the machine or the device is out of memory"
	case errno == syscall.EINVAL:
		return "the device does not take a region of this size"
	}
	return ""
}
