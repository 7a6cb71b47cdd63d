package verbs

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

// endpoint is one end of a connection, as the other must know it: the content of
// QueuePair.Address.
type endpoint struct {
	qpn uint32
	// psn is the number of the first packet that this end will send.
	psn uint32
	gid ibverbs.GID
	// lid is the address on InfiniBand.
	lid       uint16
	mtu       ibverbs.MTU
	linkLayer uint8
	// responder and initiator are how many READs and atomics may be in flight
	// from the peer and from this end.
	responder, initiator uint8
	// port is for people who read traces.
	port uint8
}

const (
	// addressMagic says whose address it is, and the version of its form.
	addressMagic = "TVA1"
	addressSize  = 36
	// maxNumber is the largest QPN and PSN: 24 bits.
	maxNumber = 1<<24 - 1
)

// encode returns the address: magic, then all fields little endian.
func (e *endpoint) encode() []byte {
	b := append(make([]byte, 0, addressSize), addressMagic...)
	b = binary.LittleEndian.AppendUint32(b, e.qpn)
	b = binary.LittleEndian.AppendUint32(b, e.psn)
	b = append(b, e.gid[:]...)
	b = binary.LittleEndian.AppendUint16(b, e.lid)
	return append(b, byte(e.mtu), e.linkLayer, e.responder, e.initiator, e.port, 0)
}

// decodeEndpoint reads an address that came from a peer, and believes nothing.
func decodeEndpoint(b []byte) (e endpoint, err error) {
	if len(b) != addressSize || string(b[:4]) != addressMagic {
		return e, fmt.Errorf("%w address: not that of a queue pair of the provider verbs (%d bytes)", rdma.ErrInvalid, len(b))
	}
	e = endpoint{
		qpn:       binary.LittleEndian.Uint32(b[4:]),
		psn:       binary.LittleEndian.Uint32(b[8:]),
		gid:       ibverbs.GID(b[12:28]),
		lid:       binary.LittleEndian.Uint16(b[28:]),
		mtu:       ibverbs.MTU(b[30]),
		linkLayer: b[31],
		responder: b[32],
		initiator: b[33],
		port:      b[34],
	}
	switch {
	case e.qpn > maxNumber || e.psn > maxNumber || b[35] != 0:
		return endpoint{}, fmt.Errorf("%w address: queue pair number %#x, packet number %#x, last byte %#x", rdma.ErrInvalid, e.qpn, e.psn, b[35])
	case e.mtu.Bytes() == 0:
		return endpoint{}, fmt.Errorf("%w address: MTU code %d", rdma.ErrInvalid, e.mtu)
	case e.linkLayer != uint8(ibverbs.Ethernet) && e.linkLayer != uint8(ibverbs.InfiniBand):
		return endpoint{}, fmt.Errorf("%w address: link layer %d", rdma.ErrInvalid, e.linkLayer)
	case e.responder == 0 || e.initiator == 0:
		return endpoint{}, fmt.Errorf("%w address: the peer allows no READs and atomics", rdma.ErrInvalid)
	}
	return e, nil
}

// hopLimit is the time to live of RoCE v2 packets, as the kernel's default for IP.
const hopLimit = 64

// pathBetween is what both ends agree on, seen from local. They come to the same
// numbers independently: each takes the lesser of the two sides.
func pathBetween(local, remote *endpoint, gidIndex int, timeout time.Duration) (ibverbs.Path, error) {
	if local.linkLayer != remote.linkLayer {
		return ibverbs.Path{}, fmt.Errorf("%w address: the peer is on %v, this end on %v", rdma.ErrInvalid,
			ibverbs.LinkLayer(remote.linkLayer), ibverbs.LinkLayer(local.linkLayer))
	}
	ethernet := local.linkLayer == uint8(ibverbs.Ethernet)
	return ibverbs.Path{
		RemoteQP:  remote.qpn,
		RemotePSN: remote.psn,
		LocalPSN:  local.psn,
		RemoteLID: remote.lid,
		RemoteGID: remote.gid,
		// Within a subnet of InfiniBand the LID is enough.
		Global:           ethernet || [8]byte(local.gid[:8]) != [8]byte(remote.gid[:8]),
		GIDIndex:         uint8(gidIndex),
		HopLimit:         hopLimit,
		Port:             local.port,
		MTU:              min(local.mtu, remote.mtu),
		ResponderAtomics: min(local.responder, remote.initiator),
		InitiatorAtomics: min(local.initiator, remote.responder),
		MinRNRTimer:      rnrTimer,
		Timeout:          timeoutCode(timeout),
		Retries:          retries,
		RNRRetries:       rnrRetries,
	}, nil
}
