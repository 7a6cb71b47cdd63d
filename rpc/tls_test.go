package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
)

// authority is a CA with its files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes a certificate and writes NAME.crt and NAME.key.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(file string, data []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(file), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// process makes a certificate that is good, but for what change does to it, and
// returns the files.
func (a *authority) process(name string, change func(*x509.Certificate)) (certificate, key, ca string) {
	a.t.Helper()
	template := &x509.Certificate{
		DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	a.sign(name, template)
	return a.path(name + ".crt"), a.path(name + ".key"), a.path("ca.crt")
}

// load is LoadCredentials without its check of the own certificate.
func load(t *testing.T, certificate, key, ca string) *Credentials {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &Credentials{certificate: pair, authorities: x509.NewCertPool()}
	data, err := os.ReadFile(ca)
	if err != nil || !c.authorities.AppendCertsFromPEM(data) {
		t.Fatalf("the CA: %v", err)
	}
	return c
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

// lines gets what a logger writes, up to its capacity.
type lines chan string

// Write implements io.Writer.
func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	good := func(a *authority, name string) *Credentials {
		t.Helper()
		c, err := LoadCredentials(a.process(name, nil))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server, client := good(ours, "server"), good(ours, "client")
	odd := func(name string, change func(*x509.Certificate)) *Credentials {
		t.Helper()
		certificate, key, ca := ours.process(name, change)
		return load(t, certificate, key, ca)
	}
	anonymous := &Credentials{authorities: ours.pool()}
	stranger := good(theirs, "stranger")
	intruder := &Credentials{certificate: stranger.certificate, authorities: ours.pool()} // believes us, and is not one of us
	for _, test := range []struct {
		name           string
		server, client Options
		// want is a part of the client's error, or with "log: " of what the server
		// says; empty: there is no error.
		want string
	}{
		{"good", Options{Credentials: server}, Options{Credentials: client}, ""},
		{"good by name", Options{Credentials: server}, Options{Credentials: client, ServerName: "server"}, ""},
		{"another name", Options{Credentials: server}, Options{Credentials: client, ServerName: "client"}, "not client"},
		{"another host", Options{Credentials: odd("elsewhere", func(c *x509.Certificate) { c.IPAddresses[0] = net.IPv4(127, 0, 0, 2) })}, Options{Credentials: client}, "not 127.0.0.1"},
		{"client of another CA", Options{Credentials: server}, Options{Credentials: intruder}, "log: unknown authority"},
		{"server of another CA", Options{Credentials: stranger}, Options{Credentials: client}, "unknown authority"},
		{"no client certificate", Options{Credentials: server}, Options{Credentials: anonymous}, "log: didn't provide a certificate"},
		{"expired client", Options{Credentials: server}, Options{Credentials: odd("old client", expired)}, "log: expired"},
		{"expired server", Options{Credentials: odd("old server", expired)}, Options{Credentials: client}, "expired"},
		{"client with a certificate for servers", Options{Credentials: server}, Options{Credentials: odd("half", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })}, "log: key usage"},
		{"plain client", Options{Credentials: server}, Options{}, "log: does not look like a TLS handshake"},
		{"plain server", Options{}, Options{Credentials: client}, "speaks no TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &acceptor{answer: Offer{Node: "b", Provider: "tcp", QueuePair: []byte{3}}}
			said := make(lines, 10)
			test.server.Logger = slog.New(slog.NewTextHandler(said, nil))
			l, err := Listen("127.0.0.1:0", test.server)
			if err != nil {
				t.Fatal(err)
			}
			_, err = exchangeWith(t, serveWith(t, l, test.server, a), test.client)
			want, log := strings.CutPrefix(test.want, "log: ")
			if log {
				test.want = "/tenure.v1.Rendezvous/Exchange"
				select {
				case line := <-said:
					if !strings.Contains(line, want) || !strings.Contains(line, "from=127.0.0.1:") {
						t.Errorf("the server says %q, want %q", line, want)
					}
				case <-time.After(10 * time.Second):
					t.Error("the server says nothing")
				}
			}
			var e *base.Error
			switch {
			case test.want == "":
				if err != nil || a.got.Node != "a" {
					t.Errorf("%v, the acceptor saw %+v", err, a.got)
				}
			case !errors.As(err, &e) || e.Kind != base.Unavailable || !strings.Contains(e.Detail, test.want):
				t.Errorf("error %v, want unavailable with %q", err, test.want)
			case a.got.Node != "":
				t.Errorf("the acceptor saw %+v", a.got)
			}
		})
	}
}

// serveWith serves an acceptor on a listener.
func serveWith(t *testing.T, l net.Listener, o Options, a Acceptor) (address string) {
	t.Helper()
	s := NewServer(o)
	ServeRendezvous(s, "tcp", a)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.Stop(); wg.Wait() })
	return l.Addr().String()
}

func exchangeWith(t *testing.T, address string, o Options) (Offer, error) {
	t.Helper()
	conn, err := Dial(address, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return Exchange(ctx, conn, Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}})
}

// TestOldTLS: a client that offers less than TLS 1.3 gets nowhere.
func TestOldTLS(t *testing.T) {
	ca := newAuthority(t)
	c, err := LoadCredentials(ca.process("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen("127.0.0.1:0", Options{Credentials: c})
	if err != nil {
		t.Fatal(err)
	}
	address := serveWith(t, l, Options{Credentials: c}, &acceptor{})
	for version, ok := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", address, &tls.Config{MaxVersion: version, RootCAs: ca.pool(), Certificates: []tls.Certificate{c.certificate}, NextProtos: []string{"h2"}})
		if (err == nil) != ok {
			t.Errorf("TLS version %#x: %v", version, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestPlainServerOnSecureListener: a server made without the credentials of its
// listener serves nobody, however the client speaks.
func TestPlainServerOnSecureListener(t *testing.T) {
	c, err := LoadCredentials(newAuthority(t).process("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen("127.0.0.1:0", Options{Credentials: c})
	if err != nil {
		t.Fatal(err)
	}
	a := &acceptor{answer: Offer{Node: "b", Provider: "tcp", QueuePair: []byte{3}}}
	address := serveWith(t, l, Options{}, a)
	for _, o := range []Options{{}, {Credentials: c}} {
		if _, err := exchangeWith(t, address, o); base.KindOf(err) != base.Unavailable || a.got.Node != "" {
			t.Errorf("%v, the acceptor saw %+v", err, a.got)
		}
	}
}

func TestLoadCredentials(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	certificate, key, ca := ours.process("a", nil)
	_, otherKey, _ := ours.process("b", nil)
	_, _, otherCA := theirs.process("c", nil)
	old, oldKey, _ := ours.process("old", expired)
	half, halfKey, _ := ours.process("half", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })
	ours.write("junk", []byte("junk"))
	for _, test := range []struct {
		name, certificate, key, ca, want string
	}{
		{"good", certificate, key, ca, ""},
		{"no key", certificate, "", ca, "give all three"},
		{"no CA", certificate, key, "", "give all three"},
		{"absent certificate", ours.path("x.crt"), key, ca, "x.crt"},
		{"absent CA", certificate, key, ours.path("x.crt"), "x.crt"},
		{"CA is junk", certificate, key, ours.path("junk"), "has no certificate"},
		{"key of another", certificate, otherKey, ca, "does not match"},
		{"another CA", certificate, key, otherCA, "unknown authority"},
		{"expired", old, oldKey, ca, "expired"},
		{"for clients only", half, halfKey, ca, "key usage"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := LoadCredentials(test.certificate, test.key, test.ca)
			if test.want == "" {
				if err != nil || c == nil {
					t.Errorf("%v", err)
				}
				return
			}
			var e *base.Error
			if !errors.As(err, &e) || e.Word() != "invalid-certificate" || !strings.Contains(e.Detail, test.want) || !strings.Contains(e.Detail, "tenure certs") {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestAddressesWithCredentials(t *testing.T) {
	c, err := LoadCredentials(newAuthority(t).process("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial("10.0.0.1:1", Options{Credentials: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	l, err := Listen(":0", Options{Credentials: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]Options{"`tenure certs`": {}, "it must be one of them": {Plain: true, Credentials: c}} {
		_, dialErr := Dial("10.0.0.1:1", o)
		_, listenErr := Listen("0.0.0.0:0", o)
		for _, err := range []error{dialErr, listenErr} {
			if base.KindOf(err) != base.Invalid || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one with %q", err, name)
			}
		}
	}
}
