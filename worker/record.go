package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// The states of an ended invocation.
const (
	stateCompleted = "completed"
	stateAborted   = "aborted"
	stateFailed    = "failed"
)

// Record returns what is kept of an invocation. It blocks until that is durable, as
// far as this process has appended it, for Options.Timeout at most. The error is
// NotFound if it is unknown or older than Options.Retention, Unavailable if the disk
// does not follow.
func (w *Worker) Record(id base.InvocationID) (Record, error) {
	if time.Since(id.Time()) > w.opt.Retention {
		return Record{}, base.Errorf(base.NotFound, "no invocation %v: records are kept for %v", id, w.opt.Retention)
	}
	r, err := w.record(id)
	if err != nil {
		return Record{}, err
	}
	// Whoever asks may have been told that the outcome is unknown, because the disk
	// did not follow.
	ctx, cancel := context.WithTimeout(context.Background(), w.opt.Timeout)
	defer cancel()
	if err := w.engine.WaitDurable(ctx, w.engine.Appended()); err != nil {
		return Record{}, &base.Error{Kind: base.Unavailable, Detail: "the record of invocation " + id.String() + " is not durable yet: ask again", Err: err}
	}
	return r, nil
}

func (w *Worker) record(id base.InvocationID) (Record, error) {
	raw, found, err := w.engine.Get(nil, store.InvocationKey(nil, id))
	if err != nil {
		return Record{}, err
	}
	if !found {
		return Record{}, base.Errorf(base.NotFound, "no invocation %v, or its record has expired", id)
	}
	r, err := decodeRecord(raw)
	if err != nil {
		return Record{}, fmt.Errorf("record of invocation %v: %w", id, err)
	}
	r.ID = id
	return r, nil
}

// recordFormat is the first byte of a record.
const recordFormat = 1

// appendRecord appends the stored form of r, without its id, which is its key:
// a format byte, then every field as a length and its bytes or as a number.
func appendRecord(dst []byte, r *Record) []byte {
	dst = append(dst, recordFormat)
	dst = appendString(dst, r.State)
	dst = appendString(dst, r.Workflow)
	dst = appendString(dst, r.Worker)
	dst = binary.AppendUvarint(dst, uint64(r.Attempts))
	dst = binary.AppendVarint(dst, r.Started.UnixNano())
	dst = binary.AppendVarint(dst, r.Ended.UnixNano())
	dst = appendString(dst, r.Output)
	if r.Err == nil {
		return append(dst, 0)
	}
	dst = append(dst, 1, byte(r.Err.Kind))
	dst = appendString(dst, r.Err.Subject)
	dst = appendString(dst, r.Err.Detail)
	return appendString(dst, r.Err.Reason)
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// decodeRecord is the inverse of appendRecord; the result aliases raw.
func decodeRecord(raw []byte) (Record, error) {
	d := decoder{rest: raw}
	if f := d.byte(); f != recordFormat {
		return Record{}, fmt.Errorf("format %d is not known (this program writes %d)", f, recordFormat)
	}
	r := Record{State: string(d.bytes()), Workflow: string(d.bytes()), Worker: string(d.bytes())}
	r.Attempts = int(d.uvarint())
	r.Started = time.Unix(0, d.varint())
	r.Ended = time.Unix(0, d.varint())
	r.Output = d.bytes()
	if d.byte() != 0 {
		r.Err = &base.Error{Kind: base.Kind(d.byte()), Subject: string(d.bytes()), Detail: string(d.bytes()), Reason: string(d.bytes())}
	}
	return r, d.err()
}

// idempotencyRecord is what is stored under an idempotency key's hash.
type idempotencyRecord struct {
	digest  [32]byte
	id      base.InvocationID
	expires time.Time
}

func appendIdempotency(dst []byte, r idempotencyRecord) []byte {
	dst = append(dst, recordFormat)
	dst = append(dst, r.digest[:]...)
	dst = append(dst, r.id[:]...)
	return binary.BigEndian.AppendUint64(dst, uint64(r.expires.Unix()))
}

func decodeIdempotency(raw []byte) (idempotencyRecord, error) {
	var r idempotencyRecord
	if len(raw) != 1+32+16+8 || raw[0] != recordFormat {
		return r, fmt.Errorf("idempotency record of %d bytes is not readable: the store is corrupt or from a newer version", len(raw))
	}
	copy(r.digest[:], raw[1:])
	copy(r.id[:], raw[33:])
	r.expires = time.Unix(int64(binary.BigEndian.Uint64(raw[49:])), 0)
	return r, nil
}

// decoder reads fields off a byte slice; the first fault makes all later reads
// return zero values.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() { d.bad, d.rest = true, nil }

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) err() error {
	if d.bad || len(d.rest) > 0 {
		return fmt.Errorf("truncated or overlong: the store is corrupt or from a newer version")
	}
	return nil
}
