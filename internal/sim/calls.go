package sim

import (
	"context"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tenure-faas/tenure/rpc"
)

// port is the one that every host serves.
const port = ":1"

// address is that of a host.
type address string

// Network implements net.Addr.
func (a address) Network() string { return "sim" }

// String implements net.Addr.
func (a address) String() string { return string(a) + port }

// server is the calls that a process serves: it implements rpc.Server.
type server struct {
	process *process
	// over is closed when no call is taken any more, ctx ends when those under way
	// are to end.
	over   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	// running are the handlers.
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	methods map[string]method
	open    bool
	closed  bool
}

// method is one of a service: unary, or a stream.
type method struct {
	service any
	unary   *grpc.MethodDesc
	stream  *grpc.StreamDesc
}

func newServer(p *process) *server {
	s := &server{process: p, over: make(chan struct{}), methods: map[string]method{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *server) RegisterService(d *grpc.ServiceDesc, service any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range d.Methods {
		s.methods["/"+d.ServiceName+"/"+d.Methods[i].MethodName] = method{service: service, unary: &d.Methods[i]}
	}
	for i := range d.Streams {
		s.methods["/"+d.ServiceName+"/"+d.Streams[i].StreamName] = method{service: service, stream: &d.Streams[i]}
	}
}

// Serve implements rpc.Server. The listener only has the address.
func (s *server) Serve(net.Listener) error {
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	n := s.process.net
	n.mu.Lock()
	n.tell()
	n.mu.Unlock()
	<-s.over
	return nil
}

func (s *server) serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open && !s.closed
}

func (s *server) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.over)
	}
}

// halt ends everything without waiting for it.
func (s *server) halt() {
	s.refuse()
	s.cancel()
}

// GracefulStop implements rpc.Server.
func (s *server) GracefulStop() {
	s.refuse()
	s.running.Wait()
}

// Stop implements rpc.Server.
func (s *server) Stop() {
	s.halt()
	s.running.Wait()
}

// enter finds a method and counts a handler in.
func (s *server) enter(name string) (method, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.methods[name]
	switch {
	case s.closed:
		return m, status.Errorf(codes.Unavailable, "%s does not serve any more", s.process.host)
	case !known:
		return m, status.Errorf(codes.Unimplemented, "%s does not serve %s", s.process.host, name)
	}
	s.running.Add(1)
	return m, nil
}

// conn is a connection from a process to a host: it implements rpc.Conn.
type conn struct {
	from *process
	host string
	// ctx ends when the connection is closed.
	ctx    context.Context
	cancel context.CancelFunc
}

// Dial implements rpc.Network.
func (p *process) Dial(to string) (rpc.Conn, error) {
	c := &conn{from: p, host: strings.TrimSuffix(to, port)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Target implements rpc.Conn.
func (c *conn) Target() string { return c.host + port }

// Close implements rpc.Conn.
func (c *conn) Close() error {
	c.cancel()
	return nil
}

// under returns a context for a call: it ends with the caller's and with the
// connection.
func (c *conn) under(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// outcome is the error of a call that did not end by itself.
func (c *conn) outcome(ctx context.Context) error {
	switch {
	case !c.from.alive():
		return errBroken(c.from.host, c.host)
	case c.ctx.Err() != nil:
		return status.Error(codes.Canceled, "the connection is closed")
	}
	return status.FromContextError(ctx.Err()).Err()
}

// reach finds the process that serves the host, and waits for it if the options
// say so.
func (c *conn) reach(ctx context.Context, options []grpc.CallOption) (*process, error) {
	wait := false
	for _, o := range options {
		if f, ok := o.(grpc.FailFastCallOption); ok {
			wait = !f.FailFast
		}
	}
	c.from.gate()
	for {
		to, changed := c.from.net.at(c.host)
		if to != nil {
			for _, o := range options {
				if p, ok := o.(grpc.PeerCallOption); ok {
					p.PeerAddr.Addr = address(c.host)
				}
			}
			return to, nil
		}
		if !wait {
			return nil, status.Errorf(codes.Unavailable, "nobody listens at %s", c.host)
		}
		select {
		case <-changed:
		case <-c.from.dead:
			return nil, errBroken(c.from.host, c.host)
		case <-ctx.Done():
			return nil, c.outcome(ctx)
		}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (c *conn) Invoke(ctx context.Context, name string, args, reply any, options ...grpc.CallOption) error {
	ctx, cancel := c.under(ctx)
	defer cancel()
	to, err := c.reach(ctx, options)
	if err != nil {
		return err
	}
	request := proto.Clone(args.(proto.Message))
	answered := make(chan error, 1)
	var answer proto.Message
	spawn(func() {
		n := c.from.net
		err := n.carry(c.from, to)
		if err == nil {
			answer, err = to.server.handle(ctx, name, request)
			to.gate()
			if broken := n.carry(to, c.from); broken != nil {
				err = broken
			}
		}
		answered <- err
	})
	select {
	case err := <-answered:
		c.from.gate()
		if err == nil {
			proto.Merge(reply.(proto.Message), answer)
		}
		return err
	case <-c.from.dead:
	case <-ctx.Done():
	}
	return c.outcome(ctx)
}

// handle runs the handler of a unary call. The caller's ctx ends it too: gRPC
// tells the server, sooner or later.
func (s *server) handle(ctx context.Context, name string, request proto.Message) (proto.Message, error) {
	m, err := s.enter(name)
	if err != nil {
		return nil, err
	}
	defer s.running.Done()
	if m.unary == nil {
		return nil, status.Errorf(codes.Unimplemented, "%s is a stream", name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	out, err := m.unary.Handler(m.service, ctx, func(to any) error {
		proto.Merge(to.(proto.Message), request)
		return nil
	}, rpc.ServeKinds)
	if err != nil {
		return nil, err
	}
	return proto.Clone(out.(proto.Message)), nil
}

// spawn starts a goroutine of the simulated world. It ends with the world: a
// simulation is one process, which exits.
func spawn(do func()) {
	var owner sync.WaitGroup
	owner.Go(do)
}
