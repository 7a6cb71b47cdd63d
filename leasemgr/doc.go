// Package leasemgr keeps what the whole cluster has to agree on: who is a
// member (membership.go) and what is deployed (catalogue.go).
//
// It is never on the path of an invocation: the gateway reads an immutable
// snapshot of the catalogue, and a worker's membership is decided when it
// starts. In this version there is one worker; every start of it is a new
// incarnation in a new view, and the store is sealed for that view before the
// worker serves, so that a predecessor that is still running somewhere cannot
// commit any more (lease_protocol.md section 8, steps 1 and 2).
//
// Invariants: a change is durable before it is visible; a snapshot never names
// a function or handler that is not deployed in it; views only grow.
//
// Start reading at Admit and Catalogue; changes to it are in change.go, the immutable
// snapshot that invocations read in snapshot.go.
package leasemgr
