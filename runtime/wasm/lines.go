package wasm

import (
	"bytes"
	"strings"
)

// Limits of what one call may write, in bytes.
const (
	maxLineBytes    = 8 << 10  // one line of a log
	maxLogBytes     = 64 << 10 // the lines of one call that are logged
	maxWrittenBytes = 1 << 20  // what is looked at; the rest is dropped
	maxCrashBytes   = 4 << 10
)

// lineWriter makes lines of what a guest writes to its standard output and error: they go to the invocation's log, and
// the message of a panic becomes the detail of the error.
type lineWriter struct {
	partial  [2][]byte // the lines begun on standard output and error
	written  int       // bytes looked at in this call
	logged   int       // bytes logged in this call
	crash    []byte    // the message of a panic, or else the last line on standard error
	crashing bool      // the next line may belong to the message
	crashed  bool      // crash is a message
}

func (w *lineWriter) reset() {
	w.partial[0], w.partial[1], w.crash = w.partial[0][:0], w.partial[1][:0], w.crash[:0]
	w.written, w.logged = 0, 0
	w.crashing, w.crashed = false, false
}

// write takes what the guest wrote to file 1 or 2.
func (w *lineWriter) write(in *instance, file int, data []byte) {
	data = data[:min(len(data), maxWrittenBytes-w.written)]
	w.written += len(data)
	partial := &w.partial[file-1]
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		*partial = append(*partial, line[:min(len(line), maxLineBytes-len(*partial))]...)
		if ended {
			w.endLine(in, file)
		}
		data = rest
	}
}

// flush ends the lines that have no end yet.
func (w *lineWriter) flush(in *instance) {
	for file := 1; file <= 2; file++ {
		if len(w.partial[file-1]) > 0 {
			w.endLine(in, file)
		}
	}
}

func (w *lineWriter) endLine(in *instance, file int) {
	line := w.partial[file-1]
	if file == 2 {
		w.noteCrash(line)
	}
	if len(line) > 0 {
		in.log(cut(line, maxLineBytes))
	}
	w.partial[file-1] = line[:0]
}

// noteCrash picks the message out of what the Go runtime writes when it gives up: the lines from "panic: " or "fatal
// error: " to the first that is empty or begins the list of goroutines.
func (w *lineWriter) noteCrash(line []byte) {
	begins := bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: "))
	switch {
	case begins && !w.crashed:
		w.crash = append(w.crash[:0], line...)
		w.crashed, w.crashing = true, true
	case w.crashing && (len(line) == 0 || bytes.HasPrefix(line, []byte("goroutine ")) || bytes.HasPrefix(line, []byte("[signal "))):
		w.crashing = false
	case w.crashing:
		w.crash = append(append(w.crash, '\n'), line...)
	case !w.crashed && len(line) > 0:
		w.crash = append(w.crash[:0], line...)
	}
	w.crash = w.crash[:min(len(w.crash), maxCrashBytes)]
}

// crashText returns the message; empty if there is none.
func (w *lineWriter) crashText() string {
	return strings.TrimSpace(cut(w.crash, maxCrashBytes))
}

// log writes a line to the invocation's log, as long as the call may write more.
func (in *instance) log(line string) {
	if in.host == nil || in.lines.logged+len(line) > maxLogBytes {
		return
	}
	in.lines.logged += len(line) + 1
	in.inHost = true
	in.host.Log(line)
	in.inHost = false
}
