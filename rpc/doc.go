// Package rpc is the control plane between processes: gRPC with the limits,
// time-outs and error kinds that all its services share. It carries what is
// rare: membership, and the addresses of queue pairs. Leases and values travel
// by one-sided verbs (package rdma) and never through here.
//
// Connecting two queue pairs takes one exchange:
//
//	active end                                passive end
//	offer = address, regions  -- Exchange -->  new queue pair, Accept(offer.address)
//	Connect(answer.address)   <-- answer ----  its address, regions
//
// Errors keep their base.Kind across the wire; an error without one, such as a
// broken connection, is base.Unavailable.
//
// # Encryption
//
// With Credentials both ends show a certificate of the cluster's CA and verify the
// other's, over TLS 1.3, and a client that the server's is valid for the host, or
// for ServerName. Whoever has such a certificate may call everything: it says that
// a process belongs to the cluster, not who it is. Without Credentials Listen and
// Dial take loopback addresses only, unless Plain says that the network is
// trusted.
package rpc
