package rdma

import (
	"encoding/binary"
	"fmt"
)

// RemoteRegion is what a peer must know of a region to use it. It is a plain
// value: send it over the control plane.
type RemoteRegion struct {
	// Addr is the address of the first byte in the owner's process.
	Addr uint64
	// Size is in bytes.
	Size uint64
	// RKey allows access.
	RKey uint32
}

// At is the remote address of offset. Whether it lies within the region is
// checked by the owner.
func (r RemoteRegion) At(offset uint64) uint64 { return r.Addr + offset }

// remoteRegionSize is the length of an encoded RemoteRegion.
const remoteRegionSize = 20

// MarshalBinary encodes r: address, size, rkey, all little endian.
func (r RemoteRegion) MarshalBinary() ([]byte, error) {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, remoteRegionSize), r.Addr)
	b = binary.LittleEndian.AppendUint64(b, r.Size)
	return binary.LittleEndian.AppendUint32(b, r.RKey), nil
}

// UnmarshalBinary decodes what MarshalBinary made.
func (r *RemoteRegion) UnmarshalBinary(b []byte) error {
	if len(b) != remoteRegionSize {
		return fmt.Errorf("%w remote region of %d bytes, not %d", ErrInvalid, len(b), remoteRegionSize)
	}
	r.Addr, r.Size = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	r.RKey = binary.LittleEndian.Uint32(b[16:])
	return nil
}
