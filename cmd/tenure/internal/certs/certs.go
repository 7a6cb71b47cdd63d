// Package certs is `tenure certs`: a certificate authority for development and the
// certificates by which the processes of a cluster know each other.
//
// Invariants: keys are readable by their owner only; a file that exists is not
// replaced without --force; nothing is written before everything was found to be
// possible; a certificate ends no later than its CA.
//
// It is for development, and for clusters whose operator has nothing else: the
// CA's key lies beside what it signs, and nothing is revoked.
//
// Start reading at Command.Run; authority.go makes the certificates.
package certs

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
)

// Command is `tenure certs`.
type Command struct {
	Names []string `arg:"" optional:"" name:"name" help:"Names of processes, such as worker-1: each gets NAME.crt and NAME.key, valid for NAME, too."`
	Dir   string   `default:"./tenure-certs" type:"path" placeholder:"DIR" help:"Directory of the files, created if absent (default ./tenure-certs)."`
	Host  []string `placeholder:"HOST" help:"Host names and IP addresses at which the processes are reached (default localhost,127.0.0.1,::1)."`
	Force bool     `help:"Make a new CA, and new certificates in place of old ones: all that the old CA has signed is of no use then."`
}

const (
	maxNames = 1000
	maxHosts = 100
)

// dnsName is what names and hosts may be besides IP addresses. A name becomes that
// of two files.
var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

// Report is what was done, also as JSON.
type Report struct {
	CA           File   `json:"ca"`
	Certificates []File `json:"certificates"`
	// Stale are certificates in the directory that the CA has not signed.
	Stale []string `json:"stale,omitempty"`
}

// File is a certificate with its key.
type File struct {
	Name        string    `json:"name"`
	Certificate string    `json:"certificate"`
	Key         string    `json:"key"`
	Hosts       []string  `json:"hosts,omitempty"`
	NotAfter    time.Time `json:"not_after"`
	// Made says that it was made now.
	Made bool `json:"made"`
}

// Run makes what is missing and says what there is.
func (c *Command) Run(env *command.Env) error {
	if err := c.check(); err != nil {
		return err
	}
	report, err := c.do(time.Now())
	if err != nil {
		return err
	}
	if env.Output == "json" {
		encoder := json.NewEncoder(env.Stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(report)
	}
	_, err = env.Stdout.Write([]byte(report.String()))
	return err
}

// check finds wrong usage.
func (c *Command) check() error {
	if len(c.Names) > maxNames || len(c.Host) > maxHosts {
		return cli.Usagef("%d names and %d hosts, at most %d and %d are possible", len(c.Names), len(c.Host), maxNames, maxHosts)
	}
	for i, name := range c.Names {
		switch {
		case len(name) > 63 || !dnsName.MatchString(name):
			return cli.Usagef("the name %q must be letters, digits, and in between - _ and ., at most 63", name)
		case strings.EqualFold(name, authorityName):
			return cli.Usagef("the name %q is that of the CA", name)
		case slices.ContainsFunc(c.Names[:i], func(other string) bool { return strings.EqualFold(name, other) }):
			return cli.Usagef("the name %q is given twice", name)
		}
	}
	for _, host := range c.Host {
		addr, err := netip.ParseAddr(host)
		if addr.Zone() != "" || err != nil && (len(host) > 253 || !dnsName.MatchString(host)) {
			return cli.Usagef("--host %q is neither a host name nor an IP address", host)
		}
	}
	return nil
}

// hosts are what a certificate is valid for.
func (c *Command) hosts(name string) []string {
	hosts := c.Host
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	if slices.Contains(hosts, name) {
		return hosts
	}
	return append([]string{name}, hosts...)
}

// do makes everything in memory, then writes it.
func (c *Command) do(now time.Time) (*Report, error) {
	ca, made, err := c.authority(now)
	if err != nil {
		return nil, err
	}
	report := &Report{CA: c.file(authorityName, ca, made), Certificates: []File{}}
	var pairs []*pair
	if made {
		pairs = append(pairs, ca)
	}
	for _, name := range c.Names {
		hosts := c.hosts(name)
		p, err := ca.issue(name, hosts, now)
		if err != nil {
			return nil, fmt.Errorf("make the certificate of %s: %w", name, err)
		}
		f := c.file(name, p, true)
		f.Hosts = hosts
		report.Certificates = append(report.Certificates, f)
		pairs = append(pairs, p)
	}
	if err := c.write(pairs); err != nil {
		return nil, err
	}
	report.Stale, err = c.stale(ca)
	return report, err
}

// authority returns the CA: that of the directory, or a new one if there is none
// or --force is given.
func (c *Command) authority(now time.Time) (ca *pair, made bool, err error) {
	certificate, key := exists(c.path(authorityName, ".crt")), exists(c.path(authorityName, ".key"))
	switch {
	case c.Force || !certificate && !key:
		ca, err = newAuthority(now)
		return ca, true, err
	case !certificate || !key:
		have, lack := ".crt", ".key"
		if key {
			have, lack = lack, have
		}
		return nil, false, fmt.Errorf("%s is there and %s is not: bring it back, or make a new CA with --force", c.path(authorityName, have), c.path(authorityName, lack))
	}
	ca, err = readAuthority(c.path(authorityName, ".crt"), c.path(authorityName, ".key"), now)
	if err != nil {
		return nil, false, fmt.Errorf("%w: make a new CA with --force", err)
	}
	return ca, false, nil
}

// write writes the files of pairs. Keys go first, so that no certificate is there
// without its key.
func (c *Command) write(pairs []*pair) error {
	if !c.Force {
		for _, p := range pairs {
			for _, suffix := range []string{".crt", ".key"} {
				if path := c.path(p.name, suffix); exists(path) {
					return fmt.Errorf("%s exists: delete %s.crt and %s.key to make others", path, p.name, p.name)
				}
			}
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	for _, p := range pairs {
		if err := c.writeFile(p.name, ".key", p.keyPEM, 0o600); err != nil {
			return err
		}
		if err := c.writeFile(p.name, ".crt", p.certPEM, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that is not there, or with --force in place of one. What
// another process has put there meanwhile stays.
func (c *Command) writeFile(name, suffix string, data []byte, mode os.FileMode) error {
	path := c.path(name, suffix)
	if c.Force {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(path) // half a file is of no use; the error is what counts
	}
	return err
}

// stale finds certificates that the CA has not signed.
func (c *Command) stale(ca *pair) (stale []string, err error) {
	paths, err := filepath.Glob(filepath.Join(globQuote(c.Dir), "*.crt"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		cert, err := readCertificate(path)
		if err != nil || cert.CheckSignatureFrom(ca.cert) != nil {
			stale = append(stale, path)
		}
	}
	return stale, nil
}

// globQuote makes a directory one that filepath.Glob takes as it is.
func globQuote(dir string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(dir, `\$0`)
}

func (c *Command) path(name, suffix string) string { return filepath.Join(c.Dir, name+suffix) }

func (c *Command) file(name string, p *pair, made bool) File {
	return File{Name: name, Certificate: c.path(name, ".crt"), Key: c.path(name, ".key"), NotAfter: p.cert.NotAfter, Made: made}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// String is the report as text.
func (r *Report) String() string {
	var b strings.Builder
	line := func(f File, what string) {
		verb := "made"
		if !f.Made {
			verb = "kept"
		}
		fmt.Fprintf(&b, "%s %s and %s: %s, until %s\n", verb, f.Certificate, f.Key, what, f.NotAfter.Format(time.DateOnly))
	}
	line(r.CA, "the CA")
	for _, f := range r.Certificates {
		line(f, "for "+strings.Join(f.Hosts, ", "))
	}
	for _, path := range r.Stale {
		fmt.Fprintf(&b, "%s is not signed by this CA: make it again\n", path)
	}
	return b.String()
}
