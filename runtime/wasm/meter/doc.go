// Package meter rewrites WebAssembly modules so that a running guest can always be stopped.
//
// The engine compiles guests to native code which the Go scheduler cannot preempt: an endless loop in a guest not only
// outlives its deadline, it also blocks the next garbage collection and with it every goroutine of the process. Rewrite
// therefore adds a fuel counter to the module. Guest code decrements it; when it is spent, the guest calls the imported
// function YieldModule.YieldName, which leaves native code, and so is a safepoint, and which may stop the guest by a
// panic or return the next slice of fuel.
//
//	func f        CHECK            every function entry: bounds recursion and call trees
//	loop          ...
//	  br 0        CHECK; br 0      every branch back to a loop
//	  call g      call g; CHECK    every call with a long tail behind it: bounds the unwinding of deep recursion
//	memory.fill   charge; CHECK    every bulk operation, by its length
//
// CHECK takes one unit of fuel, and one more for every 256 bytes of code that can run before the next one: the body on
// entry, what is repeated on a branch back, the rest of the body after a call. Without these weights a loop around a
// megabyte of straight code would run ten thousand times between two yields. A unit also pays for 64 bytes of bulk
// operation.
//
// A flag that the host sets was rejected, because the goroutine that would set it is stopped as soon as the collector
// waits for the guest; fuel that only traps was rejected, because nothing is a safepoint until it is spent.
//
// # Invariants
//
//   - A guest cannot reach the fuel. It is a global which the rewriter appends; indices at or past the old end of an index
//     space to which the rewriter adds (types, functions, globals, locals) are refused, also where the engine would
//     refuse the original for them. Otherwise a crafted invalid module would turn into a valid one that refuels itself.
//   - Fuel stays in (-2^30, initial slice or last yield]: a charge is at most 2^29 and a check follows it at once, so it
//     cannot wrap, as long as yield returns a value that is not negative.
//   - Between two checks the position in a function only rises. A branch to a loop goes unchecked only if it is a
//     jump forward through the dispatch loop of the Go compiler; see dispatch.
//   - The code that runs between two yields is bounded by the slice (256 bytes a unit), by the longest body, and by
//     256 bytes for each frame that returns.
//   - The output computes what the input computes: all inserted code is neutral to the operand stack.
//
// # What is checked here and what is assumed
//
// Rewrite decodes the whole module strictly (section order, sizes, opcodes, immediates, all extended index spaces, label
// depths, block structure) and never panics. It accepts WebAssembly 2.0 as the engine does, without tail calls,
// exceptions, threads, memory64, several memories in instructions, GC types and extended constant expressions. It does
// not type-check. The caller must let the engine validate: either the original, or only the output, because nothing that
// the rewriter adds can make an invalid module valid. Running Rewrite first also keeps modules that claim absurd
// numbers of locals from the engine, which sets aside memory for them before it validates.
//
// It does not bound what one instruction costs: the largest memory is a limit of the engine's configuration, and a guest
// may have tables as large as the engine supports.
// Nor does it bound the work of host functions; those check the deadline themselves.
//
// Start reading at Rewrite, then body.go.
package meter
