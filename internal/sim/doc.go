// Package sim runs a whole cluster in one thread of virtual time: a control
// process with its store, workers, gateways and clients, all with the code that
// real processes run (package cluster and everything below it), over a simulated
// network, fabric of verbs and disk, with every fault that these may have. The
// clients' history is checked, and so are the leases while it goes on.
//
// # Why a seed replays
//
// Nothing here is a step function; the code under test has goroutines, mutexes,
// selects and timers. The simulation is a program (package guest) that package host
// runs on one thread, in virtual time and with all chance seeded, that of the
// runtime's maps and selects included. So the same program and the same seed give
// the same schedule. Decision record 10 has the alternatives.
//
// # What is simulated
//
//   - network: calls and streams between processes; a message takes its time, waits
//     while its wire is cut, one way or both, and is lost with its connection when
//     that lasts.
//   - verbs: package rdma/sim, an adversary within the contract of package rdma.
//   - Disk: a log that is synced, slowly at times, and of which a crash leaves what
//     was synced and a part of the rest.
//   - process: one start of a host. One that is killed is cut off from everything
//     in one instant, whatever its goroutines do later. One that stands still (SIGSTOP)
//     is held at its next contact with the world outside, while verbs of others
//     reach its memory.
//   - clocks: those that membership is counted by run fast or slow, by up to 2 %.
//
// # What it cannot find
//
// Races of memory between threads, and torn reads by a CPU: the race detector and
// real processes are for these. Faults of gRPC, Pebble, the kernel and a device:
// internal/node and the virtual machines of internal/rxevm run those.
//
// Start reading at Run.
package sim
