// Package rdma is the contract of one-sided verbs: what a worker may expect of
// READ, WRITE, CAS and FAA on the registered memory of another worker, whichever
// way they travel. Four providers keep it: verbs (libibverbs: an RNIC or
// SoftRoCE), shm (processes of one host), tcp (anywhere) and sim (seeded
// faults, for simulations and tests). The suite in rdma/rdmatest holds all of
// them to it. The words are those of libibverbs.
//
//	node A                                                node B
//	Region a ── Bytes, LKey                               Region b ── Bytes, RKey
//	    ▲                                                     ▲
//	    │ local                                               │ remote
//	QueuePair ── Post(WorkRequest...) ───── connected ──── QueuePair
//	    │ what was posted ends here                           │ the doorbells (WriteImm) of A end here
//	    ▼                                                     ▼
//	CompletionQueue ── Poll, Wait                         CompletionQueue ── Poll, Wait
//
// # What is promised
//
// The contract is the weakest that real devices give; code above it may rely on
// nothing else, and sim breaks everything else on purpose.
//
// Atomicity. A READ or WRITE, of whatever length, may be torn at any byte, its
// bytes may move in any order, and a reader may see a mixture of old and new. (An
// RNIC moves 8 aligned bytes as one; rxe copies bytes, and the suite has seen half
// a word.) CAS and FAA work on 8 bytes at an address divisible by 8 and are atomic
// among the CAS and FAA of all queue pairs of one provider at the owner of the
// memory; so a word of another node is read by a CAS that cannot
// succeed. They are not atomic with instructions of the owner's CPU (rxe loads,
// compares and stores), nor with a READ or WRITE of the same word: a word that CAS
// changes is changed by CAS only, also by its owner, through a queue pair
// connected to itself. The owner may load such a word with an atomic load: that
// sees it whole.
//
// Order. On one queue pair, a WRITE takes effect before any request posted after
// it; if it never does, none of them does either. READ, CAS and FAA may take
// effect after a request that was posted later, unless that one is posted with
// Fence or after their completion. That is about the peer's memory: local memory
// that an outstanding request writes (READ, CAS, FAA) must not be named by another
// outstanding request, not even with Fence, unless nobody cares for the bytes: the
// other may use the old ones, and of two that write, either may stay. Two queue
// pairs have no order at all, even between the same two nodes. A chain "CAS, then
// WRITE if it succeeded" cannot be posted in one batch: the WRITE goes whatever
// the CAS found.
//
// Completion. Requests of one queue pair complete in the order in which they
// were posted. A request posted with Signaled has exactly one Completion; one
// posted without has one only if it fails, and is done when a later one of its
// queue pair is. Completion of a WRITE says that the peer's provider has it; the
// peer's CPU sees it when the completion of a later WriteImm of the same queue
// pair arrives there, or when it finds it by looking (then only a checksum tells
// that it is whole).
//
// Failure. Every request ends as Done, NotDone or Unknown (see Status). One
// failure breaks the queue pair: all that is outstanding completes as
// StatusFlushed, which is Unknown, and Post refuses more. Unknown means that the
// request may have taken effect, may never, and may even do so later, as long as
// the peer has not revoked its end. So whoever must know connects anew (the peer
// revokes the old end first) and then reads. A FAA with an unknown outcome cannot
// be decided; do not use FAA for what must happen once. A request that Post
// refuses is NotDone.
//
// Revocation. When Revoke has returned without error, nothing that the peer
// posted on this queue pair takes effect in our memory any more. It says nothing
// about other queue pairs.
//
// Death. Memory dies with its node. A queue pair whose peer is dead or silent
// breaks after its next Post, when nothing of the peer has come for Timeout (a
// device rounds it: 0.7 to 1.4 times as much) and at most 24 times Timeout plus 4
// seconds, however much is posted meanwhile. The bound is for a device that has
// forgotten the queue pair; one that works needs 6 times Timeout at most, and the
// package comments of tcp and shm say how little they need. Without a Post a queue
// pair may never learn of it.
//
// Doorbells. WriteImm is a WRITE that ends in a completion (OpReceive) in the
// peer's queue, in order, after its data is in place. At most ReceiveDepth
// doorbells may wait unpolled at the peer; one more is retried for some time
// and then breaks the queue pair, so senders need credits. A receiver that sleeps
// on a ReceiveCQ of its own is not woken when its queue pair breaks: only what was
// posted has a completion then, in SendCQ. So whoever waits for doorbells bounds
// the wait and looks at Err, or uses one queue for both, where a request of its own
// that fails wakes it.
//
// Bounds. Every access is checked against the region of its key by the side that
// owns it (shm: by the trusted mapping of the peer). A wrong key, address,
// length or alignment fails that request as StatusRemoteAccess or
// StatusRemoteInvalid, breaks that queue pair and touches no memory. (A device may
// be unable to tell this from a region that was closed while a WRITE longer than
// 256 bytes was arriving; then it is StatusRemoteOperation, so Unknown.)
//
// # Where to start reading
//
// Provider and QueuePair here, then rdma/tcp, which is the plainest
// implementation; rdma/machine chooses among them.
package rdma
