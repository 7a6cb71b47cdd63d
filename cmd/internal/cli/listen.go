package cli

import (
	"net"
	"net/netip"
)

// Listen are the flags of a program that serves HTTP. The token is not one of
// them: for `tenure dev` it is the flag that every command has.
type Listen struct {
	// Listen is host:port of the HTTP API; port 0 picks one. --http is the same.
	Listen string `default:"127.0.0.1:8088" aliases:"http" placeholder:"HOST:PORT" help:"Address to listen on; port 0 picks one (default ${default})."`
	// ReadToken allows reading only.
	ReadToken string `placeholder:"TOKEN" env:"TENURE_READ_TOKEN" help:"Token that allows reading only."`
	// Insecure allows other machines to connect without a token.
	Insecure bool `help:"Allow an address that other machines can reach without a token."`
}

// Check refuses, as wrong usage, an address that cannot be one and a server
// that anybody on the network could use.
func (l *Listen) Check(token string) error {
	host, _, err := net.SplitHostPort(l.Listen)
	if err != nil {
		return Usagef("--listen %q: %w; it must be HOST:PORT", l.Listen, err)
	}
	if l.ReadToken != "" && token == "" {
		return Usagef("--read-token is given and --token is not: nobody could write")
	}
	if token == "" && !l.Insecure && !loopback(host) {
		return Usagef("--listen %s can be reached from other machines and there is no token: give one with --token or TENURE_TOKEN, or allow everybody everything with --insecure", l.Listen)
	}
	return nil
}

// loopback says whether only this machine can reach the host. A name other than
// localhost is not looked up: what it stands for may change.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
