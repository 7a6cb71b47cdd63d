package worker

import "time"

// Sweep runs the sweeper once over everything, as Run does bit by bit.
func (w *Worker) Sweep(now time.Time) error {
	from, err := w.sweep(now, nil)
	for from != nil && err == nil {
		from, err = w.sweep(now, from)
	}
	return err
}
