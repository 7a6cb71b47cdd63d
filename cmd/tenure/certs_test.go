package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/rpc"
)

// echo answers every offer with itself.
type echo struct{}

func (echo) Accept(_ context.Context, offer rpc.Offer) (rpc.Offer, error) { return offer, nil }

// TestCerts makes certificates in two calls, as somebody would who adds a machine,
// and has processes with them call each other.
func TestCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if stdout, stderr, status := run(t, "certs", "leasemgr", "--dir", dir); status != 0 || strings.Count(stdout, "made "+dir) != 2 {
		t.Fatalf("exit status %d, %q, %q", status, stdout, stderr)
	}
	stdout, stderr, status := run(t, "certs", "worker-1", "worker-2", "--dir", dir, "--host", "10.0.0.1,localhost", "--output", "json")
	var report struct {
		CA           struct{ Made bool }
		Certificates []struct {
			Certificate, Key string
			Hosts            []string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || status != 0 || report.CA.Made || len(report.Certificates) != 2 || len(report.Certificates[0].Hosts) != 3 {
		t.Fatalf("exit status %d, %v: %s%s", status, err, stdout, stderr)
	}
	for name, test := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"a name again":    {[]string{"worker-1"}, 1, "worker-1.crt exists"},
		"a name of paths": {[]string{"../worker"}, 2, "must be letters"},
	} {
		stdout, stderr, status := run(t, append([]string{"certs", "--dir", dir}, test.args...)...)
		if status != test.status || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit status %d, %q, %q", name, status, stdout, stderr)
		}
	}
	load := func(certificate, key string) rpc.Options {
		t.Helper()
		c, err := rpc.LoadCredentials(certificate, key, filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return rpc.Options{Credentials: c}
	}
	server := load(filepath.Join(dir, "leasemgr.crt"), filepath.Join(dir, "leasemgr.key"))
	client := load(report.Certificates[1].Certificate, report.Certificates[1].Key)
	if _, err := call(t, server, client); err != nil {
		t.Errorf("from a worker to the leasemgr: %v", err)
	}
	if _, err := call(t, client, server); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("to a worker at a host that its certificate does not have: %v", err)
	}
	if stdout, stderr, status := run(t, "certs", "leasemgr", "--force", "--dir", dir); status != 0 || !strings.Contains(stdout, "worker-1.crt is not signed by this CA") {
		t.Errorf("--force: exit status %d, %q, %q", status, stdout, stderr)
	}
	if _, err := rpc.LoadCredentials(report.Certificates[1].Certificate, report.Certificates[1].Key, filepath.Join(dir, "ca.crt")); err == nil {
		t.Error("a certificate of the CA before is good for the new one")
	}
	if _, err := call(t, load(filepath.Join(dir, "leasemgr.crt"), filepath.Join(dir, "leasemgr.key")), client); err == nil {
		t.Error("a client of the CA before is let in")
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the CA's key: %v, %v", info.Mode(), err)
	}
}

// call makes one call from a client to a server with these options.
func call(t *testing.T, server, client rpc.Options) (rpc.Offer, error) {
	t.Helper()
	l, err := rpc.Listen("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(server)
	rpc.ServeRendezvous(s, "tcp", echo{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer s.Stop()
	conn, err := rpc.Dial(l.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return rpc.Exchange(ctx, conn, rpc.Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}})
}
