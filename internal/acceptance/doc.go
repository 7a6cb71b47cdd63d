// Package acceptance tests the whole server as its users meet it: a node in
// this process, functions that are real WebAssembly modules, requests over HTTP.
// It has tests only.
//
// What each file shows:
//   - calls_test.go, state_test.go: every row of the table of calls;
//   - status_test.go, busy_test.go: every row of the table of statuses;
//   - limits_test.go: the limits that are not of sizes;
//   - functions_test.go: functions that crash, loop or eat memory, and modules
//     that are none;
//   - requests_test.go: requests that nobody should send;
//   - isolate_test.go: what instances remember;
//   - change_test.go: a stop and new versions under load;
//   - examples_test.go: the examples, deployed by the command line;
//   - readme_test.go: the commands of README.md.
//
// Invariants: after every refused request the same server answers a good one;
// no answer has a stack trace in it; nothing waits for an amount of time where
// there is an event to wait for. The tests run in parallel, each on a node of
// its own.
//
// It does not test the parts by themselves, measure anything or kill processes:
// the packages of the parts, bench and internal/node do.
//
// Start reading at harness_test.go and testdata/hostile.
package acceptance
