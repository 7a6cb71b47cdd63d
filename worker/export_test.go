package worker

import "time"

// Sweep runs the sweeper once, as Run does at every tick.
func (w *Worker) Sweep(now time.Time) error { return w.sweep(now) }
