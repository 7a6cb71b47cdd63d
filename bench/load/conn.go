package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds how much of an answer is kept; the rest is read and thrown
// away. Only problems are looked at, and those are short.
const maxAnswer = 64 << 10

// dialTimeout bounds one attempt to connect.
const dialTimeout = 10 * time.Second

// Errors of a connection, by which results count requests without an answer.
var (
	errConnect    = errors.New("connect")
	errConnection = errors.New("connection")
	errTimeout    = errors.New("timeout")
)

// dialFunc opens a stream to host:port.
type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// dialer returns how to reach a server: TCP, with TLS on top for https.
func dialer(server *url.URL) dialFunc {
	plain := &net.Dialer{Timeout: dialTimeout}
	if server.Scheme != "https" {
		return func(ctx context.Context, address string) (net.Conn, error) {
			return plain.DialContext(ctx, "tcp", address)
		}
	}
	secure := &tls.Dialer{NetDialer: plain, Config: &tls.Config{MinVersion: tls.VersionTLS12}}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return secure.DialContext(ctx, "tcp", address)
	}
}

// address is the host:port of a server URL.
func address(server *url.URL) string {
	if server.Port() != "" {
		return server.Host
	}
	return net.JoinHostPort(server.Hostname(), server.Scheme) // a service name is a port to package net
}

// conn is one HTTP/1.1 connection that sends rendered requests one after the
// other and is opened again when it broke. It belongs to one worker.
//
// It parses answers with http.ReadResponse but does not use http.Transport:
// that hands each request to two goroutines per connection and back, which
// about doubles what client and bare server together take from the cores that
// they share (BenchmarkClient: 39 µs of CPU against 77, on two cores) and hides
// differences between servers.
type conn struct {
	dial    dialFunc
	address string

	// stream is nil while there is no connection.
	stream net.Conn
	reader *bufio.Reader
	// release ends the watch that interrupts stream when ctx is done.
	release func() bool

	// request tells http.ReadResponse that answers have bodies.
	request *http.Request
	// kept is the buffer that answer bodies are read into.
	kept []byte
}

func newConn(dial dialFunc, address string) *conn {
	return &conn{
		dial:    dial,
		address: address,
		reader:  bufio.NewReaderSize(nil, 4<<10),
		request: &http.Request{Method: http.MethodPost},
		kept:    make([]byte, maxAnswer),
	}
}

// answer is what came back.
type answer struct {
	status   int
	replayed bool
	// body is the start of the body, valid until the next send.
	body []byte
}

// open connects unless the connection stands, and gives up at the deadline.
// When ctx is done, then or later, what blocks on the connection returns.
func (c *conn) open(ctx context.Context, deadline time.Time) error {
	if c.stream != nil {
		return nil
	}
	dialing, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	stream, err := c.dial(dialing, c.address)
	if err != nil {
		return fmt.Errorf("%w: %w", errConnect, err)
	}
	c.stream = stream
	c.reader.Reset(stream)
	c.release = context.AfterFunc(ctx, func() { stream.Close() })
	return nil
}

// close ends the connection, if there is one.
func (c *conn) close() {
	if c.stream != nil {
		c.release()
		c.stream.Close()
		c.stream = nil
	}
}

// send writes one rendered request and reads the answer, on an open connection
// or a new one. After an error the request may or may not have taken effect;
// the error wraps errConnect, errConnection or errTimeout and the connection is
// closed.
func (c *conn) send(ctx context.Context, request []byte, deadline time.Time) (answer, error) {
	if err := c.open(ctx, deadline); err != nil {
		return answer{}, err
	}
	a, again, err := c.exchange(request, deadline)
	if err != nil || !again {
		c.close()
	}
	if err == nil {
		return a, nil
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return answer{}, fmt.Errorf("%w: %w", errTimeout, err)
	}
	return answer{}, fmt.Errorf("%w: %w", errConnection, err)
}

// exchange does one request and answer; again says that the connection may be
// used for another.
func (c *conn) exchange(request []byte, deadline time.Time) (a answer, again bool, err error) {
	if err := c.stream.SetDeadline(deadline); err != nil {
		return a, false, err
	}
	if _, err := c.stream.Write(request); err != nil {
		return a, false, err
	}
	response, err := http.ReadResponse(c.reader, c.request)
	if err != nil {
		return a, false, err
	}
	length := 0
	for err == nil && length < len(c.kept) {
		var n int
		n, err = response.Body.Read(c.kept[length:])
		length += n
	}
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	} else if err == io.EOF {
		err = nil
	}
	a = answer{
		status:   response.StatusCode,
		replayed: response.Header.Get("Tenure-Replayed") == "true",
		body:     c.kept[:length],
	}
	return a, !response.Close, err
}
