package worker

import "sync"

// LogEntry is a log line with its place in the log.
type LogEntry struct {
	// Seq grows by one a line, from 1, since the log was made.
	Seq int64
	LogLine
}

// Logs keeps the newest lines that functions wrote, on one worker or several. It
// is safe for concurrent use.
type Logs struct {
	mu    sync.Mutex
	lines []LogEntry // a ring: line n is at n % len
	last  int64
	more  chan struct{} // closed and replaced when a line is added and somebody waits
	asked bool
}

// NewLogs returns a log that keeps n lines, at least 1.
func NewLogs(n int) *Logs {
	return &Logs{lines: make([]LogEntry, max(n, 1)), more: make(chan struct{})}
}

// maxLogBytes bounds one line; longer ones are cut.
const maxLogBytes = 8 << 10

// Add adds a line; one that is too long is cut.
func (r *Logs) Add(l LogLine) {
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

// After returns the lines with Seq > after that are still kept, oldest first,
// and a channel that is closed when a later line exists. It does not block.
func (r *Logs) After(after int64) (lines []LogEntry, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int64(len(r.lines))
	for seq := max(after+1, r.last-n+1, 1); seq <= r.last; seq++ {
		lines = append(lines, r.lines[seq%n])
	}
	r.asked = true
	return lines, r.more
}

// Logs returns lines of the worker's log, as Logs.After does.
func (w *Worker) Logs(after int64) (lines []LogEntry, more <-chan struct{}) {
	return w.opt.Logs.After(after)
}
