// Package leasemgr keeps what the whole cluster has to agree on: who is a
// member and what is deployed (catalogue.go).
//
// It is never on the path of an invocation: the gateway reads an immutable
// snapshot of the catalogue, and a worker looks at the expiry of its Session, an
// atomic load.
//
// # Membership
//
// A Manager decides views, by the rules of sub-package membership. For each it does
// three things in this order (lease_protocol.md section 8, steps 1 to 3): the
// decision becomes durable, the data store is sealed for it, which takes as long as
// it takes, and only then it is published. So nobody takes over a lease of a member
// that is out before it can commit no more.
//
// Workers reach it through a Registry: the Manager itself in the same process, or a
// Client of the gRPC service Members. A Session joins, renews, and knows until when
// the member may take itself for one: TTL after it sent the last renewal that was
// answered. A leasemgr that is away for less than that stops nobody.
//
// A node of one worker needs none of this: Admit makes it the only member of a new
// view, at each start.
//
// # Catalogue
//
// It has one owner, the process that has the store's engine open. The others have a
// Replica, which reads the store and asks the owner for changes; every change has a
// number, by which replicas follow and invocations name what they are made of.
//
// # Invariants
//
// A change is durable before it is visible; a snapshot never names a function or
// handler that is not deployed in it; views only grow, and the store is sealed for
// every one that is published.
//
// Start reading at Registry, Manager and Session, or at Catalogue; changes to it are
// in change.go, what others read in refresh.go, the immutable snapshot that invocations read in snapshot.go.
package leasemgr
