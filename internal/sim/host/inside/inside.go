// Package inside is the part of a deterministic program that package host relies
// on: its main function is Main. Package host has the conditions under which such
// a program replays.
package inside

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"runtime/pprof"
	"strconv"
	"time"
)

// Report is what a program says of itself in its last line.
type Report struct {
	// Seed is the seed that it has run.
	Seed uint64 `json:"seed"`
	// Failure is what has gone wrong; empty if nothing has.
	Failure string `json:"failure"`
	// Figures are counts by name.
	Figures map[string]int64 `json:"figures"`
	// Virtual is how long it has taken by its own clock.
	Virtual time.Duration `json:"virtual"`
}

const (
	// Threads is how many threads a program has that replays: the one that all
	// goroutines run on, one that was needed while the runtime started and never again, and
	// the runtime's monitor, which stands still.
	Threads = 3
	// Again is the exit status of a program that has started with others, which is
	// a matter of luck: it is to be started again.
	Again = 75
	// Limit bounds the virtual time of a program.
	Limit = 10 * time.Minute
	// Probe is the environment variable of a program that only says how it has
	// started.
	Probe = "TENURE_SIM_PROBE"
	// output is the file descriptor that it prints to. What goes to the standard ones
	// gets a time stamp from the runtime.
	output = 3
)

// Main runs a program whose first argument is the seed; args are those behind it.
// What run prints to out, and the Report, are compared from run to run. Main does not return.
func Main(run func(seed uint64, args []string, out io.Writer) (failure string, figures map[string]int64)) {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: a program of internal/sim/host: SEED [ARGUMENT...]")
		os.Exit(2)
	}
	seed, err := strconv.ParseUint(os.Args[1], 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "the seed:", err)
		os.Exit(2)
	}
	settle()
	again()
	rand.Reader = chance{}
	out := os.NewFile(output, "output")
	if _, err := fmt.Fprintln(out, start()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(Probe) != "" {
		os.Exit(0)
	}
	time.AfterFunc(Limit, func() { panic("inside: the program does not end within " + Limit.String() + " of its time") })
	begun := time.Now()
	r := Report{Seed: seed}
	r.Failure, r.Figures = run(seed, os.Args[2:], out)
	r.Virtual = time.Since(begun)
	again()
	raw, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(out, "%s\n", raw)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// again gives up if there were other threads: each has random numbers of its own,
// and allocates.
func again() {
	if pprof.Lookup("threadcreate").Count() != Threads {
		os.Exit(Again)
	}
}

// start tells one start of the runtime from another: where its heap is and what its
// chance brings next. Once in a thousand starts two threads meet at a lock, which
// costs a random number. It is the first line of the output.
func start() string {
	heads := make(chan int)
	close(heads)
	bits := 0
	for i := range 32 {
		select {
		case <-heads:
			bits |= 1 << i
		case <-heads:
		}
	}
	return fmt.Sprintf("start %p %x %x", new(int), bits, mathrand.Uint64())
}

// chance is the source of random bytes: those of the runtime, which the host has
// seeded, and not the kernel's.
type chance struct{}

// Read implements io.Reader.
func (chance) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(mathrand.Uint32())
	}
	return len(p), nil
}
