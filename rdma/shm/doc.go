// Package shm is the provider of one-sided verbs between processes of one Linux
// host. A process maps the regions of its peers and executes its requests with
// its own CPU, inside Post: no other process has to run, and no system call is
// made but for doorbells. All parties of a region use the CPU's atomic
// instructions, so CAS and FAA are atomic with the owner's instructions too,
// which the contract does not promise.
//
//	process A                                              process B
//	Post ── executes ──────────────────────────────────▶ region b (memfd, mapped by both)
//	 │ busy, revoked?                                      │
//	 └──── looks at ──▶ control memory of B ◀── revokes ───┤
//	                    directory of B      ◀── closes ────┘
//	                    bell of B (eventfd) ──▶ collector ──▶ ReceiveCQ
//	reader ◀──────────── unix socket (seqpacket) ─────────▶ reader
//	       hello, welcome: the files of control memory, bell and directory
//	       grant: the file of a region; want: asks for one
//	       its hang-up: the peer has gone
//
// And the same from B to A: each end has its own control memory and bell, each
// provider its directory. A queue pair that is its own peer has no socket; queue
// pairs of one process are connected as those of two are.
//
// An end announces its regions (grant) when it is connected and when it registers
// another, so they are in the socket of a peer before the peer can know the key,
// and Post takes them from there itself. What was not announced, because there are
// more than 64, the socket was full or the connection just being made, is asked
// for (want), and waits for the peer's processor, at most Timeout.
//
// # Control memory
//
// One for each queue pair, made by the end whose memory it guards (the owner),
// mapped by both. Words of 8 bytes, each with one writer (but armed), on cache
// lines of their own:
//
//	  0  revoked  owner  1: the peer may not begin anything any more
//	 64  busy     peer   1: the peer may be touching the owner's memory
//	128  tail     peer   how many doorbells it has put
//	192  head     owner  how many of them were polled
//	256  armed    both   the owner stores 1 before it sleeps, the peer 0 when it rings
//	320  entries  peer   ReceiveDepth doorbells: immediate value, length of payload
//
// The owner believes nothing that the peer writes there: an impossible tail
// breaks the queue pair, and so does an impossible head at the peer. The sizes of
// all shared files are sealed, so that touching a mapping cannot fault.
//
// The directory of a provider (peers can only read it) has a word for each of
// its regions: the generation of the region while it is open. A generation never
// comes back, so a mapping of a closed region is found out even when a new one
// has its key.
//
// # Fencing
//
// For each request a poster stores busy, looks at revoked, executes the request
// and clears busy; in a long one it looks again after every 128 KiB. Revoke stores
// revoked, then waits until busy is clear. One of them sees the other, so that
// after Revoke nothing of the peer lands, and no batch and no request is long
// enough to hold it up.
//
// That is true of a peer that runs. One that was stopped in the middle of a
// request (SIGSTOP, a debugger) could go on at any time later, and a mapping
// cannot be taken back: after Options.StopAfter, Revoke sends SIGKILL to its
// process and waits for its death. This takes everything of that process with
// it. Where it is not permitted Revoke fails, and nothing is certain. Peers whose
// process cannot be seen (another pid namespace), or belongs to another user than
// ours or root, are refused when they connect. All of this guards against faults,
// not against malice: a process of our own user could also trace us.
//
// A peer that died left the request it was in somewhere in the middle, and does
// nothing more. A queue pair learns of it from the socket, and breaks. Until then
// requests may still succeed: on memory that nobody owns any more, as if the peer
// had died a moment later.
//
// A peer that lives and does not run (SIGSTOP) is silent only where a request has
// to wait for it: before it connects, for a region that was not announced, for
// room for a doorbell. Such a request fails when it has been the oldest for Timeout
// and still waits. All others are done, without the peer.
//
// Closing a region refuses every request that begins afterwards. One that is in
// progress ends in memory that only peers still map: it has happened before the
// closing, and the owner never sees it. The memory is free when the peers have
// unmapped it, which they do at once, if they run.
//
// # Invariants
//
//   - Whoever touches a peer's memory holds mu of the queue pair, has stored busy
//     and has seen revoked clear since.
//   - Whoever hands out control memory or regions holds mu of the queue pair, or
//     has found it connected: Revoke comes before that or knows the peer.
//   - A doorbell is put after its payload is in place, and only if one of
//     ReceiveDepth places is free: they are free again when the completion is
//     polled, not when it is in the completion queue.
//   - While anything is outstanding, nothing is executed inside Post: requests
//     take effect in the order in which they were posted.
//   - Nobody waits for a peer while holding a mutex, but for ending (Revoke,
//     Close).
//   - Locks are taken in this order: ending, a queue pair's mu, a region's, the
//     provider's, all others.
//
// # Threads
//
//	goroutine  one per              does                                      woken by             ends with
//	accept     provider             hands connections to greet                the socket           Provider.Close
//	greet      hello, at most 64    finds the queue pair, answers             the socket           the answer, HandshakeTimeout
//	reader     connected pair       answers want, takes grant, notes hang-up  the socket           the connection
//	collector  connected pair       moves doorbells to the completion queue   the bell (eventfd)   Revoke, Close
//	progress   pair that waits      executes requests that met an obstacle    nudge, time          the last of them
//
// # Resources
//
// A queue pair has 2 files before it is connected (control memory, bell) and 4
// afterwards (socket, two bells, pidfd of the peer; 3 with a peer in this process,
// 2 with itself). A provider has 2 (socket, directory), a region 1. Mappings: a
// page or more for control memory, twice for a connected pair, 36 KiB for the
// directory of each peer, and the regions of the peer, once for each pair. The
// socket is in a directory of its own with a random name: what a process that was
// killed leaves behind there is never used again.
//
// Start reading at Post in post_linux.go, then revoke_linux.go and control.go.
package shm
