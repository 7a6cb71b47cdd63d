//go:build linux && cgo && rdma

package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

// Built says whether this program has the provider.
const Built = true

// sysfs is where the kernel says what the verbs do not.
const sysfs = "/sys/class/infiniband"

// Devices lists the RDMA devices of this machine; none is not an error. It opens
// and closes each. A missing library and a kernel without RDMA are
// rdma.ErrNotSupported; a device that cannot be opened says so itself.
func Devices() ([]Device, error) {
	names, err := ibverbs.Devices()
	if errors.Is(err, ibverbs.ErrMissing) || errors.Is(err, syscall.ENOSYS) {
		return nil, fmt.Errorf("%w: %w", rdma.ErrNotSupported, err)
	}
	if err != nil {
		return nil, err
	}
	devices := make([]Device, len(names))
	for i, n := range names {
		devices[i] = describe(n)
	}
	return devices, nil
}

// describe asks a device for all there is to know.
func describe(n ibverbs.DeviceName) (d Device) {
	d = Device{Name: n.Name, Transport: n.Transport.String()}
	context, err := ibverbs.Open(n.Name)
	if err != nil {
		d.Err = err
		return d
	}
	defer func() {
		if err := errors.Join(context.Shut(), context.Close()); d.Err == nil {
			d.Err = err
		}
	}()
	attr, err := context.Attr()
	if err != nil {
		d.Err = err
		return d
	}
	d.Firmware, d.Atomics, d.MaxQPRdAtom = attr.Firmware, attr.Atomics.String(), attr.MaxResponderAtomics
	for number := 1; number <= attr.Ports; number++ {
		p, err := describePort(context, os.DirFS(path.Join(sysfs, n.Name, "ports", strconv.Itoa(number))), number)
		if err != nil {
			d.Err = err
			return d
		}
		d.Ports = append(d.Ports, p)
	}
	return d
}

// describePort describes a port; dir is its directory in sysfs.
func describePort(context *ibverbs.Context, dir fs.FS, number int) (Port, error) {
	attr, err := context.Port(number)
	if err != nil {
		return Port{}, err
	}
	p := Port{
		Number:    number,
		State:     attr.State.String(),
		LinkLayer: attr.LinkLayer.String(),
		ActiveMTU: attr.ActiveMTU.Bytes(),
		MaxMTU:    attr.MaxMTU.Bytes(),
		LID:       attr.LID,
	}
	for i := range attr.GIDCount {
		// An entry may go while the table is read: then it is not there.
		gid, err := context.GID(number, i)
		if err != nil || gid == (ibverbs.GID{}) {
			continue
		}
		index := strconv.Itoa(i)
		p.GIDs = append(p.GIDs, GID{
			Index:  i,
			Addr:   netip.AddrFrom16(gid),
			Type:   line(dir, path.Join("gid_attrs/types", index)),
			Netdev: line(dir, path.Join("gid_attrs/ndevs", index)),
		})
	}
	return p, nil
}

// line reads a file with one line; empty if it cannot be read, as the kernel has
// it for what does not apply.
func line(dir fs.FS, name string) string {
	b, err := fs.ReadFile(dir, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
