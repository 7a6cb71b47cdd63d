package worker

import "sync"

// LogEntry is a log line with its place in the worker's log.
type LogEntry struct {
	// Seq grows by one a line, from 1, since the start of the worker.
	Seq int64
	LogLine
}

// logRing keeps the newest lines that functions wrote. It is safe for
// concurrent use.
type logRing struct {
	mu    sync.Mutex
	lines []LogEntry // a ring: line n is at n % len
	last  int64
	more  chan struct{} // closed and replaced when a line is added and somebody waits
	asked bool
}

func (r *logRing) init(n int) {
	r.lines = make([]LogEntry, n)
	r.more = make(chan struct{})
}

// maxLogBytes bounds one line; longer ones are cut.
const maxLogBytes = 8 << 10

func (r *logRing) add(l LogLine) {
	if len(l.Message) > maxLogBytes {
		l.Message = l.Message[:maxLogBytes]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.lines[r.last%int64(len(r.lines))] = LogEntry{r.last, l}
	if r.asked {
		close(r.more)
		r.more, r.asked = make(chan struct{}), false
	}
}

// Logs returns the lines with Seq > after that are still kept, oldest first,
// and a channel that is closed when a later line exists. It does not block.
func (w *Worker) Logs(after int64) (lines []LogEntry, more <-chan struct{}) {
	r := &w.logs
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int64(len(r.lines))
	for seq := max(after+1, r.last-n+1, 1); seq <= r.last; seq++ {
		lines = append(lines, r.lines[seq%n])
	}
	r.asked = true
	return lines, r.more
}
