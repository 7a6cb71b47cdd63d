package verbs

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// echo is the floor under the tcp provider: the smallest program that sends size
// bytes over loopback and gets them back.
type echo struct {
	client net.Conn
	buffer []byte
	wg     sync.WaitGroup
}

func newEcho(size int) (*echo, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	e := &echo{buffer: make([]byte, size)}
	e.wg.Go(func() {
		server, err := l.Accept()
		// Not before: a connection that waits to be accepted is reset with the listener.
		_ = l.Close() // closed by us, or nothing is left of it
		if err != nil {
			return // the dial failed, which is reported
		}
		buffer := make([]byte, size)
		for {
			if _, err := io.ReadFull(server, buffer); err != nil {
				break // closed
			}
			if _, err := server.Write(buffer); err != nil {
				break
			}
		}
		_ = server.Close() // nothing is in it any more
	})
	e.client, err = net.DialTimeout("tcp", l.Addr().String(), opTimeout)
	if err != nil {
		_ = l.Close() // which ends Accept
		e.wg.Wait()
		return nil, fmt.Errorf("echo: %w", err)
	}
	return e, nil
}

func (e *echo) close() {
	_ = e.client.Close() // both ends only wait for this
	e.wg.Wait()
}

func (e *echo) benchCase() *benchCase {
	return &benchCase{name: echoName, size: len(e.buffer), patience: opTimeout, bound: e.client.SetDeadline, one: func(context.Context) error {
		if _, err := e.client.Write(e.buffer); err != nil {
			return err
		}
		_, err := io.ReadFull(e.client, e.buffer)
		return err
	}}
}
