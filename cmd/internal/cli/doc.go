// Package cli is what the command lines of all four programs share: how
// arguments are read, which exit status an error becomes, the flags of
// everything that listens, and where log messages go.
//
// Invariants: an error is one message on standard error, behind the program's
// name; the exit status is 0, 1 (refused, aborted or failed), 2 (wrong usage) or
// 3 (unreachable); SIGINT and SIGTERM end the context once, and a second one
// ends the process.
//
// It knows nothing of HTTP, of the API or of the parts that it starts.
//
// Start reading at Program.Main.
package cli
