// Package serve runs a node from command-line flags, for `tenure dev`.
//
// The one line "listening on URL" on standard output is a contract: scripts and
// the benchmark wait for it.
//
// Start reading at Flags.Run.
package serve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/internal/gctune"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/runtime"
)

// Flags are the flags of a node.
type Flags struct {
	cli.Listen
	Workers  int    `default:"1" help:"Workers in this process, which pass leases among themselves (default ${default})."`
	Provider string `enum:",verbs,shm,tcp" default:"" placeholder:"NAME" help:"How several workers reach each other's memory: verbs, shm or tcp, instead of the best that works."`
	Data     string `default:"./tenure-data" type:"path" placeholder:"DIR" help:"Data directory, created if absent (default ./tenure-data)."`
	cli.Log
}

// Options are what a program gives to a node besides its flags.
type Options struct {
	// Token allows everything; empty: no authentication.
	Token string
	// Native are functions compiled into the process, by name.
	Native map[string]runtime.Bundle
	// Ready is called once the line is printed, with a URL that this process can
	// use; its error ends the node. nil: nobody is told.
	Ready func(ctx context.Context, url string) error
}

// Run starts a node, prints "listening on URL" when it serves, and blocks until
// ctx ends and the node has stopped in order.
func (f *Flags) Run(ctx context.Context, streams cli.Streams, opt Options) error {
	if err := f.Check(opt.Token); err != nil {
		return err
	}
	logger := f.Logger(streams.Stderr)
	gctune.Server(logger)
	o := node.Options{Listen: f.Listen.Listen, Data: f.Data, Workers: f.Workers, Provider: f.Provider, Native: opt.Native, Logger: logger}
	o.Gateway.Token, o.Gateway.ReadToken = opt.Token, f.ReadToken
	o.Ready = func(ctx context.Context, address string) error {
		if _, err := fmt.Fprintf(streams.Stdout, "listening on %s\n", address); err != nil {
			return fmt.Errorf("print the address: %w", err)
		}
		if opt.Ready == nil {
			return nil
		}
		return opt.Ready(ctx, Reachable(address))
	}
	return node.Run(ctx, o)
}

// Reachable returns the URL at which this machine reaches a server that listens
// at address: all addresses of the machine are not one that can be called.
func Reachable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil || !addr.IsUnspecified() {
		return address
	}
	u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	return u.String()
}
