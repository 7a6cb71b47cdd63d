package leases

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// echoSize is what a bare round trip carries each way, in bytes.
const echoSize = 64

// Echo is the role echo: it prints "listening on HOST:PORT" to out and answers each
// message of one connection at a time with the same bytes, until ctx is done.
func Echo(ctx context.Context, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // which ends Accept
	if _, err := fmt.Fprintf(out, "listening on %s\n", l.Addr()); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		answer(conn)
		stop()
		_ = conn.Close() // nothing is in it any more
	}
}

func answer(conn net.Conn) {
	message := make([]byte, echoSize)
	for {
		if _, err := io.ReadFull(conn, message); err != nil {
			return // closed
		}
		if _, err := conn.Write(message); err != nil {
			return
		}
	}
}

// pinger makes bare round trips to an Echo. One goroutine uses it.
type pinger struct {
	conn    net.Conn
	message []byte
}

func newPinger(address string) (*pinger, error) {
	conn, err := net.DialTimeout("tcp", address, requestTimeout)
	if err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	return &pinger{conn, make([]byte, echoSize)}, nil
}

func (p *pinger) ping() error {
	if err := p.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if _, err := p.conn.Write(p.message); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if _, err := io.ReadFull(p.conn, p.message); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return nil
}
