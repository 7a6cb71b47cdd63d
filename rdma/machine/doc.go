// Package machine finds out what this machine offers for one-sided verbs and
// says which provider to use, with which device and address, and why. What is
// missing gets one line each: what was found, what is wrong with it and the
// command that mends it.
//
//	Probe ──▶ Facts ──▶ Judge(Facts, Demand) ──▶ Verdict ──▶ Open ──▶ rdma.Provider
//	  │        plain       pure                   ordered       │
//	  ▼        data                               choices       ▼
//	sysfs, procfs, rtnetlink,                       the next one, if opening
//	RDMA netlink, libibverbs                        fails and none was demanded
//
// The order of preference is verbs (a device with atomics, a port that is
// ACTIVE, a routable GID, permission and enough lockable memory), then shm (all
// workers on one host), then tcp.
//
// Invariants: Probe changes nothing on the machine and never fails: what it
// cannot read is in Facts.Unread. Judge is a pure function, so that every bad
// machine is a row of a table in its tests. A demanded provider is never
// replaced by another. A GID is chosen by what it is, never by its number.
//
// It does not load modules, does not change links, and does not watch the
// machine: call Probe again. The only thing it can make is a software RDMA
// device (CreateRXE), and only when Demand.RXE asks for it.
//
// Start reading at Facts, then Judge, then Choose.
package machine
