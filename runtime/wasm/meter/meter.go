package meter

import "fmt"

// Version names the rewriting rules. It is part of the compile-cache key: it grows whenever the output for some input
// changes.
const Version = 1

const (
	// YieldModule is the module from which the rewritten code imports YieldName. A guest may not import from it itself.
	YieldModule = "tenure_rt"
	// YieldName is the imported func() -> i64. It returns the next slice of fuel, which must not be negative, or stops
	// the guest by a panic.
	YieldName = "yield"
	// FuelExport is the exported mutable i64 global that holds the remaining fuel. The host may set it only while no
	// call runs in the instance.
	FuelExport = "tenure_rt.fuel"
	// GlobalExportPrefix and the decimal index of a global in the original module name the export of every mutable
	// numeric global, so that the host can save and restore an instance.
	GlobalExportPrefix = "tenure_rt.g"

	// reservedExports begins every export name that a guest may not use.
	reservedExports = "tenure_rt."

	defaultSlice = 10_000
)

// Options are the settings of a rewrite.
type Options struct {
	// Slice is the fuel that a fresh instance starts with, in units: one for a check of a short piece of code. 0 means
	// 10,000, about 15 microseconds of an empty loop. Negative values are refused.
	Slice int64
}

// Module is a rewritten module and what the rewriter learned about it. The caller owns it.
type Module struct {
	// Code is the rewritten module; it shares no memory with the input.
	Code []byte
	// SnapshotGlobals are the export names of all mutable numeric globals of the original module, in index order.
	SnapshotGlobals []string
	// Snapshotable is false if the module can change state that its memory and SnapshotGlobals do not hold.
	Snapshotable bool
	// Functions, Loops and Checks count the defined functions, their loops, and the checks that were inserted.
	Functions, Loops, Checks int
}

// Error says why a module was refused.
type Error struct {
	// Offset is the byte of the original module at which the rewriter gave up.
	Offset int
	// Reason is for people, in lower case.
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("wasm module refused at byte %d: %s", e.Offset, e.Reason)
}

// Rewrite returns code with fuel checks. It keeps no reference to code and does not change it; the error is always an
// *Error. It takes time and memory linear in len(code).
func Rewrite(code []byte, opt Options) (*Module, error) {
	slice := opt.Slice
	if slice == 0 {
		slice = defaultSlice
	}
	if slice < 0 {
		return nil, &Error{Reason: "options: slice of fuel is negative"}
	}
	m := &module{slice: slice}
	m.out.Snapshotable = true
	r := &reader{code: code, end: len(code)}
	sections := m.decode(r)
	if r.err != nil {
		return nil, r.err
	}
	m.out.Code = m.encode(sections)
	return &m.out, nil
}
