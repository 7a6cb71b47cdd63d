package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/tenure-faas/tenure/rdma"
)

// maxName is the longest name of a node, in bytes.
const maxName = 64

// magic begins every address, so that one of another provider is refused.
const magic = "sim1"

// address names a queue pair: magic, number (little endian), name of the node.
type address struct {
	name   string
	number uint32
}

func (a address) encode() []byte {
	b := binary.LittleEndian.AppendUint32(append(make([]byte, 0, len(magic)+4+len(a.name)), magic...), a.number)
	return append(b, a.name...)
}

func decodeAddress(b []byte) (address, error) {
	if len(b) <= len(magic)+4 || len(b) > len(magic)+4+maxName || string(b[:len(magic)]) != magic {
		return address{}, fmt.Errorf("%w address of %d bytes: it is not one of provider sim", rdma.ErrInvalid, len(b))
	}
	b = b[len(magic):]
	return address{number: binary.LittleEndian.Uint32(b), name: string(b[4:])}, nil
}
