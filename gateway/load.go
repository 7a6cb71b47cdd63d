package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidwall/gjson"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// loadReadBuffer is how much of the body a bulk load reads at a time.
const loadReadBuffer = 64 << 10

// loadAnswer is the body of the answer to a bulk load.
type loadAnswer struct {
	Loaded int64 `json:"loaded" doc:"How many lines are durable"`
}

// load is POST /v1/state: it reads NDJSON as it comes and writes it in
// transactions of bounded size, one after the other. There is no limit on the
// whole. A fault ends it; what was written before stays, and the answer says
// how many lines that is, so that the client can go on after them.
func (g *Gateway) load(c *call) error {
	timeout, err := g.timeout(c.r.Header)
	if err != nil {
		return err
	}
	if timeout == 0 {
		timeout = g.opt.Timeout
	}
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	l := &loader{
		g: g, timeout: timeout,
		lines: lineReader{r: bufio.NewReaderSize(c.r.Body, loadReadBuffer), limit: g.maxLine()},
		rc:    http.NewResponseController(c.w),
	}
	if err := l.run(); err != nil {
		c.unread = true
		return &loadError{err: err, loaded: l.loaded}
	}
	return c.writeJSON(http.StatusOK, loadAnswer{Loaded: l.loaded})
}

// maxLine is the longest line that a value within the limits can need: JSON
// may spend six bytes on one ("\u0000").
func (g *Gateway) maxLine() int { return 6*(g.opt.MaxValueBytes+g.opt.MaxKeyBytes) + 1<<10 }

// loader is one bulk load.
type loader struct {
	g       *Gateway
	timeout time.Duration // of each transaction
	lines   lineReader
	rc      *http.ResponseController

	batch      []worker.Op
	batchBytes int
	// loaded counts the durable lines; blank ones are not counted.
	loaded int64
}

// run loads the whole body. l.loaded counts the durable lines, also after an
// error.
func (l *loader) run() error {
	for {
		line, err := l.lines.next()
		if errors.Is(err, io.EOF) {
			return l.flush()
		}
		if err != nil {
			return l.fail(err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		op, err := l.g.readLine(line)
		if err != nil {
			return l.fail(inBody("ndjson", fmt.Sprintf("line %d: ", l.lines.number), err))
		}
		size := len(op.Value) + len(op.Key.Key)
		if len(l.batch) > 0 && l.batchBytes+size > l.g.opt.LoadBytes {
			if err := l.flush(); err != nil {
				return err
			}
		}
		l.batch, l.batchBytes = append(l.batch, op), l.batchBytes+size
		if len(l.batch) == l.g.opt.LoadLines {
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
}

// fail writes the good lines before a bad one and returns the bad one's
// error, so that the client resumes at the line which the error names.
func (l *loader) fail(err error) error {
	if flushErr := l.flush(); flushErr != nil {
		return flushErr
	}
	e := *asError(err)
	e.Detail = fmt.Sprintf("%s; all lines before it are durable (%d without blank ones)", e.Detail, l.loaded)
	return &e
}

// flush writes the batch as one transaction.
func (l *loader) flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	if err := l.g.refusal(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	if err := l.g.executor.Load(ctx, l.batch); err != nil {
		return err
	}
	l.loaded += int64(len(l.batch))
	l.batch, l.batchBytes = l.batch[:0], 0
	// A long load is not a slow client: each transaction that got through
	// earns the next one its time. Writers without deadlines have none to move.
	now := time.Now()
	_ = l.rc.SetReadDeadline(now.Add(l.g.opt.ReadTimeout))
	_ = l.rc.SetWriteDeadline(now.Add(l.g.opt.WriteTimeout))
	return nil
}

// readLine reads one line, which is not blank. The operation has no pointers
// into it.
func (g *Gateway) readLine(line []byte) (worker.Op, error) {
	op := worker.Op{Kind: worker.OpPut}
	if err := checkJSON("ndjson", line); err != nil {
		return op, base.Invalidf("ndjson", "is not one JSON object in UTF-8 of bounded nesting")
	}
	object := gjson.ParseBytes(line)
	if !object.IsObject() {
		return op, base.Invalidf("ndjson", "must be a JSON object")
	}
	f, err := readFields(object, false)
	if err != nil {
		return op, err
	}
	if op.Key, err = g.readKey(&f); err != nil {
		return op, err
	}
	op.Value, err = g.readValue(&f)
	return op, err
}

// lineReader splits a stream into lines of bounded length.
type lineReader struct {
	r     *bufio.Reader
	limit int
	// number is that of the line that next returned last, from 1.
	number int64
	// long collects a line that is longer than r's buffer.
	long []byte
}

// next returns the next line without its end, valid until the next call. The
// error is io.EOF after the last line; an error of the stream is Invalid, a
// line over the limit TooLarge.
func (l *lineReader) next() ([]byte, error) {
	l.number++
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.long)+len(part) > l.limit {
			return nil, base.Errorf(base.TooLarge, "line %d: has more than %d bytes", l.number, l.limit)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part...)
			continue
		case errors.Is(err, io.EOF):
			if len(l.long)+len(part) == 0 {
				return nil, io.EOF
			}
		case err != nil:
			return nil, within(fmt.Sprintf("line %d: ", l.number), bodyError(err))
		}
		if len(l.long) == 0 {
			return part, nil
		}
		l.long = append(l.long, part...)
		return l.long, nil
	}
}
