package shm

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"path/filepath"

	"github.com/tenure-faas/tenure/rdma"
)

// token is a queue pair's secret: who knows it may connect to it.
type token [16]byte

// is compares without telling how much of a guess was right.
func (t *token) is(guess token) bool { return subtle.ConstantTimeCompare(t[:], guess[:]) == 1 }

// maxPath is the longest path of a unix socket.
const maxPath = 107

// addressVersion is the version of address, of the messages and of the layout
// of the control memory together: ends of different versions do not connect.
const addressVersion = 1

// addressHeader begins every encoded address.
var addressHeader = [5]byte{'t', 's', 'h', 'm', addressVersion}

// address is what a peer must know of a queue pair to connect to it.
type address struct {
	// number of the queue pair within its provider.
	number uint32
	token  token
	// path of the provider's socket.
	path string
}

// fixedAddress is the length of an encoded address without the path.
const fixedAddress = len(addressHeader) + 4 + len(token{})

func (a *address) encode() []byte {
	b := append(make([]byte, 0, fixedAddress+len(a.path)), addressHeader[:]...)
	b = binary.LittleEndian.AppendUint32(b, a.number)
	b = append(b, a.token[:]...)
	return append(b, a.path...)
}

func decodeAddress(b []byte) (a address, err error) {
	if len(b) < len(addressHeader) || [len(addressHeader)]byte(b) != addressHeader {
		return a, fmt.Errorf("%w address: it is not one of a queue pair of shm, version %d", rdma.ErrInvalid, addressVersion)
	}
	if len(b) <= fixedAddress || len(b) > fixedAddress+maxPath {
		return a, fmt.Errorf("%w address: %d bytes, not %d to %d", rdma.ErrInvalid, len(b), fixedAddress+1, fixedAddress+maxPath)
	}
	b = b[len(addressHeader):]
	a.number = binary.LittleEndian.Uint32(b)
	a.token = token(b[4:])
	a.path = string(b[4+len(a.token):])
	if !filepath.IsAbs(a.path) || filepath.Clean(a.path) != a.path {
		return a, fmt.Errorf("%w address: %q is not the absolute path of a socket", rdma.ErrInvalid, a.path)
	}
	for _, c := range []byte(a.path) {
		if c == 0 { // the kernel would read a shorter path
			return a, fmt.Errorf("%w address: %q has a zero byte", rdma.ErrInvalid, a.path)
		}
	}
	return a, nil
}
