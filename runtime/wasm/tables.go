package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of tables. The engine allocates eight bytes of host memory for each element, grows tables at the guest's wish and
// has no option against it, so the limit is written into the module. The tables of a compiled Go program have some
// thousands of elements, one for each function whose address is taken.
const (
	maxTables        = 8
	maxTableElements = 1 << 18
)

var errTables = errors.New("the table section is malformed")

// limitTables gives every table of a module a maximum of at most maxTableElements. The module comes from the rewriter, so
// its sections are known to be well formed; what is not is refused all the same.
func limitTables(code []byte) ([]byte, error) {
	const header, tableSection = 8, 4
	for pos := header; pos < len(code); {
		size, n := binary.Uvarint(code[pos+1:])
		start := pos + 1 + n
		if n <= 0 || size > uint64(len(code)-start) {
			return nil, errTables
		}
		end := start + int(size)
		if code[pos] == tableSection {
			section, err := limitTableSection(code[start:end])
			if err != nil {
				return nil, err
			}
			out := make([]byte, 0, len(code)+len(section))
			out = append(out, code[:pos+1]...)
			out = binary.AppendUvarint(out, uint64(len(section)))
			out = append(out, section...)
			return append(out, code[end:]...), nil
		}
		pos = end
	}
	return code, nil
}

func limitTableSection(section []byte) ([]byte, error) {
	next := func() (uint64, error) {
		v, n := binary.Uvarint(section)
		if n <= 0 {
			return 0, errTables
		}
		section = section[n:]
		return v, nil
	}
	count, err := next()
	if err != nil {
		return nil, err
	}
	if count > maxTables {
		return nil, fmt.Errorf("the module has %d tables, the limit is %d", count, maxTables)
	}
	out := binary.AppendUvarint(nil, count)
	for range count {
		if len(section) < 2 {
			return nil, errTables
		}
		elementType, bounded := section[0], section[1] == 1
		section = section[2:]
		least, err := next()
		if err != nil {
			return nil, err
		}
		most := uint64(maxTableElements)
		if bounded {
			given, err := next()
			if err != nil {
				return nil, err
			}
			most = min(most, given)
		}
		if least > maxTableElements {
			return nil, fmt.Errorf("a table of the module has %d elements, the limit is %d", least, maxTableElements)
		}
		out = append(out, elementType, 1)
		out = binary.AppendUvarint(out, least)
		out = binary.AppendUvarint(out, most)
	}
	return out, nil
}
