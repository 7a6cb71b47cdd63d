// Package sim is the simulated provider of one-sided verbs: a seeded adversary
// that breaks everything the contract (package rdma) does not promise. A Fabric
// is the network and the devices of all nodes of one simulation, in one process,
// in virtual time. Nothing in it runs by itself: it has no goroutine, no clock
// and no randomness but its seed.
//
// # How to drive it
//
// Step by step, which replays exactly: one goroutine owns the fabric and all of
// its handles and calls Step, or RunUntil between events of its own (Next says
// when the fabric's next one is), then Poll. The same options and the same calls
// give the same events, the same completions and the same Hash. Keys, addresses
// and numbers are drawn from counters, so they are the same too. Never call Wait
// there.
//
//	f := sim.New(sim.Options{Seed: 7, Faults: sim.Swarm(7)})
//	a, _ := f.Open("a")                     // then regions, queues, Connect
//	for f.Step() { cq.Poll(completions) }   // ends: nothing moves without a Post
//
// By Wait, as any other provider: a Wait that finds its queue empty executes
// events, under the fabric's lock, until it has a completion or nothing is left
// to happen; then it sleeps until somebody posts. Virtual time jumps from event
// to event, so a time-out of a second passes in a moment: see Options.Patience.
// Where everybody polls or looks at memory and nobody waits, let one goroutine
// call Drive.
//
// By a clock (Options.Clock), for a simulation of whole programs that keep time
// themselves: virtual time is the clock's, one goroutine calls Drive, which sleeps
// from event to event, and Wait only sleeps. It replays if clock and scheduler do.
//
// # The adversities
//
// Each is a field of Faults, or a method of Fabric where it happens to a node
// and the simulation around must know of it. Each exploits a sentence of the
// contract:
//
//	Tear            "A READ or WRITE, of whatever length, may be torn at any byte, its bytes may move in any order"
//	Reorder         "READ, CAS and FAA may take effect after a request that was posted later, unless that one is posted with Fence"
//	Delay           "Two queue pairs have no order at all, even between the same two nodes"
//	EarlyAck        "Completion of a WRITE says that the peer's provider has it; the peer's CPU sees it when ..."
//	SplitAtomics    "They are not atomic with instructions of the owner's CPU, nor with a WRITE of the same word"
//	LoseRequest     "the request may have taken effect, may never ..."
//	LoseReply       "the request may have taken effect": the lost reply of a CAS
//	Late            "... and may even do so later, as long as the peer has not revoked its end"
//	RemoteOperation "the peer failed in the middle of the request": half of a WRITE
//	Fatal           "the device failed", and all that is outstanding is flushed
//	FailConnect     "A failed Connect leaves a broken queue pair", and perhaps a peer that believes in it
//	FailRevoke      "After an error nothing is certain"
//	TimeoutStretch  "silence may take longer to be noticed: at most 24 times Timeout plus 4 seconds"
//	Crash           "Memory dies with its node. A queue pair whose peer is dead or silent breaks after its next Post"
//	Partition       the same without a death: a request or only its reply does not get through
//	Pause           a device that does nothing for a while, then goes on as if nothing had been
//
// Besides, always: a peer is never told that its request died with a Revoke,
// Close or Crash, it learns by Timeout; local memory is read as late as it may
// be (when the bytes move) and may hold a part of a READ that failed; a word read
// by a key of the wrong kind is refused, because an LKey is never an RKey.
//
// Script aims at single requests ("lose the reply of the next CAS from a to b",
// "hold this WRITE until Release"), so that a story can be told without luck.
//
// # What holds under all of them
//
// The contract. Atomics are atomic among themselves, a WRITE takes effect before what was posted after it on its queue
// pair or neither does, completions come once and in order, NotDone touches
// nothing, and nothing takes effect after Revoke has returned nil.
//
// # What it does not do
//
// It never breaks what the contract promises, so it finds no fault of a device.
// It simulates no bandwidth and no CPU time. Connect and Revoke take no virtual
// time. The crash of a node stops its device, not the code that the simulation
// runs on its behalf.
//
// # Where to start reading
//
// request.go has the life of a request and its order, execute.go what it does at
// the peer, fail.go how it ends badly; bites_test.go shows the bites that
// users must guard against.
package sim
