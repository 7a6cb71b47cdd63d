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
// There is no encryption yet, so Listen and Dial take loopback addresses only,
// unless Plain says that the network is trusted.
package rpc
