package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tenure-faas/tenure/base"
)

// Credentials are who this process is and whom it believes: with them both ends of
// every connection show a certificate and verify the other's, over TLS 1.3. They
// are read once; a process is started again to use others.
type Credentials struct {
	certificate tls.Certificate
	authorities *x509.CertPool
}

// howToMake ends messages about certificates that are missing or of no use.
const howToMake = "`tenure certs` makes certificates for development"

// LoadCredentials reads the certificate and key of this process and the CA by
// which the certificates of all others are signed, files in PEM. It refuses a
// certificate that others would refuse, so that a process does not start which
// nobody talks to. Errors are base.Invalid.
func LoadCredentials(certificate, key, ca string) (*Credentials, error) {
	bad := func(format string, args ...any) error {
		return base.Invalidf("certificate", format+"; "+howToMake, args...)
	}
	if certificate == "" || key == "" || ca == "" {
		return nil, bad("certificate %q, key %q and CA %q: give all three, or none", certificate, key, ca)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, bad("the CA: %v", err)
	}
	c := &Credentials{authorities: x509.NewCertPool()}
	if !c.authorities.AppendCertsFromPEM(pem) {
		return nil, bad("the CA: %s has no certificate", ca)
	}
	if c.certificate, err = tls.LoadX509KeyPair(certificate, key); err != nil {
		return nil, bad("%s with %s: %v", certificate, key, err)
	}
	if err := c.check(time.Now()); err != nil {
		return nil, bad("%s with the CA %s: %v", certificate, ca, err)
	}
	return c, nil
}

// check verifies the own certificate as the other ends will, as that of a server
// and as that of a client.
func (c *Credentials) check(now time.Time) error {
	intermediates := x509.NewCertPool()
	for _, der := range c.certificate.Certificate[1:] {
		if more, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(more)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := c.certificate.Leaf.Verify(x509.VerifyOptions{
			Roots: c.authorities, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serverCredentials are those of NewServer.
func serverCredentials(o Options) credentials.TransportCredentials {
	if o.Credentials == nil {
		return plainServer{insecure.NewCredentials()}
	}
	return secureServer{credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{o.Credentials.certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: o.Credentials.authorities,
		SessionTicketsDisabled: true, // every connection is verified in full
	}), o.Logger, new(atomic.Int64)}
}

// clientCredentials are those of Dial to a host.
func clientCredentials(host string, o Options) credentials.TransportCredentials {
	if o.Credentials == nil {
		return insecure.NewCredentials()
	}
	if o.ServerName != "" {
		host = o.ServerName
	}
	return secureClient{credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{o.Credentials.certificate},
		RootCAs: o.Credentials.authorities, ServerName: host,
	})}
}

// secureClient says what is likely wrong when a server does not speak TLS.
type secureClient struct {
	credentials.TransportCredentials
}

// ClientHandshake implements credentials.TransportCredentials.
func (s secureClient) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ClientHandshake(ctx, authority, raw)
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		err = fmt.Errorf("the server speaks no TLS, it may have been started without certificates: %w", err)
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (s secureClient) Clone() credentials.TransportCredentials {
	return secureClient{s.TransportCredentials.Clone()}
}

// secureServer says who was refused and why: in TLS 1.3 a client believes that it
// is connected before its certificate is verified, and may see no more than a
// broken pipe. It says so once a second, because anybody can connect.
type secureServer struct {
	credentials.TransportCredentials
	logger *slog.Logger
	last   *atomic.Int64 // the second in which it was said
}

// ServerHandshake implements credentials.TransportCredentials.
func (s secureServer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		if last, now := s.last.Load(), time.Now().Unix(); now != last && s.last.CompareAndSwap(last, now) {
			s.logger.Warn("a connection to the control plane was refused", "from", raw.RemoteAddr(), "err", err)
		}
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (s secureServer) Clone() credentials.TransportCredentials {
	return secureServer{s.TransportCredentials.Clone(), s.logger, s.last}
}

// secureListener marks its connections as ones that must not be served plainly:
// what Listen was allowed because of its credentials is not to be undone by a
// server without them.
type secureListener struct{ net.Listener }

type secureConn struct{ net.Conn }

// Accept implements net.Listener.
func (l secureListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return secureConn{conn}, nil
}

// plainServer serves no connection of a secureListener.
type plainServer struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (p plainServer) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, secure := conn.(secureConn); secure {
		return nil, nil, errors.New("the listener was opened with credentials and the server made without")
	}
	return p.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (p plainServer) Clone() credentials.TransportCredentials {
	return plainServer{p.TransportCredentials.Clone()}
}
