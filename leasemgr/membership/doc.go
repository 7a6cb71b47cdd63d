// Package membership decides who is a member of the cluster, in which view, and
// under which number and incarnation.
//
// It is a core: no goroutine, no I/O, no clock, no mutex. The Manager of package
// leasemgr tells it what arrives, with the time of arrival, makes its decisions
// durable, seals the store and publishes them, in this order
// (lease_protocol.md section 8, steps 1 to 3). A Core has one decision under way
// at most:
//
//	idle -- Tick --> deciding -- Durable --> sealing -- Published --> idle
//
// What happens while a decision is under way waits for the next one.
//
// # Invariants
//
//   - Views only grow, also across restarts: a decision is durable before anybody
//     hears of it.
//   - (number, incarnation) means one instance, for ever: the incarnations of a
//     number only grow, also when the number passes to another name.
//   - In a view, numbers and names are unique.
//   - A member that has not left goes only when its last renewal is older than
//     TTL*(1+Drift)+Margin by our clock. Its own expiry is TTL after it sent a
//     renewal that was answered, so it has stopped before. For this every answer
//     that tells an instance that it is a member counts as a renewal, an answer to
//     a repeated Join, too; but for the answers that say that they extend nothing.
//   - A renewal that says that its sender has heard no answer for TTL/3 extends
//     nothing: a member that is heard and hears nothing goes as soon as one that is
//     not heard either.
//   - Of two members that are both heard and have no link to each other for TTL/3
//     one has to leave: it is asked to, is not extended any more, and goes when it
//     says so or by its time.
//   - Once found overdue a member is not renewed again: whether it goes must not
//     hang on which of two events is looked at first.
//   - A restart of the leasemgr, or a pause of its process, gives every member a
//     full TTL: renewals may have been sent that nobody remembers. A member whose
//     admission is not published yet is never overdue.
//
// # How many nonces are remembered
//
// A Join that was delayed in the network until its instance had been evicted must
// not make it a member again. Each name remembers the nonces of its last
// RememberedNonces instances and refuses them. Safety does not need it, for a Join
// never brings an incarnation back: the worst that a forgotten nonce could do is to
// admit a new incarnation that no process uses, because the call that would tell it
// has long been given up; it never renews and is out after a TTL. But for this TTL
// its view would not be activated. So the bound needs to cover the instances that a
// name can go through while a Join is on its way: calls are given up after seconds,
// connections after thirteen (package rpc), and an instance takes about a second to
// start, join and leave.
//
// Start reading at Core.
package membership
