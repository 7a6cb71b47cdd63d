// Package bench compares the server with the floor under it, on one machine.
//
// Main starts this executable as child processes (three servers in dev mode
// and one bare HTTP server), loads their accounts and measures a fixed list of
// cases in interleaved rounds. It reports the median of the rounds and whether
// the ratios between them are what the project asks of itself.
//
//	          ┌─ floor-server                         floor
//	bench main┼─ dev --runtime native, 10,000         transfer uniform, zipfian, 1 connection
//	 (client) ├─ dev --runtime wasm, 10,000           transfer uniform, zipfian
//	          └─ dev --runtime native, 1,000,000      transfer uniform
//
// Invariants:
//   - Only one case runs at a time; the other servers idle. Each round runs all
//     cases and starts with another one, so that a machine that becomes slower
//     or faster during the run does so for all of them.
//   - On every way out, panics excepted, all children have ended and the
//     directory with their data is removed. On Linux the children die with this
//     process even if it is killed.
//   - Every wait is bounded: for the start of a child, for each request, for
//     the end of a child.
//
// Client and servers share the machine's cores. That is why everything is a
// ratio to the floor under the same client: absolute figures are of the machine.
// What sends the requests is package load; package floor is the bare server.
//
// Start reading at Main.
package bench
