package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// maxLine bounds one line of a console in bytes; what is longer is shown in
// pieces.
const maxLine = 16 << 10

// eventKind tells what a line of a console says.
type eventKind int

const (
	// eventOutput is a line of the payload or of the kernel.
	eventOutput eventKind = iota
	// eventReady says that rxe0 is up and that the payload starts.
	eventReady
	// eventExit says how the payload ended.
	eventExit
	// eventFailed says that the machine did not come up, and why.
	eventFailed
)

// event is one line of a console.
type event struct {
	kind eventKind
	// status is the exit status of an eventExit.
	status int
	// text is the line of an eventOutput, or the reason of an eventFailed.
	text string
}

// parseLine reads one line of a console. Lines for the harness begin with a
// token that is new for every run.
func parseLine(line, token string) event {
	line = strings.TrimRight(strings.ReplaceAll(line, "\x00", ""), "\r\n")
	said, ours := strings.CutPrefix(line, "rxevm "+token+" ")
	if !ours {
		return event{kind: eventOutput, text: line}
	}
	word, rest, _ := strings.Cut(said, " ")
	switch word {
	case "ready":
		return event{kind: eventReady}
	case "exit":
		status, err := strconv.Atoi(rest)
		if err != nil {
			return event{kind: eventFailed, text: "its exit status is " + strconv.Quote(rest)}
		}
		return event{kind: eventExit, status: status}
	}
	return event{kind: eventFailed, text: rest}
}

// readConsole calls handle for every line of a console until its end, or until
// handle returns false.
func readConsole(console io.Reader, token string, handle func(event) bool) error {
	lines := bufio.NewReaderSize(console, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && !handle(parseLine(string(line), token)) {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// printer shows the consoles of all nodes, line by line.
type printer struct {
	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// line prints one line of a node.
func (p *printer) line(node int, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "node%d| %s\n", node, text)
}

// note prints one line of the harness.
func (p *printer) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "rxevm: "+format+"\n", args...)
}
