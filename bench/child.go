package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long a child may take to end after SIGTERM; it is
	// killed then.
	stopTimeout = 10 * time.Second
	// outputKept bounds what is kept of a child's output, in bytes.
	outputKept = 16 << 10
	// announcement is what a server prints before its URL.
	announcement = "listening on "
)

// Child is a server process that this process started and must stop.
type Child struct {
	// URL is where the child listens.
	URL string

	name   string
	cancel context.CancelFunc
	cmd    *exec.Cmd
	errs   *tail
	wait   sync.WaitGroup
	// done is closed when the process has ended; failure is set before.
	done    chan struct{}
	failure error
}

// StartChild runs executable with args and blocks until it prints a line with
// "listening on URL", but at most for the timeout or until ctx is done. A child
// that was started outlives ctx, so that an interruption does not show as a
// broken server: the caller must call Stop. After an error there is no child;
// the error names it and quotes the end of its standard error.
func StartChild(ctx context.Context, timeout time.Duration, name, executable string, args ...string) (*Child, error) {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Child{name: name, cancel: cancel, errs: &tail{}, done: make(chan struct{})}
	found := &lineFinder{found: make(chan string, 1)}
	c.cmd = exec.CommandContext(running, executable, args...)
	c.cmd.Stdout = found
	c.cmd.Stderr = c.errs
	c.cmd.SysProcAttr = childAttributes()
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = stopTimeout
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.wait.Go(func() {
		c.failure = c.cmd.Wait()
		close(c.done)
	})
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case c.URL = <-found.found:
		return c, nil
	case <-c.done:
	case <-limit.C:
	case <-ctx.Done():
	}
	select {
	case <-c.done:
		c.Stop()
		return nil, c.ended()
	default:
	}
	c.Stop()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start %s: %w", name, ctx.Err())
	}
	return nil, fmt.Errorf("%s did not say where it listens within %v%s", name, timeout, c.errs.quote())
}

// Alive returns nil while the process runs, and afterwards how it ended.
func (c *Child) Alive() error {
	select {
	case <-c.done:
		return c.ended()
	default:
		return nil
	}
}

func (c *Child) ended() error {
	state := "exit status 0"
	if c.failure != nil {
		state = c.failure.Error()
	}
	return fmt.Errorf("%s ended by itself: %s%s", c.name, state, c.errs.quote())
}

// Stop ends the process, by SIGTERM first, and blocks until it has ended: at
// most stopTimeout and the time that the system needs to kill it. It may be
// called again.
func (c *Child) Stop() {
	c.cancel()
	c.wait.Wait()
}

// Kill ends the process at once, without giving it a chance, and blocks until it
// has ended. Stop must be called all the same.
func (c *Child) Kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	<-c.done
	return nil
}

// Log returns the end of what the process has written to its standard error.
func (c *Child) Log() string {
	c.errs.mu.Lock()
	defer c.errs.mu.Unlock()
	return string(c.errs.last)
}

// CPU returns the CPU time that the process used in all; call it after Stop.
func (c *Child) CPU() time.Duration {
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}

// lineFinder is the standard output of a child: it finds the announcement and
// throws everything else away, so that the child never blocks on a full pipe.
// It is written to by one goroutine of os/exec.
type lineFinder struct {
	line  []byte
	found chan string // one element: the first announcement
	over  bool
}

func (f *lineFinder) Write(p []byte) (int, error) {
	if f.over {
		return len(p), nil
	}
	f.line = append(f.line, p...)
	for {
		line, rest, ok := bytes.Cut(f.line, []byte("\n"))
		if !ok {
			break
		}
		if _, url, ok := strings.Cut(string(line), announcement); ok {
			f.found <- strings.TrimSpace(url)
			f.over, f.line = true, nil
			return len(p), nil
		}
		f.line = rest
	}
	if len(f.line) > outputKept {
		f.line = f.line[:0]
	}
	return len(p), nil
}

// tail is the standard error of a child: it keeps the last bytes.
type tail struct {
	mu   sync.Mutex // guards last
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if over := len(t.last) - outputKept; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(p), nil
}

// quote returns what was kept as the end of an error message.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.last); len(text) > 0 {
		return "; it wrote:\n" + string(text)
	}
	return ""
}
