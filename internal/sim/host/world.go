package host

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/sys"
)

// world is the world of one guest.
type world struct {
	ctx   context.Context
	limit time.Duration

	// mu guards all below: an abandoned guest may go on while Run looks.
	mu       sync.Mutex
	now      time.Duration
	readings uint64
	// late says that the guest was stopped because its time was up.
	late           bool
	hash           hash.Hash64
	stdout, stderr tail
	// out is the caller's, and broken its first error: a guest seldom looks.
	out    io.Writer
	broken error
}

// epoch is when every simulation begins.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	// before is what the monotonic clock shows at the beginning: Go takes 0 for none.
	before = time.Second
	// stopped is the exit status of a guest that is stopped.
	stopped = 124
)

// stopLate stops the guest if its time is up, or its context has ended, in the way
// in which proc_exit ends one. The caller holds mu.
func (w *world) stopLate() {
	if w.now > w.limit {
		w.late = true
	} else if w.ctx.Err() == nil {
		return
	}
	panic(sys.NewExitError(stopped))
}

// pass moves the clock and returns it.
func (w *world) pass(d time.Duration, readings uint64) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += max(d, 0)
	w.readings += readings
	w.stopLate()
	return w.now
}

func (w *world) nanotime() int64 { return int64(before + w.pass(time.Microsecond, 1)) }

func (w *world) walltime() (seconds int64, nanoseconds int32) {
	t := epoch.Add(w.pass(time.Microsecond, 1))
	return t.Unix(), int32(t.Nanosecond())
}

func (w *world) nanosleep(ns int64) { w.pass(time.Duration(ns), 0) }

// output is one of the outputs of a guest.
type output struct {
	world *world
	kept  *tail
	// passed says that it goes to the caller too.
	passed bool
}

// Write implements io.Writer.
func (o output) Write(p []byte) (int, error) {
	w := o.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopLate()
	_, _ = w.hash.Write(p) // a hash takes everything
	o.kept.add(p)
	if o.passed && w.broken == nil {
		_, w.broken = w.out.Write(p)
	}
	return len(p), nil
}

// result is what has come of the guest, which has ended with err or was abandoned.
func (w *world) result(seed uint64, took time.Duration, err error) (Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = io.Discard // a guest that was abandoned may yet print
	result := Result{Seed: seed, Virtual: w.now, Real: took, Readings: w.readings, Stderr: w.stderr.String()}
	var end [16]byte
	binary.LittleEndian.PutUint64(end[:8], uint64(w.now))
	binary.LittleEndian.PutUint64(end[8:], w.readings)
	_, _ = w.hash.Write(end[:])
	result.Hash = w.hash.Sum64()

	reported := json.Unmarshal(w.stdout.lastLine(), &result.Report)
	if reported == nil && result.Report.Seed != seed {
		reported = fmt.Errorf("it is of seed %d", result.Report.Seed)
	}
	switch {
	case w.late:
		err = fmt.Errorf("seed %d did not end within %v of its time; it printed last: %s", seed, w.limit, w.shown())
	case err != nil && w.ctx.Err() != nil:
		err = fmt.Errorf("seed %d did not end before its context, at %v of its time: %w; it printed last: %s", seed, w.now, w.ctx.Err(), w.shown())
	case err != nil:
		err = fmt.Errorf("seed %d: the guest failed at %v of its time: %w: %s", seed, w.now, err, w.shown())
	case w.broken != nil:
		err = fmt.Errorf("seed %d: pass on what the guest prints: %w", seed, w.broken)
	case reported != nil:
		err = fmt.Errorf("seed %d: the last line is no report: %w: %s", seed, reported, w.shown())
	}
	return result, err
}

// shown is what the guest has printed last, for an error.
func (w *world) shown() string {
	text := fmt.Sprintf("%q", w.stdout.end(showOutput))
	if complaint := w.stderr.complaint(showOutput); len(complaint) > 0 {
		text += fmt.Sprintf("; on its standard error:\n%s", complaint)
	}
	return text
}
