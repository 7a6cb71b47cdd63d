package host

import (
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
	// tries is how often a program is started until it has the usual threads: about
	// every second or third start has, on a busy machine.
	tries = 100
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
	// Tries is how often it was started.
	Tries int
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
// status other than 0, has no Report in its last line, or does not end before ctx.
// The Result has then what is known. That the Report has a Failure is no error.
// Variables are its environment, NAME=value each, beside what the runtime needs.
func (r *Runner) Run(ctx context.Context, seed uint64, args, variables []string, out io.Writer) (Result, error) {
	result := Result{Seed: seed}
	begun := time.Now()
	for result.Tries < tries {
		result.Tries++
		hash := fnv.New64a()
		var kept tail
		writers := []io.Writer{hash, &kept}
		if out != nil {
			writers = append(writers, out)
		}
		e, err := r.trace(ctx, seed, args, variables, io.MultiWriter(writers...))
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err == nil && e.status == inside.Again {
			continue
		}
		result.Hash, result.Real = hash.Sum64(), time.Since(begun)
		if err == nil && e.status != 0 {
			err = fmt.Errorf("it ended with status %d: %s", e.status, e.stderr.complaint(showOutput))
		}
		if err == nil {
			err = json.Unmarshal(kept.lastLine(), &result.Report)
		}
		if err == nil && result.Report.Seed != seed {
			err = fmt.Errorf("it reports on seed %d", result.Report.Seed)
		}
		if err != nil {
			err = fmt.Errorf("run seed %d: %w; it printed last: %s", seed, err, kept.end(showOutput))
		}
		return result, err
	}
	return result, fmt.Errorf("run seed %d: started %d times, and never with %d threads", seed, tries, inside.Threads)
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
