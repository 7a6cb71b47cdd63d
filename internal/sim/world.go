package sim

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	verbs "github.com/tenure-faas/tenure/rdma/sim"
)

// Options are the options of Run.
type Options struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Txns is how many transactions clients begin while there are faults; 0 means
	// 70.
	Txns int
	// Chaos is for how long there are faults, in virtual time; 0 means 4 s.
	Chaos time.Duration
	// Log gets what happens, if it is not nil: every fault, every request and what
	// the processes log.
	Log io.Writer
}

func (o *Options) ensureDefaults() {
	if o.Txns == 0 {
		o.Txns = 70
	}
	if o.Chaos == 0 {
		o.Chaos = 4 * time.Second
	}
}

// Report is what a simulation found.
type Report struct {
	// Seed is Options.Seed.
	Seed uint64 `json:"seed"`
	// Failure says what was wrong; empty: nothing.
	Failure string `json:"failure"`
	// Figures count what happened, by name.
	Figures map[string]int64 `json:"figures"`
}

// The streams of chance: a new draw in one does not shift the others.
const (
	streamNetwork = iota + 1
	streamDisk
	streamFaults
	streamHosts
	streamClients // and one for each client behind it
)

// world is one simulation.
type world struct {
	options Options
	start   time.Time
	log     *slog.Logger
	net     *network
	fabric  *verbs.Fabric
	disk    *Disk
	clients *process // that of all clients, which never ends

	control  *host
	workers  []*host
	gateways []*host

	// over is closed when the simulation is; failed has the first failure.
	over   chan struct{}
	ending sync.Once

	mu      sync.Mutex // guards what follows
	failure string
	figures map[string]int64
	rng     *rand.Rand // of streamHosts
}

func chanceOf(seed uint64, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// Run runs one simulation to its end. It is to be the only thing that its process
// does: goroutines of killed processes stay behind.
func Run(o Options) Report {
	o.ensureDefaults()
	w := &world{
		options: o, start: time.Now(), over: make(chan struct{}), figures: map[string]int64{},
		net: newNetwork(chanceOf(o.Seed, streamNetwork)), rng: chanceOf(o.Seed, streamHosts),
	}
	w.log = slog.New(slog.DiscardHandler)
	if o.Log != nil {
		w.log = slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Duration("at", w.now())
			}
			return a
		}}))
	}
	w.fabric = verbs.New(verbs.Options{Seed: o.Seed, Clock: w.now})
	spawn(func() { _ = w.fabric.Drive(context.Background()) }) // until the program exits
	w.disk = NewDisk(DiskOptions{Random: chanceOf(o.Seed, streamDisk), Faults: calmDisk, OnFatal: func(string) { w.control.crash("its disk failed") }})
	w.clients = w.net.boot("clients")
	w.play()
	return Report{Seed: o.Seed, Failure: w.failure, Figures: w.figures}
}

// now is the virtual time since the start.
func (w *world) now() time.Duration { return time.Since(w.start) }

// fail ends the simulation.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	if w.failure == "" {
		w.failure = fmt.Sprintf("at %v: ", w.now()) + fmt.Sprintf(format, args...)
		w.log.Error("FAILURE", "what", w.failure)
	}
	w.mu.Unlock()
	w.end()
}

func (w *world) end() { w.ending.Do(func() { close(w.over) }) }

func (w *world) isOver() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

// count adds to a figure.
func (w *world) count(name string, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.figures[name] += n
}

// draw draws a time of the hosts' chance.
func (w *world) draw(s span) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.draw(w.rng)
}

// sleep sleeps; false if the simulation was over before.
func (w *world) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return !w.isOver()
	case <-w.over:
		return false
	}
}

// settleTime bounds how long the cluster may take, without faults, to answer what
// is under way: the longest time-outs of the parts one after another. A peer may be
// silent for 24 times a second and 4 before a queue pair breaks, a membership lasts 3.
const settleTime = 60 * time.Second

// play is the plot: a cluster starts, clients and faults go at it, the faults end,
// everything under way is answered, and the books are checked.
func (w *world) play() {
	w.raise()
	l := newLoad(w)
	if !w.within("the cluster does not start", settleTime, l.prepare) {
		return
	}
	spawn(w.watchHolders)
	chaos := newChaos(w)
	var running sync.WaitGroup
	running.Go(chaos.run)
	running.Go(l.run)
	if !w.within("the clients do not end", w.options.Chaos+settleTime, running.Wait) {
		return
	}
	w.within("the last reads are not answered", settleTime, l.audit)
	w.end()
}

// within does something that must be over in time, and says whether it was.
func (w *world) within(complaint string, limit time.Duration, do func()) bool {
	done := make(chan struct{})
	spawn(func() { defer close(done); do() })
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-w.over:
	case <-timer.C:
		w.fail("%s within %v%s", complaint, limit, w.describe())
	}
	return !w.isOver()
}
