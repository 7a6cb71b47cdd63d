package rdmatest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// holdings is what a process holds at some time and must hold no more of later.
type holdings struct {
	goroutines goleak.Option
	handles    map[string]int
	files      map[string]int
	mappings   map[string]int
	// patience is how long something may take to go away after its owner was
	// closed.
	patience time.Duration
}

// hold looks at what this process holds now.
func hold() *holdings {
	return &holdings{goleak.IgnoreCurrent(), openHandles(), openFiles(), sharedMappings(), 5 * time.Second}
}

// leaks says what the process holds now that it did not hold then, one line
// each. It waits a while for what is about to go.
func (h *holdings) leaks() (lines []string) {
	// goleak looks again and again by itself, for a second.
	err := goleak.Find(h.goroutines)
	for start := time.Now(); err != nil && time.Since(start) < h.patience; {
		err = goleak.Find(h.goroutines)
	}
	if err != nil {
		lines = append(lines, "goroutines: "+err.Error())
	}
	lines = append(lines, h.settled("open handle", h.handles, openHandles)...)
	_, lost := handle.Counts()
	lines = append(lines, more("handle that was collected without Close", nil, lost)...)
	lines = append(lines, h.settled("open file", h.files, openFiles)...)
	return append(lines, h.settled("mapping", h.mappings, sharedMappings)...)
}

func openHandles() map[string]int {
	open, _ := handle.Counts()
	return open
}

// settled is more, looked at until there is nothing more or patience ends.
func (h *holdings) settled(kind string, before map[string]int, look func() map[string]int) (lines []string) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for start := time.Now(); time.Since(start) < h.patience; <-ticker.C {
		if lines = more(kind, before, look()); len(lines) == 0 {
			return nil
		}
	}
	return lines
}

// more says of what there is more in now than in before.
func more(kind string, before, now map[string]int) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if n := now[name] - before[name]; n > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d too many of %s", kind, n, name))
		}
	}
	return lines
}
