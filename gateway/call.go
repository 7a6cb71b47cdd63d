package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/tenure-faas/tenure/base"
)

// Media types that the gateway writes.
const (
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	typeBytes   = "application/octet-stream"
	typeNDJSON  = "application/x-ndjson"
)

const (
	// drainBytes and drainTime bound how much of a refused body is read after
	// the answer is sent. Without reading any, a client that writes its whole
	// body before it reads would see a reset instead of the answer; without
	// bounds, a refusal would cost as much as the request.
	drainBytes = 32 << 20
	drainTime  = 2 * time.Second
	// maxDepth bounds the nesting of JSON: parsers recurse.
	maxDepth = 512
	// maxPooledBuffer keeps one large body from pinning its memory.
	maxPooledBuffer = 64 << 10
)

// name gives the request an invocation id and puts it into the answer.
func (c *call) name() {
	c.id = base.NewInvocationID(time.Now(), uint16(rand.Uint32()), rand.Uint64())
	c.setInvocation(c.id)
}

// setInvocation says which invocation the answer is about.
func (c *call) setInvocation(id base.InvocationID) {
	c.invocation = id.String()
	c.header("Tenure-Invocation", c.invocation)
}

// header sets a header of the answer. name must be in canonical form.
func (c *call) header(name, value string) {
	if c.used == len(c.values) {
		c.w.Header()[name] = []string{value}
		return
	}
	c.values[c.used] = value
	c.used++
	c.w.Header()[name] = c.values[c.used-1 : c.used : c.used]
}

// write answers with a body. An error of the connection is nobody's concern:
// the outcome is recorded, and a client that did not get it asks again.
func (c *call) write(status int, mediaType string, body []byte) {
	c.header("Content-Type", mediaType)
	c.header("Content-Length", strconv.Itoa(len(body)))
	c.started = true
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body)
}

// writeJSON answers with v, which must be marshallable.
func (c *call) writeJSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	c.write(status, typeJSON, append(body, '\n'))
	return nil
}

// writeEmpty answers without a body.
func (c *call) writeEmpty(status int) {
	c.started = true
	c.w.WriteHeader(status)
}

// answerUnread answers a request whose body was not read to its end, at once
// and before the client has sent everything, and then reads a bounded part of
// what still comes so that the client gets to see the answer.
func (c *call) answerUnread(status int, body []byte) {
	rc := http.NewResponseController(c.w)
	// Not every ResponseWriter can do these (a recorder cannot); the answer
	// is the same without.
	_ = rc.EnableFullDuplex()
	c.w.Header().Set("Connection", "close")
	c.write(status, typeProblem, body)
	_ = rc.Flush()
	if c.r.Header.Get("Expect") != "" {
		return // The client waits for leave to send and will not get it.
	}
	if rc.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.r.Body, drainBytes)
	}
}

// readBody reads the body, at most limit bytes, into buf and returns the
// extended slice. A larger body is TooLarge, without reading it when the
// client said its length.
func (c *call) readBody(buf []byte, limit int) ([]byte, error) {
	length := c.r.ContentLength
	switch {
	case length == 0:
		return buf, nil
	case length > int64(limit):
		c.unread = true
		return nil, base.Errorf(base.TooLarge, "the body has %d bytes, the limit is %d", length, limit)
	case length > 0:
		start := len(buf)
		if free := cap(buf) - start; free < int(length) {
			buf = append(make([]byte, 0, start+int(length)), buf...)
		}
		buf = buf[:start+int(length)]
		if _, err := io.ReadFull(c.r.Body, buf[start:]); err != nil {
			return nil, bodyError(err)
		}
		return buf, nil
	}
	for start := len(buf); ; {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf)-start > limit:
			c.unread = true
			return nil, base.Errorf(base.TooLarge, "the body has more than %d bytes, the limit", limit)
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, bodyError(err)
		}
	}
}

// bodyError describes a body that could not be read: the client's doing.
func bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &base.Error{Kind: base.Invalid, Subject: "request", Detail: "the body did not arrive in time"}
	}
	return &base.Error{Kind: base.Invalid, Subject: "request", Detail: "the body is incomplete", Err: err}
}

// checkJSON refuses what is not one JSON text in UTF-8 of bounded nesting.
// subject names the part of the request in the error.
func checkJSON(subject string, text []byte) error {
	if !utf8.Valid(text) {
		return base.Invalidf(subject, "the body is not valid UTF-8")
	}
	if deeper(text, maxDepth) {
		return base.Invalidf(subject, "the JSON is nested deeper than %d", maxDepth)
	}
	if !gjson.ValidBytes(text) {
		return base.Invalidf(subject, "the body is not valid JSON")
	}
	return nil
}

// isJSON says whether text is JSON that any client can be expected to read.
func isJSON(text []byte) bool { return checkJSON("", text) == nil }

// deeper says whether text, read as JSON, nests deeper than limit. It reads
// text once and does not recurse, so that it may be asked before a parser
// that does.
func deeper(text []byte, limit int) bool {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// bufferPool keeps buffers for bodies that nobody needs after the answer.
type bufferPool struct {
	pool sync.Pool
}

// get returns an empty buffer; give it back with put.
func (p *bufferPool) get() *[]byte {
	if buf, ok := p.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, 0, 4<<10)
	return &buf
}

// put takes a buffer back. Its bytes may not be used any more.
func (p *bufferPool) put(buf *[]byte) {
	if cap(*buf) <= maxPooledBuffer {
		*buf = (*buf)[:0]
		p.pool.Put(buf)
	}
}
