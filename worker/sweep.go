package worker

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// sweepMost bounds how many idempotency records one sweep looks at.
const sweepMost = 100_000

// sweep removes expired records. Invocation records go by one range deletion,
// since their ids sort by time. Idempotency records are looked through, a
// bounded part of them at each sweep; from is where the last one stopped, and
// next where this one did (nil: at the end). It is called by one goroutine.
func (w *Worker) sweep(now time.Time, from []byte) (next []byte, err error) {
	horizon := now.Add(-w.idempotencyLife())
	batch := w.engine.NewBatch()
	defer batch.Release()
	batch.DeleteRange(store.InvocationRange(base.InvocationID{}, base.NewInvocationID(horizon, 0, 0)))
	lo, hi := store.IdempotencyRange()
	if from != nil {
		lo = from
	}
	seen := 0
	err = w.engine.Scan(lo, hi, func(key, raw []byte) bool {
		if seen++; seen > sweepMost {
			next = append([]byte(nil), key...)
			return false
		}
		// An unreadable record is left for recall to report.
		if r, err := decodeIdempotency(raw); err == nil && now.After(r.expires) {
			batch.Delete(key)
		}
		return true
	})
	if err == nil {
		err = w.engine.Apply(batch)
	}
	if err != nil {
		return from, fmt.Errorf("remove records from before %v: %w", horizon.Format(time.RFC3339), err)
	}
	return next, nil
}
