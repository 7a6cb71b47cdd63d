//go:build linux && cgo && rdma

package ibverbs

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

// Built says whether this program has the binding.
const Built = true

// The layouts of Go and C are the same, or this does not compile.
var (
	_ [C.sizeof_struct_tenure_wr]byte                         = [unsafe.Sizeof(Descriptor{})]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wr{}.lkey)]byte        = [unsafe.Offsetof(Descriptor{}.LKey)]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wr{}.remote_addr)]byte = [unsafe.Offsetof(Descriptor{}.RemoteAddr)]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wr{}.swap)]byte        = [unsafe.Offsetof(Descriptor{}.Swap)]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wr{}.imm)]byte         = [unsafe.Offsetof(Descriptor{}.Imm)]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wr{}.flags)]byte       = [unsafe.Offsetof(Descriptor{}.Flags)]byte{}
	_ [C.sizeof_struct_tenure_wc]byte                         = [unsafe.Sizeof(Completion{})]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wc{}.imm)]byte         = [unsafe.Offsetof(Completion{}.Imm)]byte{}
	_ [unsafe.Offsetof(C.struct_tenure_wc{}.status)]byte      = [unsafe.Offsetof(Completion{}.Status)]byte{}
)

// Load opens the library, once in the life of the process, and readies it for
// forks. It fails with ErrMissing.
func Load() error {
	if why := C.tenure_load(); why != nil {
		return fmt.Errorf("%w: %s; install it (on Debian: apt-get install libibverbs1 ibverbs-providers)", ErrMissing, C.GoString(why))
	}
	return nil
}

// failed makes an Error of an errno; nil if it is 0.
func failed(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &Error{call, errno, advise(call, errno, uint64(C.tenure_memlock_limit()))}
}

// failedPointer makes an Error of the errno that cgo returned beside a nil.
func failedPointer(call string, err error) error {
	errno := syscall.EIO // some drivers fail without saying why
	errors.As(err, &errno)
	return failed(call, errno)
}

// DeviceName is a device that the library lists.
type DeviceName struct {
	Name      string
	Transport Transport
}

// deviceList calls f with the library's list, which lives that long.
func deviceList(f func(list **C.struct_ibv_device, n int) error) error {
	if err := Load(); err != nil {
		return err
	}
	var n C.int
	list, err := C.tenure_get_device_list(&n)
	if list == nil {
		return failedPointer("ibv_get_device_list", err)
	}
	defer C.tenure_free_device_list(list)
	return f(list, int(n))
}

// Devices lists the devices; none is not an error.
func Devices() (all []DeviceName, err error) {
	err = deviceList(func(list **C.struct_ibv_device, n int) error {
		for i := range n {
			all = append(all, DeviceName{C.GoString(C.tenure_device_name(list, C.int(i))), Transport(C.tenure_device_transport(list, C.int(i)))})
		}
		return nil
	})
	return all, err
}

// Context is an open device.
type Context struct {
	c     *C.struct_ibv_context
	async *poller
}

// Open opens the device of this name.
func Open(name string) (*Context, error) {
	var context *Context
	err := deviceList(func(list **C.struct_ibv_device, n int) error {
		for i := range n {
			if C.GoString(C.tenure_device_name(list, C.int(i))) != name {
				continue
			}
			c, err := C.tenure_open_device(list, C.int(i))
			if c == nil {
				return failedPointer("ibv_open_device", err)
			}
			context = &Context{c: c}
			if context.async, err = newPoller(C.tenure_async_fd(c), name+" events"); err != nil {
				C.tenure_close_device(c)
			}
			return err
		}
		return failed("ibv_get_device_list", syscall.ENODEV)
	})
	if err != nil {
		return nil, err
	}
	return context, nil
}

// NextEvent waits for an asynchronous event and acknowledges it. It ends with
// os.ErrClosed after Shut. One goroutine at a time.
func (c *Context) NextEvent() (Event, error) {
	var e C.struct_tenure_event
	err := c.async.await("ibv_get_async_event", func() C.int { return C.tenure_get_async_event(c.c, &e) })
	return Event{EventType(e._type), uint32(e.qp), int(e.port), uint64(e.cq)}, err
}

// Shut ends NextEvent. Close it afterwards.
func (c *Context) Shut() error { return c.async.close() }

// Close closes the device, after Shut and when NextEvent has returned.
func (c *Context) Close() error {
	return failed("ibv_close_device", syscall.Errno(C.tenure_close_device(c.c)))
}

// Attr says what the device can do.
func (c *Context) Attr() (DeviceAttr, error) {
	var a C.struct_tenure_device_attr
	if err := failed("ibv_query_device", syscall.Errno(C.tenure_query_device(c.c, &a))); err != nil {
		return DeviceAttr{}, err
	}
	return DeviceAttr{
		MaxRegion:           uint64(a.max_mr_size),
		MaxQueuePairs:       int(a.max_qp),
		MaxWorkRequests:     int(a.max_qp_wr),
		MaxCompletions:      int(a.max_cqe),
		MaxRegions:          int(a.max_mr),
		MaxResponderAtomics: int(a.max_qp_rd_atom),
		MaxInitiatorAtomics: int(a.max_qp_init_rd_atom),
		Atomics:             AtomicCap(a.atomic_cap),
		Ports:               int(a.ports),
		Firmware:            C.GoString(&a.firmware[0]),
	}, nil
}

// Port describes a port.
func (c *Context) Port(port int) (PortAttr, error) {
	var a C.struct_tenure_port_attr
	if err := failed("ibv_query_port", syscall.Errno(C.tenure_query_port(c.c, C.int(port), &a))); err != nil {
		return PortAttr{}, err
	}
	return PortAttr{
		State:      PortState(a.state),
		ActiveMTU:  MTU(a.active_mtu),
		MaxMTU:     MTU(a.max_mtu),
		LinkLayer:  LinkLayer(a.link_layer),
		MaxMessage: int(a.max_message),
		GIDCount:   int(a.gids),
		LID:        uint16(a.lid),
	}, nil
}

// GID returns an entry of a port's table; an empty one is all zeros.
func (c *Context) GID(port, index int) (gid GID, err error) {
	err = failed("ibv_query_gid", syscall.Errno(C.tenure_query_gid(c.c, C.int(port), C.int(index), (*C.uint8_t)(&gid[0]))))
	return gid, err
}

// PD is a protection domain.
type PD struct{ pd *C.struct_ibv_pd }

// AllocPD makes a protection domain.
func (c *Context) AllocPD() (*PD, error) {
	pd, err := C.tenure_alloc_pd(c.c)
	if pd == nil {
		return nil, failedPointer("ibv_alloc_pd", err)
	}
	return &PD{pd}, nil
}

// Close frees the protection domain; it fails while something is in it.
func (p *PD) Close() error {
	return failed("ibv_dealloc_pd", syscall.Errno(C.tenure_dealloc_pd(p.pd)))
}

// MR is a memory region.
type MR struct {
	mr *C.struct_ibv_mr
	// LKey and RKey are its keys.
	LKey, RKey uint32
}

// Register opens length bytes at addr, which are not Go memory, to all verbs of
// local and remote queue pairs. It pins them.
func (p *PD) Register(addr, length uint64) (*MR, error) {
	mr, err := C.tenure_reg_mr(p.pd, C.uint64_t(addr), C.uint64_t(length))
	if mr == nil {
		return nil, failedPointer("ibv_reg_mr", err)
	}
	var lkey, rkey C.uint32_t
	C.tenure_mr_keys(mr, &lkey, &rkey)
	return &MR{mr, uint32(lkey), uint32(rkey)}, nil
}

// Close ends all access. When it has returned nil, the memory may be unmapped.
func (m *MR) Close() error {
	return failed("ibv_dereg_mr", syscall.Errno(C.tenure_dereg_mr(m.mr)))
}
