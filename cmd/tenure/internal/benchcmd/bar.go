package benchcmd

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar shows progress on a terminal and nothing elsewhere. Its methods are the
// callbacks of packages bench and bench/load and are called by one goroutine at
// a time.
type bar struct {
	out  io.Writer // nil: not a terminal
	name string
	bar  *progressbar.ProgressBar // nil until the total is known
}

func newBar(out io.Writer, name string) *bar {
	b := &bar{name: name}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		b.out = out
	}
	return b
}

// time shows how much of a run is over.
func (b *bar) time(done, total time.Duration) {
	b.set(int(done/time.Millisecond), int(total/time.Millisecond))
}

// count shows how many things are done.
func (b *bar) count(done, total int) { b.set(done, total) }

// step shows what begins now, and how many steps are over.
func (b *bar) step(name string, done, total int) {
	b.set(done, total)
	if b.bar != nil {
		b.bar.Describe(b.name + ", " + name)
	}
}

func (b *bar) set(done, total int) {
	if b.out == nil {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions(max(total, 1), progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(b.name),
			progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50*time.Millisecond))
	}
	_ = b.bar.Set(done) // a terminal that cannot be written to is no reason to stop
}

// finish removes the bar from the terminal.
func (b *bar) finish() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
