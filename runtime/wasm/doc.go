// Package wasm runs deployed functions as WebAssembly modules, on wazero.
//
// Load turns the bytes of a module into a Bundle: rewrite (package meter), compile, check, start once. A Bundle keeps a
// pool of instances; an instance serves one call at a time and is used again for the next:
//
//	Invoke ─ acquire ─▶ idle instance, or a new one ─ call ─┬─ returned ──▶ idle again
//	                                                       └─ trap, deadline ──▶ discarded, one spare is built
//
// # Invariants
//
//   - The guest cannot reach anything of the host but the imports in imports.go: no files, no sockets, no environment.
//     Every pointer and length that it passes is checked against its memory and a limit; nonsense ends the call with a
//     FunctionError and never panics in the host.
//   - Whatever a guest does, it is stopped soon after ctx ends: metered code calls yield about every 15 microseconds, a
//     host function refuses to begin, and nothing that the guest can ask of the host takes more than a few milliseconds.
//     Methods of the transaction's Host may block; they watch ctx themselves. A call that finds no idle instance may
//     also spend the time of one start, at most Options.StartTimeout.
//   - An instance that did not return normally is never used again: its memory is in the middle of something.
//   - Waiting for an instance cannot deadlock, although the waiting call may hold locks of its transaction: it waits for
//     the start of instances, which depends on no transaction, and otherwise only for a short fixed time.
//
// # Isolation
//
// By default an instance keeps its memory from call to call: caches in a guest live on, as may the secrets that one
// invocation leaves for the next. A bundle or a call that asks for isolation gets memory and globals as they were right
// after the start. The copy holds the guest's random seeds too, so that in an isolated guest math/rand repeats itself;
// Context.Rand and crypto/rand do not.
//
// It does not limit how much CPU a function uses before its deadline, only counts it (Stats).
//
// Start reading at Runtime.Load, then Bundle.Invoke. The guest's side is in ABI.md.
package wasm
