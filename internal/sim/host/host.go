package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/internal/sim/host/inside"
)

const (
	// keepOutput is how much of the end of what a program prints is kept, in bytes.
	// It bounds the last line.
	keepOutput = 64 << 10
	// showOutput is how much of it an error shows.
	showOutput = 4 << 10
	// tries is how often a program is started until it has the usual threads, which
	// about every second start has on a busy machine, and has started as before.
	tries = 100
	// headBytes bounds the first line.
	headBytes = 256
	// patience is how long one run may take by the world's clock: a program whose
	// goroutines keep each other busy does not let its own time pass.
	patience = time.Minute
)

// Result is what came of one seed.
type Result struct {
	// Seed is the seed.
	Seed uint64
	// Report is the last line; zero if there was none.
	Report inside.Report
	// Hash covers all that the program has printed, its Report included: two runs
	// are the same if it is.
	Hash uint64
	// Real is how long it took by the world's clock, other tries included.
	Real time.Duration
	// Tries is how often it was started, Again how often besides with other threads
	// than usual.
	Tries, Again int
}

// Runner runs one program. It is safe for concurrent use.
type Runner struct {
	dir, path string
}

// ended is how a process ended.
type ended struct {
	status int // 128 + the signal, if it was one
	stderr tail
}

// Run runs one seed. What the program prints goes to out when it comes, from every
// try; a nil out is none. Run fails when the program panics, exits with a
// status other than 0, has no Report in its last line, or does not end before ctx
// or within a minute.
// The Result has then what is known. That the Report has a Failure is no error.
// Variables are its environment, NAME=value each, beside what the runtime needs.
func (r *Runner) Run(ctx context.Context, seed uint64, args, variables []string, out io.Writer) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it did not end within "+patience.String()))
	defer cancel()
	result := Result{Seed: seed}
	begun := time.Now()
	starts := map[string]int{}
	var err error
	for result.Tries = 1; result.Tries <= tries; result.Tries++ {
		// The first is a probe, and every second one behind it until two starts
		// were the same.
		probe := result.Tries%2 == 1
		given := variables
		if probe {
			given = append([]string{inside.Probe + "=1"}, variables...)
		}
		hash := fnv.New64a()
		var kept tail
		var first head
		writers := []io.Writer{hash, &kept, &first}
		if out != nil && !probe {
			writers = append(writers, out)
		}
		e, failed := r.trace(ctx, seed, args, given, io.MultiWriter(writers...))
		if failed == nil && ctx.Err() != nil {
			failed = context.Cause(ctx)
		}
		if failed == nil && e.status == inside.Again {
			result.Tries-- // of the same kind
			if result.Again++; result.Again > tries {
				break
			}
			continue
		}
		if starts[first.line()]++; failed == nil && (probe || starts[first.line()] < 2) {
			continue
		}
		err = result.end(&e, hash.Sum64(), &kept, failed)
		result.Real = time.Since(begun)
		return result, err
	}
	return result, fmt.Errorf("run seed %d: started %d times, and never in the same way with %d threads: %v", seed, tries, inside.Threads, starts)
}

// end takes down how a run ended.
func (r *Result) end(e *ended, hash uint64, kept *tail, err error) error {
	r.Hash = hash
	if err == nil && e.status != 0 {
		err = fmt.Errorf("it ended with status %d: %s", e.status, e.stderr.complaint(showOutput))
	}
	if err == nil {
		err = json.Unmarshal(kept.lastLine(), &r.Report)
	}
	if err == nil && r.Report.Seed != r.Seed {
		err = fmt.Errorf("it reports on seed %d", r.Report.Seed)
	}
	if err != nil {
		err = fmt.Errorf("run seed %d: %w; it printed last: %s", r.Seed, err, kept.end(showOutput))
	}
	return err
}

// head keeps the first line of what is written to it, if it is not long.
type head struct{ kept []byte }

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), max(0, headBytes-len(h.kept)))]...)
	return len(p), nil
}

func (h *head) line() string {
	line, _, _ := bytes.Cut(h.kept, []byte("\n"))
	return string(line)
}

// errOther says where nothing replays.
var errOther = errors.New("programs replay on Linux and amd64 only")

// RunAll runs count seeds from the given one on, up to parallel at a time, and
// calls report for each, in the order in which they end, one call at a time. When
// report returns false no more are begun, those that run are stopped, and report
// is not called again. It returns when all have ended, with ctx's error if that
// was the reason; errors of runs are report's.
func (r *Runner) RunAll(ctx context.Context, from, count uint64, parallel int, args, variables []string, report func(Result, error) bool) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex // guards next, and serializes report
	next := uint64(0)
	var wg sync.WaitGroup
	for range max(1, parallel) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed, over := from+next, next == count || running.Err() != nil
				if !over {
					next++
				}
				mu.Unlock()
				if over {
					return
				}
				result, err := r.Run(running, seed, args, variables, nil)
				mu.Lock()
				if running.Err() == nil && !report(result, err) {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}
