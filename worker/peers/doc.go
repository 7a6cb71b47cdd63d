// Package peers is leases.Peers between processes, over the control plane: offers
// of links, and the reports and notices by which a new view becomes active. It is
// called when links are made and when views change, and never for a lease.
//
//	Peers (client)                              Register (server)
//	Exchange, Report, Ready ── gRPC ─────────►  leases.Local ──► Leases of the member
//	address book ◄── SetMembers                 of this process
//
// # Invariants
//
//   - A request names both incarnations. One for an incarnation that is not in the
//     called process is refused; who the caller must be is for Leases to say.
//   - leases.ErrNotYet and mesh.ErrNotMember arrive as such. All other errors have
//     a base.Kind, those of a broken connection Unavailable with Unknown set: a
//     call may have arrived whose answer is lost, and every call may be repeated.
//   - A call ends in time, on both sides, and one to a member that is not in the
//     address book at once.
//   - Nothing that arrives is believed: a set of slots takes at most MaxSlotsBytes
//     to send, cannot name one twice, and few are unpacked at the same time.
//
// It does not find out who is a member, and it repeats nothing: package leases
// does, while the view lasts.
//
// Start reading at Peers.Report, then server.Report.
package peers
