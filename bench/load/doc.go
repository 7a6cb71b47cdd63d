// Package load drives a server with HTTP requests and measures how it answers.
//
// Run opens Options.Connections connections, each owned by one worker
// goroutine, and ends when the time is up. A closed loop (Rate 0) sends the
// next request of a connection when the last one was answered. An open loop
// sends at a fixed rate whatever the server does.
//
//	schedule ──take──► worker ──► conn ──► server
//	(open loop:          │ one histogram and one set of counters each,
//	 arrivals, bounded   │ merged when all workers have ended
//	 queue)              ▼
//	                   Result
//
// Invariants:
//   - Latency in an open loop runs from the time at which the request was due,
//     not from the time at which it was sent, so that a stall of the server is
//     charged to every request that fell into it (no coordinated omission).
//   - The queue of late arrivals is bounded; what does not fit is counted in
//     Result.Dropped and never forgotten silently.
//   - Percentiles are of answers with a 2xx status. Quick refusals would
//     otherwise look like a fast server; they are counted by status and kind.
//   - A worker allocates nothing of its own per request: requests are rendered
//     into one buffer and answers read into another.
//
// It checks that requests succeed, not that their answers are right: histories
// are the business of package internal/check. It retries nothing unless
// requests carry idempotency keys, for without one a repeated request may take
// effect twice.
//
// Start reading at Run.
package load
