package worker

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// sweepBatch bounds how many idempotency records one batch removes.
const sweepBatch = 4096

// sweep removes expired records. Invocation records go by one range deletion,
// since their ids sort by time; idempotency records are looked through.
func (w *Worker) sweep(now time.Time) error {
	horizon := now.Add(-w.idempotencyLife())
	batch := w.engine.NewBatch()
	defer func() { batch.Release() }()
	batch.DeleteRange(store.InvocationRange(base.InvocationID{}, base.NewInvocationID(horizon, 0, 0)))
	n := 0
	lo, hi := store.IdempotencyRange()
	for lo != nil {
		from := lo
		lo = nil
		err := w.engine.Scan(from, hi, func(key, raw []byte) bool {
			if n == sweepBatch {
				lo = append([]byte(nil), key...)
				return false
			}
			// An unreadable record is left for recall to report.
			if r, err := decodeIdempotency(raw); err == nil && now.After(r.expires) {
				batch.Delete(key)
				n++
			}
			return true
		})
		if err == nil {
			err = w.engine.Apply(batch)
		}
		if err != nil {
			return fmt.Errorf("remove records from before %v: %w", horizon.Format(time.RFC3339), err)
		}
		batch.Release()
		batch, n = w.engine.NewBatch(), 0
	}
	return nil
}
