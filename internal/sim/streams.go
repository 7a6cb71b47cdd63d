package sim

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// streamWindow is how many messages of a stream may be under way in one direction:
// then the sender waits, as it does for HTTP/2's window.
const streamWindow = 64

// lane is one direction of a stream: messages in order, then its end.
type lane struct {
	sent, arrived chan parcel
	closing       sync.Once
}

// parcel is a message, or the end of the lane with its reason.
type parcel struct {
	message proto.Message
	end     error
}

func newLane() *lane {
	return &lane{sent: make(chan parcel, streamWindow), arrived: make(chan parcel, 1)}
}

// move carries the messages of a lane until its end.
func (l *lane) move(ctx context.Context, broken func(error), from, to *process) {
	for {
		select {
		case p := <-l.sent:
			from.gate()
			if err := from.net.carry(from, to); err != nil {
				broken(err)
				return
			}
			select {
			case l.arrived <- p:
			case <-ctx.Done():
				return
			}
			if p.end != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// stream is what both ends share. It ends when ctx does; cause says why.
type stream struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	up, down *lane
}

func (s *stream) send(l *lane, p parcel) error {
	if s.ctx.Err() != nil {
		return io.EOF
	}
	select {
	case l.sent <- p:
		return nil
	case <-s.ctx.Done():
		return io.EOF // the receiver has the reason
	}
}

func (s *stream) receive(l *lane, by *process, m any) error {
	select {
	case p := <-l.arrived:
		by.gate()
		if p.end != nil {
			return p.end
		}
		proto.Merge(m.(proto.Message), p.message)
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// NewStream implements grpc.ClientConnInterface.
func (c *conn) NewStream(ctx context.Context, _ *grpc.StreamDesc, name string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	to, err := c.reach(ctx, options)
	if err != nil {
		return nil, err
	}
	m, err := to.server.enter(name)
	if err != nil {
		return nil, err
	}
	s := &stream{up: newLane(), down: newLane()}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	lost := func() { s.cancel(errBroken(c.from.host, c.host)) }
	broken := func(err error) { s.cancel(err) }
	stopClosed := context.AfterFunc(c.ctx, func() { s.cancel(status.Error(codes.Canceled, "the connection is closed")) })
	stopHalted := context.AfterFunc(to.server.ctx, lost)
	spawn(func() {
		select {
		case <-c.from.dead:
			lost()
		case <-s.ctx.Done():
		}
		stopClosed()
		stopHalted()
	})
	spawn(func() { s.up.move(s.ctx, broken, c.from, to) })
	spawn(func() {
		s.down.move(s.ctx, broken, to, c.from)
	})
	spawn(func() {
		defer to.server.running.Done()
		err := m.stream.Handler(m.service, &serverEnd{s, to})
		if err == nil {
			err = io.EOF
		} else if _, ok := status.FromError(err); !ok {
			err = status.Error(codes.Unknown, err.Error())
		}
		// What the handler's ctx is for ends when the client has heard of it, or
		// has left.
		_ = s.send(s.down, parcel{end: err}) // the stream is over already
	})
	return &clientEnd{s, c.from}, nil
}

// clientEnd implements grpc.ClientStream.
type clientEnd struct {
	*stream
	process *process
}

func (e *clientEnd) Header() (metadata.MD, error) { return nil, nil }
func (e *clientEnd) Trailer() metadata.MD         { return nil }
func (e *clientEnd) Context() context.Context     { return e.ctx }

// CloseSend implements grpc.ClientStream.
func (e *clientEnd) CloseSend() error {
	e.up.closing.Do(func() { _ = e.send(e.up, parcel{end: io.EOF}) }) // the stream is over already
	return nil
}

// SendMsg implements grpc.ClientStream.
func (e *clientEnd) SendMsg(m any) error {
	e.process.gate()
	return e.send(e.up, parcel{message: proto.Clone(m.(proto.Message))})
}

// RecvMsg implements grpc.ClientStream.
func (e *clientEnd) RecvMsg(m any) error {
	err := e.receive(e.down, e.process, m)
	if err != nil {
		e.cancel(err)
		if _, ok := status.FromError(err); !ok && err != io.EOF {
			return status.FromContextError(err).Err()
		}
	}
	return err
}

// serverEnd implements grpc.ServerStream.
type serverEnd struct {
	*stream
	process *process
}

func (e *serverEnd) SetHeader(metadata.MD) error  { return nil }
func (e *serverEnd) SendHeader(metadata.MD) error { return nil }
func (e *serverEnd) SetTrailer(metadata.MD)       {}
func (e *serverEnd) Context() context.Context     { return e.ctx }

// SendMsg implements grpc.ServerStream.
func (e *serverEnd) SendMsg(m any) error {
	e.process.gate()
	return e.send(e.down, parcel{message: proto.Clone(m.(proto.Message))})
}

// RecvMsg implements grpc.ServerStream.
func (e *serverEnd) RecvMsg(m any) error { return e.receive(e.up, e.process, m) }
