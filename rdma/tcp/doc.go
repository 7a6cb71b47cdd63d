// Package tcp is the provider of one-sided verbs over TCP: it works anywhere,
// and needs nothing but Go. The owner of the memory executes the requests of its
// peers in software; its application takes no part in that.
//
// Each connected pair of queue pairs has one connection, on which both ends send
// requests and responses (wire.go draws them). The control plane carries the
// addresses; they hold a random token, and a connection that does not know the
// token of the queue pair it names gets no further than its hello.
//
//	A                                                              B
//	Accept(address of B)
//	                      ◀────── hello{to A, token of A} ──────   Connect(address of A)
//	                      ────── welcome{token of B} ─────────▶
//	Post(WRITE x, WRITE y, READ z)
//	  one write           ── WRITE x… WRITE y… READ z ────────▶    reader: x, y into
//	                                                               the region, z out of it
//	  reader: completes   ◀────── ACK 2, DATA z… ──────────────    one write, when no more
//	  three requests                                               input is there
//	Wait returns
//
// # Where time goes
//
// Post encodes a batch and writes it to the socket itself, and whoever reads a
// batch answers it with one write, so a round trip costs the four system calls
// of an echo and little more. Payloads up to copyMax travel in the frame; longer
// ones go between socket and region without a copy of ours. A Wait is woken in a
// way that wakes no second processor, see bell. Nothing of this allocates.
// BenchmarkReadAgainstEcho measures it.
//
// # Nobody waits for the peer
//
// Neither Post nor the reader ever waits for a full socket: if both readers of a
// connection did, none would read. What the socket does not take stays in the
// outbox, which the writer empties. Its size is bounded because requests are:
// at most SendDepth of ours and of the peer's (who says so in the handshake, and
// is cut off if it sends more), each with at most copyMax bytes, as longer
// payloads stay in their regions until they are written. So a long READ may
// return what later requests have written, as the contract allows; Fence is kept
// by the end that posts, which holds back what must come after a long READ.
//
// # Silence
//
// A peer whose connection ends is noticed at once. One that is silent breaks the
// queue pair after 1 to 1.25 times Timeout (never before 4 ms) with requests
// outstanding. A sign of life is what arrives, and room in a socket that was full;
// that a socket takes more requests is none. While a doorbell of the peer waits for
// a place here, for DoorbellPatience at most, the peer is not the silent one.
//
// # Threads
//
//	goroutine         started by      it alone touches                woken by              ends when
//	acceptor          Open            the listener                    connections           Provider.Close
//	handshake         acceptor        a connection before its hello   hello, deadline       told, or handed over
//	reader            Connect, join   executor: input, regions for    the socket            connection or queue pair ends;
//	(one per link)                    the peer, completions of ours                         closes the connection
//	writer            Connect, join   the outbox, while the socket    a full socket, its    the reader has left
//	(one per link)                    is full                         room
//	watchdog          Accept,         -                               its timer, while      queue pair breaks
//	(one per pair)    Connect                                         requests are out
//
// Post writes the outbox from its caller's goroutine. Close waits for all of
// these.
//
// # Invariants
//
//   - The reader executes the frames of the peer and nobody else does. Revoke and
//     Close wait until it has left; it never waits for anything that they cannot
//     interrupt. From then on the peer changes nothing here.
//   - Requests complete in order, and only the reader completes them, as long as
//     there is one. When it has left, nothing writes to local memory or reads from
//     it any more, and only then is what is outstanding flushed.
//   - Memory is touched only under the lock of its region, one region at a time,
//     and during no call that can wait.
//   - A malformed frame breaks the connection it came on. A request that must not
//     be executed is answered with its status and is the last that is executed.
//   - Every buffer, queue and wait has a bound, which Options, QueuePairOptions or
//     the constants of this package name.
//
// # What it does not do
//
// There is no TLS: frames, tokens and memory travel in the clear, and who can
// read or change the traffic between two nodes can do both to their memory. Use
// it on a network that you trust, or over an encrypted one (WireGuard, IPsec).
// The tokens keep strangers out, who can connect but not listen. That peers are
// who they say is the control plane's concern, which hands out the addresses.
//
// It is atomic among the verbs of one provider, as the contract says; other
// providers of the same process have memory of their own.
//
// # Where to start reading
//
// queuePair, then Post in post.go, link.read and executor.step.
package tcp
