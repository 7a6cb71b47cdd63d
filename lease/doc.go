// Package lease is the protocol by which workers pass the right to use a slot of
// keys from one to another: chain, hand-off, shared copies, and what of it
// survives a change of membership.
//
// It is a core: no goroutine, no I/O, no clock, no mutex. A Core is one worker's
// knowledge of a part of the slots. The shell calls it under the latch of that
// part with what users ask and what verbs and records report, and carries out
// the Actions it returns.
//
//	Acquire, Release        a transaction wants a turn in a slot, and gives it back
//	Swung, Released,        what became of the CAS or READ that an action asked for
//	WordRead, TailRead
//	Receive                 a record of another worker
//	Loaded, Durable         the store has answered
//	Install, Ready,         the view changes; a queue pair broke or is new
//	LinkDown, LinkUp
//
// # The chain
//
// A slot's word, at its home, names the tail of a chain of nodes, one for each
// ticket. Who wants the lease swings the tail to itself by CAS and so knows its
// predecessor, to whom it sends a request; the predecessor hands the lease over
// when its own users are done. A node is
//
//	casing --> waiting --> held --> releasing --> gone
//	   |  \       ^         ^  \        |
//	 maybe --> loading -----+   \     limbo
//	                             +--> granted to the successor
//
// A CAS whose outcome is unknown leaves the node maybe (or limbo, for a
// release): the word decides, or evidence does, a record that names the ticket;
// where neither can, the node is inert until the view ends.
//
// # Invariants
//
//   - In a view, words change by CAS only, and each success adds 1 to the ticket;
//     so a ticket has one owner and one predecessor.
//   - Of all nodes of a slot in a view at most one is held or loading, over all
//     workers, in ticket order.
//   - A copy that is alive is in its holder's list of readers; the list travels
//     with the grant. A writer has its turn only when the list is empty.
//   - A slot leaves this worker, by grant, copy or release, only when all that
//     was written in it is durable, as far as Core.Durable was told: where store and
//     workers are one process, all that is appended counts.
//   - Since the lease came at most Turns local users go before a successor that is
//     known, or Burst of them while it would have to wait for the disk all the same.
//   - Records and verbs of another view than the installed one change nothing.
//
// The argument why these give mutual exclusion and strict serializability is in
// lease_protocol.md, sections 4 to 8 and 13. TestAdversary runs many cores against
// each other under an adversary that may do everything a network, a device, a
// store and a crash may do, and looks for violations of them; TestMutations shows
// that it finds them in protocols with a known fault.
//
// Start reading at Core.Acquire, then chain.go.
package lease
