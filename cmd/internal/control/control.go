// Package control has the flags of the control plane, which the processes of a
// cluster share.
package control

import (
	"github.com/tenure-faas/tenure/rpc"
)

// Flags say how connections between the processes of a cluster are protected.
// Without any they are plain, and confined to loopback addresses.
type Flags struct {
	Cert  string `type:"path" placeholder:"FILE" help:"Certificate of this process, for connections between processes (tenure certs makes them)."`
	Key   string `type:"path" placeholder:"FILE" help:"Key of the certificate."`
	CA    string `name:"ca" type:"path" placeholder:"FILE" help:"Certificate of the authority that has signed those of all processes."`
	Plain bool   `help:"Allow plain connections to other machines, where the network is trusted."`
}

// Options are those of connections. The error is a base.Invalid.
func (f *Flags) Options() (rpc.Options, error) {
	o := rpc.Options{Plain: f.Plain}
	if f.Cert == "" && f.Key == "" && f.CA == "" {
		return o, nil
	}
	var err error
	o.Credentials, err = rpc.LoadCredentials(f.Cert, f.Key, f.CA)
	return o, err
}
