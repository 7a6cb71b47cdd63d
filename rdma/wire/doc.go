// Package wire counts the RoCEv2 packets of a network interface: by transport
// opcode, flow and destination queue pair, with repeated requests apart. It is a
// tool for tests and diagnosis. The counting is done by a small eBPF program that
// is assembled here, loaded into the kernel and attached to the interface; it
// passes every packet on unchanged, unless Options.Drop asks for faults.
//
//	        eth0                       kernel                     this process
//	packets ────► hook (Mode) ──► program ──► stack, rxe
//	                                 │
//	                                 └─► flows: one entry per  ◄── Counter.Read ──► Snapshot
//	                                     direction, source, destination, QP
//
// # What it sees
//
// Ethernet with at most one VLAN tag in the data, IPv4 with options or IPv6
// without extension headers, UDP to port 4791, and a base transport header of
// version 0. All else is passed on uncounted; a datagram to that port which is
// no such packet counts as malformed. Of a datagram in fragments the first is
// counted.
//
// # What it does not see
//
// On a real RNIC, RoCE never enters the kernel's packet path: the counter stays
// at zero there, and the counters of the device (rdma statistic, hw_counters)
// and of the provider are the ones to look at. Two processes on one rxe device
// never put a packet on the netdev either. What remains is SoftRoCE (rxe)
// between two machines, virtual ones included. An XDP hook sees incoming packets
// only. What is lost before the interface is not seen, and what the kernel drops
// after the hook is.
//
// # Repeats
//
// A request packet is a repeat if its packet sequence number (PSN, modulo 2^24)
// was seen before in its flow. The program remembers the last 256 PSNs of a flow,
// more than rxe has outstanding, so a request that was lost before the
// interface is not taken for a repeat when it comes at last. A READ request takes as many PSNs as
// its response has packets, which depends on the path MTU (Options.PathMTU); with
// too large a value the tail of a READ that is asked for again counts as a READ of
// its own. A PSN more than 2^20 behind is a new connection with an old number.
// Responses are never judged.
//
// A verb is counted at its last request packet, because only that one tells
// WRITE from WRITE_IMM. Decode is the same reading of a packet in Go, for
// captures, and the tests hold the two against each other.
package wire
