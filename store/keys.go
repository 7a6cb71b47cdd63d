package store

import (
	"encoding/binary"
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// The keyspace. The first byte says what a key is about:
//
//	d table 0x00 key    -> version (8 bytes, big endian), flags (1 byte), value
//	f name              -> a function: JSON of the catalogue
//	i id (16 bytes)     -> an invocation record
//	k hash (32 bytes)   -> an idempotency record: expiry and invocation id
//	m version           -> a module's bytes, by sha256
//	M name              -> metadata: seal, membership
//	w name              -> a workflow: JSON of the catalogue
const (
	prefixData        = 'd'
	prefixFunction    = 'f'
	prefixInvocation  = 'i'
	prefixIdempotency = 'k'
	prefixModule      = 'm'
	prefixMeta        = 'M'
	prefixWorkflow    = 'w'
)

// AppendDataKey appends the engine's key of a table's key to dst.
func AppendDataKey(dst []byte, k base.Key) []byte {
	dst = append(dst, prefixData)
	dst = append(dst, k.Table...)
	dst = append(dst, 0)
	return append(dst, k.Key...)
}

// DataRange returns the bounds [lo, hi) of the keys of a table that begin with
// prefix.
func DataRange(table, prefix string) (lo, hi []byte) {
	lo = AppendDataKey(nil, base.Key{Table: table, Key: prefix})
	return lo, prefixEnd(lo)
}

// DataKeySuffix returns the key within its table of an engine key of table.
func DataKeySuffix(table string, engineKey []byte) []byte {
	return engineKey[2+len(table):]
}

// prefixEnd returns the smallest key greater than every key beginning with p.
func prefixEnd(p []byte) []byte {
	end := append([]byte(nil), p...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// dataFlagDeleted marks a tombstone: the key is absent and keeps its version.
const dataFlagDeleted = 1

const dataHeaderBytes = 9

// AppendDataValue appends the stored form of a value to dst. A deleted key is
// kept as a tombstone, so that its version goes on when it is written again.
func AppendDataValue(dst []byte, version base.Version, value []byte, present bool) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(version))
	if !present {
		return append(dst, dataFlagDeleted)
	}
	dst = append(dst, 0)
	return append(dst, value...)
}

// DecodeDataValue is the inverse of AppendDataValue; value aliases raw.
func DecodeDataValue(raw []byte) (version base.Version, value []byte, present bool, err error) {
	if len(raw) < dataHeaderBytes {
		return 0, nil, false, fmt.Errorf("stored value has %d bytes, at least %d expected: the store is corrupt", len(raw), dataHeaderBytes)
	}
	version = base.Version(binary.BigEndian.Uint64(raw))
	if raw[8]&dataFlagDeleted != 0 {
		return version, nil, false, nil
	}
	return version, raw[dataHeaderBytes:], true, nil
}

// InvocationKey returns the key of an invocation record. Ids sort by time, so
// InvocationRange is a range of time.
func InvocationKey(dst []byte, id base.InvocationID) []byte {
	return append(append(dst, prefixInvocation), id[:]...)
}

// InvocationRange returns the bounds of all records with ids in [lo, hi).
func InvocationRange(lo, hi base.InvocationID) (from, to []byte) {
	return InvocationKey(nil, lo), InvocationKey(nil, hi)
}

// IdempotencyKey appends the key of an idempotency record to dst.
func IdempotencyKey(dst []byte, hash [32]byte) []byte {
	return append(append(dst, prefixIdempotency), hash[:]...)
}

// IdempotencyRange returns the bounds of all idempotency records.
func IdempotencyRange() (lo, hi []byte) {
	return []byte{prefixIdempotency}, []byte{prefixIdempotency + 1}
}

// FunctionKey returns the key of a function's entry in the catalogue.
func FunctionKey(name string) []byte { return append([]byte{prefixFunction}, name...) }

// FunctionRange returns the bounds of all functions.
func FunctionRange() (lo, hi []byte) { return []byte{prefixFunction}, []byte{prefixFunction + 1} }

// WorkflowKey returns the key of a workflow's entry in the catalogue.
func WorkflowKey(name string) []byte { return append([]byte{prefixWorkflow}, name...) }

// WorkflowRange returns the bounds of all workflows.
func WorkflowRange() (lo, hi []byte) { return []byte{prefixWorkflow}, []byte{prefixWorkflow + 1} }

// ModuleKey returns the key of a module's bytes.
func ModuleKey(version string) []byte { return append([]byte{prefixModule}, version...) }

// MetaKey returns the key of a piece of metadata.
func MetaKey(name string) []byte { return append([]byte{prefixMeta}, name...) }
