// Package progress shows on a terminal that something takes its time. It shows
// nothing in the first second, and nothing at all where there is no terminal.
//
// Start reading at Run.
package progress

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

const (
	// patience is how long something may take without being shown.
	patience = time.Second
	// frame is the time between two pictures of the spinner.
	frame = 100 * time.Millisecond
	// spinner is the number of progressbar's set of pictures: braille dots.
	spinner = 14
)

// Terminal says whether w is a terminal.
func Terminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Run calls work on the calling goroutine and returns its error. Meanwhile, if w
// is a terminal, it shows what is going on and for how long; the line is gone
// when it returns.
func Run(w io.Writer, what string, work func() error) error {
	if !Terminal(w) {
		return work()
	}
	done := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() { show(w, what, done) })
	defer shown.Wait()
	defer close(done)
	return work()
}

// show draws until done is closed.
func show(w io.Writer, what string, done <-chan struct{}) {
	first := time.NewTimer(patience)
	defer first.Stop()
	select {
	case <-done:
		return
	case <-first.C:
	}
	// Without an interval the bar starts no goroutine of its own, which would
	// outlive it.
	bar := progressbar.NewOptions(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionSpinnerType(spinner), progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	for {
		// A terminal that cannot be written to is no reason to stop the work.
		_ = bar.Add(1)
		select {
		case <-done:
			_ = bar.Finish()
			return
		case <-ticker.C:
		}
	}
}
