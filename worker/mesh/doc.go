// Package mesh keeps the links between this worker and the other members of the
// installed view: it posts CAS on their lease words and sends them messages, over
// any provider of one-sided verbs. It knows links, not leases: the shell that
// drives package lease over it keeps all state of the protocol.
//
//	worker A                                            worker B
//	link to B: queue pair ═══ connected (RC) ═══ queue pair :inbox of A
//	  CAS ─────────────────────────────────────▶ words of B
//	  WRITE_IMM (message) ─────────────────────▶ ring of A in B's memory, doorbell
//	  doorbell (credit) ◀────────────────────── WRITE_IMM of no bytes
//	  READ (proof) ────────────────────────────▶ a word of B
//
// Each ordered pair of members has one queue pair: A is its active end and posts
// the verbs, B the passive end, which posts credits only. The words of a worker
// itself are reached through a queue pair that is connected to itself, so that its
// CAS are atomic with those of others; its messages to itself go through memory.
//
// # Life of a link
//
// The keeper of a link makes a queue pair and sends an Offer to the peer's Accept.
// The peer revokes its old end, so that nothing old can land, and answers how much
// of the ring it has consumed; the keeper connects, READs a word to see that data passes,
// repeats all later messages, and the link is up. So messages arrive once and in order, however often the queue
// pair is made anew, for as long as both incarnations stay members: their history.
// When a request fails or is refused the link is down: LinkDown, then the outcomes
// of what was outstanding, then all over again, after 1 ms at first and at most
// half a second.
//
// An end whose peer revoked, or left, learns of it when it posts. So, each
// Options.Timeout, as long as the peer is not known to have consumed all messages,
// the keeper posts a READ, the proof: when it completes, all that was posted before
// it has landed; if it does not, the link is made anew and the messages are
// repeated. One proof is not enough: what has landed is dropped if the peer's end
// fails before the peer took it from the completion queue.
//
// # Invariants
//
//   - Every CAS has exactly one Swung, until Close. NotDone: it was never posted,
//     or the peer refused it.
//   - LinkDown comes after Down is true and before the outcomes of what was
//     outstanding; LinkUp after all of these, after Down is false, and after the
//     peer destroyed its old end. A link that was never up has no LinkDown; nor has
//     one that Install removed, though the outcomes of its CAS still come.
//   - When Install has returned nil, nothing of a worker that is no member takes
//     effect in our memory.
//   - Local memory of a posted request is named by no other before it completed: a
//     CAS has a word of its own, and ring.Sender keeps the staging of a message.
//   - A queue pair is closed, and all its completions were seen, before there is
//     another in its place.
//   - Offers, answers, rings and immediate values were written by peers: all of
//     them are checked.
//
// A link is down until its first LinkUp. A shell that forgets at an Install which
// links are down asks Down again, under the latch that its Handler takes.
//
// # Goroutines and locks
//
//	goroutine  one per   does                                          woken by                 ends with
//	poller     mesh      outcomes, messages, credits                   the completion queue     Close
//	courier    mesh      refused CAS, messages to this worker itself   wake                     Close
//	keeper     member    connects, tends and takes down the link       nudge, its timers        Install without it, Close
//	burial     member    frees the memory of one that left             the last completion      Close
//
// Whoever calls Flush posts too; one at a time for each link.
//
// Locks, in this order: installing, an inbox's control, calls (held while the
// Handler runs), the latches of the caller, then the leaves: mu of a link, of an
// inbox, of self, of ends. CAS and Send take only leaves. So Install, Accept, Drain
// and Close must not be called from a Handler, nor under a latch that it takes.
//
// # What it does not do
//
// It does not find out that a member is dead: its link is down, that is all. It
// does not survive the loss of its own device. A member that left comes back as
// another incarnation, or not at all.
//
// Start reading at Mesh, then link.flush, peer.keep and inbox.accept.
package mesh
