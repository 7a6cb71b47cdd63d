package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
	"github.com/tenure-faas/tenure/rpc"
)

// contents are the files of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func do(t *testing.T, c Command, now time.Time) *Report {
	t.Helper()
	report, err := c.do(now)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "certs")
	now := time.Now()
	report := do(t, Command{Dir: dir, Names: []string{"worker-1", "gateway"}}, now)
	if !report.CA.Made || len(report.Certificates) != 2 || len(report.Stale) != 0 {
		t.Errorf("report %+v", report)
	}
	first := contents(t, dir)
	report = do(t, Command{Dir: dir, Names: []string{"worker_2"}, Host: []string{"10.0.0.1", "db.example.org", "fd00::1"}}, now)
	if report.CA.Made || len(report.Certificates) != 1 || !report.Certificates[0].Made {
		t.Errorf("report of the second call %+v", report)
	}
	second := contents(t, dir)
	for name, content := range first {
		if second[name] != content {
			t.Errorf("the second call changed %s", name)
		}
	}
	ca, err := readCertificate(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if !ca.IsCA || ca.NotAfter.Sub(now).Round(time.Hour) != authorityValidity {
		t.Errorf("the CA: %t, until %v", ca.IsCA, ca.NotAfter)
	}
	for name, hosts := range map[string][]string{
		"worker-1": {"worker-1", "localhost", "127.0.0.1", "::1"},
		"gateway":  {"gateway", "localhost", "127.0.0.1", "::1"},
		"worker_2": {"worker_2", "10.0.0.1", "db.example.org", "fd00::1"},
	} {
		check(t, dir, name, hosts, ca, now)
	}
	if len(second) != 8 {
		t.Errorf("files %v", second)
	}
	for name := range second {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if secret := strings.HasSuffix(name, ".key"); secret && info.Mode() != 0o600 || !secret && info.Mode().Perm()&0o133 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// check checks one certificate, also as the processes that will use it do.
func check(t *testing.T, dir, name string, hosts []string, ca *x509.Certificate, now time.Time) {
	t.Helper()
	path := filepath.Join(dir, name)
	if _, err := rpc.LoadCredentials(path+".crt", path+".key", filepath.Join(dir, "ca.crt")); err != nil {
		t.Error(err)
	}
	cert, err := readCertificate(path + ".crt")
	if err != nil {
		t.Fatal(err)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() || cert.IsCA || cert.NotAfter.Sub(now).Round(time.Hour) != validity || cert.NotBefore.After(now) {
		t.Errorf("%s: key %T, CA %t, from %v until %v", name, cert.PublicKey, cert.IsCA, cert.NotBefore, cert.NotAfter)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if n := len(cert.DNSNames) + len(cert.IPAddresses); n != len(hosts) {
		t.Errorf("%s is for %v and %v, want %v", name, cert.DNSNames, cert.IPAddresses, hosts)
	}
	for _, host := range hosts {
		if err := cert.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if cert.VerifyHostname("elsewhere.example.org") == nil {
		t.Errorf("%s is for any host", name)
	}
}

func TestForce(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	do(t, Command{Dir: dir, Names: []string{"a", "b"}}, now)
	before := contents(t, dir)
	if err := os.Chmod(filepath.Join(dir, "a.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	report := do(t, Command{Dir: dir, Names: []string{"a"}, Force: true}, now)
	after := contents(t, dir)
	for name, kept := range map[string]bool{"ca.crt": false, "ca.key": false, "a.crt": false, "a.key": false, "b.crt": true, "b.key": true} {
		if (before[name] == after[name]) != kept {
			t.Errorf("%s kept: %t, want %t", name, !kept, kept)
		}
	}
	if want := []string{filepath.Join(dir, "b.crt")}; !report.CA.Made || !slices.Equal(report.Stale, want) || !strings.Contains(report.String(), "b.crt is not signed by this CA") {
		t.Errorf("report %+v, want %v stale", report, want)
	}
	info, err := os.Stat(filepath.Join(dir, "a.key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("a key that was readable by all: %v, %v", info.Mode(), err)
	}
	path := filepath.Join(dir, "b")
	if _, err := rpc.LoadCredentials(path+".crt", path+".key", filepath.Join(dir, "ca.crt")); err == nil {
		t.Error("a certificate of the old CA is good for the new one")
	}
}

// TestRefused: what cannot be done changes nothing.
func TestRefused(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		names   []string
		want    string
	}{
		{"a name again", func(t *testing.T, dir string) { do(t, Command{Dir: dir, Names: []string{"a"}}, now) }, []string{"b", "a"}, "a.crt exists"},
		{"a key without its certificate", func(t *testing.T, dir string) { put(t, dir, "a.key", "precious") }, []string{"a"}, "a.key exists"},
		{"no key of the CA", func(t *testing.T, dir string) {
			do(t, Command{Dir: dir}, now)
			if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
				t.Fatal(err)
			}
		}, []string{"a"}, "ca.key is not: bring it back, or make a new CA with --force"},
		{"no certificate of the CA", func(t *testing.T, dir string) { put(t, dir, "ca.key", "precious") }, nil, "ca.crt is not"},
		{"the CA is junk", func(t *testing.T, dir string) { put(t, dir, "ca.key", "junk"); put(t, dir, "ca.crt", "junk") }, nil, "--force"},
		{"the CA is none", func(t *testing.T, dir string) {
			do(t, Command{Dir: dir, Names: []string{"a"}}, now)
			files := contents(t, dir)
			put(t, dir, "ca.crt", files["a.crt"])
			put(t, dir, "ca.key", files["a.key"])
		}, []string{"b"}, "not the certificate of a CA"},
		{"the key is of another CA", func(t *testing.T, dir string) {
			do(t, Command{Dir: dir, Names: []string{"a"}}, now)
			put(t, dir, "ca.key", contents(t, dir)["a.key"])
		}, []string{"b"}, "does not match"},
		{"the CA has expired", func(t *testing.T, dir string) { do(t, Command{Dir: dir}, now.Add(-authorityValidity-time.Hour)) }, []string{"a"}, "has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.prepare(t, dir)
			before := contents(t, dir)
			report, err := (&Command{Dir: dir, Names: test.names}).do(now)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, error %v; want %q", report, err, test.want)
			}
			after := contents(t, dir)
			if len(after) != len(before) {
				t.Errorf("files %v", after)
			}
			for name := range before {
				if before[name] != after[name] {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
	t.Run("the directory is a file", func(t *testing.T) {
		put(t, t.TempDir(), "x", "")
		dir := filepath.Join(t.TempDir(), "file")
		put(t, filepath.Dir(dir), "file", "")
		if _, err := (&Command{Dir: dir}).do(now); err == nil {
			t.Error("no error")
		}
	})
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEndsWithTheCA: a certificate that outlived its CA would fail without its own
// date saying why.
func TestEndsWithTheCA(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	ca := do(t, Command{Dir: dir}, now).CA
	later := ca.NotAfter.Add(-time.Hour)
	if c := do(t, Command{Dir: dir, Names: []string{"a"}}, later).Certificates[0]; !c.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("the certificate ends at %v, the CA at %v", c.NotAfter, ca.NotAfter)
	}
}

func TestWrongUsage(t *testing.T) {
	many := make([]string, maxNames+1)
	for name, c := range map[string]Command{
		"name of the CA":   {Names: []string{"CA"}},
		"a path":           {Names: []string{"../a"}},
		"hidden":           {Names: []string{".a"}},
		"empty":            {Names: []string{""}},
		"long":             {Names: []string{strings.Repeat("a", 64)}},
		"twice":            {Names: []string{"a", "A"}},
		"too many":         {Names: many},
		"host with a port": {Host: []string{"a:1"}},
		"empty host":       {Host: []string{""}},
		"zone":             {Host: []string{"fe80::1%eth0"}},
		"too many hosts":   {Host: many},
	} {
		c.Dir = filepath.Join(t.TempDir(), "none")
		err := c.Run(&command.Env{})
		if cli.Status(err) != cli.Usage || exists(c.Dir) {
			t.Errorf("%s: %v, and the directory exists: %t", name, err, exists(c.Dir))
		}
	}
}

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	env := &command.Env{Streams: cli.Streams{Stdout: &out}, Globals: command.Globals{Output: "json"}}
	if err := (&Command{Dir: dir, Names: []string{"a"}}).Run(env); err != nil {
		t.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || !report.CA.Made || len(report.Certificates) != 1 || report.Certificates[0].Key != filepath.Join(dir, "a.key") {
		t.Errorf("%v: %s", err, &out)
	}
	out.Reset()
	env.Output = "text"
	if err := (&Command{Dir: dir}).Run(env); err != nil {
		t.Fatal(err)
	}
	if want := "kept " + filepath.Join(dir, "ca.crt") + " and " + filepath.Join(dir, "ca.key") + ": the CA, until " + report.CA.NotAfter.Format(time.DateOnly) + "\n"; out.String() != want {
		t.Errorf("output %q, want %q", &out, want)
	}
}
