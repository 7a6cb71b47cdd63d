// Package leases drives the lease protocol for one worker: it calls the cores of
// package lease under their latches, and carries out what they ask for by verbs
// and messages (package mesh), by calls to other members, and by the store.
//
//	transaction ── Part.Acquire, Release ──►  Part (latch)  ──► lease.Core
//	                                             │ actions
//	      values of the slot ◄───────────────────┤
//	      mesh.CAS, mesh.Send ◄──────────────────┘
//	mesh ── Swung, Message, LinkDown, LinkUp ──► Leases ──► Part
//	members ── Report, Ready ──────────────────► Leases ──► lease.Home, Part
//
// A Part is a lock table's share of the slots, those that leave the same rest when
// divided by the number of parts; its latch is also the latch of the values and
// locks of those slots.
//
// # A change of view
//
// Install takes the steps of lease_protocol.md section 8 that are a member's: it
// relabels what is not durable yet, installs the view in all parts, destroys the
// links to those who are gone, waits until no verb of the old view is outstanding
// and all that was appended is durable, and reports to every home what is held
// here. As a home it rebuilds its words when all members have reported, and tells
// them. A slot whose home is ready can be asked for again; what is held here and
// not shared was usable all the while.
//
// # Invariants
//
//   - Actions of a part are carried out under its latch, in order.
//   - Whoever appends under a copy holds the view still (Append): no copy that a
//     view change has taken away is behind a batch of the new view.
//   - Values leave and come with the message that carries the lease; what does not
//     fit is loaded from the store, where it is, because only durable values leave.
//
// Latches are ordered: links, then view, then one part, then what mesh has. The
// goroutines are Run's: one that waits for the disk on behalf of slots that are
// asked for, and for each view those that report and tell.
package leases
