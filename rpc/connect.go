package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/tenure-faas/tenure/base"
)

// Options are what both ends of the control plane agree on.
type Options struct {
	// Credentials encrypt and authenticate every connection: see LoadCredentials.
	// nil means plain connections, to loopback addresses only.
	Credentials *Credentials
	// ServerName is a name that the certificate of a server must be valid for, of
	// use to Dial with Credentials; empty means the host of the address.
	ServerName string
	// Plain allows addresses beyond this host without Credentials: for networks in
	// which every machine is trusted. It excludes Credentials.
	Plain bool
	// MaxMessage bounds a message, in bytes; 0 means 4 MiB.
	MaxMessage int
	// MaxStreams bounds the concurrent calls of one connection; 0 means 1024.
	MaxStreams uint32
	// Logger is told by servers with Credentials whom they refuse, once a second at
	// most; nil means slog.Default.
	Logger *slog.Logger
	// Network makes the connections of Dial; nil means TCP. A simulation brings its
	// own.
	Network Network
}

// Conn is a connection to a server, over which any number of calls go. Its owner
// closes it; calls under way end with an error then.
type Conn interface {
	grpc.ClientConnInterface
	// Target is the address, for messages.
	Target() string
	Close() error
}

// Server is what services register on and one goroutine serves: that of NewServer,
// or one of a Network.
type Server interface {
	grpc.ServiceRegistrar
	// Serve serves until the server is stopped, and returns nil then.
	Serve(net.Listener) error
	// GracefulStop lets calls under way end, Stop does not. Both return when no
	// handler runs any more.
	GracefulStop()
	Stop()
}

// Network is a way between processes that Dial uses instead of TCP. Its errors are
// statuses, as those of TCP are, and its servers run handlers behind ServeKinds.
type Network interface {
	// Dial returns a connection to address, without waiting for it.
	Dial(address string) (Conn, error)
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *Options) EnsureDefaults() {
	if o.MaxMessage == 0 {
		o.MaxMessage = 4 << 20
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 1024
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// A peer that does not answer a ping within pingTimeout is gone; pings are sent
// after pingInterval of silence, and the server allows them.
const (
	pingInterval = 10 * time.Second
	pingTimeout  = 3 * time.Second
	dialTimeout  = 3 * time.Second
)

// NewServer makes a server whose handlers return *base.Error; register services
// on it, then Serve a listener that Listen made with the same options. The caller
// stops it.
func NewServer(o Options) *grpc.Server {
	o.EnsureDefaults()
	return grpc.NewServer(
		grpc.Creds(serverCredentials(o)),
		grpc.MaxRecvMsgSize(o.MaxMessage),
		grpc.MaxConcurrentStreams(o.MaxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(dialTimeout),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(ServeKinds),
	)
}

// Listen opens a TCP listener for the control plane.
func Listen(address string, o Options) (net.Listener, error) {
	if _, err := checkAddress(address, o); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	l = quickListener{l}
	if o.Credentials != nil {
		l = secureListener{l}
	}
	return l, nil
}

// quickListener is a listener whose connections send again soon what was lost.
type quickListener struct{ net.Listener }

// Accept implements net.Listener.
func (l quickListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil { // else it is closed: whoever reads from it sees that
			_ = resendSoon("", "", raw)
		}
	}
	return conn, nil
}

// Dial returns a connection to address that is made when it is first used, and
// made again, with back-off, when it breaks. The caller closes it.
func Dial(address string, o Options) (Conn, error) {
	host, err := checkAddress(address, o)
	if err != nil {
		return nil, err
	}
	if o.Network != nil {
		conn, err := o.Network.Dial(address)
		return kindConn{conn}, err
	}
	o.EnsureDefaults()
	dialer := net.Dialer{Control: resendSoon}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithTransportCredentials(clientCredentials(host, o)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: dialTimeout,
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}}),
		grpc.WithUnaryInterceptor(callKinds),
	)
	if err != nil {
		return nil, fmt.Errorf("control plane: dial %s: %w", address, err)
	}
	return conn, nil
}

// checkAddress refuses what would travel in the clear beyond this host, and
// returns the host of the address.
func checkAddress(address string, o Options) (host string, err error) {
	host, _, err = net.SplitHostPort(address)
	switch ip := net.ParseIP(host); {
	case err != nil:
		return "", base.Invalidf("address", "%q is not host:port: %v", address, err)
	case o.Plain && o.Credentials != nil:
		return "", base.Invalidf("address", "%s: plain connections are allowed and certificates are given: it must be one of them", address)
	case o.Plain || o.Credentials != nil || host == "localhost" || ip != nil && ip.IsLoopback():
		return host, nil
	}
	return "", base.Invalidf("address", "%s is not a loopback address, and the control plane would not be encrypted: give certificates (%s), or allow plain connections where the network is trusted", address, howToMake)
}

// ServeKinds is the interceptor that turns the errors of handlers into statuses.
func ServeKinds(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	reply, err := handle(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return reply, nil
}

// callKinds turns statuses into errors with kinds.
func callKinds(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return fromStatus(method, conn.Target(), invoke(ctx, method, req, reply, conn, options...))
}

// kindConn is a connection of a Network.
type kindConn struct{ Conn }

// Invoke implements grpc.ClientConnInterface.
func (c kindConn) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	return fromStatus(method, c.Target(), c.Conn.Invoke(ctx, method, args, reply, options...))
}
