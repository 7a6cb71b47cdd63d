// Package host runs programs compiled for wasip1 as deterministic simulations.
// Such a program has one thread, no preemption, and nothing of the world but what
// the host gives it: here a virtual clock and a source of chance that is seeded.
// So everything in it replays from its seed, Go's scheduler, select, maps and
// timers included.
//
// The clock begins at a fixed instant. It moves when the program sleeps, which
// takes no real time, and by a microsecond at every reading, so that a loop that
// waits for the time to pass ends.
//
// The program gets the seed as its first argument. The last line that it prints
// is its Report, in JSON. The package knows nothing else of what it runs.
//
// Start reading at Runner.Run; world.go has the clock, build.go makes the program.
package host

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

const (
	// memoryPages bounds the memory of one guest: 512 MiB in pages of 64 KiB.
	memoryPages = 512 << 20 / (64 << 10)
	// keepOutput is how much of the end of what a guest prints is kept, in bytes. It
	// bounds the last line.
	keepOutput = 64 << 10
	// showOutput is how much of each output an error shows.
	showOutput = 4 << 10
	// DefaultLimit is the default of Runner.Limit.
	DefaultLimit = 10 * time.Minute
	// gracePeriod is how long, in real time, a guest is waited for after the end of
	// its context.
	gracePeriod = 5 * time.Second
)

// Report is what a guest says of itself in its last line.
type Report struct {
	// Seed is the seed that it has run.
	Seed uint64 `json:"seed"`
	// Hash covers what has happened, as far as the guest counts it.
	Hash string `json:"hash"`
	// Failure is what has gone wrong; empty if nothing has.
	Failure string `json:"failure"`
	// Figures are counts by name.
	Figures map[string]float64 `json:"figures"`
}

// Result is what came of one seed.
type Result struct {
	// Seed is the seed.
	Seed uint64
	// Report is the last line; zero if there was none.
	Report Report
	// Hash covers all that the guest has printed, to both outputs, the virtual time
	// of its end and the number of clock readings: two runs are the same if it is.
	Hash uint64
	// Virtual is how long the guest ran by its own clock, Real by the world's.
	Virtual, Real time.Duration
	// Readings is how often it has read a clock.
	Readings uint64
	// Stderr is the end of its standard error, up to 64 KiB.
	Stderr string
}

// Runner runs one program. It is safe for concurrent use.
type Runner struct {
	// Limit bounds the virtual time of a run; 0 means ten minutes. It may be changed
	// before the first run.
	Limit time.Duration

	engine   wazero.Runtime
	compiled wazero.CompiledModule
	// guests counts those that run, abandoned those that were left to themselves.
	guests    sync.WaitGroup
	abandoned atomic.Int64
}

// New compiles a program, which takes seconds. The Runner is to be closed. The
// compiled code does not ask whether it should stop, which would take it thrice
// the time: a guest is stopped when it next asks for the time, sleeps or prints.
func New(ctx context.Context, wasm []byte) (_ *Runner, err error) {
	config := wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(memoryPages)
	r := &Runner{engine: wazero.NewRuntimeWithConfig(ctx, config)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.engine.Close(ctx))
		}
	}()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r.engine); err != nil {
		return nil, fmt.Errorf("give the guest its system: %w", err)
	}
	if r.compiled, err = r.engine.CompileModule(ctx, wasm); err != nil {
		return nil, fmt.Errorf("compile the guest: %w", err)
	}
	return r, nil
}

// Close frees the compiled program when all guests have ended, which it waits
// for. While one loops that could not be stopped it frees nothing and fails.
func (r *Runner) Close(ctx context.Context) error {
	if n := r.abandoned.Load(); n > 0 {
		return fmt.Errorf("close the runner: %d guests loop and cannot be stopped; end the process", n)
	}
	r.guests.Wait()
	return r.engine.Close(ctx)
}

// Run runs one seed in a fresh instance of the program, whose arguments are the
// seed and args. What it prints goes to out as it comes; a nil out is none, and
// an error of out is one of the run. Run fails when the guest panics, exits with a
// status other than 0, has no Report in its last line, or does not end: not
// within Limit of its own time, or not before ctx. The Result has then what is
// known. That the Report has a Failure is no error.
//
// A guest that does not stop within five seconds of ctx's end, because it loops
// without ever asking for the time, is abandoned: it keeps a processor, and may
// in time stop the whole process at a collection of garbage. The caller should
// end the process.
func (r *Runner) Run(ctx context.Context, seed uint64, args []string, env map[string]string, out io.Writer) (Result, error) {
	if out == nil {
		out = io.Discard
	}
	w := &world{ctx: ctx, limit: cmp.Or(r.Limit, DefaultLimit), hash: fnv.New64a(), out: out}
	started := time.Now()
	ended := make(chan error, 1)
	r.guests.Go(func() { ended <- r.instantiate(ctx, w, seed, args, env) })
	err, abandoned := wait(ctx, ended)
	if abandoned {
		r.abandoned.Add(1)
	}
	return w.result(seed, time.Since(started), err)
}

// wait waits for the end of a guest, and after that of ctx for a while only.
func wait(ctx context.Context, ended <-chan error) (err error, abandoned bool) {
	select {
	case err = <-ended:
		return err, false
	case <-ctx.Done():
	}
	grace := time.NewTimer(gracePeriod)
	defer grace.Stop()
	select {
	case err = <-ended:
		return err, false
	case <-grace.C:
		return ctx.Err(), true
	}
}

// instantiate runs the guest to its end.
func (r *Runner) instantiate(ctx context.Context, w *world, seed uint64, args []string, env map[string]string) error {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	config := wazero.NewModuleConfig().WithName("").
		WithArgs(append([]string{"guest", strconv.FormatUint(seed, 10)}, args...)...).
		WithNanotime(w.nanotime, 1).WithWalltime(w.walltime, 1).WithNanosleep(w.nanosleep).
		WithRandSource(rand.NewChaCha8(key)).
		WithStdout(output{w, &w.stdout, true}).WithStderr(output{w, &w.stderr, false})
	for _, name := range slices.Sorted(maps.Keys(env)) {
		config = config.WithEnv(name, env[name])
	}
	guest, err := r.engine.InstantiateModule(context.WithoutCancel(ctx), r.compiled, config)
	if guest != nil {
		err = errors.Join(err, guest.Close(context.WithoutCancel(ctx)))
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0 {
		return nil
	}
	return err
}

// RunAll runs count seeds from the given one on, up to parallel at a time, and
// calls report for each, in the order in which they end, one call at a time. When
// report returns false no more are begun, those that run are stopped, and report
// is not called again. It returns when all have ended, with ctx's error if that
// was the reason; errors of runs are report's.
func (r *Runner) RunAll(ctx context.Context, from, count uint64, parallel int, args []string, env map[string]string, report func(Result, error) bool) error {
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
				next++
				if over {
					next--
				}
				mu.Unlock()
				if over {
					return
				}
				result, err := r.Run(running, seed, args, env, nil)
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
